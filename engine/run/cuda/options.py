"""Options of ONNX Runtime's CUDA provider: ours, and a user's over them.

https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#configuration-options
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...errors import OptionError

PREFIX = "cuda."  # of the names in ``session_options`` that are the provider's
GRAPHS = "enable_cuda_graph"
LIMIT = "gpu_mem_limit"
# A session option: weights are allocated one by one, and not in the arena, which would keep half as much again for them.
WEIGHTS_APART = "session.use_device_allocator_for_initializers"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CudaOptions:
    """What we ask of the CUDA provider.

    Attributes:
        device_id: Number of the device.
        graphs: Whether CUDA graphs are captured. Every node has to be on the GPU then, so a caller's own wish is one of
            several conditions, see ``wants_graphs``.
        others: Options by ONNX Runtime's own names, laid over ours: ``gpu_mem_limit`` in bytes, for example.
    """

    device_id: int = 0
    graphs: bool = False
    others: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def provider_options(self) -> dict[str, str]:
        """Return the names and values that ONNX Runtime takes.

        The arena doubles, and the weights lie beside it (``WEIGHTS_APART``). Growing by what is asked for looks thriftier, and
        is not where shapes differ: every new largest batch takes room of its own beside that of the smaller ones. Seen for
        BERT-base on a pretended device (bench/NOTES.md): 501 MiB after 10,000 small batches instead of 648, 3.6 GiB instead of
        4.4 after large ones of all lengths. TF32, with a mantissa as short as float16's, is off: an fp32 graph is asked for
        its accuracy, and an fp16 graph has float32 in its last product alone, which is tiny.

        The first device is the default, and is not named: from 1.26 on ONNX Runtime warns on stderr, once a session, that no
        plugin has the device that was named, before it takes its own provider
        (https://github.com/immich-app/immich/pull/30530).

        Example:
            >>> CudaOptions(device_id=1).provider_options()["device_id"]
            '1'
        """
        return {
            **({"device_id": str(self.device_id)} if self.device_id else {}),
            "arena_extend_strategy": "kNextPowerOfTwo",
            "use_tf32": "0",
            **self.others,
            GRAPHS: str(int(self.graphs)),
        }


def split(given: Any) -> tuple[dict[str, str], Any]:
    """Take the provider's options out of what a caller gave as ``session_options``.

    Args:
        given: ``onnxruntime.SessionOptions``, a mapping, or None.

    Returns:
        The provider's options without their prefix, and what is left for the session.

    Raises:
        OptionError: One of them is ours to set: the device is named by ``device``.

    Example:
        >>> split({"cuda.gpu_mem_limit": 2**30, "intra_op_num_threads": 1})
        ({'gpu_mem_limit': '1073741824'}, {'intra_op_num_threads': 1})
    """
    if not isinstance(given, Mapping):
        return {}, given
    ours = {str(name).removeprefix(PREFIX): str(value) for name, value in given.items() if str(name).startswith(PREFIX)}
    if "device_id" in ours:
        raise OptionError(f"session_options has {PREFIX}device_id = {ours['device_id']}: name the device by device='cuda:N'")
    return ours, {name: value for name, value in given.items() if not str(name).startswith(PREFIX)} or None


def wants_graphs(ours: Mapping[str, str]) -> bool:
    """Tell whether a caller's options of the provider allow CUDA graphs, as they do by default.

    Example:
        >>> wants_graphs({}), wants_graphs({"enable_cuda_graph": "True"}), wants_graphs({"enable_cuda_graph": "0"})
        (True, True, False)
    """
    return ours.get(GRAPHS, "1").lower() in ("1", "true")
