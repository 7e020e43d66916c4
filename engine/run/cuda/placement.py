"""Where the nodes of a session run: none of a graph for CUDA may be left to the CPU.

ONNX Runtime gives a node that CUDA has no kernel for to the CPU, and copies its inputs and outputs there and back at every
run: nothing fails, and everything is slow. ``session.disable_cpu_ep_fallback`` turns that into an error that names no
node; so the assignment is recorded and read instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import DeviceError

RECORD = "session.record_ep_graph_assignment_info"
_REFUSE = "session.disable_cpu_ep_fallback"
_REFUSED = "have not been partitioned to the CUDAExecutionProvider"  # what a session with CUDA graphs says of a node elsewhere
_SHOWN = 5


def session_options(runtime: Any, given: Any) -> Any:
    """Add to a user's session options what finds nodes on the CPU: the record, or in older versions the refusal.

    Args:
        runtime: The onnxruntime module.
        given: ``onnxruntime.SessionOptions``, which are used as they are, a mapping, or None.
    """
    if given is not None and not isinstance(given, Mapping):
        return given
    tells = hasattr(runtime, "OrtEpAssignedSubgraph")
    return {RECORD if tells else _REFUSE: "1", **(given or {})}


def refused(message: str) -> bool:
    """Tell whether a session was refused because a node would run elsewhere."""
    return _REFUSED in message


def off_device(raw: Any, provider: str) -> list[str] | None:
    """List the nodes of a session that another provider runs, as ``Type (name)``; None where this version does not tell."""
    try:
        parts = raw.get_provider_graph_assignment_info()
    except Exception:  # an older version, or a session with options of the user's own that do not record it
        return None
    return [
        f"{node.op_type} ({node.name})" if node.name else str(node.op_type)
        for part in parts
        if part.ep_name != provider
        for node in part.get_nodes()
    ]


def require(nodes: Iterable[str], device: str) -> None:
    """Raise where there are any.

    Raises:
        DeviceError: The message names the first few.
    """
    if nodes := list(nodes):
        shown = ", ".join(nodes[:_SHOWN]) + (f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else "")
        raise DeviceError(
            f"{device} does not run {len(nodes)} of the graph's nodes: {shown}; "
            'this ONNX Runtime lacks kernels for them: pip install --upgrade "fusedbert[gpu]"'
        )
