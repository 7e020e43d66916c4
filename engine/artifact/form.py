"""The form of ``fusedbert.json``: what each key may hold, as one table.

A manifest may come from anyone, so every value is checked before it is used, and a message names the key.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeAlias

from ..errors import shown
from .manifest import (
    HEAD_NAME,
    PACKED,
    PADDED,
    PROBLEM_TYPES,
    TEXTS,
    TOKENS,
    Evaluation,
    Golden,
    Head,
    Manifest,
    Parity,
    Source,
    Variant,
    is_head_name,
)

Check: TypeAlias = Callable[[Any, str], None]  # of a value and its key; raises ValueError
_MOST_LABELS = 1_000_000
_MOST_BYTES = 2**53  # of a file, and of any count: a double holds it exactly
_LARGEST = 3.4e38  # a graph computes in float32
_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"  # a name is shown in one line


def to_manifest(document: Mapping[str, Any]) -> Manifest:
    """Return the manifest of a JSON object.

    Raises:
        ValueError: A value has another form; the message names its key.
    """
    _MANIFEST(document, "")
    beside = {name: document.get(name, {}) for name in ("parity_avx2", "evaluation")}
    variants = tuple(
        _variant({**{name: found.get(entry["file"]) for name, found in beside.items()}, **entry})
        for entry in document["variants"]
    )
    golden = tuple(Golden(**{**entry, "logits": tuple(map(float, entry["logits"]))}) for entry in document["golden"])
    known = {field.name: document[field.name] for field in dataclasses.fields(Manifest) if field.name in document}
    parsed = {
        "source": Source(**document["source"]),
        "labels": tuple(document["labels"]),
        "variants": variants,
        "golden": golden,
        "thresholds": _thresholds(document),
        "heads": tuple(map(_head, document.get("heads", ()))),
    }
    manifest = Manifest(**(known | parsed))
    _check_together(manifest)
    return manifest


def _head(entry: Mapping[str, Any]) -> Head:
    source = entry.get("source")
    own = {"labels": tuple(entry["labels"]), "thresholds": _thresholds(entry), "source": source and Source(**source)}
    return Head(**{**entry, **own})


def _thresholds(document: Mapping[str, Any]) -> tuple[float, ...] | None:
    found = document.get("thresholds")
    return None if found is None else tuple(map(float, found))


def _parity(entry: Mapping[str, Any]) -> Parity:
    heads = entry.get("heads")
    return Parity(**{**entry, "heads": None if heads is None else {name: Parity(**head) for name, head in heads.items()}})


def _variant(entry: Mapping[str, Any]) -> Variant:
    parities = {name: _parity(entry[name]) for name in ("parity", "parity_avx2") if entry[name] is not None}
    evaluation = entry["evaluation"]
    if evaluation is not None:
        evaluation = Evaluation(**{**evaluation, "parity": _parity(evaluation["parity"])})
    return Variant(**{**entry, "outputs": tuple(entry["outputs"]), "evaluation": evaluation, **parities})


def _check_together(manifest: Manifest) -> None:
    """Refuse values that contradict each other."""
    labels = len(manifest.labels)
    for i, golden in enumerate(manifest.golden):
        if manifest.by_token and len(golden.logits) % labels:
            raise ValueError(f"golden[{i}].logits has {len(golden.logits)} numbers, expected {labels} for each token")
        if not manifest.by_token and len(golden.logits) != labels:
            raise ValueError(f"golden[{i}].logits has {len(golden.logits)} numbers, expected one for each of {labels} labels")
    for head in manifest.outputs:
        if head.thresholds is not None and head.problem_type != "multi_label_classification":
            raise ValueError(f"thresholds belong to multi_label_classification, problem_type is {head.problem_type}")
        if head.thresholds is not None and len(head.thresholds) != len(head.labels):
            found, expected = len(head.thresholds), len(head.labels)
            raise ValueError(f"thresholds has {found} numbers, expected one for each of {expected} labels")
    _check_heads(manifest)
    for kind, keys in (
        ("file", [variant.file for variant in manifest.variants]),
        ("kind", [(each.target, each.precision, each.outputs, each.layout) for each in manifest.variants]),
    ):
        if len(set(keys)) < len(keys):
            raise ValueError(f"two variants are of the same {kind}")


def _check_heads(manifest: Manifest) -> None:
    """Refuse heads that are not those of labels and figures."""
    names = [head.name for head in manifest.heads]
    if len(set(names)) < len(names) or len(names) == 1 or (names and manifest.by_token):
        raise ValueError(f"heads has the names {shown(names)}, expected two or more different ones, of classifiers of texts")
    if sum((head.labels for head in manifest.outputs), ()) != manifest.labels:
        raise ValueError("labels are not those of all heads")
    for variant in manifest.variants:
        own = None if variant.evaluation is None else variant.evaluation.parity
        measured = (variant.parity, variant.parity_avx2, own)
        if any(each is not None and sorted(each.heads or ()) != sorted(names) for each in measured):
            raise ValueError(f"{variant.file} has no figures of each head, or figures of others")


def _fail(value: Any, key: str, expected: str) -> NoReturn:
    raise ValueError(f"{key or 'it'} is {shown(value)}, expected {expected}")


def _one(expected: str, fits: Callable[[Any], bool]) -> Check:
    def check(value: Any, key: str) -> None:
        if not fits(value):
            _fail(value, key, expected)

    return check


def _text(most: int) -> Check:
    return _one(
        f"a text of one line, of up to {most} characters",
        lambda value: isinstance(value, str) and len(value) <= most and (value.isprintable() or not re.search(_CONTROL, value)),
    )


def _integer(least: int, most: int = _MOST_BYTES) -> Check:
    expected = f"an integer from {least} up" if most == _MOST_BYTES else f"an integer from {least} to {most}"
    return _one(expected, lambda value: type(value) is int and least <= value <= most)


def _number(least: float, most: float) -> Check:
    return _one(f"a number from {least:g} to {most:g}", lambda value: type(value) in (int, float) and least <= value <= most)


def _member(*values: str | None) -> Check:
    return _one(f"one of {', '.join(map(str, values))}", lambda value: isinstance(value, str | None) and value in values)


def _optional(check: Check) -> Check:
    return lambda value, key: None if value is None else check(value, key)


def _list(check: Check, least: int = 0, most: int = _MOST_LABELS) -> Check:
    def check_list(value: Any, key: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            _fail(value, key, f"a list of {least} to {most}")
        for i, each in enumerate(value):
            check(each, f"{key}[{i}]")

    return check_list


def _mapping(check: Check) -> Check:
    def check_mapping(value: Any, key: str) -> None:
        if not isinstance(value, dict):
            _fail(value, key, "an object")
        for name, each in value.items():
            check(each, f"{key}[{shown(name)}]")

    return check_mapping


def _object(needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None, *, more: bool = False) -> Check:
    """Check an object's keys; with ``more`` it may have unknown ones, as a later version may write them."""
    known = {**needed, **(optional or {})}

    def check_object(value: Any, key: str) -> None:
        if not isinstance(value, dict):
            _fail(value, key, "an object")
        if missing := needed.keys() - value.keys():
            raise ValueError(f"{key or 'it'} has no {', '.join(sorted(missing))}")
        if not more and (unknown := value.keys() - known.keys()):
            raise ValueError(f"{key} has the unknown key {shown(min(unknown))}")
        for name, check in known.items():
            if name in value:
                check(value[name], f"{key}.{name}" if key else name)

    return check_object


