"""From MODEL and options to what answers calls: manifest, tokenizer, session, and the account of how they were chosen."""

from __future__ import annotations

import dataclasses
import os
import warnings
from pathlib import Path
from types import ModuleType

from fusedbert.engine.artifact import PADDED, Manifest, Variant, inside, read_manifest
from fusedbert.engine.cuda.options import split
from fusedbert.engine.device import CUDA, Choice, choose, fall_back, import_onnxruntime, inspect_offer, load_cuda_libraries
from fusedbert.engine.diagnosis import CUDA_PACKAGES, explain
from fusedbert.engine.errors import ArtifactError, DeviceError, InferenceError, OptionError
from fusedbert.engine.installed import installed
from fusedbert.engine.machine import Machine, inspect_machine
from fusedbert.engine.options import DeviceKind, Options
from fusedbert.engine.resolve import resolve_model
from fusedbert.engine.runner import PaddedRunner, Runner
from fusedbert.engine.selection import Selection, select_variant
from fusedbert.engine.session import Session, open_session
from fusedbert.engine.tokenizer import TextTokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs, and why it was chosen.

    Attributes:
        device: ``cpu`` or ``cuda:N``.
        provider: ONNX Runtime's execution provider.
        precision: ``fp32``, ``int8`` or ``fp16``.
        file: The graph.
        fused_attention: Number of fused attention nodes in it.
        threads: Threads of one run on the CPU.
        why: The reasons for device, precision, layout and threads, with their figures.
        layout: ``padded``, or ``packed`` where a graph without padding takes the batches that would have much of it.
    """

    device: str
    provider: str
    precision: str
    file: Path
    fused_attention: int
    threads: int
    why: str
    layout: str = PADDED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """An artifact, the MODEL that it was found for, and what is small of it: all but the graph."""

    model: str | os.PathLike[str] | None
    folder: Path
    manifest: Manifest
    tokenizer: TextTokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded(Source):
    """An artifact, ready to run."""

    session: Session
    runner: Runner
    runtime: Runtime

    def without_graph(self) -> Source:
        """Return what outlives ``Classifier.close``, which lets the graph's memory go."""
        return Source(model=self.model, folder=self.folder, manifest=self.manifest, tokenizer=self.tokenizer)


def load(model: str | os.PathLike[str] | None, options: Options) -> Loaded:
    """Find MODEL, choose device and graph, and open them.

    Raises:
        FusedBertError: Any of its children; see the functions that this one calls.
    """
    runtime = import_onnxruntime()  # first: a missing wheel should not cost an export
    machine = inspect_machine()
    offer = inspect_offer(runtime)
    choice = choose(options.device, offer)
    folder = resolve_model(model, options, "all" if choice.provider == CUDA else "cpu")
    manifest = read_manifest(folder)
    tokenizer = TextTokenizer.load(folder, _max_length(manifest, options))
    try:
        parts = _open(runtime, folder, manifest, tokenizer, choice, machine, options)
    except (DeviceError, InferenceError) as error:
        if options.device.kind is not DeviceKind.AUTO or choice.provider != CUDA:
            raise
        choice = fall_back(options.device, offer, str(error))
        parts = _open(runtime, folder, manifest, tokenizer, choice, machine, options)
    selection, session = parts.selection, parts.session
    if choice.surprising:
        warnings.warn(f"fusedbert runs on the {choice.why}", RuntimeWarning, stacklevel=3)  # from_pretrained's caller
    return Loaded(
        model=model,
        folder=folder,
        manifest=manifest,
        tokenizer=tokenizer,
        session=session,
        runner=parts.runner,
        runtime=Runtime(
            device=choice.device,
            provider=choice.provider,
            precision=selection.variant.precision,
            file=session.file,
            fused_attention=selection.variant.fused_attention,
            threads=session.threads,
            layout=parts.layout,
            why="; ".join((choice.why, selection.why, *parts.why, explain_threads(session.threads, options, machine))),
        ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """A graph that is open: which, its session, what computes with it, and reasons to add."""

    selection: Selection
    session: Session
    runner: Runner
    layout: str = PADDED
    why: tuple[str, ...] = ()


def _open(
    runtime: ModuleType,
    folder: Path,
    manifest: Manifest,
    tokenizer: TextTokenizer,
    choice: Choice,
    machine: Machine,
    options: Options,
) -> _Parts:
    """Open the graph that fits a provider."""
    target = "cuda" if choice.provider == CUDA else "cpu"
    selection = select_variant(manifest, target=target, precision=options.precision, machine=machine)
    file = check_size(folder, manifest, selection.variant)
    if target == "cuda":
        return _open_on_cuda(runtime, folder, manifest, tokenizer, choice, selection, options)
    _, given = split(options.session_options)
    session = open_session(runtime, file, choice, threads=options.threads or machine.cores, session_options=given)
    return _Parts(selection=selection, session=session, runner=PaddedRunner(session=session, pad_id=tokenizer.pad_id))


def _open_on_cuda(
    runtime: ModuleType,
    folder: Path,
    manifest: Manifest,
    tokenizer: TextTokenizer,
    choice: Choice,
    selection: Selection,
    options: Options,
) -> _Parts:
    """Open on the GPU; CUDA's libraries are loaded first, and what that printed is kept for the reason."""
    from fusedbert.engine.cuda.opening import Opener  # threads and buffers that a start on the CPU does without

    printed = load_cuda_libraries(runtime)
    opener = Opener(
        runtime=runtime,
        folder=folder,
        manifest=manifest,
        tokenizer=tokenizer,
        choice=choice,
        session_options=options.session_options,
    )
    try:
        opened = opener.open(selection.variant)
    except DeviceError as error:
        reason = explain(printed, installed(CUDA_PACKAGES))
        raise DeviceError("; ".join(filter(None, (str(error), printed, reason)))) from error
    return _Parts(selection=selection, session=opened.session, runner=opened.runner, layout=opened.layout, why=(opened.why,))


def check_size(folder: Path, manifest: Manifest, variant: Variant) -> Path:
    """Return a graph's path after comparing its size with the manifest's: a copy that broke off is caught at no cost.

    Raises:
        ArtifactError: The file is missing, or of another size.
    """
    file = inside(folder, variant.file)
    entry = manifest.files.get(variant.file)
    if not file.is_file():
        raise ArtifactError(f"{file} is missing: export the checkpoint again")
    if entry is not None and file.stat().st_size != entry["bytes"]:
        raise ArtifactError(
            f"{file} has {file.stat().st_size} bytes, the manifest says {entry['bytes']}: copy or export it again"
        )
    return file


def explain_threads(threads: int, options: Options, machine: Machine) -> str:
    """Say where the number of threads comes from."""
    if options.threads is not None or options.session_options is not None:
        return f"{threads} threads as asked for"
    quota = "" if machine.quota is None else f", CPU quota {machine.quota:g}"
    return f"{threads} threads ({machine.physical} cores in reach{quota})"


def _max_length(manifest: Manifest, options: Options) -> int:
    if options.max_length is None:
        return manifest.max_length
    if options.max_length > manifest.max_length:
        raise OptionError(f"max_length is {options.max_length}: the model takes up to {manifest.max_length} tokens")
    return options.max_length
