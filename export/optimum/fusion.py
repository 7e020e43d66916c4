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
    fused = None
    if kind is not None:
        # A graph that the optimizer cannot work on is as good unfused; the missing nodes are counted and told.
        with quiet(), contextlib.suppress(Exception):
            options = _options(kind, target, branches=has_branches(onnx.load(file, load_external_data=False)))
            fused = optimize_model(str(file), kind, num_heads=heads, hidden_size=hidden_size, optimization_options=options)
    fused = OnnxModel(onnx.load(file)) if fused is None else fused
    share_equal_weights(fused.model.graph)
    return fused


def _options(kind: str, target: str, *, branches: bool) -> FusionOptions:
    """Choose the fusions that pay on a target."""
    options = FusionOptions(kind)
    on_cuda = target == "cuda"
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = options.enable_embed_layer_norm = on_cuda
    # CUDA's kernels want the lengths of texts that are padded on the right; on the CPU the mask itself costs the same.
    options.use_raw_attention_mask(not on_cuda)
    # Its shape inference copies all weights into each branch of an If: minutes for DeBERTa, which has many.
    options.enable_shape_inference = not branches
    return options


def to_float16(fused: Any) -> None:
    """Turn weights and activations to float16 in place; inputs stay integers, logits float32.

    Raises:
        ExportError: The converter fails.
    """
    try:
        with quiet():
            fused.convert_float_to_float16(use_symbolic_shape_infer=not has_branches(fused.model), keep_io_types=True)
    except Exception as error:  # the converter's own, and onnx's for more than protobuf holds
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"ONNX Runtime's converter cannot turn this graph to float16 ({reason}): use --for cpu") from None


def has_branches(model: onnx.ModelProto) -> bool:
    """Tell whether a graph has nodes with graphs of their own."""
    return any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute)


def share_equal_weights(graph: onnx.GraphProto) -> None:
    """Keep one of each set of equal weights: ALBERT's layers share theirs, and a fused node gets a copy each."""
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
