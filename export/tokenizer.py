"""The tokenizer's files: copied where they are whole, made where an older checkpoint has its vocabulary alone.

WordPiece (Schuster and Nakajima 2012; Devlin et al. 2019) cuts each word into the longest pieces that the vocabulary
holds; a piece inside a word starts with ``##``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from fusedbert.engine.errors import CheckpointError
from fusedbert.export.architecture import Shape
from fusedbert.export.reference import Encoded

CONFIG = "tokenizer_config.json"


class Tokenization:
    """A checkpoint's tokenizer, checked against its model.

    Attributes:
        max_length: Longest text in tokens: the tokenizer's own limit where it is sane, never above the position table's.
    """

    def __init__(self, folder: Path, architecture: Shape) -> None:
        self._config = _read_json(folder / CONFIG)
        self._tokenizer = _load(folder, self._config)
        ready = folder / "tokenizer.json"
        self._stored = ready.read_bytes() if ready.is_file() else self._tokenizer.to_str(pretty=True).encode()
        # Some checkpoints pad or cut every text to a length of their own; the artifact's max_length rules.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        top = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        if top >= architecture.vocab_size:
            raise CheckpointError(
                f"the tokenizer of {folder} has ids up to {top}, the model's vocab_size is {architecture.vocab_size}: "
                "they do not belong together"
            )
        limit = self._config.get("model_max_length")
        sane = isinstance(limit, int | float) and 3 <= limit <= architecture.max_tokens
        self.max_length = int(limit) if sane and limit is not None else architecture.max_tokens
        self._token_types = architecture.token_types

    def encode(self, text: str, text_pair: str | None = None) -> Encoded:
        """Tokenize one text, cut at ``max_length``; segments that the model does not know become segment 0."""
        self._tokenizer.enable_truncation(self.max_length)
        encoding = self._tokenizer.encode(text, text_pair)
        self._tokenizer.no_truncation()
        types = [min(kind, max(self._token_types - 1, 0)) for kind in encoding.type_ids]
        return Encoded(tuple(encoding.ids), tuple(types))

    def whole(self, text: str) -> list[int]:
        """Return the ids of a text, not cut."""
        return list(self._tokenizer.encode(text).ids)

    def repeat(self, words: str, tokens: int) -> Encoded:
        """Make a text of exactly ``tokens`` tokens out of ``words``, special tokens included where there is room."""
        whole = self._tokenizer.encode(words)
        body = self._tokenizer.encode(words, add_special_tokens=False).ids or whole.ids
        first, last = whole.ids[0], whole.ids[-1]
        inner = (body * (tokens // len(body) + 1))[: max(tokens - 2, 0)]
        ids = [first, *inner, last][:tokens]
        return Encoded(tuple(ids), (0,) * len(ids))

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
        (folder / "tokenizer.json").write_bytes(self._stored)
        config = {"model_max_length": self.max_length, **self._config}
        (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}): save the tokenizer again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, expected an object: save the tokenizer again")
    return value


def _load(folder: Path, config: dict[str, Any]) -> Tokenizer:
    ready, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    if ready.is_file():
        try:
            return Tokenizer.from_file(str(ready))
        except Exception as error:  # tokenizers raises bare Exception
            raise CheckpointError(f"{ready} cannot be read as a tokenizer ({error}): save the tokenizer again") from None
    if vocabulary.is_file():
        return word_piece(vocabulary, config)
    return _through_transformers(folder)


def word_piece(vocabulary: Path, config: dict[str, Any]) -> Tokenizer:
    """Build BERT's tokenizer from ``vocab.txt``, one piece a line, and the options of ``tokenizer_config.json``.

    Raises:
        CheckpointError: The file is empty, not UTF-8, or lacks one of the special tokens.
    """
    try:
        pieces = vocabulary.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{vocabulary} cannot be read as UTF-8 ({error}): save the tokenizer again") from None
    vocab = {piece: i for i, piece in enumerate(pieces)}
    defaults = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    special = {name: _content(config.get(f"{name}_token", default)) for name, default in defaults.items()}
    missing = [token for name, token in special.items() if token not in vocab and name != "mask"]
    if missing:
        raise CheckpointError(f"{vocabulary} lacks {', '.join(missing)}: not the vocabulary of this model's BERT tokenizer")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=special["unk"], max_input_chars_per_word=100))
    lower = bool(config.get("do_lower_case", True))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=config.get("strip_accents"),
        lowercase=lower,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    cls, sep = special["cls"], special["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    tokenizer.add_special_tokens([token for token in special.values() if token in vocab])
    return tokenizer


def _content(token: Any) -> str:
    """Return a token's text; a tokenizer config holds it bare or as an object."""
    return str(token["content"] if isinstance(token, dict) else token)


def _through_transformers(folder: Path) -> Tokenizer:
    """Convert what only transformers knows how to read, such as a sentencepiece model or ``vocab.json`` with ``merges.txt``."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise CheckpointError(
            f"{folder} holds neither tokenizer.json nor vocab.txt: save a fast tokenizer beside the model, "
            "or pip install transformers, which converts older ones"
        ) from None
    try:
        slow_or_fast = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, use_fast=True)
        return Tokenizer.from_str(slow_or_fast.backend_tokenizer.to_str())
    except Exception as error:  # whatever a foreign tokenizer class raises
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder} holds no tokenizer that transformers can read ({reason}): save one there") from None
