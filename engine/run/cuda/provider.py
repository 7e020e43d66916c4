"""Options of ONNX Runtime's CUDA provider, and the placement of a graph's nodes.

A node without a CUDA kernel runs on the CPU, with copies at every run: nothing fails, everything is slow. The error of
``session.disable_cpu_ep_fallback`` names no node, so the placement is recorded and read.

https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#configuration-options
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import DeviceError, OptionError

PREFIX = "cuda."  # of the provider's options in ``session_options``
LIMIT = "gpu_mem_limit"
_GRAPHS = "enable_cuda_graph"
# Session options. Weights are allocated one by one, and not in the arena, which would hold half as much again for them.
WEIGHTS_APART = "session.use_device_allocator_for_initializers"
RECORD, _REFUSE = "session.record_ep_graph_assignment_info", "session.disable_cpu_ep_fallback"
REFUSED = "have not been partitioned to the CUDAExecutionProvider"  # the error of a session with CUDA graphs
_SHOWN = 5


def provider_options(device_id: int = 0, *, graphs: bool = False, user: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the CUDA provider's options; ``user`` overrides them by ONNX Runtime's names, e.g. ``gpu_mem_limit`` in bytes.

    ``graphs`` allows CUDA graphs, which need every node on the GPU.

    Example:
        >>> provider_options(1)["device_id"]
        '1'
    """
    # The arena doubles. Growing by what is requested looks thriftier, but each new largest batch then takes more memory: for
    # BERT-base on a simulated device (bench/NOTES.md) 501 MiB after 10,000 small batches instead of 648, 3.6 GiB instead of
    # 4.4 after large ones. TF32, with a mantissa as short as float16's, is off: an fp32 graph is chosen for its accuracy, and
    # in an fp16 graph only the last, tiny product is in float32.
    # The default device is not named: from 1.26 on ONNX Runtime warns on stderr of a plugin for each named one
    # (https://github.com/immich-app/immich/pull/30530).
    return {
        **({"device_id": str(device_id)} if device_id else {}),
        "arena_extend_strategy": "kNextPowerOfTwo",
        "use_tf32": "0",
        **(user or {}),
        _GRAPHS: str(int(graphs)),
    }


def split_options(session_options: Any) -> tuple[dict[str, str], Any]:
    """Split ``session_options`` into the provider's options, without their prefix, and the session's.

    Raises:
        OptionError: It has ``cuda.device_id``.

    Example:
        >>> split_options({"cuda.gpu_mem_limit": 2**30, "intra_op_num_threads": 1})
        ({'gpu_mem_limit': '1073741824'}, {'intra_op_num_threads': 1})
    """
    if not isinstance(session_options, Mapping):
        return {}, session_options
    named = {str(name): value for name, value in session_options.items()}
    provider = {name.removeprefix(PREFIX): str(value) for name, value in named.items() if name.startswith(PREFIX)}
    if "device_id" in provider:
        raise OptionError(
            f"session_options has {PREFIX}device_id = {provider['device_id']}: name the device by device='cuda:N'"
        )
    return provider, {name: value for name, value in named.items() if not name.startswith(PREFIX)} or None


def wants_graphs(user: Mapping[str, str]) -> bool:
    """Return whether the user's provider options allow CUDA graphs, the default."""
    return user.get(_GRAPHS, "1").lower() in ("1", "true")


def placement_record(runtime: Any) -> str:
    """Return the session option that records node placement, or in older versions refuses the CPU."""
    return RECORD if hasattr(runtime, "OrtEpAssignedSubgraph") else _REFUSE


def with_entries(session_options: Any, *names: str) -> Any:
    """Set entries to "1" in the user's ``session_options``, if these are a mapping or None."""
    if session_options is not None and not isinstance(session_options, Mapping):
        return session_options
    return {**dict.fromkeys(names, "1"), **(session_options or {})}


def off_device(raw: Any, provider: str) -> list[str] | None:
    """Return the nodes that another provider runs, as ``Type (name)``; None if nothing was recorded."""
    try:
        parts = raw.get_provider_graph_assignment_info()
    except Exception:  # an older version, or a SessionOptions of the caller that does not record it
        return None
    return [
        f"{node.op_type} ({node.name})" if node.name else str(node.op_type)
        for part in parts
        if part.ep_name != provider
        for node in part.get_nodes()
    ]


def refuse_off_device(nodes: Iterable[str] | None, device: str) -> None:
    """Refuse a graph with nodes outside the device.

    Raises:
        DeviceError: There are some; the message names the first few.
    """
    if nodes := list(nodes or ()):
        shown = ", ".join(nodes[:_SHOWN]) + (f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else "")
        raise DeviceError(
            f"{device} does not run {len(nodes)} of the graph's nodes: {shown}; "
            'this ONNX Runtime lacks kernels for them: pip install --upgrade "fusedbert[gpu]"'
        )
