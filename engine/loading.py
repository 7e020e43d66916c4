"""From MODEL and options to what answers calls: manifest, tokenizer, session, and the account of how they were chosen."""

from __future__ import annotations

import dataclasses
import os
import warnings
from pathlib import Path
from types import ModuleType

from fusedbert.engine.artifact import Manifest, Variant, inside, read_manifest
from fusedbert.engine.device import CUDA, Choice, choose, fall_back, import_onnxruntime, inspect_offer, load_cuda_libraries
from fusedbert.engine.errors import ArtifactError, DeviceError, OptionError
from fusedbert.engine.machine import Machine, inspect_machine
from fusedbert.engine.options import DeviceKind, Options
from fusedbert.engine.resolve import resolve_model
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
        why: The reasons for device, precision and threads, with their figures.
    """

    device: str
    provider: str
    precision: str
    file: Path
    fused_attention: int
    threads: int
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """An artifact, ready to run."""

    folder: Path
    manifest: Manifest
    tokenizer: TextTokenizer
    session: Session
    runtime: Runtime


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
        choice, selection, session = _open(runtime, folder, manifest, choice, machine, options)
    except DeviceError as error:
        if options.device.kind is not DeviceKind.AUTO or choice.provider != CUDA:
            raise
        choice = fall_back(options.device, offer, str(error))
        choice, selection, session = _open(runtime, folder, manifest, choice, machine, options)
    if choice.surprising:
        warnings.warn(f"fusedbert runs on the {choice.why}", RuntimeWarning, stacklevel=3)  # from_pretrained's caller
    return Loaded(
        folder=folder,
        manifest=manifest,
        tokenizer=tokenizer,
        session=session,
        runtime=Runtime(
            device=choice.device,
            provider=choice.provider,
            precision=selection.variant.precision,
            file=session.file,
            fused_attention=selection.variant.fused_attention,
            threads=session.threads,
            why=f"{choice.why}; {selection.why}; {explain_threads(session.threads, options, machine)}",
        ),
    )


def _open(
    runtime: ModuleType, folder: Path, manifest: Manifest, choice: Choice, machine: Machine, options: Options
) -> tuple[Choice, Selection, Session]:
    """Open the graph that fits a provider; CUDA's libraries are loaded first, and what that printed kept for the reason."""
    target = "cuda" if choice.provider == CUDA else "cpu"
    selection = select_variant(manifest, target=target, precision=options.precision, machine=machine)
    file = check_size(folder, manifest, selection.variant)
    printed = load_cuda_libraries(runtime) if target == "cuda" else ""
    try:
        session = open_session(
            runtime, file, choice, threads=options.threads or machine.cores, session_options=options.session_options
        )
    except DeviceError as error:
        raise DeviceError(f"{error}; {printed}" if printed else str(error)) from error
    return choice, selection, session


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
