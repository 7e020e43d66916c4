"""Models to measure with: BERT-base, BERT-large and smaller in shape, random in weights, made on the spot with NumPy.

How fast a graph runs does not depend on what its weights say, and so nothing has to be downloaded. The graphs of
``build_artifact`` go without the exporter's gates, which would take longer than the measurement.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import Manifest, Parity, Source, Variant, write_manifest
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.graph.bert import build
from fusedbert.export.graph.lowering.cuda_fp16 import CudaFp16
from fusedbert.export.graph.lowering.cuda_fp16_packed import CudaFp16Packed
from fusedbert.export.parity.packed import PackedStandIn

NOT_MEASURED = Parity(
    reference="none", texts=0, max_abs_logit=0.0, label_agreement=1.0, measured_on="nothing: the weights are random"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The numbers that a BERT's speed depends on."""

    layers: int
    heads: int
    hidden: int
    positions: int = 512


BASE = ModelShape(layers=12, heads=12, hidden=768)
LARGE = ModelShape(layers=24, heads=16, hidden=1024)
SMALL = ModelShape(layers=6, heads=12, hidden=384)
TINY = ModelShape(layers=2, heads=2, hidden=32)


def write_checkpoint(folder: Path, shape: ModelShape, tokenizer: Path) -> Path:
    """Write a random two-label BERT as transformers would save it.

    Args:
        folder: Where; made.
        shape: Its size.
        tokenizer: A folder with the ``tokenizer.json`` to take, and ``tokenizer_config.json`` beside it.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    config = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))
    config |= {
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "hidden_size": shape.hidden,
        "intermediate_size": 4 * shape.hidden,
        "max_position_embeddings": shape.positions,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(_tensors(shape, config), folder / "model.safetensors")
    return folder


def _tensors(shape: ModelShape, config: dict[str, int]) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    hidden, inner = shape.hidden, 4 * shape.hidden
    tables = {
        "word": config["vocab_size"],
        "position": shape.positions,
        "token_type": config["type_vocab_size"],
    }
    weights = {f"bert.embeddings.{name}_embeddings.weight": (rows, hidden) for name, rows in tables.items()}
    dense = {"bert.pooler.dense": (hidden, hidden), "classifier": (2, hidden)}
    norms = ["bert.embeddings.LayerNorm"]
    for i in range(shape.layers):
        at = f"bert.encoder.layer.{i}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            dense[at + name] = (hidden, hidden)
        dense |= {f"{at}intermediate.dense": (inner, hidden), f"{at}output.dense": (hidden, inner)}
        norms += [f"{at}attention.output.LayerNorm", f"{at}output.LayerNorm"]
    weights |= {f"{name}.weight": size for name, size in dense.items()}
    tensors = {name: 0.02 * rng.standard_normal(size, dtype=np.float32) for name, size in weights.items()}
    tensors |= {f"{name}.bias": np.zeros(size[0], dtype=np.float32) for name, size in dense.items()}
    # Two random logits are so near to each other that rounding would decide between the labels: this keeps them apart.
    tensors["classifier.bias"] = np.array([-0.5, 0.5], dtype=np.float32)
    for name in norms:
        tensors |= {f"{name}.weight": np.ones(hidden, dtype=np.float32), f"{name}.bias": np.zeros(hidden, dtype=np.float32)}
    return tensors


def build_artifact(source: Path, folder: Path, *, on_cpu: bool) -> Path:
    """Write an artifact with the two fp16 graphs for CUDA, held against nothing.

    Args:
        source: The checkpoint.
        folder: The artifact; made.
        on_cpu: Whether the packed graph's stand-in is written in its place, which a CPU can run.
    """
    a, layout = describe(read_config(source))
    weights = Weights(source, a, layout)
    (folder / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    variants = []
    for lowering in (CudaFp16, PackedStandIn if on_cpu else CudaFp16Packed):
        graph = build(a, weights, lowering)
        graph.write(folder / lowering.file, "random BERT", opset=lowering.opset, metadata={})
        nodes = graph.count_nodes()
        variants.append(
            Variant(
                file=lowering.file,
                target=lowering.target,
                precision=lowering.precision,
                outputs=lowering.output_names,
                opset=lowering.opset,
                nodes=nodes,
                fused_attention=sum(nodes.get(op, 0) for op in lowering.attention_ops),
                parity=NOT_MEASURED,
                layout=lowering.layout,
            )
        )
    manifest = Manifest(
        source=Source(id="random", revision=None, sha256={}),
        created_with={},
        architecture=a.family,
        problem_type="single_label_classification",
        labels=("0", "1"),
        max_length=a.max_tokens,
        variants=tuple(variants),
    )
    write_manifest(folder, manifest)
    return folder
