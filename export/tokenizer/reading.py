"""One reading of a tokenizer's files, the way transformers' own class for it does it: the artifact's tokenizer.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from fusedbert.engine.errors import CheckpointError

from .classes import AS_IT_IS, CLASSES, OF_FAMILY, OWN_CODE, TokenizerClass, class_of
from .files import CONFIG, NAMED, TOKENIZER, TokenizerFiles, read_files, read_json, text_of
from .parts import Spec, differing, form_of, normal_form, without_segments, written

SEGMENTS = "token_type_ids"
_INPUTS = ("input_ids", SEGMENTS, "attention_mask")
_WAY_OUT = f"save a tokenizer.json that does the same, with PreTrainedTokenizerFast as tokenizer_class in {CONFIG}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """A checkpoint's tokenizer, understood.

    Attributes:
        tokenizer: What it is; padding and truncation of its file are cleared.
        stored: The bytes of the artifact's tokenizer.json: the checkpoint's own, where they say the same.
        config: The artifact's tokenizer_config.json.
        limit: Longest text in tokens, as the files say; None where they do not.
        notes: What whoever exports should know, a line each.
    """

    tokenizer: Tokenizer
    stored: bytes
    config: Mapping[str, Any]
    limit: float | None
    notes: tuple[str, ...]


def read_tokenizer(folder: Path, family: str, *, segmented: bool = True) -> Reading:
    """Read the tokenizer of a checkpoint.

    Args:
        folder: The checkpoint.
        family: Its ``model_type``.
        segmented: Whether the model has a vector for each text of a pair, so that it matters which are fed.

    Raises:
        CheckpointError: Files are missing, damaged or contradict their class, or the class is one that files do not describe.
    """
    files = read_files(folder)
    name, kind = _class(files, family)
    if kind is None:
        return _through_transformers(files, name, segmented=segmented)
    content, whole = _stored(folder)
    try:
        tokenizer, model = kind.build(files, whole)
    except CheckpointError:
        raise
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(
            f"the tokenizer files of {folder} cannot be read as a {name} ({error}): save them again"
        ) from None
    _try(tokenizer, model, folder)
    segments = SEGMENTS in files.config.get("model_input_names", _INPUTS if kind.segments else ())
    changed = segmented and not segments and without_segments(tokenizer)
    notes, form = [], form_of(tokenizer, model)
    parts = [] if whole is None else differing(form, whole, segmented=segmented)
    told = [name for name in parts if not (changed and name == "post_processor")]
    if told and kind.steps is not None:
        notes.append(
            f"{name} does not take its {' and '.join(told)} from {TOKENIZER}, which says otherwise: in transformers 5 it "
            f"makes its own by {CONFIG}, and so does the artifact"
        )
    if changed and kind is AS_IT_IS and "model_input_names" not in files.config:
        notes.append(
            f"pairs run with segment 0 throughout, as transformers 5 runs a {name} whose {CONFIG} has no model_input_names "
            f"(transformers 4 did not): where the model was trained with segments, put {json.dumps(list(_INPUTS))} there"
        )
    side = (whole or {}).get("truncation") or {}
    return Reading(
        tokenizer=tokenizer,
        stored=_bytes(form) if content is None or parts else content,
        config=_settings(files, flattened=changed, side=side.get("direction", "right").lower()),
        limit=files.config.get("model_max_length", files.config.get("max_len")),
        notes=tuple(notes),
    )


def _class(files: TokenizerFiles, family: str) -> tuple[str, TokenizerClass | None]:
    """Find the class of a checkpoint's tokenizer; None for one that transformers has to read.

    Raises:
        CheckpointError: It is code that the checkpoint brings along, or that no file describes.
    """
    code = files.config.get("auto_map")
    code = code.get("AutoTokenizer") if isinstance(code, dict) else code
    given = files.config.get("tokenizer_class")
    if given is None:
        given = (read_json(files.folder / "config.json") or {}).get("tokenizer_class")
    if code:
        first = next((str(each) for each in code if each), given) if isinstance(code, list) else code
        raise CheckpointError(
            f"the tokenizer of {files.folder} is code of its own ({first}, by auto_map in {CONFIG}), which is not run: "
            f"{_WAY_OUT}; or take auto_map out, where the class that transformers has is the right one"
        )
    if given is None:
        kind = OF_FAMILY.get(family)
        return ("the tokenizer" if kind is None else kind.names[0]), kind
    if not isinstance(given, str) or not given:
        raise CheckpointError(f"{files.folder / CONFIG} has tokenizer_class = {given!r}, expected the name of a class: mend it")
    if (does := OWN_CODE.get(given.removesuffix("Fast"))) is not None:
        raise CheckpointError(f"tokenizer_class is {given!r}, which {does}, and no file describes that: {_WAY_OUT}")
    return given, class_of(given)


def _try(tokenizer: Tokenizer, model: Spec, folder: Path) -> None:
    """See that a tokenizer cuts any text, and always in the same way.

    Raises:
        CheckpointError: It stops at words that it does not know, or cuts at random.
    """
    if model.get("dropout"):
        raise CheckpointError(
            f"{folder / TOKENIZER} has model.dropout = {model['dropout']}, which cuts a text otherwise each time: take it out"
        )
    try:
        tokenizer.encode("a text", "\U0001f642 \u5b57 qxzv ~")
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(
            f"the tokenizer of {folder} stops at words that it does not know ({error}): save it with its token for unknown "
            "words in the vocabulary"
        ) from None


def _stored(folder: Path) -> tuple[bytes | None, Spec | None]:
    """Read tokenizer.json: its bytes, and what ``tokenizers`` makes of them."""
    path = folder / TOKENIZER
    if not path.is_file():
        return None, None
    try:
        content = path.read_bytes()
        return content, normal_form(content.decode())
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(f"{path} cannot be read as a tokenizer ({error}): save the tokenizer again") from None


def _bytes(form: Spec) -> bytes:
    return (json.dumps(form, indent=2, ensure_ascii=False) + "\n").encode()


def _settings(files: TokenizerFiles, *, flattened: bool, side: str) -> dict[str, Any]:
    """Return the artifact's tokenizer_config.json: the checkpoint's, and what it says in other files or by its class alone."""
    config = dict(files.config)
    mapped = read_json(files.folder / "special_tokens_map.json") or {}
    config |= {name: text_of(token) for name in NAMED if name in mapped and (token := files.special.get(name)) is not None}
    if flattened:
        config.setdefault("model_input_names", [name for name in _INPUTS if name != SEGMENTS])
    truncation = config.get("truncation_side", side)
    if truncation not in ("left", "right"):
        raise CheckpointError(f"{files.folder / CONFIG} has truncation_side = {truncation!r}, expected left or right: mend it")
    if truncation != "right":
        config["truncation_side"] = truncation
    return config


def _through_transformers(files: TokenizerFiles, name: str, *, segmented: bool) -> Reading:
    """Let transformers read what only it knows how to, such as a sentencepiece model; nothing of the checkpoint is run.

    Raises:
        CheckpointError: It is not installed, does not know the class either, or the class is Python code.
    """
    known = ", ".join(each.names[0] for each in CLASSES)
    try:
        import transformers
    except ImportError:
        raise CheckpointError(
            f"the tokenizer of {files.folder} is {name!r}, read here are {known}: pip install transformers, which may know it, "
            f"or {_WAY_OUT}"
        ) from None
    try:
        theirs = transformers.AutoTokenizer.from_pretrained(str(files.folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a foreign tokenizer class raises
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{files.folder} holds no tokenizer that transformers can read as {name} ({reason}): save one there"
        ) from None
    found = type(theirs).__name__
    if not getattr(theirs, "is_fast", False) or (name.endswith("Tokenizer") and not _same_class(transformers, name, theirs)):
        raise CheckpointError(
            f"the tokenizer of {files.folder} is {name!r}, which is "
            f"{'Python code' if found == name else f'none of transformers {transformers.__version__}'}: {_WAY_OUT}"
        )
    others = [file for file in theirs.vocab_files_names.values() if file != TOKENIZER]
    if not (files.folder / TOKENIZER).is_file() and not all((files.folder / file).is_file() for file in others):
        # transformers 5 then takes a vocabulary of five tokens, without a word
        raise CheckpointError(
            f"{files.folder} holds no {TOKENIZER}, nor {' and '.join(others)}, which {name} reads: save the tokenizer there"
        )
    tokenizer: Tokenizer = theirs.backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _try(tokenizer, json.loads(written(tokenizer))["model"], files.folder)
    changed = segmented and SEGMENTS not in theirs.model_input_names and without_segments(tokenizer)
    content, whole = _stored(files.folder)
    form = json.loads(written(tokenizer))
    same = whole is not None and not differing(form, whole, segmented=segmented)
    return Reading(
        tokenizer=tokenizer,
        stored=content if same and content is not None else _bytes(form),
        config=_settings(files, flattened=changed, side=theirs.truncation_side),
        limit=theirs.model_max_length,
        notes=(),
    )


def _same_class(transformers: Any, name: str, found: Any) -> bool:
    """Tell whether transformers read the class that was asked for, or an alias of it, and not whatever tokenizer.json says."""
    wanted = [getattr(transformers, each, None) for each in (name, f"{name}Fast")]
    return any(isinstance(each, type) and isinstance(found, each) for each in wanted)
