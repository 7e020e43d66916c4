"""From MODEL and options to what answers calls: manifest, tokenizer, session, and the account of how they were chosen."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from pathlib import Path
from types import ModuleType

from .. import kernels as native
from ..artifact import PADDED, Manifest
from ..artifact.foreign import read_manifest
from ..artifact.verify import FileCheck, verdict_root
from ..errors import DeviceError, InferenceError, OptionError
from ..hardware.cpu import Machine, inspect_machine
from ..hardware.cuda_errors import CUDA_PACKAGES, explain, loadable_cuda
from ..hardware.device import CPU, CUDA, Choice, choose, fall_back, import_onnxruntime, inspect_offer, load_cuda_libraries
from ..hardware.packages import installed
from ..options import DeviceKind, Options, Precision
from ..run.cuda.options import split
from ..run.runner import PaddedRunner, Runner
from ..run.session import Session, open_session
from ..text.tokenizer import TextTokenizer
from .golden import Memory, WrongResultError, verify_once
from .resolve import resolve_model
from .select import Selection, select_after, select_variant


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


def load(model: str | os.PathLike[str] | None, options: Options, *, anew: bool = False) -> Loaded:
    """Find MODEL, choose device and graph, verify its files, open them, and see that they compute what they should.

    Args:
        model: What ``Classifier.from_pretrained`` is given.
        options: Its options.
        anew: Whether to replay the golden texts even where an earlier load on this machine did.

    Raises:
        FusedBertError: Any of its children; see the functions that this one calls.
    """
    runtime = import_onnxruntime()  # first: a missing wheel should not cost an export
    machine = inspect_machine()
    offer = inspect_offer(runtime)
    choice = choose(options.device, offer)
    folder = resolve_model(model, options, "all" if choice.provider == CUDA else "cpu")
    manifest = read_manifest(folder)
    root = verdict_root(options.cache_dir)
    with FileCheck(folder, manifest, root) as check:
        check.small_files()
        opening = _Opening(
            runtime=runtime,
            folder=folder,
            manifest=manifest,
            tokenizer=TextTokenizer.load(folder, _max_length(manifest, options)),
            machine=machine,
            options=options,
            check=check,
            memory=Memory(
                root=None if anew else root,
                folder=folder,
                machine=machine,
                engine=runtime.__version__,
                settings=options.session_options,
            ),
        )
        choice = opening.settle(choice)
        try:
            parts = opening.open(choice)
        except (DeviceError, InferenceError) as error:
            if options.device.kind is not DeviceKind.AUTO or choice.provider != CUDA:
                raise
            choice = fall_back(options.device, offer, str(error))
            parts = opening.open(choice)
        check.finish()
    selection, session = parts.selection, parts.session
    threads = () if choice.provider == CUDA else (explain_threads(session.threads, options, machine),)
    if choice.surprising:
        warnings.warn(f"fusedbert runs on the {choice.why}", RuntimeWarning, stacklevel=3)  # from_pretrained's caller
    if parts.surprise:
        warnings.warn(parts.surprise, RuntimeWarning, stacklevel=3)
    return Loaded(
        model=model,
        folder=folder,
        manifest=manifest,
        tokenizer=opening.tokenizer,
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
            why="; ".join((choice.why, selection.why, *parts.why, *threads)),
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
    surprise: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Opening:
    """What opening a graph needs, whatever the provider."""

    runtime: ModuleType
    folder: Path
    manifest: Manifest
    tokenizer: TextTokenizer
    machine: Machine
    options: Options
    check: FileCheck
    memory: Memory

    def settle(self, choice: Choice) -> Choice:
        """Leave CUDA for the CPU where the device is ours to choose, and the CPU alone has a graph of the precision."""
        if choice.provider != CUDA or self.options.device.kind is not DeviceKind.AUTO:
            return choice
        found = {}
        for target in ("cuda", "cpu"):
            with contextlib.suppress(OptionError):
                precision = self.options.precision
                found[target] = select_variant(self.manifest, target=target, precision=precision, machine=self.machine)
        if "cuda" in found or "cpu" not in found:
            return choice
        kind = found["cpu"].variant.precision
        return Choice(provider=CPU, why=f"CPU, because there is no graph for CUDA that could take the place of the {kind} one")

    def open(self, choice: Choice) -> _Parts:
        """Open the graph that fits a provider, and see that it computes what it should."""
        target = "cuda" if choice.provider == CUDA else "cpu"
        precision = self.options.precision
        try:
            selection = select_variant(self.manifest, target=target, precision=precision, machine=self.machine)
        except OptionError as error:
            if choice.surprising:  # a graph for CUDA may be there: what keeps it from being used is the matter
                raise OptionError(f"{error}; fusedbert runs on the {choice.why}") from None
            raise
        if target == "cuda":
            return self._on_cuda(choice, selection)
        try:
            return self._on_cpu(choice, selection)
        except WrongResultError as error:
            other = select_after(self.manifest, selection, str(error)) if precision is Precision.AUTO else None
            if other is None:
                raise _with_way_out(error, selection) from None
            surprise = f"fusedbert runs in fp32, not in int8: {error}"
        try:
            return dataclasses.replace(self._on_cpu(choice, other), surprise=surprise)
        except WrongResultError as error:
            raise _with_way_out(error, other) from None

    def _on_cpu(self, choice: Choice, selection: Selection) -> _Parts:
        file = self.check.graph(selection.variant)
        self.check.rest_meanwhile()
        _, given = split(self.options.session_options)
        threads = self.options.threads or self.machine.cores
        kernels = native.kernels_for(selection.variant) if self.manifest.verifiable else None
        session = open_session(
            self.runtime,
            file,
            choice,
            threads=threads,
            session_options=given,
            kernels=kernels,
            least=self.manifest.requires.get(selection.variant.file, {}).get("onnxruntime"),
        )
        runner = PaddedRunner(session=session, pad_id=self.tokenizer.pad_id)
        why = [_UNVERIFIED]
        if self.manifest.verifiable:
            why = [verify_once(self.manifest, selection.variant, self.tokenizer, runner, self.memory)]
        if kernels is not None:
            why.append(native.describe(kernels, given))
        return _Parts(selection=selection, session=session, runner=runner, why=tuple(why))

    def _on_cuda(self, choice: Choice, selection: Selection) -> _Parts:
        """Open on the GPU; CUDA's libraries are loaded first, and what that printed is kept for the reason."""
        from .open_cuda import Opener  # threads and buffers that a start on the CPU does without

        for variant in self.manifest.variants:  # the graph, and its packed sibling
            if (variant.target, variant.precision) == (selection.variant.target, selection.variant.precision):
                self.check.graph(variant)
        self.check.rest_meanwhile()
        printed = load_cuda_libraries(self.runtime)
        opener = Opener(
            runtime=self.runtime,
            folder=self.folder,
            manifest=self.manifest,
            tokenizer=self.tokenizer,
            choice=choice,
            session_options=self.options.session_options,
        )
        try:
            opened = opener.open(selection.variant)
        except DeviceError as error:
            reason = explain(printed, (*installed(CUDA_PACKAGES), *loadable_cuda()))
            raise DeviceError("; ".join(filter(None, (str(error), printed, reason)))) from error
        why = (opened.why,) if self.manifest.verifiable else (opened.why, _UNVERIFIED)
        return _Parts(selection=selection, session=opened.session, runner=opened.runner, layout=opened.layout, why=why)


_UNVERIFIED = "nothing was verified: the folder has no fusedbert.json, it is another tool's export"


def _with_way_out(error: WrongResultError, selection: Selection) -> WrongResultError:
    report = "report this CPU with what fusedbert doctor prints"
    way_out = f"use precision='fp32', and {report}" if selection.variant.precision == Precision.INT8 else report
    return WrongResultError(f"{error}: {way_out}", error.difference, error.allowed)


def explain_threads(threads: int, options: Options, machine: Machine) -> str:
    """Say where the number of threads comes from."""
    said = f"{threads} thread" if threads == 1 else f"{threads} threads"
    if options.threads is not None or options.session_options is not None:
        return f"{said} as asked for"
    quota = "" if machine.quota is None else f", CPU quota {machine.quota:g}"
    return f"{said} ({machine.physical} cores in reach{quota})"


def _max_length(manifest: Manifest, options: Options) -> int:
    if options.max_length is None:
        return manifest.max_length
    if options.max_length > manifest.max_length:
        raise OptionError(f"max_length is {options.max_length}: the model takes up to {manifest.max_length} tokens")
    return options.max_length
