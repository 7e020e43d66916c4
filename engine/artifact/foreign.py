"""Exports of other tools: folders of optimum and transformers.js, which have no manifest.

A manifest is derived from config.json, the tokenizer and the graphs' headers. Nothing can be verified, and ``runtime.why``
says so.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, shown
from ..hardware.json_file import SMALL, read_json_file, read_regular
from ..hardware.storage import inside
from ..kernels import DOMAIN
from ..text.outputs import names_by_id, stated_function
from . import MANIFEST, NO_MANIFEST, PROBLEM_TYPES, Manifest, Parity, Source, Variant, read_manifest
from .onnx_header import Graph, read_header

# File names of graphs, in the order of preference, with (target, precision).
KNOWN: Mapping[str, tuple[str, str]] = {
    "onnx/model.onnx": ("cpu", "fp32"),
    "model.onnx": ("cpu", "fp32"),
    "onnx/model_quantized.onnx": ("cpu", "int8"),
    "model_quantized.onnx": ("cpu", "int8"),
    "onnx/model_int8.onnx": ("cpu", "int8"),
    "model_int8.onnx": ("cpu", "int8"),
    "onnx/model_fp16.onnx": ("cuda", "fp16"),
    "model_fp16.onnx": ("cuda", "fp16"),
}
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_ATTENTION = {"Attention", "MultiHeadAttention", "PackedAttention", "QAttention", "GroupQueryAttention"}
# Integer products: a graph that has them is not an fp32 graph, whatever its name.
_INTEGER = {
    "MatMulInteger",
    "QLinearMatMul",
    "com.microsoft:DynamicQuantizeMatMul",
    "com.microsoft:MatMulIntegerToFloat",
    f"{DOMAIN}:Dense",
}
# Families whose positions start after the padding id, so padding_id + 1 rows of the position table are not used.
_OFFSET = {"roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "xlm-roberta-xl", "mpnet", "longformer", "ibert"}
_PACKED_GRAPH = "onnx/model_fp16_packed.onnx"  # which no other tool writes
_UNSET_LENGTH = 1_000_000  # transformers writes 1e30 if a tokenizer has no limit
_DEFAULT_LENGTH = 512
_MOST_LABELS = 1_000_000
_NOT_MEASURED = Parity(reference="none", texts=0, max_abs_logit=math.nan, label_agreement=math.nan)


def manifest_of(folder: Path) -> Manifest:
    """Read an artifact's manifest, or derive one for another tool's export.

    Raises:
        ArtifactError: The folder is neither, or damaged.
    """
    if os.path.lexists(folder / MANIFEST) or not any(graphs(folder)):  # a folder or pipe of that name is an error
        return read_manifest(folder)
    return derive_manifest(folder)


def looks_like_an_artifact(folder: Path, manifest: Manifest) -> bool:
    """Return whether a folder without ``fusedbert.json`` was an artifact, by its model card or its graphs."""
    with contextlib.suppress(OSError, ValueError):
        if b"\nExported by fusedbert from " in read_regular(folder / "README.md", SMALL):
            return True
    return (folder / _PACKED_GRAPH).exists() or any(
        (graph := _read_header(folder, variant.file)) is not None and graph.by_fusedbert for variant in manifest.variants
    )


def graphs(folder: Path) -> Iterator[str]:
    """Yield the names of a folder's graphs that are in ``KNOWN``."""
    return (name for name in KNOWN if (folder / name).is_file())


