"""Graphs that other tools exported: a folder as optimum and transformers.js have it, without a manifest.

What a manifest would say is read from config.json, the tokenizer's files and the graphs' own headers. Nothing can be
verified: there are no hashes and no golden texts, and ``runtime.why`` says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .. import kernels as native
from ..errors import ArtifactError
from ..text.labels import names_by_id
from ..text.outputs import stated_function
from .manifest import MANIFEST, NO_MANIFEST, PROBLEM_TYPES, Manifest, Parity, Source, Variant, inside
from .manifest import read_manifest as _read_manifest
from .onnx_header import Graph, scan

# Where a graph may stand, in the order of preference, and what it is for: (target, precision).
KNOWN: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "onnx/model.onnx": ("cpu", "fp32"),
        "model.onnx": ("cpu", "fp32"),
        "onnx/model_quantized.onnx": ("cpu", "int8"),
        "model_quantized.onnx": ("cpu", "int8"),
        "onnx/model_int8.onnx": ("cpu", "int8"),
        "model_int8.onnx": ("cpu", "int8"),
        "onnx/model_fp16.onnx": ("cuda", "fp16"),
        "model_fp16.onnx": ("cuda", "fp16"),
    }
)
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
# Products of integers: a graph that has them is no fp32 graph, whatever its name.
_INTEGER = {
    "MatMulInteger",
    "QLinearMatMul",
    "com.microsoft:DynamicQuantizeMatMul",
    "com.microsoft:MatMulIntegerToFloat",
    f"{native.DOMAIN}:Dense",
}
# Families that count positions from the padding id on, which takes padding_id + 1 rows of the table.
_OFFSET = {"roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "xlm-roberta-xl", "mpnet", "longformer", "ibert"}
_UNSET_LENGTH = 1_000_000  # transformers writes 1e30 where a tokenizer has no limit
_DEFAULT_LENGTH = 512
_MOST_LABELS = 1_000_000
_NOT_MEASURED = Parity(reference="none", texts=0, max_abs_logit=math.nan, label_agreement=math.nan)


def read_manifest(folder: Path) -> Manifest:
    """Read an artifact's manifest, or describe another tool's export in its terms.

    Raises:
        ArtifactError: The folder is neither, or damaged.
    """
    return _read_manifest(folder) if (folder / MANIFEST).is_file() or not any(graphs(folder)) else describe(folder)


def graphs(folder: Path) -> Iterator[str]:
    """Yield the graphs of a folder that have names which are known here."""
    return (name for name in KNOWN if (folder / name).is_file())


def describe(folder: Path) -> Manifest:
    """Describe a folder without a manifest by what config.json, the tokenizer and the graphs say.

    Raises:
        ArtifactError: A file is missing or damaged, or a graph is no sequence classifier's.
    """
    config, tokenizer = (_read(folder, name) for name in ("config.json", "tokenizer_config.json"))
    if not (folder / "tokenizer.json").is_file():
        raise ArtifactError(
            f"{folder} has no tokenizer.json: save it beside the graph with transformers, "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    inside(folder, "tokenizer.json")
    variants, outputs = [], set()
    for name in graphs(folder):
        graph = _look(folder, name)
        if graph is not None:
            outputs.add(_labels_of(folder / name, graph))
        variants.append(_variant(name, graph))
    found = sorted(count for count in outputs if count is not None)
    if len(found) > 1:
        raise ArtifactError(f"{folder} has graphs with {found} labels: keep those of one model")
    labels = _labels(folder, config, found[0] if found else None)
    problem_type = config.get("problem_type") or "single_label_classification"
    if problem_type not in PROBLEM_TYPES:
        options = ", ".join(PROBLEM_TYPES)
        raise ArtifactError(f"{folder / 'config.json'} has problem_type {problem_type!r}, expected one of {options}")
    return Manifest(
        source=Source(id=folder.name, revision=None, sha256={}),
        created_with={},
        architecture=str(config.get("model_type", "unknown")),
        problem_type=problem_type,
        labels=labels,
        max_length=_max_length(config, tokenizer),
        variants=tuple(variants),
        format=NO_MANIFEST,
        function_to_apply=stated_function(config, problem_type, len(labels), ArtifactError),
    )


def _look(folder: Path, name: str) -> Graph | None:
    """Read a graph's headers; one that is damaged is found out when it is chosen, and must not keep the others away."""
    try:
        return scan(inside(folder, name))
    except ArtifactError:
        return None


