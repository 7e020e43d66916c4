"""Fusing a graph that torch wrote, with the optimizer that comes with ONNX Runtime (``onnxruntime.transformers``).

The optimizer looks for the patterns of nodes that each family's code leaves behind. Where it finds none it says nothing,
so the fused nodes are counted here. Attention and GELU are fused on both targets; ``SkipLayerNormalization`` and
``EmbedLayerNormalization`` on CUDA alone, as the CPU runs them slower than what they replace.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from fusedbert.engine.errors import MissingDependencyError
from fusedbert.export.graph import MICROSOFT, PROTOBUF_LIMIT

try:
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model
except ImportError as error:
    raise MissingDependencyError.of(error.name or "onnxruntime", "cpu,optimum", "fuse a graph") from None

ATTENTION = (f"{MICROSOFT}:Attention", f"{MICROSOFT}:MultiHeadAttention")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters and optimizers print, log and warn about out of the user's sight: the gates judge the result."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)


def fuse(file: Path, kind: str | None, *, heads: int, hidden_size: int, target: str) -> Any:
    """Fuse what the optimizer recognizes.

    Args:
        file: The graph as torch wrote it.
        kind: The optimizer's name for the family, such as ``bert``; None leaves all but equal weights as it is.
        heads: Attention heads of a layer.
        hidden_size: Width of a token's vector.
        target: ``cpu`` or ``cuda``.

    Returns:
        The optimizer's ``OnnxModel``.
    """
    options = FusionOptions(kind or "bert")
    options.enable_attention = options.enable_gelu = options.enable_bias_gelu = kind is not None
    on_cuda = kind is not None and target == "cuda"
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = options.enable_embed_layer_norm = on_cuda
    with quiet():
        fused = optimize_model(
            str(file), kind or "bert", num_heads=heads, hidden_size=hidden_size, optimization_options=options
        )
    share_equal_weights(fused.model)
    return fused


def to_float16(fused: Any) -> None:
    """Turn weights and activations to float16 in place; inputs stay integers, logits float32."""
    with quiet():
        fused.convert_float_to_float16(keep_io_types=True)


def share_equal_weights(model: onnx.ModelProto) -> None:
    """Keep one of each set of equal weights: ALBERT's layers share theirs, and a fused node gets a copy each."""
    kept: dict[tuple[int, tuple[int, ...], str], str] = {}
    names: dict[str, str] = {}
    weights = []
    for tensor in model.graph.initializer:
        digest = hashlib.sha256(onnx.numpy_helper.to_array(tensor).tobytes()).hexdigest()
        names[tensor.name] = kept.setdefault((tensor.data_type, tuple(tensor.dims), digest), tensor.name)
        if names[tensor.name] == tensor.name:
            weights.append(tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)


def count_nodes(model: onnx.ModelProto) -> dict[str, int]:
    """Count the nodes of each op type, sorted by name; operators of other domains as ``domain:Type``."""
    standard = ("", "ai.onnx")
    names = (n.op_type if n.domain in standard else f"{n.domain}:{n.op_type}" for n in model.graph.node)
    return dict(sorted(Counter(names).items()))


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    return next(int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx"))


def save(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph with its metadata; weights beyond protobuf's limit go into ``NAME.onnx_data`` beside the file."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    external = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > PROTOBUF_LIMIT
    path.parent.mkdir(exist_ok=True)
    onnx.save_model(
        model, path, save_as_external_data=external, all_tensors_to_one_file=True, location=f"{path.name}_data", size_threshold=1024
    )
