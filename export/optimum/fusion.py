"""Fusion of a graph that torch wrote, by ONNX Runtime's optimizer (``onnxruntime.transformers``).

The optimizer does not report patterns that it misses, so fused nodes are counted here. ``SkipLayerNormalization`` and
``EmbedLayerNormalization`` are only for CUDA: on the CPU they are slower than the original nodes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import helper, numpy_helper

from fusedbert.engine.errors import ExportError, MissingDependencyError

from ..graph.builder import MICROSOFT, PROTOBUF_LIMIT

try:
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.onnx_model import OnnxModel
    from onnxruntime.transformers.optimizer import optimize_model
except ImportError as error:
    raise MissingDependencyError.of(error.name or "onnxruntime", "cpu,optimum", "fuse a graph") from None

ATTENTION = (f"{MICROSOFT}:Attention", f"{MICROSOFT}:MultiHeadAttention")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress output, logs and warnings."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)


def fuse(file: Path, kind: str | None, *, heads: int, hidden_size: int, target: str) -> Any:
    """Fuse what the optimizer knows of ``kind`` (its name for the family), share equal weights; return its ``OnnxModel``."""
    fused = None
    if kind is not None:
        # If the optimizer fails, the graph stays as it is; the missing nodes are counted and reported.
        with quiet(), contextlib.suppress(Exception):
            options = _options(kind, target, branches=has_branches(onnx.load(file, load_external_data=False)))
            fused = optimize_model(str(file), kind, num_heads=heads, hidden_size=hidden_size, optimization_options=options)
    fused = OnnxModel(onnx.load(file)) if fused is None else fused
    share_equal_weights(fused.model.graph)
    return fused


def _options(kind: str, target: str, *, branches: bool) -> FusionOptions:
    options = FusionOptions(kind)
    on_cuda = target == "cuda"
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = options.enable_embed_layer_norm = on_cuda
    # CUDA's kernels want the lengths of texts padded on the right; on the CPU the mask itself costs the same.
    options.use_raw_attention_mask(not on_cuda)
    # Its shape inference copies all weights into each branch of an If: minutes for DeBERTa, which has many.
    options.enable_shape_inference = not branches
    return options


def to_float16(fused: Any) -> None:
    """Convert to float16, except for inputs and logits; raise ``ExportError`` if the converter fails."""
    try:
        with quiet():
            fused.convert_float_to_float16(use_symbolic_shape_infer=not has_branches(fused.model), keep_io_types=True)
    except Exception as error:  # the converter's own, and onnx's for graphs beyond protobuf's limit
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"ONNX Runtime cannot convert this graph to float16 ({reason}): use --for cpu") from None


def has_branches(model: onnx.ModelProto) -> bool:
    """Return whether nodes have subgraphs, such as ``If``."""
    return any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute)


def share_equal_weights(graph: onnx.GraphProto) -> None:
    """Keep one of each set of equal weights, such as ALBERT's, of which the optimizer gives each layer a copy."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    names: dict[str, str] = {}
    for i, tensor in reversed(list(enumerate(graph.initializer))):
        digest = hashlib.sha256(numpy_helper.to_array(tensor).tobytes()).digest()
        name = first.setdefault((tensor.data_type, tuple(tensor.dims), digest), tensor.name)
        if name != tensor.name:
            names[tensor.name] = name
            del graph.initializer[i]
    _rename_inputs(graph, names)


def _rename_inputs(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
        for attribute in node.attribute:  # the branches of If and Loop read the outer graph's weights
            if attribute.HasField("g"):
                _rename_inputs(attribute.g, names)


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    return next(int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx"))


def save(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph; weights beyond protobuf's limit go into ``NAME.onnx_data`` next to it."""
    used = {node.domain for node in model.graph.node} | {"", "ai.onnx"}
    for i, item in reversed(list(enumerate(model.opset_import))):
        if item.domain not in used:
            del model.opset_import[i]
    del model.metadata_props[:]
    helper.set_model_props(model, dict(sorted(metadata.items())))
    external = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > PROTOBUF_LIMIT
    path.parent.mkdir(exist_ok=True)
    onnx.save_model(
        model,
        path,
        save_as_external_data=external,
        all_tensors_to_one_file=True,
        location=f"{path.name}_data",
        size_threshold=1024,
    )
