"""Tokenizer classes of transformers, and how each builds a tokenizer from a folder's files.

The same tokenizer.json gives other ids under another class. PreTrainedTokenizerFast takes the file as it is; the families'
classes take only the vocabulary, and rebuild the rest from tokenizer_config.json, as in transformers 5
(``tokenization_utils_tokenizers.py`` and the ``tokenization_*.py`` of the families).

The normalizer changes characters, the pre-tokenizer cuts words, the model cuts words into pieces, the post-processor adds [CLS]
and [SEP]. WordPiece (Schuster and Nakajima 2012; Devlin et al. 2019) takes the longest pieces, with ``##`` inside a word;
byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) merges the pairs learned first; Unigram (Kudo 2018) takes the most
probable pieces.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from fusedbert.engine.errors import CheckpointError

from .files import CONFIG, NAMED, TOKENIZER, Token, TokenizerFiles, token_text
from .scores import to_text
from .sources import lacking, lines, merges, pieces, vocabulary

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
_DEBERTA = {**_BERT, "bos_token": "[CLS]", "eos_token": "[SEP]"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerClass:
    """One class of transformers, with its aliases."""

    names: tuple[str, ...]  # as in tokenizer_config.json, without ``Fast`` at the end
    segments: bool  # whether pairs have segments without ``model_input_names``
    special: Mapping[str, str] = dataclasses.field(default_factory=dict)  # default of the named special tokens
    extra: tuple[str, ...] = ()  # default of the special tokens without a name
    spaced: tuple[str, ...] = ()  # special tokens that take the white space before them, unless the files say otherwise
    model: str | None = None  # file of sentencepiece's model, which is read if tokenizer.json is missing
    segments_before: bool = False  # whether pairs had segments in transformers 4, and have none in 5
    as_it_was: bool = False  # whether transformers 4 took all of tokenizer.json
    # Builds tokenizer.json without added tokens and post-processor; None if the file is used as it is.
    steps: Callable[[TokenizerFiles, Mapping[str, str], Spec | None], Spec] | None = None
    # Sets the post-processor, once the special tokens have ids.
    finish: Callable[[Tokenizer, TokenizerFiles, Mapping[str, str]], None] | None = None

    def build(self, files: TokenizerFiles, stored: Spec | None) -> tuple[Tokenizer, Spec]:
        """Build transformers' tokenizer; return it, and its model as in tokenizer.json.

        Raises:
            CheckpointError: A file that the class needs is missing, or of another kind.
        """
        special: dict[str, Token | None] = {**self.special, **files.special}
        if stored is None and self.model is not None:
            files, stored = pieces(files, self.names[0], self.model)
        if stored is not None and (padding := stored.get("padding")) is not None:
            special.setdefault("pad_token", padding["pad_token"])
        for name in self.spaced:
            if isinstance(token := special[name], str):
                special[name] = AddedToken(token, lstrip=True)
        texts = {name: token_text(token) for name, token in special.items() if token is not None}
        if self.steps is None:
            spec = stored or lacking(files, self.names[0], TOKENIZER)
        else:
            spec = {"version": "1.0", "added_tokens": [], "post_processor": None, **self.steps(files, texts, stored)}
        tokenizer = Tokenizer.from_str(to_text({**spec, "truncation": None, "padding": None}))
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
    vocab = vocabulary(files, stored, "WordPiece") if stored else lines(files)
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
        vocab, merged = vocabulary(files, stored, "BPE"), stored["model"]["merges"]
    else:
        vocab, merged = merges(files)
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
            "merges": merged,
        },
    }


def _xlm_roberta(files: TokenizerFiles, special: Mapping[str, str], stored: Spec | None) -> Spec:
    """XLM-RoBERTa's steps: words at white space, with a mark before each."""
    vocab = vocabulary(files, stored, "Unigram")
    scheme = "always" if files.config.get("add_prefix_space", True) else "never"
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}
    return {
        "normalizer": _precompiled((stored or {}).get("normalizer")),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False},
    }


def _camembert(files: TokenizerFiles, special: Mapping[str, str], stored: Spec | None) -> Spec:
    """XLM-RoBERTa's steps, with the unknown token found by its name."""
    spec, unknown = _xlm_roberta(files, special, stored), special.get("unk_token")
    spec["model"]["unk_id"] = next((i for i, (piece, _) in enumerate(spec["model"]["vocab"]) if piece == unknown), 0)
    return spec


