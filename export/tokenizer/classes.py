"""Tokenizer classes of transformers, and how each builds a tokenizer from a folder's files.

The same tokenizer.json gives other ids under another class. PreTrainedTokenizerFast takes the file as it is; BERT's, RoBERTa's,
XLM-RoBERTa's and CamemBERT's take only the vocabulary, and rebuild the rest from tokenizer_config.json, as in transformers 5
(``tokenization_utils_tokenizers.py`` and the ``tokenization_*.py`` of the families).

The normalizer changes characters, the pre-tokenizer cuts words, the model cuts words into pieces, the post-processor adds [CLS]
and [SEP]. WordPiece (Schuster and Nakajima 2012; Devlin et al. 2019) takes the longest pieces, with ``##`` inside a word;
byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) merges the pairs learned first; Unigram (Kudo 2018) takes the most
probable pieces.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, processors

from fusedbert.engine.artifact import LARGE, check_regular, read_regular
from fusedbert.engine.errors import CheckpointError, without_panic

from .files import CONFIG, NAMED, TOKENIZER, Token, TokenizerFiles, token_text

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
    """One class of transformers, with its aliases."""

    names: tuple[str, ...]  # as in tokenizer_config.json, without ``Fast`` at the end
    segments: bool  # whether pairs have segments without ``model_input_names``
    special: Mapping[str, str] = dataclasses.field(default_factory=dict)  # default of the named special tokens
    extra: tuple[str, ...] = ()  # default of the special tokens without a name
    # Builds tokenizer.json without added tokens and post-processor; None if the file is used as it is.
    steps: Callable[[TokenizerFiles, Mapping[str, str], Spec | None], Spec] | None = None
    # Sets the post-processor, once the special tokens have ids.
    finish: Callable[[Tokenizer, TokenizerFiles, Mapping[str, str]], None] | None = None

    def build(self, files: TokenizerFiles, stored: Spec | None) -> tuple[Tokenizer, Spec]:
        """Build transformers' tokenizer; return it, and its model as in tokenizer.json.

        Raises:
            CheckpointError: A file that the class needs is missing, or of another kind.
        """
        special = {**self.special, **files.special}
        if stored is not None and (padding := stored.get("padding")) is not None:
            special.setdefault("pad_token", padding["pad_token"])
        texts = {name: token_text(token) for name, token in special.items() if token is not None}
        if self.steps is None:
            spec = stored or _lacking(files, self.names[0], TOKENIZER)
        else:
            spec = {"version": "1.0", "added_tokens": [], "post_processor": None, **self.steps(files, texts, stored)}
        tokenizer = Tokenizer.from_str(json.dumps({**spec, "truncation": None, "padding": None}))
        add_tokens(tokenizer, files, special, files.extra or self.extra)
        if self.finish is not None:
            self.finish(tokenizer, files, texts)
        return tokenizer, spec["model"]


def add_tokens(
    tokenizer: Tokenizer, files: TokenizerFiles, special: Mapping[str, Token | None], extra: tuple[Token, ...]
) -> None:
    """Add tokens in transformers' order: the files' by id, named special ones, others.

    A token that the vocabulary lacks gets the next free id, whatever the files say.
    """
    adding: list[Token] = [token for _, token in sorted(files.added.items())]
    known = {token_text(token) for token in (*tokenizer.get_added_tokens_decoder().values(), *adding)}
    ordered = [special.get(name) for name in NAMED] + [token for name, token in special.items() if name not in NAMED]
    named = [token for token in ordered if token is not None]
    for token in (*named, *extra):
        if token_text(token) not in known:
            adding.append(token)
            known.add(token_text(token))
    names = {token_text(token) for token in named}
    tokens = [AddedToken(token, special=True) if isinstance(token, str) else token for token in adding]
    for token in tokens:
        token.special = token.special or token.content in names
    tokenizer.add_tokens(tokens)


def _word_piece(files: TokenizerFiles, special: Mapping[str, str], stored: Spec | None) -> Spec:
    vocab = _vocabulary(files, stored, "WordPiece") if stored else _lines(files)
    unknown = _required(files, special, "unk_token")
    if unknown not in vocab and all(unknown != token.content for token in files.added.values()):
        raise CheckpointError(
            f"the vocabulary of {files.folder} lacks {unknown}, so it is not that of this model's BERT tokenizer: save the "
            f"tokenizer again, or name its token for unknown words as unk_token in {CONFIG}"
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


def _byte_level(files: TokenizerFiles, special: Mapping[str, str], stored: Spec | None) -> Spec:
    """RoBERTa's steps: bytes as characters, with a space before the first word if the config has ``add_prefix_space``."""
    if stored:
        vocab, merges = _vocabulary(files, stored, "BPE"), stored["model"]["merges"]
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


