"""The route for every family that is not built directly: optimum exports, ONNX Runtime's optimizer fuses, our gates judge.

What comes out is the same artifact, with the same checks as the direct route's, held against transformers' own model in
float64 with each text alone. Two things differ. A fused attention node that is missing is a warning, as the optimizer
finds its patterns or does not, family by family. And there is no int8 graph: ONNX Runtime's dynamic quantization takes
one scale for a whole batch, so that a text's score would move with the texts beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import Manifest, Source, Variant, sha256_of
from fusedbert.engine.artifact.gates import by_order
from fusedbert.engine.errors import CheckpointError, ExportError, MissingDependencyError
from fusedbert.engine.text.outputs import stated_function

# Before our own modules, which import torch and transformers: where optimum is missing, that is told at once.
try:
    from optimum.exporters.onnx import export
    from optimum.exporters.tasks import TasksManager
    from optimum.onnxruntime.utils import ORTConfigManager
except ModuleNotFoundError as error:
    package = "optimum-onnx" if (error.name or "optimum").startswith("optimum") else str(error.name)
    raise MissingDependencyError.of(package, "optimum", "export by way of optimum") from None
except ImportError as error:
    raise MissingDependencyError(
        f"optimum-onnx does not work with what is installed beside it ({error}); it wants transformers below 4.58: "
        'make an environment of its own with pip install "fusedbert[cpu,optimum]"'
    ) from None

from ..checkpoint.architecture import read_config, read_labels, read_problem_type
from ..checkpoint.source import Checkpoint
from ..checkpoint.weights import weight_files
from ..graph.lowering.cpu_fp32 import CpuFp32
from ..graph.lowering.cpu_int8 import CpuInt8
from ..graph.lowering.cpu_opsets import OPSETS
from ..graph.lowering.cuda_fp16 import CudaFp16
from ..metadata import provenance, requirements, versions, write_record
from ..parity.baseline import Progress
from ..parity.gates import CheckSet, check_set
from ..parity.order import golden_texts
from ..parity.texts import GOLDEN
from ..tokenizer.check import tell_notes
from ..tokenizer.tokenization import Tokenization
from ..variants import FusionWarning, judge, keep
from . import fusion
from . import transformers_model as foreign

TASK = "text-classification"
PACKAGES = ("optimum", "optimum-onnx", "transformers", "torch")
_OPSET = 17  # the first with LayerNormalization, which the optimizer fuses on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A graph that this route makes: its file, target and precision."""

    file: str
    target: str
    precision: str


