"""BERT models of any size with random weights, to measure with: checkpoints, artifacts without the exporter's checks, texts.

The speed of a graph does not depend on the values of its weights, so nothing has to be downloaded.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import PACKED, PADDED, Manifest, Parity, Source, Variant, write_manifest
from fusedbert.engine.artifact.staging import staged_folder
from fusedbert.engine.errors import DeviceError
from fusedbert.engine.hardware.device import CPU, CUDA, Choice, import_onnxruntime
from fusedbert.engine.load import Options
from fusedbert.engine.load.open import Loaded, load
from fusedbert.engine.load.open import Source as Opened
from fusedbert.engine.load.open_cuda import CudaOpener, packed_runner
from fusedbert.engine.load.resolve import embedded_checkpoint
from fusedbert.engine.model import Model
from fusedbert.engine.run.cuda.graphs import GraphCache
from fusedbert.engine.run.cuda.provider import RECORD
from fusedbert.engine.run.cuda.runners import PackedRunner, PaddedCudaRunner
from fusedbert.engine.run.runner import Runner
from fusedbert.engine.run.session import open_session
from fusedbert.engine.tasks.classifier import Classifier
from fusedbert.engine.text.tokenizer import Row
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.graph.bert import build
from fusedbert.export.graph.cpu.fp32 import CpuFp32
from fusedbert.export.graph.cuda.fp16 import CudaFp16
from fusedbert.export.graph.cuda.packed import CudaFp16Packed
from fusedbert.export.parity.graphs import PackedStandIn

from ..batches import read_vocabulary
from . import deberta, modernbert

POSITIONS = 512
_read_vocabulary = functools.cache(read_vocabulary)
UNCHECKED = Parity(reference="none", texts=0, max_abs_logit=0.0, label_agreement=1.0, measured_on="nothing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The numbers that a BERT's speed depends on."""

    layers: int
    heads: int
    hidden: int


BASE = ModelShape(layers=12, heads=12, hidden=768)
LARGE = ModelShape(layers=24, heads=16, hidden=1024)
SMALL = ModelShape(layers=6, heads=12, hidden=384)
TINY = ModelShape(layers=2, heads=2, hidden=32)
TINY_MODERN = modernbert.ModernShape(layers=3, heads=2, hidden=32, inner=48)
TINY_DEBERTA = deberta.DebertaShape(layers=2, heads=2, hidden=32)