def _xlm_roberta(files: TokenizerFiles, special: Mapping[str, str], stored: Spec | None) -> Spec:
    """XLM-RoBERTa's steps: words at white space, with a mark before each."""
    pieces = _vocabulary(files, stored, "Unigram")
    scheme = "always" if files.config.get("add_prefix_space", True) else "never"
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}
    return {
        "normalizer": _precompiled((stored or {}).get("normalizer")),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": pieces, "byte_fallback": False},
    }


def _camembert(files: TokenizerFiles, special: Mapping[str, str], stored: Spec | None) -> Spec:
    """XLM-RoBERTa's steps, with the unknown token found by its name."""
    spec, unknown = _xlm_roberta(files, special, stored), special.get("unk_token")
    spec["model"]["unk_id"] = next((i for i, (piece, _) in enumerate(spec["model"]["vocab"]) if piece == unknown), 0)
    return spec


def _precompiled(normalizer: Spec | None) -> Spec | None:
    """Return the part of a normalizer that is kept: sentencepiece's table of characters."""
    parts = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    return next((part for part in parts if part["type"] == "Precompiled"), None)


def _bert_ends(tokenizer: Tokenizer, files: TokenizerFiles, special: Mapping[str, str]) -> None:
    """``[CLS] A [SEP]``, and ``[CLS] A [SEP] B [SEP]`` with segment 1 from B on."""
    cls, sep = (_required(files, special, name) for name in ("cls_token", "sep_token"))
    single = [f"{cls}:0", "$A:0", f"{sep}:0"]
    _template(tokenizer, single, [*single, "$B:1", f"{sep}:1"], cls, sep)


def _roberta_ends(tokenizer: Tokenizer, files: TokenizerFiles, special: Mapping[str, str]) -> None:
    """``<s> A </s>``, and ``<s> A </s></s> B </s>``, in segment 0."""
    sep, cls = (_required(files, special, name) for name in ("sep_token", "cls_token"))
    ids = {token: tokenizer.token_to_id(token) or 0 for token in (sep, cls)}  # they were added, so that each has one
    trim, space = bool(files.flag("trim_offsets", True)), bool(files.flag("add_prefix_space", False))
    tokenizer.post_processor = processors.RobertaProcessing((sep, ids[sep]), (cls, ids[cls]), trim, space)


def _unigram_ends(tokenizer: Tokenizer, files: TokenizerFiles, special: Mapping[str, str]) -> None:
    """As RoBERTa's, with ``bos_token`` and ``eos_token``."""
    bos, eos = (_required(files, special, name) for name in ("bos_token", "eos_token"))
    single = [f"{bos}:0", "$A:0", f"{eos}:0"]
    _template(tokenizer, single, [*single, f"{eos}:0", "$B:0", f"{eos}:0"], bos, eos)


def _no_ends(tokenizer: Tokenizer, files: TokenizerFiles, special: Mapping[str, str]) -> None:
    """``A``, and ``A B`` with B in segment 1, if there is no post-processor."""
    if tokenizer.post_processor is None:
        _template(tokenizer, ["$A:0"], ["$A:0", "$B:1"])


def _template(tokenizer: Tokenizer, single: list[str], pair: list[str], *tokens: str) -> None:
    ids = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(tokens)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


