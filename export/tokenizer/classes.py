"""What each of transformers' tokenizer classes makes of a folder's files: which of them decides, and what it sets itself.

``tokenizer_class`` is no mere name. BERT's and RoBERTa's classes take from tokenizer.json the vocabulary alone, and build the
steps around it anew from the switches of tokenizer_config.json; XLM-RoBERTa's and CamemBERT's build them anew as well;
PreTrainedTokenizerFast takes the file as it is. So the same tokenizer.json means other ids under another class, and what is
done here is what transformers 5 does (``tokenization_utils_tokenizers.py`` and the ``tokenization_*.py`` of the families).

A tokenizer is four steps (docs of the ``tokenizers`` package): the normalizer changes characters, the pre-tokenizer cuts
words, the model cuts words into pieces of its vocabulary, the post-processor sets [CLS] and [SEP] around them. WordPiece
(Schuster and Nakajima 2012; Devlin et al. 2019) takes the longest pieces that the vocabulary holds, and a piece inside a word
starts with ``##``; byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) merges the pairs that were learned first;
Unigram (Kudo 2018) takes the most probable pieces.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, processors

from fusedbert.engine.errors import CheckpointError

from .files import CONFIG, NAMED, TOKENIZER, TokenizerFiles, text_of

Spec = dict[str, Any]
_BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
_ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerClass:
    """One class of transformers, and those that are other names for it.

    Attributes:
        names: As tokenizer_config.json says them, without ``Fast`` at the end.
        segments: Whether it tells the texts of a pair apart where ``model_input_names`` is not given.
        special: The named special tokens, where the files give none.
        extra: Special tokens without a name, likewise.
        steps: Builds all but added tokens and post-processor, as tokenizer.json would hold it; None: the file as it is.
        finish: Sets the post-processor, once the special tokens have their ids.
    """

    names: tuple[str, ...]
    segments: bool
    special: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra: tuple[str, ...] = ()
    steps: Callable[[TokenizerFiles, Mapping[str, str], Spec | None], Spec] | None = None
    finish: Callable[[Tokenizer, TokenizerFiles, Mapping[str, str]], None] | None = None

    def build(self, files: TokenizerFiles, whole: Spec | None) -> tuple[Tokenizer, Spec]:
        """Build the tokenizer that transformers would.

        Args:
            files: The folder's files.
            whole: tokenizer.json as ``tokenizers`` reads it, None where there is none.

        Returns:
            The tokenizer, and what it has for a model.

        Raises:
            CheckpointError: A file that the class needs is missing, or of another kind.
        """
        special = {**self.special, **files.special}
        if whole is not None and (padding := whole.get("padding")) is not None:
            special.setdefault("pad_token", padding["pad_token"])
        texts = {name: text_of(token) for name, token in special.items() if token is not None}
        if self.steps is None:
            spec = whole or _lacking(files, self.names[0], TOKENIZER)
        else:
            spec = {"version": "1.0", "added_tokens": [], "post_processor": None, **self.steps(files, texts, whole)}
        tokenizer = Tokenizer.from_str(json.dumps({**spec, "truncation": None, "padding": None}))
        add_tokens(tokenizer, files, special, files.extra or self.extra)
        if self.finish is not None:
            self.finish(tokenizer, files, texts)
        return tokenizer, spec["model"]


def add_tokens(
    tokenizer: Tokenizer,
    files: TokenizerFiles,
    special: Mapping[str, AddedToken | str | None],
    extra: tuple[AddedToken | str, ...],
) -> None:
    """Add what the files add to the vocabulary, in the order of transformers: by id, then named special tokens, then others.

    A token that the vocabulary holds keeps its id, another one gets the next free one, whatever the files say.
    """
    adding: list[AddedToken | str] = [token for _, token in sorted(files.added.items())]
    known = {text_of(token) for token in (*tokenizer.get_added_tokens_decoder().values(), *adding)}
    ordered = [special.get(name) for name in NAMED] + [token for name, token in special.items() if name not in NAMED]
    given: list[AddedToken | str] = [*(token for token in ordered if token is not None), *extra]
    for token in given:
        if text_of(token) not in known:
            adding.append(token)
            known.add(text_of(token))
    named = {text_of(token) for token in ordered if token is not None}
    whole = [AddedToken(token, special=True) if isinstance(token, str) else token for token in adding]
    for token in whole:
        token.special = token.special or token.content in named
    tokenizer.add_tokens(whole)


def _word_piece(files: TokenizerFiles, special: Mapping[str, str], whole: Spec | None) -> Spec:
    """BERT's steps, by the switches of tokenizer_config.json."""
    vocab = _vocabulary(files, whole, "WordPiece") if whole else _lines(files)
    unknown = _required(files, special, "unk_token")
    if unknown not in vocab and all(unknown != token.content for token in files.added.values()):
        raise CheckpointError(
            f"the vocabulary of {files.folder} lacks {unknown}, not that of this model's BERT tokenizer: save the tokenizer "
            f"again, or name its token for what is unknown as unk_token in {CONFIG}"
        )
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": files.flag("tokenize_chinese_chars", True),
            "strip_accents": files.flag("strip_accents", None),
            "lowercase": files.flag("do_lower_case", True),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }


def _byte_level(files: TokenizerFiles, special: Mapping[str, str], whole: Spec | None) -> Spec:
    """RoBERTa's steps: bytes as characters, and a space before the first word where tokenizer_config.json wants one."""
    if whole:
        vocab, merges = _vocabulary(files, whole, "BPE"), whole["model"]["merges"]
    else:
        vocab, merges = _merges(files)
    level = {"type": "ByteLevel", "add_prefix_space": files.flag("add_prefix_space", False)}
    return {
        "normalizer": None,
        "pre_tokenizer": {**level, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _unigram(files: TokenizerFiles, whole: Spec | None, unknown: Callable[[list[Any]], int]) -> Spec:
    """XLM-RoBERTa's and CamemBERT's steps: words cut at white space, each with a mark in front, and the file's pieces."""
    pieces = _vocabulary(files, whole, "Unigram")
    scheme = "always" if files.config.get("add_prefix_space", True) else "never"
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}
    return {
        "normalizer": _precompiled((whole or {}).get("normalizer")),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": unknown(pieces), "vocab": pieces, "byte_fallback": False},
    }


def _xlm_roberta(files: TokenizerFiles, special: Mapping[str, str], whole: Spec | None) -> Spec:
    return _unigram(files, whole, lambda _: 3)


def _camembert(files: TokenizerFiles, special: Mapping[str, str], whole: Spec | None) -> Spec:
    unknown = special.get("unk_token")
    return _unigram(files, whole, lambda pieces: next((i for i, (piece, _) in enumerate(pieces) if piece == unknown), 0))


def _precompiled(normalizer: Spec | None) -> Spec | None:
    """Return the table of characters that sentencepiece brings along, which is all of a normalizer that the classes keep."""
    parts = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    return next((part for part in parts if part["type"] == "Precompiled"), None)


def _bert_ends(tokenizer: Tokenizer, files: TokenizerFiles, special: Mapping[str, str]) -> None:
    """``[CLS] A [SEP]``, and ``[CLS] A [SEP] B [SEP]`` with B and its end in segment 1."""
    cls, sep = (_required(files, special, name) for name in ("cls_token", "sep_token"))
    single = [f"{cls}:0", "$A:0", f"{sep}:0"]
    _template(tokenizer, single, [*single, "$B:1", f"{sep}:1"], cls, sep)


def _roberta_ends(tokenizer: Tokenizer, files: TokenizerFiles, special: Mapping[str, str]) -> None:
    """``<s> A </s>``, and ``<s> A </s></s> B </s>``; all in segment 0."""
    sep, cls = (_required(files, special, name) for name in ("sep_token", "cls_token"))
    ids = {token: tokenizer.token_to_id(token) or 0 for token in (sep, cls)}  # they were added, so that each has one
    tokenizer.post_processor = processors.RobertaProcessing(
        (sep, ids[sep]),
        (cls, ids[cls]),
        bool(files.flag("trim_offsets", True)),
        bool(files.flag("add_prefix_space", False)),
    )


def _unigram_ends(tokenizer: Tokenizer, files: TokenizerFiles, special: Mapping[str, str]) -> None:
    """As RoBERTa's, by the tokens that begin and end a sentence."""
    bos, eos = (_required(files, special, name) for name in ("bos_token", "eos_token"))
    single = [f"{bos}:0", "$A:0", f"{eos}:0"]
    _template(tokenizer, single, [*single, f"{eos}:0", "$B:0", f"{eos}:0"], bos, eos)


def _no_ends(tokenizer: Tokenizer, files: TokenizerFiles, special: Mapping[str, str]) -> None:
    """Tell the texts of a pair apart where a file has no post-processor: nothing is set around them."""
    if tokenizer.post_processor is None:
        _template(tokenizer, ["$A:0"], ["$A:0", "$B:1"])


def _template(tokenizer: Tokenizer, single: list[str], pair: list[str], *tokens: str) -> None:
    ids = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(tokens)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


def _required(files: TokenizerFiles, special: Mapping[str, str], name: str) -> str:
    if name not in special:
        raise CheckpointError(
            f"{files.folder / CONFIG} has {name} = null, and no text can do without one: save the tokenizer again"
        )
    return special[name]


def _vocabulary(files: TokenizerFiles, whole: Spec | None, kind: str) -> Any:
    """Return the vocabulary of tokenizer.json, which has to be of the class's own kind."""
    if whole is None:
        return _lacking(files, f"a {kind} tokenizer", TOKENIZER)
    if whole["model"]["type"] != kind:
        raise CheckpointError(
            f"{files.folder / TOKENIZER} is {whole['model']['type']}, and the checkpoint's tokenizer class is made for {kind}: "
            f"where the file is right, set tokenizer_class in {CONFIG} to PreTrainedTokenizerFast"
        )
    return whole["model"]["vocab"]


def _lines(files: TokenizerFiles) -> dict[str, int]:
    """Read vocab.txt: a piece a line. Lines end at newlines alone; other separators of Unicode are pieces of a vocabulary."""
    path = files.folder / "vocab.txt"
    if not path.is_file():
        return dict(_lacking(files, "BertTokenizer", "vocab.txt"))
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as UTF-8 ({error}): save the tokenizer again") from None
    lines = text.split("\n")
    # Blanks at the end are no part of a piece, unless they are all of it.
    return {line.rstrip() or line.rstrip(" \t\r"): i for i, line in enumerate(lines[:-1] if not lines[-1] else lines)}


def _merges(files: TokenizerFiles) -> tuple[dict[str, int], list[Any]]:
    """Read vocab.json and merges.txt."""
    paths = [files.folder / name for name in ("vocab.json", "merges.txt")]
    if not all(path.is_file() for path in paths):
        return _lacking(files, "RobertaTokenizer", "vocab.json and merges.txt"), []
    try:
        vocab, merges = models.BPE.read_file(*map(str, paths))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(f"{paths[0]} and merges.txt cannot be read ({error}): save the tokenizer again") from None
    return vocab, merges


def _lacking(files: TokenizerFiles, name: str, wanted: str) -> Any:
    """Say which file a class has nothing to read from.

    Raises:
        CheckpointError: Always.
    """
    held = ", ".join(sorted(path.name for path in files.folder.iterdir() if path.name in _KNOWN))
    raise CheckpointError(
        f"{files.folder} holds no {TOKENIZER}{'' if wanted == TOKENIZER else f', nor {wanted}'}, which {name} reads "
        f"(found: {held or 'no tokenizer at all'}): save the tokenizer with transformers, tokenizer.save_pretrained(folder)"
    )


_KNOWN = (
    TOKENIZER,
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
)

AS_IT_IS = TokenizerClass(
    names=("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend"),  # the first with Fast behind it
    segments=False,
    finish=_no_ends,
)
BERT = TokenizerClass(
    names=("BertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer", "LayoutLMTokenizer"),
    segments=True,
    special=_BERT,
    steps=_word_piece,
    finish=_bert_ends,
)
DISTILBERT = dataclasses.replace(BERT, names=("DistilBertTokenizer",), segments=False)
ROBERTA = TokenizerClass(
    names=("RobertaTokenizer", "BartTokenizer", "LongformerTokenizer"),
    segments=False,
    special=_ROBERTA,
    steps=_byte_level,
    finish=_roberta_ends,
)
XLM_ROBERTA = TokenizerClass(
    names=("XLMRobertaTokenizer",), segments=False, special=_ROBERTA, steps=_xlm_roberta, finish=_unigram_ends
)
CAMEMBERT = dataclasses.replace(
    XLM_ROBERTA,
    names=("CamembertTokenizer",),
    extra=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"),
    steps=_camembert,
)
CLASSES = (AS_IT_IS, BERT, DISTILBERT, ROBERTA, XLM_ROBERTA, CAMEMBERT)
OF_FAMILY: Mapping[str, TokenizerClass] = {
    "bert": BERT,
    "distilbert": BERT,
    "electra": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "camembert": CAMEMBERT,
}
"""The class that a model_type has where no file names one."""

OWN_CODE: Mapping[str, str] = {
    "BertJapaneseTokenizer": "cuts Japanese words by MeCab, Sudachi or Juman",
    "PhobertTokenizer": "reads vocab.txt and bpe.codes, and texts whose words were cut beforehand",
    "BertweetTokenizer": "rewrites tweets in Python before it cuts them",
    "FlaubertTokenizer": "cuts words by Moses' rules in Python",
    "XLMTokenizer": "cuts words by Moses' rules in Python",
}
"""Classes that are Python code: no tokenizer.json can say what they do."""


def class_of(name: str) -> TokenizerClass | None:
    """Return the class of a name, None where it is not one of those that are read here."""
    return next((each for each in CLASSES if name.removesuffix("Fast") in each.names), None)