RECIPES = (
    Recipe(file="onnx/model.onnx", target="cpu", precision="fp32"),
    Recipe(file="onnx/model_fp16.onnx", target="cuda", precision="fp16"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Foreign:
    """A checkpoint that optimum has exported, with the reference's answers to the check texts.

    Attributes:
        graph: The graph as torch wrote it.
        description: What the model is.
        problem_type: What its outputs mean.
        checks: The check texts.
        reference: Their logits, float64 ``[texts, labels]``.
        terms: What the logits are summed of is not known of every family; see ``order.noise``.
    """

    graph: Path
    description: foreign.Description
    problem_type: str
    checks: CheckSet
    reference: NDArray[np.float64]
    terms: None = None

    def in_float32(self) -> None:
        """Not computed: the model was let go of when its graph was written."""


def export_through_optimum(
    checkpoint: Checkpoint, stage: Path, *, target: str, required: bool, tell: Progress, settle: Callable[[Tokenization], None]
) -> Manifest:
    """Convert a checkpoint to an artifact.

    Args:
        checkpoint: Where it lies.
        stage: Empty folder for the artifact.
        target: ``all``, ``cpu``, ``cuda``, or ``fp32`` for the exact graph alone.
        required: Whether an fp16 graph that fails its gate fails the export; it is left out with a warning otherwise.
        tell: Called with each step's name as it begins.
        settle: Holds the tokenizer against transformers'.

    Returns:
        The artifact's manifest.

    Raises:
        CheckpointError: The checkpoint is incomplete, damaged, or of a family that optimum does not export.
        ExportError: optimum failed, or a graph did not pass its gate.
    """
    made_with = versions(*PACKAGES)
    tell(f"reading {checkpoint.id} with transformers {made_with['transformers']}")
    config, files = read_config(checkpoint.folder), weight_files(checkpoint.folder)
    problem_type = read_problem_type(config)
    refuse_unknown(str(config.get("model_type")))
    model = foreign.load(checkpoint.folder)
    labels = read_labels(config, model.config.num_labels)
    function = stated_function(config, problem_type, len(labels), CheckpointError)
    with tempfile.TemporaryDirectory(dir=stage) as scratch:  # beside the artifact, where there is room for it
        tell(f"exporting with optimum-onnx {made_with['optimum-onnx']}")
        graph = Path(scratch) / "model.onnx"
        description = foreign.describe(model, write_graph(model, graph))
        tokens = Tokenization(checkpoint.folder, description)
        tell_notes(tokens)
        recipes = [recipe for recipe in RECIPES if target in ("all", recipe.target, recipe.precision)]
        rounded, pairs = any(recipe.precision != "fp32" for recipe in recipes), by_order(problem_type, len(labels))
        checks = check_set(description, tokens, rounded=rounded, pairs=pairs)
        tell(f"computing the reference: {description.layers} layers in float64, {len(checks.texts)} texts")
        shown = tuple(filter(tokens.takes, GOLDEN))
        logits = foreign.forward(model, description, [*checks.texts, *tokens.encode_all(shown)])
        del model
        split = len(checks.texts)
        subject = Foreign(
            graph=graph, description=description, problem_type=problem_type, checks=checks, reference=logits[:split]
        )
        metadata = provenance(checkpoint, made_with)
        variants: list[Variant] = []
        for recipe in recipes:
            make = functools.partial(make_variant, subject, recipe, stage, metadata, tell)
            variants += keep(make, stage / recipe.file, required=required or recipe.precision == "fp32")
    settle(tokens)
    tell("writing the manifest")
    manifest = Manifest(
        source=Source(id=checkpoint.id, revision=checkpoint.revision, sha256={path.name: sha256_of(path) for path in files}),
        created_with=made_with,
        architecture=description.family,
        problem_type=problem_type,
        labels=labels,
        max_length=tokens.max_length,
        variants=tuple(variants),
        golden=golden_texts(shown, logits[split:], problem_type),
        function_to_apply=function,
        requires=requirements(variants, first_runtimes(variants)),
    )
    return write_record(stage, checkpoint, tokens, manifest)


def first_runtimes(variants: Iterable[Variant]) -> dict[str, str]:
    """Return the first ONNX Runtime for each graph: on the CPU that of its operator set, on CUDA that of our own graphs."""
    by_opset = {opset: about.onnxruntime for opset, about in OPSETS.items()}
    by_opset |= {lowering.opset: lowering.onnxruntime for lowering in (CpuFp32, CpuInt8)}
    newest = by_opset[max(by_opset)]
    return {v.file: CudaFp16.onnxruntime if v.target == "cuda" else by_opset.get(v.opset, newest) for v in variants}


def refuse_unknown(family: str) -> None:
    """Refuse a family that optimum does not export as a text classifier.

    Raises:
        CheckpointError: It is not among those.
    """
    known = sorted(name for name in TasksManager.get_supported_model_type_for_task(TASK, exporter="onnx"))
    if family not in known:
        raise CheckpointError(f"model_type is {family!r}, for {TASK} optimum exports {', '.join(known)}: use one of these")


def write_graph(model: Any, path: Path) -> tuple[str, ...]:
    """Write a model as ONNX.

    Args:
        model: A transformers model in float32.
        path: The file.

    Returns:
        The names of the graph's inputs.

    Raises:
        ExportError: optimum fails.
    """
    try:
        with fusion.quiet():
            make_config = TasksManager.get_exporter_config_constructor(
                "onnx", model=model, task=TASK, library_name="transformers"
            )
            config = make_config(model.config)
            inputs, _ = export(model, config, path, opset=max(config.DEFAULT_ONNX_OPSET, _OPSET))
    except Exception as error:  # torch, transformers and optimum each raise their own
        reason = " ".join(str(error).split())[:300]
        family = model.config.model_type
        raise ExportError(f"optimum cannot export this {family} model ({reason}): nothing was written") from None
    return tuple(inputs)


def optimizer_kind(family: str) -> str | None:
    """Return the name under which ONNX Runtime's optimizer knows a family, or None."""
    try:
        return str(ORTConfigManager.get_model_ort_type(family))
    except KeyError:
        return None


def make_variant(subject: Foreign, recipe: Recipe, stage: Path, metadata: Mapping[str, str], tell: Progress) -> Variant:
    """Fuse the graph for one target, write it, and hold it against the reference.

    Raises:
        ExportError: It does not pass its gate.
    """
    about, path = subject.description, stage / recipe.file
    tell(f"fusing {recipe.file}")
    kind = optimizer_kind(about.family)
    fused = fusion.fuse(subject.graph, kind, heads=about.heads, hidden_size=about.hidden_size, target=recipe.target)
    if recipe.precision == "fp16":
        fusion.to_float16(fused)
    fusion.save(fused.model, path, metadata)
    nodes, opset = fusion.count_nodes(fused.model), fusion.opset(fused.model)
    del fused
    attention = sum(nodes.get(op, 0) for op in fusion.ATTENTION)
    if attention < about.layers:
        found = f"the attention of {attention} of {about.layers} layers" if attention else "no attention"
        warnings.warn(f"{recipe.file}: ONNX Runtime's optimizer fused {found} ({about.family})", FusionWarning, stacklevel=2)
    parity = judge(path, recipe.precision, subject, about.padding_id, tell)
    return Variant(
        file=recipe.file,
        target=recipe.target,
        precision=recipe.precision,
        outputs=("logits",),
        opset=opset,
        nodes=nodes,
        fused_attention=attention,
        parity=dataclasses.replace(parity, reference=foreign.REFERENCE),
    )
