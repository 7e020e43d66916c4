"""Rotary positions (RoPE, Su et al. 2021) and windows of attention, read from ``config.json`` as transformers reads them.

Layers are of two types. One of ``full_attention`` sees all tokens; one of ``sliding_attention`` those within half of
``local_attention`` on either side. Each type has its own base, theta. Newer configs have ``layer_types`` and
``rope_parameters``, older ones ``global_attn_every_n_layers``, ``global_rope_theta`` and ``local_rope_theta``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from fusedbert.engine.errors import CheckpointError, shown

FULL, SLIDING = "full_attention", "sliding_attention"
_THETAS = {FULL: ("global_rope_theta", 160_000.0), SLIDING: ("local_rope_theta", 10_000.0)}
_KNOWN = {
    "rope_type": "default",
    "type": "default",
    "partial_rotary_factor": 1.0,
}  # options of RoPE, and what is built
_OPTIMUM = "try --via optimum"


class Rotary(NamedTuple):
    """For each layer the base of its RoPE, and how many keys it sees on either side, None for all."""

    thetas: tuple[float, ...]
    windows: tuple[int | None, ...]


def read_rotary(config: Mapping[str, Any], layers: int, head_size: int) -> Rotary:
    """Read a config's layers; raise ``CheckpointError`` if they are not built, or a value is not valid."""
    if config.get("head_dim", head_size) not in (head_size, None):
        raise CheckpointError(
            f"config.json has head_dim = {shown(config['head_dim'])}, built directly is {head_size}: {_OPTIMUM}"
        )
    if head_size % 2:
        raise CheckpointError(f"heads of width {head_size} have no halves to turn: config.json is wrong")
    types = _layer_types(config, layers)
    thetas = {kind: _theta(config, kind) for kind in sorted(set(types))}
    window = _window(config) if SLIDING in types else None
    return Rotary(tuple(thetas[kind] for kind in types), tuple(window if kind == SLIDING else None for kind in types))


def _layer_types(config: Mapping[str, Any], layers: int) -> list[str]:
    types = config.get("layer_types")
    if types is None:
        every = config.get("global_attn_every_n_layers", 3)
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise CheckpointError(
                f"config.json has global_attn_every_n_layers = {shown(every)}, expected a positive integer: mend config.json"
            )
        return [SLIDING if i % every else FULL for i in range(layers)]
    if not isinstance(types, list) or len(types) != layers or any(kind not in tuple(_THETAS) for kind in types):
        raise CheckpointError(
            f"config.json has layer_types = {shown(types)}, expected {FULL} or {SLIDING} for each of {layers} layers: "
            "mend config.json"
        )
    return types


def _theta(config: Mapping[str, Any], kind: str) -> float:
    """Read the base of a type's RoPE."""
    old_name, default = _THETAS[kind]
    if config.get("rope_scaling"):
        raise CheckpointError(f"config.json has rope_scaling = {shown(config['rope_scaling'])}, not built directly: {_OPTIMUM}")
    given = config.get("rope_parameters")
    if given is not None and (not isinstance(given, dict) or set(given) - set(_THETAS)):
        raise CheckpointError(
            f"config.json has rope_parameters = {shown(given)}, expected an object for each of {FULL} and {SLIDING}: {_OPTIMUM}"
        )
    options = (given or {}).get(kind, {})
    if not isinstance(options, dict):
        raise CheckpointError(
            f"config.json has rope_parameters.{kind} = {shown(options)}, expected an object: mend config.json"
        )
    for name, value in options.items():
        if name != "rope_theta" and (name not in _KNOWN or value != _KNOWN[name]):
            raise CheckpointError(f"config.json has {name} = {shown(value)} in rope_parameters, not built directly: {_OPTIMUM}")
    name = "rope_theta" if "rope_theta" in options else old_name
    theta = options.get("rope_theta", config.get(old_name, default))
    number = isinstance(theta, (int, float)) and not isinstance(theta, bool)
    if not number or not 0 < theta < 1e30 or not math.isfinite(theta):
        raise CheckpointError(
            f"config.json has {name} = {shown(theta)}, expected a number such as {default:g}: mend config.json"
        )
    return float(theta)


def _window(config: Mapping[str, Any]) -> int:
    both = config.get("local_attention", 128)
    if isinstance(both, bool) or not isinstance(both, int) or not 2 <= both < 1 << 31:
        raise CheckpointError(f"config.json has local_attention = {shown(both)}, expected 2 or more: mend config.json")
    return both // 2
