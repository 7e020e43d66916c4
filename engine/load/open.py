"""Loading: from MODEL and options to an open graph, its tokenizer, and the reasons for every choice."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from .. import kernels as kernel_libraries
from ..artifact import MANIFEST, PADDED, Manifest
from ..artifact.foreign import looks_like_an_artifact, manifest_of
from ..artifact.verify import FileCheck, verdict_root
from ..errors import DeviceError, InferenceError, OptionError, shown
from ..hardware.cpu import Machine, inspect_machine
from ..hardware.cuda_errors import CUDA_PACKAGES, explain, loadable_cuda
from ..hardware.cuda_libraries import load_cuda_libraries
from ..hardware.device import CPU, CUDA, Choice, DeviceKind, choose, fall_back, import_onnxruntime, inspect_offer
from ..hardware.packages import installed
from ..hardware.storage import accessing
from ..run.cuda.provider import split_options
from ..run.runner import PaddedRunner, Runner
from ..run.session import Session, open_session
from ..text.tokenizer import TextTokenizer
from . import Options, Precision
from .golden import WrongResultError, verdict_path, verify_once
from .resolve import resolve_model
from .select import Selection, as_computed_on, kernels_for, saturation, select_after, select_variant


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """The runtime of a loaded model, and the reasons for it.

    Attributes:
        device: ``cpu`` or ``cuda:N``.
        provider: ONNX Runtime's execution provider.
        precision: ``fp32``, ``int8``, ``bf16`` or ``fp16``.
        file: The graph.
        fused_attention: Number of its fused attention nodes.
        threads: Threads of one run on the CPU.
        why: The reasons for device, precision, layout and threads, with figures.
        layout: ``padded``, or ``packed`` if the graph runs without padding.
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
    """An artifact without its graph, and the MODEL that led to it."""

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
        """Return the part that outlives ``Classifier.close``."""
        return Source(model=self.model, folder=self.folder, manifest=self.manifest, tokenizer=self.tokenizer)