def derive_manifest(folder: Path) -> Manifest:
    """Derive a manifest from config.json, the tokenizer and the graphs.

    Raises:
        ArtifactError: A file is missing or damaged, or a graph is not a sequence classifier.
    """
    config, tokenizer = _read_json(folder, "config.json"), _read_json(folder, "tokenizer_config.json")
    if not (folder / "tokenizer.json").is_file():
        raise ArtifactError(
            f"{folder} has no tokenizer.json: save it next to the graph with transformers, "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    inside(folder, "tokenizer.json")
    variants, outputs = [], set()
    for name in graphs(folder):
        graph = _read_header(folder, name)
        if graph is not None:
            outputs.add(_label_count(folder / name, graph))
        variants.append(_variant(name, graph))
    counts = sorted(count for count in outputs if count is not None)
    if len(counts) > 1:
        raise ArtifactError(f"{folder} has graphs with {counts} labels: keep those of one model")
    labels = _labels(folder, config, counts[0] if counts else None)
    problem_type = config.get("problem_type") or "single_label_classification"
    if problem_type not in PROBLEM_TYPES:
        options = ", ".join(PROBLEM_TYPES)
        raise ArtifactError(f"{folder / 'config.json'} has problem_type {shown(problem_type)}, expected one of {options}")
    return Manifest(
        source=Source(id=folder.name, revision=None, sha256={}),
        created_with={},
        architecture=str(config.get("model_type", "unknown"))[:80],
        problem_type=problem_type,
        labels=labels,
        max_length=_max_length(config, tokenizer),
        variants=tuple(variants),
        format=NO_MANIFEST,
        function_to_apply=stated_function(config, problem_type, len(labels), ArtifactError),
    )


def _read_header(folder: Path, name: str) -> Graph | None:
    try:
        return read_header(inside(folder, name))
    except ArtifactError:
        return None  # damaged: an error only if the graph is chosen


def _variant(name: str, graph: Graph | None) -> Variant:
    target, precision = KNOWN[name]
    nodes = graph.nodes if graph else {"Shape": 1}  # damaged: not one that stays on the GPU
    if precision == "fp32" and graph is not None:  # model.onnx may be of any precision
        precision = "int8" if not _INTEGER.isdisjoint(nodes) else "fp16" if graph.half else "fp32"
    return Variant(
        file=name,
        target=target,
        precision=precision,
        outputs=("logits",),
        opset=graph.opset if graph else 0,
        nodes=nodes,
        fused_attention=sum(count for kind, count in nodes.items() if kind.rpartition(":")[2] in _ATTENTION),
        parity=_NOT_MEASURED,
    )


def _label_count(path: Path, graph: Graph) -> int | None:
    """Return a graph's number of labels, None if dynamic; refuse other graphs than sequence classifiers."""
    inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (graph.inputs, graph.outputs))
    logits = next((tensor for tensor in graph.outputs if tensor.name == "logits"), None)
    if logits is None or not {"input_ids"} <= set(inputs) <= _INPUTS:
        raise ArtifactError(
            f"{path} has inputs {', '.join(inputs)} and outputs {', '.join(outputs)}; expected {', '.join(sorted(_INPUTS))} "
            "and logits: give a sequence classifier's graph"
        )
    if len(logits.shape) not in (0, 2):  # 0: the exporter left the shape out
        sizes = ", ".join("?" if size is None else str(size) for size in logits.shape)
        raise ArtifactError(f"{path} gives logits [{sizes}], expected [texts, labels]: give a sequence classifier's graph")
    fixed = [size for tensor in graph.inputs for size in tensor.shape if size is not None]
    if fixed:
        raise ArtifactError(f"{path} takes inputs of a fixed size ({fixed[0]}): export it with dynamic axes")
    return logits.shape[1] if logits.shape else None


def _labels(folder: Path, config: Mapping[str, Any], count: int | None) -> tuple[str, ...]:
    path = folder / "config.json"
    try:
        names = names_by_id(config.get("id2label"))
    except ValueError as error:
        raise ArtifactError(f"{path} has {error}: correct it") from None
    known = max(names, default=-1) + 1
    if count is None:  # dynamic in the graph
        count = known or config.get("num_labels", 2)  # 2: as in transformers
    if type(count) is not int or not 1 <= count <= _MOST_LABELS:
        raise ArtifactError(f"{path} or its graph has {shown(count)} labels, expected 1 to {_MOST_LABELS}: correct it")
    if known > count:
        raise ArtifactError(f"{path} names {known} labels, the graph gives {count}: use the config that belongs to the graph")
    return tuple(names.get(i, f"LABEL_{i}") for i in range(count))


def _max_length(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int:
    """Return the smaller of the position table and the tokenizer's limit, if plausible."""
    table, padding = config.get("max_position_embeddings"), config.get("pad_token_id")
    limit = tokenizer.get("model_max_length", tokenizer.get("max_len"))  # max_len: its name until 2020
    if type(table) is int and str(config.get("model_type")) in _OFFSET:
        table -= (padding if isinstance(padding, int) else 1) + 1
    sizes = [int(size) for size in (table, limit) if isinstance(size, (int, float)) and 3 <= size < _UNSET_LENGTH]
    return min(sizes, default=_DEFAULT_LENGTH)


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    inside(folder, name)
    document = read_json_file(folder / name, way_out="copy it again")
    if document is None and name == "config.json":
        raise ArtifactError(f"{folder} has graphs but no config.json, which names the labels: copy it from the checkpoint")
    return document or {}
