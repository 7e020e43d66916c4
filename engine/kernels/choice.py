"""The level that a session runs on: the processor's best, or the one that the user forces; and how a session gets it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import DeviceError, OptionError, shown
from .install import absence
from .levels import ONNXRUNTIME, Kernels, Level, Library, loaded, unusable

DOMAIN = "fusedbert"  # of the int8 graph's operators, as ``fusedbert.export.graph.operators`` names it
SWITCH = "fusedbert.kernels"  # in ``session_options``: the name of a level
VARIABLE = "FUSEDBERT_KERNELS"  # in the environment: the same, for sessions whose options do not say it
_AUTO = ("auto", "1", "")
_OFF = "0"

# For each operation of a set: its name for users, and the graph's operator that it computes. A level without the first
# operation has no kernels for the set.
_INT8 = {
    "dense_int8": ("products", f"{DOMAIN}:Dense"),
    "dense_bf16": ("products in bfloat16", f"{DOMAIN}:Bf16DenseAddNorm"),
    "attention": ("attention", f"{DOMAIN}:Attention"),
}
_WORDS: Mapping[Kernels, Mapping[str, tuple[str, str]]] = {
    Kernels.INT8: _INT8,
    Kernels.INT8_POSITIONS: _INT8 | {"disentangled": ("disentangled attention", f"{DOMAIN}:DisentangledAttention")},
    Kernels.BF16: {
        "dense_bf16": ("products", f"{DOMAIN}:Bf16Dense"),
        "attention": ("attention", f"{DOMAIN}:Bf16Attention"),
        "disentangled": ("disentangled attention", f"{DOMAIN}:Bf16DisentangledAttention"),
    },
    Kernels.FP32: {
        "norm": ("LayerNormalization", "LayerNormalization"),
        "gelu": ("Gelu", "Gelu"),
        "dense_fp32": ("products", "Gemm"),
    },
}


def choose(kernels: Kernels, session_options: Any) -> tuple[Level, str | None]:
    """Return the level of a session, and what forced it: ``session_options``, ``FUSEDBERT_KERNELS``, or None.

    Raises:
        OptionError: The forced level does not exist.
        DeviceError: This processor cannot run the forced level, or the library is missing or cannot be loaded.
    """
    if session_options is not None and not isinstance(session_options, Mapping):  # onnxruntime.SessionOptions
        return ONNXRUNTIME, "session_options"
    if session_options is not None and SWITCH in session_options:
        value, source, setting = str(session_options[SWITCH]), "session_options", f"session_options[{SWITCH!r}]"
    else:
        value, source, setting = os.environ.get(VARIABLE, ""), VARIABLE, VARIABLE
    name = value.strip().lower()
    if name in (_OFF, ONNXRUNTIME.name):
        return ONNXRUNTIME, source
    found = loaded()
    if name in _AUTO:
        return (ONNXRUNTIME if found is None else found.default(kernels)), None
    if found is None:
        raise DeviceError(
            f"{setting} is {shown(value)}, and fusedbert's kernels are not installed here: take it away, and fusedbert doctor "
            "says whether they could be"
        )
    return _forced(name, setting, found.levels), source


def _forced(name: str, setting: str, levels: tuple[Level, ...]) -> Level:
    there = ", ".join(level.name for level in levels)
    level = next((level for level in levels if level.name == name), None)
    if level is None:
        raise OptionError(f"{setting} is {shown(name)}, and the levels of fusedbert's kernels are {there}; or auto")
    if level.lacking:
        run = ", ".join(level.name for level in levels if not level.lacking)
        raise DeviceError(f"{setting} is {shown(name)}, and this CPU lacks {', '.join(level.lacking)}; it runs {run}")
    return level


def fingerprint(kernels: Kernels | None, session_options: Any) -> str | None:
    """Return the level and the library's SHA-256, for the key of a verdict, or None if ONNX Runtime does all."""
    if kernels is None or (found := loaded()) is None:
        return None
    level, _ = choose(kernels, session_options)
    return None if level.name == ONNXRUNTIME.name else f"{level.name} {found.sha256()}"


def register(options: Any, session_options: Any, kernels: Kernels) -> None:
    """Give a session's ``options`` the kernels of the level that ``choose`` returns, if it has some for this set.

    Raises:
        OptionError: As of ``choose``.
        DeviceError: As of ``choose``.
    """
    level, forced = choose(kernels, session_options)
    found = loaded()
    if found is not None and kernels is Kernels.INT8 and forced is None and not _has(level, kernels):
        kernels = Kernels.BF16  # of an int8 graph that has feed-forwards in bfloat16, where AMX multiplies the others
        level = found.default(kernels)
    if found is None or not _has(level, kernels):
        return
    try:
        found.use(kernels, level)
        options.register_custom_ops_library(str(found.path))
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise unusable(found.path, error) from None


def describe(
    kernels: Kernels, session_options: Any, features: Collection[str], operators: Collection[str] | None = None
) -> str:
    """Return the kernels that a session runs on, for ``runtime.why``.

    ``features`` are the processor's, and ``operators`` the graph's, as ``Variant.nodes`` names them; None: any.
    """
    level, forced = choose(kernels, session_options)
    found = loaded()
    setting = [] if forced is None else [f"as set in {forced}"]
    if found is not None and _has(level, kernels):
        uses = {op: word for op, (word, operator) in _WORDS[kernels].items() if operators is None or operator in operators}
        own = [word for op, word in uses.items() if op in level.operations]
        rest = "" if forced else _rest(found, {op: word for op, word in uses.items() if op not in level.operations})
        return f"fusedbert's kernels for {_listed(own)} ({', '.join([level.name, *setting])}{rest})"
    if forced is not None:
        reasons = setting if level.name == ONNXRUNTIME.name else [f"{level.name} has none for {kernels}", *setting]
    else:
        reasons = [absence(features).reason if found is None else _no_default(kernels, found)]
    return f"ONNX Runtime kernels ({', '.join(reasons)})"


def runs(kernels: Kernels, session_options: Any) -> bool:
    """Return whether a session gets kernels for a set; False too if ``choose`` would raise."""
    try:
        return _has(choose(kernels, session_options)[0], kernels)
    except (OptionError, DeviceError):
        return False


def _has(level: Level, kernels: Kernels) -> bool:
    return next(iter(_WORDS[kernels])) in level.operations


def _no_default(kernels: Kernels, found: Library) -> str:
    lacking = _lacking(found, {next(iter(_WORDS[kernels]))})
    return f"this CPU lacks {' and '.join(lacking)}" if lacking else "they use this CPU's AMX"


def _rest(found: Library, missing: Mapping[str, str]) -> str:
    """Say why a level leaves operations, given with their words, to ONNX Runtime; empty if there are none to say it of."""
    lacking = _lacking(found, missing)
    return f"; {_listed(list(missing.values()))} by ONNX Runtime, this CPU lacks {' and '.join(lacking)}" if lacking else ""


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _lacking(found: Library, operations: Collection[str]) -> tuple[str, ...]:
    """Return what the processor lacks for kernels of operations: the shortest list of a level that has them all."""
    return min((level.lacking for level in found.levels if level.operations.issuperset(operations)), key=len, default=())