def _variant(name: str, graph: Graph | None) -> Variant:
    target, precision = KNOWN[name]
    # Of a graph that could not be read nothing is known; "Shape" has it taken for one that was not made for CUDA alone.
    nodes = graph.nodes if graph else {"Shape": 1}
    if precision == "fp32" and graph is not None:  # model.onnx is what the user exported, whatever that was
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


_ATTENTION = {"Attention", "MultiHeadAttention", "PackedAttention", "QAttention", "GroupQueryAttention"}


def _labels_of(path: Path, graph: Graph) -> int | None:
    """Return how many labels a graph gives, None where it leaves that open; refuse what is no sequence classifier."""
    inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (graph.inputs, graph.outputs))
    logits = next((tensor for tensor in graph.outputs if tensor.name == "logits"), None)
    if logits is None or not {"input_ids"} <= set(inputs) <= _INPUTS:
        raise ArtifactError(
            f"{path} has inputs {', '.join(inputs)} and outputs {', '.join(outputs)}; expected {', '.join(sorted(_INPUTS))} "
            "and logits: give a sequence classifier's graph"
        )
    if len(logits.shape) not in (0, 2):  # 0: the exporter did not write it down
        sizes = ", ".join("?" if size is None else str(size) for size in logits.shape)
        raise ArtifactError(f"{path} gives logits [{sizes}], expected [texts, labels]: give a sequence classifier's graph")
    fixed = [size for tensor in graph.inputs for size in tensor.shape if size is not None]
    if fixed:
        raise ArtifactError(f"{path} takes inputs of a fixed size ({fixed[0]}): export it with dynamic axes")
    return logits.shape[1] if logits.shape else None


def _labels(folder: Path, config: Mapping[str, Any], count: int | None) -> tuple[str, ...]:
    """Name the outputs: ``id2label``, and ``LABEL_i`` for the ids that it leaves out."""
    path = folder / "config.json"
    try:
        names = names_by_id(config.get("id2label"))
    except ValueError as error:
        raise ArtifactError(f"{path} has {error}: mend it") from None
    known = max(names, default=-1) + 1
    if count is None:  # the graph leaves it open
        count = known or config.get("num_labels", 2)  # 2: as in transformers
        if type(count) is not int or not 1 <= count <= _MOST_LABELS:
            raise ArtifactError(f"{path} has {str(count)[:80]} labels, expected 1 to {_MOST_LABELS}: mend it")
    if known > count:
        raise ArtifactError(f"{path} names {known} labels, the graph gives {count}: put the config beside its own graph")
    return tuple(names.get(i, f"LABEL_{i}") for i in range(count))


def _max_length(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int:
    """Return the tokenizer's limit where it is sane, never above what the position table holds."""
    table, limit, padding = (
        config.get("max_position_embeddings"),
        tokenizer.get("model_max_length", tokenizer.get("max_len")),  # the latter is what it was called until 2020
        config.get("pad_token_id"),
    )
    if isinstance(table, int) and config.get("model_type") in _OFFSET:
        table -= (padding if isinstance(padding, int) else 1) + 1
    sizes = [int(size) for size in (table, limit) if isinstance(size, (int, float)) and 3 <= size < _UNSET_LENGTH]
    return min(sizes, default=_DEFAULT_LENGTH)


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        if name == "config.json":
            raise ArtifactError(f"{folder} has graphs but no config.json, which names the labels: copy it from the checkpoint")
        return {}
    try:
        document = json.loads(inside(folder, name).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{path} cannot be read as JSON ({error}): copy it again") from None
    if not isinstance(document, dict):
        raise ArtifactError(f"{path} is no JSON object: copy it again")
    return document