def _required(files: TokenizerFiles, special: Mapping[str, str], name: str) -> str:
    if name not in special:
        raise CheckpointError(f"{files.folder / CONFIG} has {name} = null, and every text needs one: save the tokenizer again")
    return special[name]


def _vocabulary(files: TokenizerFiles, stored: Spec | None, kind: str) -> Any:
    if stored is None:
        return _lacking(files, f"a {kind} tokenizer", TOKENIZER)
    if (actual := stored["model"]["type"]) != kind:
        raise CheckpointError(
            f"{files.folder / TOKENIZER} is {actual}, and the checkpoint's tokenizer class is made for {kind}: "
            f"if the file is right, set tokenizer_class in {CONFIG} to PreTrainedTokenizerFast"
        )
    return stored["model"]["vocab"]


def _lines(files: TokenizerFiles) -> dict[str, int]:
    """Read vocab.txt; only newlines end a line, because other separators may be pieces."""
    path = files.folder / "vocab.txt"
    if not path.is_file():
        return dict(_lacking(files, "BertTokenizer", "vocab.txt"))
    try:
        text = read_regular(path, LARGE).decode("utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as UTF-8 ({error}): save the tokenizer again") from None
    lines = text.split("\n")
    # Blanks at the end do not belong to a piece, unless it has only blanks.
    return {line.rstrip() or line.rstrip(" \t\r"): i for i, line in enumerate(lines[:-1] if not lines[-1] else lines)}


def _merges(files: TokenizerFiles) -> tuple[dict[str, int], list[Any]]:
    paths = [files.folder / name for name in ("vocab.json", "merges.txt")]
    if not all(path.is_file() for path in paths):
        return _lacking(files, "RobertaTokenizer", "vocab.json and merges.txt"), []
    try:
        for path in paths:
            check_regular(path.stat(), LARGE)
        with without_panic():
            vocab, merges = models.BPE.read_file(*map(str, paths))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(f"{paths[0]} and merges.txt cannot be read ({error}): save the tokenizer again") from None
    return vocab, merges


def _lacking(files: TokenizerFiles, name: str, wanted: str) -> Any:
    held = ", ".join(sorted(path.name for path in files.folder.iterdir() if path.name in _KNOWN))
    raise CheckpointError(
        f"{files.folder} holds no {TOKENIZER}{'' if wanted == TOKENIZER else f', nor {wanted}'}, which {name} reads "
        f"(found: {held or 'no tokenizer at all'}): save the tokenizer with transformers, tokenizer.save_pretrained(folder)"
    )


_MODELS = ("spiece.model", "sentencepiece.bpe.model", "spm.model")
_KNOWN = (TOKENIZER, "vocab.txt", "vocab.json", "merges.txt", "bpe.codes", *_MODELS)

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
    XLM_ROBERTA, names=("CamembertTokenizer",), extra=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"), steps=_camembert
)
CLASSES = (AS_IT_IS, BERT, DISTILBERT, ROBERTA, XLM_ROBERTA, CAMEMBERT)
OF_FAMILY: Mapping[str, TokenizerClass] = {
    "bert": BERT,
    "distilbert": BERT,
    "electra": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "camembert": CAMEMBERT,
    "modernbert": AS_IT_IS,
}
"""The class of a ``model_type`` if no file names one."""

ANY_CLASS = frozenset({"modernbert"})
"""Families whose tokenizer.json is used as it is, whatever class the files name."""

OWN_CODE: Mapping[str, str] = {
    "BertJapaneseTokenizer": "cuts Japanese words by MeCab, Sudachi or Juman",
    "PhobertTokenizer": "reads vocab.txt and bpe.codes, and texts whose words were cut beforehand",
    "BertweetTokenizer": "rewrites tweets in Python before it cuts them",
    "FlaubertTokenizer": "cuts words by Moses' rules in Python",
    "XLMTokenizer": "cuts words by Moses' rules in Python",
}
"""Classes in Python, which a tokenizer.json cannot describe."""


def class_of(name: str) -> TokenizerClass | None:
    """Return the class of a name, or None if it is unknown."""
    return next((each for each in CLASSES if name.removesuffix("Fast") in each.names), None)