def _deberta(files: TokenizerFiles, special: Mapping[str, str], stored: Spec | None) -> Spec:
    """DeBERTa-v2's steps: white space as single spaces, words at spaces, and at punctuation with ``split_by_punct``."""
    vocab = vocabulary(files, stored, "Unigram")
    unknown = [i for i, (piece, score) in enumerate(vocab) if piece == special.get("unk_token") and score == 0]
    lower = [{"type": "Lowercase"}] if files.flag("do_lower_case", False) else []
    cut = [{"type": "Punctuation", "behavior": "Isolated"}] if files.flag("split_by_punct", False) else []
    scheme = "always" if files.flag("add_prefix_space", True) else "first"
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "}
    steps = [*lower, spaces, {"type": "NFC"}, {"type": "Strip", "strip_left": False, "strip_right": True}]
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*cut, metaspace]},
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": unknown[0] if unknown else files.config.get("unk_id", 1),
            "vocab": vocab,
            "byte_fallback": False,
        },
    }


def _albert(files: TokenizerFiles, special: Mapping[str, str], stored: Spec | None) -> Spec:
    """ALBERT's steps: quotes alike, accents and capitals removed unless the config keeps them, words at white space."""
    quotes = [{"type": "Replace", "pattern": {"String": mark}, "content": '"'} for mark in ("``", "''")]
    accents = [] if files.flag("keep_accents", False) else [{"type": "NFKD"}, {"type": "StripAccents"}]
    lower = [{"type": "Lowercase"}] if files.flag("do_lower_case", True) else []
    table = _precompiled((stored or {}).get("normalizer"))
    scheme = "always" if files.flag("add_prefix_space", True) else "never"
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*quotes, *accents, *lower, *([table] if table else [])]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": (stored or {}).get("post_processor"),
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 1, "vocab": vocabulary(files, stored, "Unigram"), "byte_fallback": False},
    }


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


def _albert_ends(tokenizer: Tokenizer, files: TokenizerFiles, special: Mapping[str, str]) -> None:
    """BERT's, where tokenizer.json has no others."""
    alone = not (files.folder / TOKENIZER).is_file()
    for name in ("add_bos_token", "add_eos_token"):
        if alone and name in files.config:
            raise CheckpointError(
                f"{files.folder / CONFIG} has {name}, by which transformers leaves out [CLS] and [SEP] where there is no "
                f"{TOKENIZER}: take it out, or save a {TOKENIZER}"
            )
    if tokenizer.post_processor is None:
        _bert_ends(tokenizer, files, special)


def _mpnet_ends(tokenizer: Tokenizer, files: TokenizerFiles, special: Mapping[str, str]) -> None:
    """As RoBERTa's, whatever ``trim_offsets`` and ``add_prefix_space`` say."""
    sep, cls = (
        (token, tokenizer.token_to_id(token) or 0)
        for token in (_required(files, special, name) for name in ("sep_token", "cls_token"))
    )
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, True, False)


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


AS_IT_IS = TokenizerClass(
    names=("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend"),  # the first with Fast behind it
    segments=False,
    segments_before=True,
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
DEBERTA = TokenizerClass(
    names=("DebertaV2Tokenizer",),
    segments=True,
    special=_DEBERTA,
    model="spm.model",
    as_it_was=True,
    steps=_deberta,
    finish=_bert_ends,
)
ALBERT = TokenizerClass(
    names=("AlbertTokenizer",),
    segments=False,
    segments_before=True,
    special={**_DEBERTA, "unk_token": "<unk>", "pad_token": "<pad>"},
    model="spiece.model",
    as_it_was=True,
    steps=_albert,
    finish=_albert_ends,
)
MPNET = TokenizerClass(
    names=("MPNetTokenizer",),
    segments=False,
    special={**_ROBERTA, "unk_token": "[UNK]"},
    spaced=("mask_token",),
    steps=_word_piece,
    finish=_mpnet_ends,
)
CLASSES = (AS_IT_IS, BERT, DISTILBERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DEBERTA, ALBERT, MPNET)
OF_FAMILY: Mapping[str, TokenizerClass] = {
    "bert": BERT,
    "distilbert": BERT,
    "electra": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "camembert": CAMEMBERT,
    "modernbert": AS_IT_IS,
    "deberta-v2": DEBERTA,
    "albert": ALBERT,
    "mpnet": MPNET,
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
