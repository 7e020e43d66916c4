"""Tokenizer of a checkpoint: read as by transformers, checked against the model, and written for the artifact."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase

from fusedbert.engine.artifact import LARGE, read_regular
from fusedbert.engine.errors import CheckpointError, InputError, shown, without_panic
from fusedbert.engine.text.inputs import Text
from fusedbert.engine.text.tokenizer import Row, TextTokenizer

from ..checkpoint.architecture import Shape, read_json
from ..checkpoint.modules import LEAST
from .classes import ANY_CLASS, AS_IT_IS, CLASSES, OF_FAMILY, OWN_CODE, TokenizerClass, class_of
from .files import CONFIG, NAMED, TOKENIZER, TokenizerFiles, read_files, token_text
from .parts import Spec, differing, form_of, normal_form, same_decoder, to_json, without_segments
from .scores import read_by_python, to_text

TextOrPair = str | tuple[str, str]
SEGMENTS = "token_type_ids"
CAPITALS = "ABCXYZ ÀÉÑØ ΑΩ ДЖ"  # of several alphabets
_INPUTS = ("input_ids", SEGMENTS, "attention_mask")
_WAY_OUT = f"save a tokenizer.json that does the same, with PreTrainedTokenizerFast as tokenizer_class in {CONFIG}"


class Tokenization:
    """A checkpoint's tokenizer, checked against its model.

    Attributes:
        max_length: Longest text in tokens: the tokenizer's limit if the model takes as many, else the model's usual one.
        notes: Warnings, a line each.
        runtime: The engine's tokenizer, with which the export encodes.
        segmented: Whether the model has a vector for each text of a pair.
    """

    def __init__(self, folder: Path, shape: Shape, *, limit: int | None = None, lower_case: bool = False) -> None:
        """Read a tokenizer; ``limit`` takes the place of its limit, ``lower_case`` refuses one that keeps capitals."""
        self.segmented = shape.token_types > 1
        self._reading = reading = read_tokenizer(folder, shape.family, segmented=self.segmented)
        if lower_case:
            refuse_capitals(folder, reading.tokenizer)
        self._token_types = shape.token_types
        self._limited = limit is not None
        longest = reading.limit if limit is None else limit
        valid = isinstance(longest, int | float) and longest >= LEAST
        most, usual = shape.max_tokens, shape.usual_tokens or shape.max_tokens
        beyond = most if self._limited else usual  # a number that no model takes says nothing, as transformers' 10^30
        self.max_length = (int(longest) if longest <= most else beyond) if valid and longest is not None else usual
        self.runtime = TextTokenizer.of(reading.tokenizer, reading.config, {"vocab_size": shape.vocab_size}, self.max_length)
        self.notes = (*reading.notes, *_check_vocabulary(folder, reading.tokenizer, shape.vocab_size))
        if longest is not None and not valid:
            self.notes += (
                f"{CONFIG} gives {shown(longest)} as the longest text in tokens, expected {LEAST} or more: "
                f"{self.max_length} is used",
            )

    @property
    def added(self) -> tuple[str, ...]:
        """The added tokens, also special ones, for which the model has a vector."""
        rows = self.runtime.vocab_size
        tokens = sorted(self._reading.tokenizer.get_added_tokens_decoder().items())
        return tuple(token.content for i, token in tokens if rows is None or i < rows)

    @property
    def facts(self) -> dict[str, object]:
        """All that decides on a text's tokens, by names for messages."""
        runtime = self.runtime
        return {
            "tokenizer.json": self._reading.stored,
            "the longest text": self.max_length,
            "the padding token": runtime.pad_id,
            "truncation_side": runtime.cut_left,
            "segments": runtime.segments,
            "split_special_tokens": runtime.raw.encode_special_tokens,
        }

    def encode(self, text: str, text_pair: str | None = None) -> Row:
        """Tokenize a text, cut at ``max_length``, in segments that the model has; raise ``InputError`` if it cannot take it."""
        (row,) = self.runtime.encode([Text(text=text, pair=text_pair, index=0)])
        last = max(self._token_types - 1, 0)
        return dataclasses.replace(row, types=[min(kind, last) for kind in row.types])

    def encode_all(self, texts: Iterable[TextOrPair]) -> list[Row]:
        """Tokenize texts and pairs, without those that the model cannot take, such as an empty one without [CLS]."""
        rows = []
        for text in texts:
            with contextlib.suppress(InputError):
                rows.append(self.encode(*split_pair(text)))
        return rows

    def accepts(self, text: TextOrPair) -> bool:
        """Return whether the model can take a text or a pair."""
        return bool(self.encode_all([text]))

    def repeat(self, words: str, tokens: int) -> Row:
        """Make a text of exactly ``tokens`` tokens from ``words``."""
        raw = self._reading.tokenizer
        encoded, body = raw.encode(words), raw.encode(words, add_special_tokens=False).ids
        special = [i for i, owner in zip(encoded.ids, encoded.sequence_ids, strict=True) if owner is None]
        first, last = (special[:1], special[-1:]) if special else ([], [])
        inner = (body or encoded.ids) * (tokens // max(len(body), 1) + 1)
        ids = [*first, *inner[: max(tokens - len(first) - len(last), 0)], *last][:tokens]
        return Row(ids=ids, types=[0] * len(ids))

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
        (folder / TOKENIZER).write_bytes(self._reading.stored)
        config = {"model_max_length": self.max_length, **self._reading.config}
        if self._limited:
            config["model_max_length"] = self.max_length
        (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def split_pair(text: TextOrPair) -> tuple[str, str | None]:
    """Return a text and its second text, None if it has none."""
    return (text, None) if isinstance(text, str) else text


def _check_vocabulary(folder: Path, tokenizer: Tokenizer, rows: int) -> list[str]:
    """Return notes on added tokens beyond the word table's ``rows``; refuse others, and those that every text needs."""
    notes = []
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    beyond = {token: i for token, i in vocab.items() if i >= rows}
    unknown = vocab.get(str(getattr(tokenizer.model, "unk_token", None)))
    needed = {*tokenizer.encode("a").ids, unknown}
    always = [token for token, i in beyond.items() if i in needed]
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    if always:
        raise CheckpointError(
            f"the vocabulary in {folder} lacks {', '.join(always[:5])}, or has it beyond the {rows} rows of the model's table: "
            "not the vocabulary of this model's tokenizer"
        )
    if not beyond.keys() <= added:
        raise CheckpointError(
            f"the tokenizer of {folder} has ids up to {max(beyond.values())}, the model's vocab_size is {rows}: "
            "they do not belong together"
        )
    if beyond:
        names = ", ".join(map(repr, sorted(beyond, key=beyond.__getitem__)[:5]))
        notes.append(
            f"the model has no vectors for the added tokens {names} (its table has {rows} rows): a text with one is an error"
        )
    if not tokenizer.num_special_tokens_to_add(False):
        notes.append(
            f"{TOKENIZER} adds no special tokens such as [CLS], because it has no post-processor: the model reads a text's "
            "first token in its place, as in transformers, and a text without tokens is an error"
        )
    return notes


def refuse_capitals(folder: Path, tokenizer: Tokenizer) -> None:
    """Raise ``CheckpointError`` for a tokenizer that does not lowercase texts, in a model whose texts are."""
    lowered = Lowercase().normalize_str(CAPITALS)
    normalizer = tokenizer.normalizer
    if normalizer is None or normalizer.normalize_str(CAPITALS) != normalizer.normalize_str(lowered):
        raise CheckpointError(
            f"{folder} has do_lower_case = true, and its {TOKENIZER} does not lowercase texts: put a Lowercase into its "
            "normalizer, and save it"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """A checkpoint's tokenizer as it was read."""

    tokenizer: Tokenizer  # without padding and truncation
    stored: bytes  # the artifact's tokenizer.json: the checkpoint's bytes if they have the same effect
    config: Mapping[str, Any]  # the artifact's tokenizer_config.json
    limit: float | None  # longest text in tokens according to the files, if any
    notes: tuple[str, ...]  # warnings, a line each


def read_tokenizer(folder: Path, family: str, *, segmented: bool = True) -> Reading:
    """Read a checkpoint's tokenizer; raise ``CheckpointError`` if files are missing, damaged or contradict their class."""
    files = read_files(folder)
    name, kind = _class(files, family)
    if kind is None:
        return _through_transformers(files, name, segmented=segmented)
    content, spec = _stored(folder)
    if content is not None and spec is not None and kind.steps is not None:
        exact = read_by_python(content, spec)
        content, spec = (content if exact == spec else None), exact
    try:
        with without_panic():
            tokenizer, model = kind.build(files, spec)
    except CheckpointError:
        raise
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(
            f"the tokenizer files of {folder} cannot be read as a {name} ({error}): save them again"
        ) from None
    _try(tokenizer, model, folder)
    segments = SEGMENTS in files.config.get("model_input_names", _INPUTS if kind.segments else ())
    flattened = segmented and not segments and without_segments(tokenizer)
    notes, form = [], form_of(tokenizer, model)
    parts = [] if spec is None else differing(form, spec, segmented=segmented)
    rebuilt = [part for part in parts if not (flattened and part == "post_processor")]
    if rebuilt and kind.steps is not None:
        notes.append(
            f"{name} does not take its {' and '.join(rebuilt)} from {TOKENIZER}, which differs: in transformers 5 it "
            f"makes its own by {CONFIG}, and so does the artifact"
            + (
                f" (transformers 4 took the file's: where the model was trained with that, set tokenizer_class in {CONFIG} to "
                "PreTrainedTokenizerFast)"
                if kind.as_it_was
                else ""
            )
        )
    if flattened and kind.segments_before and "model_input_names" not in files.config:
        notes.append(
            f"pairs run with segment 0 throughout, as {name} of transformers 5 runs them if {CONFIG} has no "
            f"model_input_names (transformers 4 did not): if the model was trained with segments, put "
            f"{json.dumps(list(_INPUTS))} there"
        )
    side = (spec or {}).get("truncation") or {}
    return Reading(
        tokenizer=tokenizer,
        stored=_bytes(form) if content is None or parts or not same_decoder(form, spec) else content,
        config=_settings(
            files, flattened=flattened, side=side.get("direction", "right").lower(), unknown=kind.special.get("unk_token")
        ),
        limit=files.config.get("model_max_length", files.config.get("max_len")),
        notes=tuple(notes),
    )


def _class(files: TokenizerFiles, family: str) -> tuple[str, TokenizerClass | None]:
    """Find the class of a tokenizer; None for one that transformers has to read."""
    code = files.config.get("auto_map")
    code = code.get("AutoTokenizer") if isinstance(code, dict) else code
    name = files.config.get("tokenizer_class")
    if name is None:
        name = (read_json(files.folder / "config.json", "tokenizer") or {}).get("tokenizer_class")
    if code:
        first = next((str(each) for each in code if each), name) if isinstance(code, list) else code
        raise CheckpointError(
            f"the tokenizer of {files.folder} is the checkpoint's own code ({first}, by auto_map in {CONFIG}), which is not "
            f"run: {_WAY_OUT}; or take auto_map out, if the class that transformers has is the right one"
        )
    if name is None:
        kind = OF_FAMILY.get(family)
        return ("the tokenizer" if kind is None else kind.names[0]), kind
    if not isinstance(name, str) or not name:
        raise CheckpointError(
            f"{files.folder / CONFIG} has tokenizer_class = {shown(name)}, expected the name of a class: mend it"
        )
    if (does := OWN_CODE.get(name.removesuffix("Fast"))) is not None:
        raise CheckpointError(f"tokenizer_class is {name!r}, which {does}, and no file describes that: {_WAY_OUT}")
    return name, AS_IT_IS if family in ANY_CLASS else class_of(name)


def _try(tokenizer: Tokenizer, model: Spec, folder: Path) -> None:
    """Refuse a tokenizer that fails on unknown words, or cuts at random."""
    if model.get("dropout"):
        raise CheckpointError(
            f"{folder / TOKENIZER} has model.dropout = {model['dropout']}, which cuts a text differently each time: take it out"
        )
    try:
        with without_panic():
            tokenizer.encode("a text", "\U0001f642 \u5b57 qxzv ~")
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(
            f"the tokenizer of {folder} stops at words that it does not know ({error}): save it with its token for unknown "
            "words in the vocabulary"
        ) from None


def _stored(folder: Path) -> tuple[bytes | None, Spec | None]:
    path = folder / TOKENIZER
    if not path.is_file():
        return None, None
    try:
        with without_panic():
            content = read_regular(path, LARGE)
            return content, normal_form(content.decode())
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(f"{path} cannot be read as a tokenizer ({error}): save the tokenizer again") from None


def _bytes(form: Spec) -> bytes:
    return (to_text(form, indent=2) + "\n").encode()


def _settings(files: TokenizerFiles, *, flattened: bool, side: str, unknown: str | None) -> dict[str, Any]:
    """Return the artifact's tokenizer_config.json: the checkpoint's, completed from other files."""
    config = dict(files.config)
    mapped = read_json(files.folder / "special_tokens_map.json", "tokenizer") or {}
    config |= {name: token_text(token) for name in NAMED if name in mapped and (token := files.special.get(name)) is not None}
    if unknown is not None:
        config.setdefault("unk_token", unknown)  # that of the class, which an engine without classes needs by name
    if flattened:
        config.setdefault("model_input_names", [name for name in _INPUTS if name != SEGMENTS])
    truncation = config.get("truncation_side", side)
    if truncation not in ("left", "right"):
        raise CheckpointError(
            f"{files.folder / CONFIG} has truncation_side = {shown(truncation)}, expected left or right: mend it"
        )
    if truncation != "right":
        config["truncation_side"] = truncation
    return config


def _through_transformers(files: TokenizerFiles, name: str, *, segmented: bool) -> Reading:
    """Let transformers read other tokenizers, such as sentencepiece models, without code of a checkpoint."""
    known = ", ".join(each.names[0] for each in CLASSES)
    try:
        import transformers
    except ImportError:
        raise CheckpointError(
            f"the tokenizer of {files.folder} is {name!r}, read here are {known}: pip install transformers, which may know it, "
            f"or {_WAY_OUT}"
        ) from None
    try:
        with without_panic():
            loaded = transformers.AutoTokenizer.from_pretrained(
                str(files.folder), local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # whatever a foreign tokenizer class raises
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{files.folder} holds no tokenizer that transformers can read as {name} ({reason}): save one there"
        ) from None
    actual = type(loaded).__name__
    if not getattr(loaded, "is_fast", False) or (name.endswith("Tokenizer") and not _same_class(transformers, name, loaded)):
        kind = "Python code" if actual == name else f"none of transformers {transformers.__version__}"
        raise CheckpointError(f"the tokenizer of {files.folder} is {name!r}, which is {kind}: {_WAY_OUT}")
    others = [file for file in loaded.vocab_files_names.values() if file != TOKENIZER]
    if not (files.folder / TOKENIZER).is_file() and not all((files.folder / file).is_file() for file in others):
        # transformers 5 then takes a vocabulary of five tokens, without a warning
        raise CheckpointError(
            f"{files.folder} holds no {TOKENIZER}, nor {' and '.join(others)}, which {name} reads: save the tokenizer there"
        )
    tokenizer: Tokenizer = loaded.backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _try(tokenizer, json.loads(to_json(tokenizer))["model"], files.folder)
    flattened = segmented and SEGMENTS not in loaded.model_input_names and without_segments(tokenizer)
    content, spec = _stored(files.folder)
    form = json.loads(to_json(tokenizer))
    same = spec is not None and not differing(form, spec, segmented=segmented) and same_decoder(form, spec)
    return Reading(
        tokenizer=tokenizer,
        stored=content if same and content is not None else _bytes(form),
        config=_settings(files, flattened=flattened, side=loaded.truncation_side, unknown=loaded.unk_token),
        limit=loaded.model_max_length,
        notes=(),
    )


def _same_class(transformers: Any, name: str, tokenizer: Any) -> bool:
    wanted = [getattr(transformers, each, None) for each in (name, f"{name}Fast")]
    return any(isinstance(each, type) and isinstance(tokenizer, each) for each in wanted)