def write_checkpoint(folder: Path, shape: ModelShape, tokenizer: Path) -> None:
    """Write a random BERT with two labels into a folder as transformers would save it.

    The tokenizer and the rest of its configuration are those of the checkpoint ``tokenizer``.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    config = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))
    config |= {
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "hidden_size": shape.hidden,
        "intermediate_size": 4 * shape.hidden,
        "max_position_embeddings": POSITIONS,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(_tensors(shape, config), folder / "model.safetensors")


def _tensors(shape: ModelShape, config: dict[str, int]) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    hidden, inner = shape.hidden, 4 * shape.hidden
    tables = {"word": config["vocab_size"], "position": POSITIONS, "token_type": config["type_vocab_size"]}
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
    # Two random logits are so close that rounding would decide between the labels: this keeps them apart.
    tensors["classifier.bias"] = np.array([-0.5, 0.5], dtype=np.float32)
    for name in norms:
        tensors |= {f"{name}.weight": np.ones(hidden, dtype=np.float32), f"{name}.bias": np.zeros(hidden, dtype=np.float32)}
    return tensors


def build_artifact(source: Path, folder: Path, *, on_cpu: bool) -> None:
    """Write an unchecked artifact of a checkpoint: the fp32 graph for the CPU, and the two fp16 graphs for CUDA.

    ``on_cpu`` writes, in place of the packed graph, its equivalent in standard operators, which a CPU can run.
    """
    a, layout = describe(read_config(source))
    weights = Weights(source, a, layout)
    (folder / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    variants = []
    for lowering in (CpuFp32, CudaFp16, PackedStandIn if on_cpu else CudaFp16Packed):
        if lowering.unsupported(a):
            continue
        graph = build(a, weights, lowering)
        graph.write(folder / lowering.file, source.name, opset=lowering.opset, metadata={})
        nodes = graph.count_nodes()
        variant = Variant(
            file=lowering.file,
            target=lowering.target,
            precision=lowering.precision,
            outputs=lowering.output_names,
            opset=lowering.opset,
            nodes=nodes,
            fused_attention=sum(nodes.get(op, 0) for op in lowering.attention_ops),
            parity=UNCHECKED,
            layout=lowering.layout,
        )
        variants.append(variant)
    manifest = Manifest(
        source=Source(id=source.name, revision=None, sha256={}),
        created_with={},
        architecture=a.family,
        problem_type="single_label_classification",
        labels=("0", "1"),
        max_length=a.usual_tokens,
        variants=tuple(variants),
    )
    write_manifest(folder, manifest)


def open_on_cpu(folder: Path, *, padded: bool = True) -> tuple[Loaded, PaddedCudaRunner | None]:
    """Open the fp16 graphs of an artifact that ``build_artifact`` wrote with ``on_cpu``, as on a GPU, but on the CPU."""
    runtime, loaded = import_onnxruntime(), load(folder, Options.parse(device="cpu", precision="fp32"))
    labels, pad_id, choice = len(loaded.manifest.labels), loaded.tokenizer.pad_id, Choice(provider=CPU, why="a dry run")

    def graphs(layout: str) -> GraphCache:
        file = folder / _cuda_variant(loaded, layout).file
        session = open_session(runtime, file, choice, threads=2, session_options={RECORD: "1"})
        return GraphCache(runtime, session, labels=labels, device="cpu", graphs=True, pin=lambda *_: None)

    length = loaded.manifest.max_length
    other = PaddedCudaRunner(graphs=graphs(PADDED), pad_id=pad_id, max_length=length) if padded else None
    packed = packed_runner(_cuda_variant(loaded, PACKED), graphs(PACKED), pad_id)
    described = dataclasses.replace(loaded.runtime, why="a dry run on the CPU")
    return dataclasses.replace(loaded, runner=packed, runtime=described), other


def open_on_cuda(folder: Path, *, padded: bool = True) -> tuple[Loaded, PaddedCudaRunner | None]:
    """Open an artifact on CUDA, and if ``padded`` its padded graph as well.

    Raises:
        DeviceError: CUDA does not engage, or one of the graphs does not work there; the message says why.
    """
    loaded = load(folder, Options.parse(device="cuda"))
    if not isinstance(loaded.runner, PackedRunner):
        raise DeviceError(f"{folder} runs without its packed graph: {loaded.runtime.why}")
    return loaded, open_padded(loaded) if padded else None


def open_padded(opened: Opened) -> PaddedCudaRunner:
    """Open the padded graph of an artifact on CUDA, where fusedbert itself runs the packed one.

    Raises:
        DeviceError: It does not work there; the message says why.
    """
    opener = CudaOpener(
        runtime=import_onnxruntime(),
        folder=opened.folder,
        manifest=opened.manifest,
        tokenizer=opened.tokenizer,
        choice=Choice(provider=CUDA, why="a measurement"),
    )
    runner, _ = opener.open_padded(_cuda_variant(opened, PADDED))
    return runner


def _cuda_variant(opened: Opened, layout: str) -> Variant:
    variant = opened.manifest.variant(target="cuda", precision="fp16", layout=layout)
    assert variant is not None
    return variant


def random_rows(lengths: Sequence[int], random: np.random.Generator) -> list[Row]:
    """Draw tokenized texts of these lengths: random word pieces between [CLS] and [SEP]."""
    v = _read_vocabulary(embedded_checkpoint())
    drawn = [[v.first, *random.choice(v.ordinary, size=length - 2).tolist(), v.last] for length in lengths]
    return [Row(ids=ids, types=[0] * len(ids)) for ids in drawn]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Models:
    """Models in a folder, made once: ``mini``, which is the embedded one, and others with random weights.

    These are ``base`` and ``large``, which are BERT's, and ``modernbert`` and ``deberta``, of base size.
    """

    work: Path  # the folder, kept between runs
    dry_run: bool  # of two layers, on the CPU

    def checkpoint(self, name: str) -> Path:
        """Return a model's checkpoint."""
        folder = embedded_checkpoint() if name == "mini" else self.work / name
        if not folder.exists():
            with staged_folder(folder) as stage:
                self._write(name, stage)
        return folder

    def _write(self, name: str, folder: Path) -> None:
        tiny, vocabulary = self.dry_run, embedded_checkpoint() / "vocab.txt"
        if name == "modernbert":
            modernbert.write_checkpoint(folder, TINY_MODERN if tiny else modernbert.MODERNBERT_BASE, vocabulary)
        elif name == "deberta":
            deberta.write_checkpoint(folder, TINY_DEBERTA if tiny else deberta.DEBERTA_V3_BASE, vocabulary)
        else:
            write_checkpoint(folder, TINY if tiny else {"base": BASE, "large": LARGE}[name], embedded_checkpoint())

    def artifact(self, name: str) -> Path:
        """Return a model's artifact."""
        folder = self.work / f"{name}-artifact"
        if not folder.exists():
            with staged_folder(folder) as stage:
                build_artifact(self.checkpoint(name), stage, on_cpu=self.dry_run)
        return folder

    def open(self, name: str) -> tuple[Loaded, dict[str, Any]]:
        """Open an artifact on CUDA; return it, and its runners ``packed``, ``engine``, which is the same, and ``padded``.

        Of ModernBERT that is missing, as its graph cannot be captured.

        Raises:
            DeviceError: CUDA does not engage, or one of the graphs does not work there; the message says why.
        """
        folder = self.artifact(name)
        opener = open_on_cpu if self.dry_run else open_on_cuda
        loaded, padded = opener(folder, padded=name != "modernbert")
        runners = {"engine": loaded.runner, "padded": padded, "packed": loaded.runner}
        return loaded, {layout: runner for layout, runner in runners.items() if runner is not None}


def classifier(loaded: Loaded, runner: Runner) -> Classifier:
    """Return a classifier that runs all its batches by one of the runners."""
    return Classifier(Model(dataclasses.replace(loaded, runner=runner), Options()))