def _is_version(parts: list[str]) -> bool:
    return 2 <= len(parts) <= 4 and all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts)


_DIGITS = set("0123456789abcdef")
_NAME, _FILE = _text(1000), _one("a path", lambda value: isinstance(value, str))
_SHARE, _SIZE = _number(0, 1), _number(0, _LARGEST)
_SHA256 = _one("a sha256 of 64 digits", lambda value: isinstance(value, str) and len(value) == 64 and set(value) <= _DIGITS)
_VERSION = _one("a version such as 1.23", lambda value: isinstance(value, str) and _is_version(value.split(".")))
_OUTPUTS = (["logits"], ["logits", "attentions", "queries", "keys"])

_FIGURES = (
    {"reference": _NAME, "texts": _integer(0), "max_abs_logit": _SIZE, "label_agreement": _SHARE},
    {
        "mean_abs_probability": _SIZE,
        "max_abs_probability": _SIZE,
        "measured_on": _NAME,
        "scale": _optional(_SIZE),
        "spread": _optional(_SIZE),
        "rank_correlation": _optional(_number(-1, 1)),
        "mean_of_spread": _optional(_SIZE),
        "max_of_spread": _optional(_SIZE),
    },
)
_PARITY = _object(_FIGURES[0], {**_FIGURES[1], "heads": _optional(_mapping(_object(*_FIGURES)))})
_EVALUATION = _object({"texts": _NAME, "parity": _PARITY}, {"accuracy": _optional(_SHARE)})
_VARIANT = _object(
    {
        "file": _FILE,
        "target": _member("cpu", "cuda"),
        "precision": _member("fp32", "int8", "bf16", "fp16"),
        "outputs": _one(" or ".join(map(str, _OUTPUTS)), lambda value: value in _OUTPUTS),
        "opset": _integer(1, 10_000),
        "nodes": _mapping(_integer(0)),
        "fused_attention": _integer(0),
        "parity": _PARITY,
    },
    {"layout": _member(PADDED, PACKED), "parity_avx2": _optional(_PARITY), "evaluation": _optional(_EVALUATION)},
)
_SOURCE = _object({"id": _NAME, "revision": _optional(_NAME), "sha256": _mapping(_SHA256)})
_HEAD = _object(
    {
        "name": _one(f"a name of {HEAD_NAME}", lambda value: is_head_name(value)),
        "problem_type": _member(*PROBLEM_TYPES),
        "labels": _list(_NAME, 1),
    },
    {
        "function_to_apply": _member(None, "none", "sigmoid"),
        "activation": _member(None, "none", "sigmoid", "softmax"),
        "thresholds": _optional(_list(_SHARE)),
        "source": _optional(_SOURCE),
    },
)
_TEXT = _one("a text", lambda value: isinstance(value, str))
_GOLDEN = _object({"text": _TEXT, "logits": _list(_number(-_LARGEST, _LARGEST))}, {"text_pair": _optional(_TEXT)})
_MANIFEST = _object(
    {
        "source": _SOURCE,
        "created_with": _mapping(_NAME),
        "architecture": _NAME,
        "problem_type": _member(*PROBLEM_TYPES),
        "labels": _list(_NAME, 1),
        "max_length": _integer(3, 1_000_000),
        "variants": _list(_VARIANT, 1),
        "golden": _list(_GOLDEN),
        "files": _mapping(_object({"sha256": _SHA256, "bytes": _integer(0)}, more=True)),
    },
    {
        "requires": _mapping(_object({"opset": _integer(1, 10_000), "onnxruntime": _VERSION}, more=True)),
        "function_to_apply": _member(None, "none", "sigmoid"),
        "thresholds": _optional(_list(_SHARE)),
        "longest": _optional(_integer(3, 1_000_000)),
        "task": _member(TEXTS, TOKENS),
        "heads": _list(_HEAD, 0, 1000),
        "parity_avx2": _mapping(_PARITY),
        "evaluation": _mapping(_EVALUATION),
    },
    more=True,
)