@accessing("the model's folder")
def load(model: str | os.PathLike[str] | None, options: Options, *, ignore_verdicts: bool = False) -> Loaded:
    """Find MODEL, choose and open a graph, and verify its results; ``ignore_verdicts``: even if an earlier load did.

    Raises:
        FusedBertError: Any of its children.
    """
    runtime = import_onnxruntime()  # first: a missing wheel should not cost an export
    machine = inspect_machine()
    offer = inspect_offer(runtime)
    choice = choose(options.device, offer)
    folder = resolve_model(model, options, "all" if choice.provider == CUDA else "cpu")
    manifest = manifest_of(folder)
    if not manifest.verifiable and looks_like_an_artifact(folder, manifest):
        warnings.warn(
            f"{folder} looks like an artifact of fusedbert, and its {MANIFEST} is gone: no file is verified, and no graph is "
            f"chosen by its accuracy; copy {MANIFEST} from where the folder comes from, or export the checkpoint again",
            UserWarning,
            stacklevel=4,
        )
    root = verdict_root(options.cache_dir)
    with FileCheck(folder, manifest, root) as check:
        check.small_files()
        opener = _Opener(
            runtime=runtime,
            folder=folder,
            manifest=manifest,
            tokenizer=TextTokenizer.load(folder, _max_length(manifest, options)),
            machine=machine,
            options=options,
            check=check,
            root=None if ignore_verdicts else root,
        )
        choice = opener.cpu_if_only_there(choice)
        try:
            opened = opener.open(choice)
        except (DeviceError, InferenceError) as error:
            if options.device.kind is not DeviceKind.AUTO or choice.provider != CUDA:
                raise
            choice = fall_back(options.device, offer, str(error))
            opened = opener.open(choice)
        check.finish()
    variant, session = opened.selection.variant, opened.session
    threads = () if choice.provider == CUDA else (explain_threads(session.threads, options, machine),)
    if choice.surprising:
        warnings.warn(f"fusedbert runs on the {choice.why}", RuntimeWarning, stacklevel=4)  # from_pretrained's caller
    if opened.surprise:
        warnings.warn(opened.surprise, RuntimeWarning, stacklevel=4)
    return Loaded(
        model=model,
        folder=folder,
        manifest=manifest,
        tokenizer=opener.tokenizer,
        session=session,
        runner=opened.runner,
        runtime=Runtime(
            device=choice.device,
            provider=choice.provider,
            precision=variant.precision,
            file=session.file,
            fused_attention=variant.fused_attention,
            threads=session.threads,
            layout=opened.layout,
            why="; ".join((choice.why, opened.selection.why, *opened.why, *threads)),
        ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Opened:
    selection: Selection
    session: Session
    runner: Runner
    layout: str = PADDED
    why: tuple[str, ...] = ()
    surprise: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Opener:
    runtime: ModuleType
    folder: Path
    manifest: Manifest
    tokenizer: TextTokenizer
    machine: Machine
    options: Options
    check: FileCheck
    root: Path | None  # the cache for verdicts on golden texts

    def cpu_if_only_there(self, choice: Choice) -> Choice:
        """Turn "auto" from CUDA to the CPU if there is a graph only for the CPU."""
        if choice.provider != CUDA or self.options.device.kind is not DeviceKind.AUTO:
            return choice
        selected = {}
        for target in ("cuda", "cpu"):
            with contextlib.suppress(OptionError):
                selected[target] = self._select(target).variant.precision
        if "cuda" in selected or "cpu" not in selected:
            return choice
        return Choice(provider=CPU, why=f"CPU, because the artifact has no {selected['cpu']} graph for CUDA")

    def open(self, choice: Choice) -> _Opened:
        """Open the graph for a provider, and verify its results."""
        target = "cuda" if choice.provider == CUDA else "cpu"
        try:
            selection = self._select(target)
        except OptionError as error:
            if choice.surprising:  # there may be a graph for CUDA: the reason against CUDA matters
                raise OptionError(f"{error}; fusedbert runs on the {choice.why}") from None
            raise
        if target == "cuda":
            return self._on_cuda(choice, selection)
        try:
            return self._on_cpu(choice, selection)
        except WrongResultError as error:
            automatic = self.options.precision is Precision.AUTO
            other = select_after(self.manifest, selection, str(error)) if automatic else None
            if other is None:
                raise _with_way_out(error, selection, self.machine) from None
            surprise = f"fusedbert runs in fp32, not in {selection.variant.precision}: {error}"
        try:
            return dataclasses.replace(self._on_cpu(choice, other), surprise=surprise)
        except WrongResultError as error:
            raise _with_way_out(error, other, self.machine) from None

    def _select(self, target: str) -> Selection:
        bf16 = target == "cpu" and kernel_libraries.runs(kernel_libraries.Kernels.BF16, self.options.session_options)
        return select_variant(self.manifest, target=target, precision=self.options.precision, machine=self.machine, bf16=bf16)

    def _on_cpu(self, choice: Choice, selection: Selection) -> _Opened:
        variant, settings = selection.variant, self.options.session_options
        file = self.check.graph(variant)
        self.check.start_rest()
        _, session_options = split_options(settings)
        kernels = kernels_for(variant) if self.manifest.verifiable else None
        session = open_session(
            self.runtime,
            file,
            choice,
            threads=self.options.threads or self.machine.cores,
            session_options=session_options,
            kernels=kernels,
            minimum=self.manifest.requires.get(variant.file, {}).get("onnxruntime"),
        )
        runner = PaddedRunner(session=session, pad_id=self.tokenizer.pad_id)
        if not self.manifest.verifiable:
            return _Opened(selection=selection, session=session, runner=runner, why=(_UNVERIFIED,))
        path = None
        if self.root is not None:
            path = verdict_path(self.root, self.folder, variant, self.machine, self.runtime.__version__, settings)
        device = f"{variant.file} on this CPU ({self.machine.cpu})"
        judged = as_computed_on(self.machine, variant)
        why = [verify_once(self.manifest, judged, self.tokenizer, runner, device, path)]
        if kernels is not None:
            why.append(kernel_libraries.describe(kernels, session_options, self.machine.features, variant.nodes))
        return _Opened(selection=selection, session=session, runner=runner, why=tuple(why))

    def _on_cuda(self, choice: Choice, selection: Selection) -> _Opened:
        from .open_cuda import CudaOpener  # threads and buffers, which a start on the CPU does not need

        chosen = selection.variant
        for variant in self.manifest.variants:  # the graph, and its packed sibling
            if (variant.target, variant.precision) == (chosen.target, chosen.precision):
                self.check.graph(variant)
        self.check.start_rest()
        printed = load_cuda_libraries(self.runtime)
        opener = CudaOpener(
            runtime=self.runtime,
            folder=self.folder,
            manifest=self.manifest,
            tokenizer=self.tokenizer,
            choice=choice,
            session_options=self.options.session_options,
        )
        try:
            session, runner, layout, reason = opener.open(chosen)
        except DeviceError as error:
            cause = explain(printed, (*installed(CUDA_PACKAGES), *loadable_cuda()))
            raise DeviceError("; ".join(filter(None, (str(error), printed, cause)))) from error
        why = (reason,) if self.manifest.verifiable else (reason, _UNVERIFIED)
        return _Opened(selection=selection, session=session, runner=runner, layout=layout, why=why)


_UNVERIFIED = "nothing was verified: the folder has no fusedbert.json, it is another tool's export"


def _with_way_out(error: WrongResultError, selection: Selection, machine: Machine) -> WrongResultError:
    if known := saturation(selection.variant, machine):
        return WrongResultError(f"{error}; {known}: use precision='fp32'", error.difference, error.allowed)
    report = "report this CPU with the output of fusedbert doctor"
    way_out = f"use precision='fp32', and {report}" if selection.variant.precision == Precision.INT8 else report
    return WrongResultError(f"{error}: {way_out}", error.difference, error.allowed)


def explain_threads(threads: int, options: Options, machine: Machine) -> str:
    """Return the number of threads and its reason, for ``runtime.why``."""
    count = f"{threads} thread{'' if threads == 1 else 's'}"
    own = options.session_options
    chosen = own is not None and (not isinstance(own, Mapping) or "intra_op_num_threads" in own)
    if options.threads is not None or chosen:
        return f"{count} as asked for"
    quota = "" if machine.quota is None else f", CPU quota {machine.quota:g}"
    return f"{count} ({machine.physical} usable cores{quota})"


def _max_length(manifest: Manifest, options: Options) -> int:
    if options.max_length is None:
        return manifest.max_length
    if options.max_length > manifest.most_tokens:
        raise OptionError(f"max_length is {shown(options.max_length)}: the model takes up to {manifest.most_tokens} tokens")
    return options.max_length
