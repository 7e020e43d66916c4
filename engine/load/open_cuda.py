"""Opening an artifact's graphs on CUDA: placed, bound, verified, and the padded and the packed one beside each other."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from ..artifact import PACKED, PADDED, Manifest, Variant
from ..errors import ArtifactError, DeviceError, InferenceError
from ..hardware.device import CUDA, Choice
from ..run.cuda import placement
from ..run.cuda.graphs import CAPTURE_AT, ShapedSession
from ..run.cuda.lock import turn
from ..run.cuda.options import LIMIT, WEIGHTS_APART, CudaOptions, split, wants_graphs
from ..run.cuda.runners import PADDED_UP_TO, ChoosingRunner, PackedRunner, PaddedCudaRunner, PlainCudaRunner
from ..run.runner import Runner
from ..run.session import Session, open_session
from ..text.tokenizer import TextTokenizer
from .golden import WrongResultError, verify

R = TypeVar("R", bound=Runner, covariant=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened(Generic[R]):
    """Graphs on CUDA, ready to run.

    Attributes:
        session: The packed graph's where it works, else the padded one's.
        runner: What computes.
        layout: ``packed`` where a packed graph works, else ``padded``.
        why: What was chosen for which batches, and what was verified.
    """

    session: Session
    runner: R
    layout: str
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opener:
    """Opens graphs of one artifact on one device.

    Attributes:
        runtime: The onnxruntime module.
        folder: The artifact.
        manifest: Its manifest.
        tokenizer: Its tokenizer.
        choice: The device.
        session_options: The user's own.
    """

    runtime: ModuleType
    folder: Path
    manifest: Manifest
    tokenizer: TextTokenizer
    choice: Choice
    session_options: Any = None

    def open(self, variant: Variant) -> Opened[Runner]:
        """Open a graph, and its packed sibling where the artifact has one; replay the golden texts on each.

        Raises:
            DeviceError: CUDA does not engage, runs less than the whole graph, or computes something else.
            ArtifactError: The file is damaged.
            InferenceError: The graph failed.
        """
        if turn.inherited:
            raise DeviceError(
                f"process {os.getpid()} was forked from one that uses CUDA, which does not survive a fork: load the "
                "classifier only in the child, or start processes with multiprocessing's 'spawn'"
            )
        if not _whole(variant):
            # Made for another target: nodes of its own may stay on the CPU, so no fixed buffers and no CUDA graph.
            session = self._session(variant)
            plain = PlainCudaRunner(session=session, pad_id=self.tokenizer.pad_id)
            return Opened(session=session, runner=plain, layout=PADDED, why=self._verify(variant, plain))
        sibling = self.manifest.variant(target=variant.target, precision=variant.precision, layout=PACKED)
        if sibling is None:
            padded = self._padded(variant)
            return dataclasses.replace(padded, why=f"padded, the artifact has no packed graph; {padded.why}")
        try:
            padded = self._padded(variant)
        except (WrongResultError, InferenceError) as error:  # not where CUDA does not engage: it would not a second time
            # Its attention wants cuDNN, for one, and that of the packed graph does not.
            try:
                packed = self._packed(sibling)
            except (ArtifactError, DeviceError, InferenceError):
                raise error from None
            return dataclasses.replace(packed, why=f"packed, as the padded graph does not work here ({error}); {packed.why}")
        try:
            packed = self._packed(sibling)
        except (ArtifactError, DeviceError, InferenceError) as error:
            return dataclasses.replace(padded, why=f"padded, as the packed graph does not work here ({error}); {padded.why}")
        why = f"packed; padded where a large batch has at most {PADDED_UP_TO:.0%} padding; {packed.why}"
        runner = ChoosingRunner(padded=padded.runner, packed=packed.runner)
        return Opened(session=packed.session, runner=runner, layout=PACKED, why=why)

    def _padded(self, variant: Variant) -> Opened[PaddedCudaRunner]:
        session = self._session(variant)
        length = self.manifest.max_length
        runner = PaddedCudaRunner(shaped=self._shaped(session), pad_id=self.tokenizer.pad_id, max_length=length)
        return Opened(session=session, runner=runner, layout=PADDED, why=self._verify(variant, runner))

    def _packed(self, variant: Variant) -> Opened[PackedRunner]:
        session = self._session(variant)
        runner = PackedRunner(shaped=self._shaped(session), pad_id=self.tokenizer.pad_id)
        return Opened(session=session, runner=runner, layout=PACKED, why=self._verify(variant, runner))

    def _session(self, variant: Variant) -> Session:
        if not _whole(variant):
            return self._open(variant, graphs=False)
        try:
            session = self._open(variant, graphs=self._graphs)
        except (ArtifactError, DeviceError) as error:
            if not placement.refused(str(error)):
                raise
            # With CUDA graphs ONNX Runtime refuses a node on the CPU without naming it; without them, it can be asked.
            placement.require(placement.off_device(self._open(variant, graphs=False).raw, CUDA) or (), self.choice.device)
            raise
        placement.require(placement.off_device(session.raw, CUDA) or (), self.choice.device)
        return session

    def _open(self, variant: Variant, *, graphs: bool) -> Session:
        ours, rest = split(self.session_options)
        options = CudaOptions(device_id=self.choice.index, graphs=graphs, others=ours)
        given = placement.session_options(self.runtime, rest) if _whole(variant) else rest
        with turn:
            return open_session(
                self.runtime,
                self.folder / variant.file,
                self.choice,
                threads=1,  # nothing of a graph made for CUDA runs on the CPU
                # A limit holds for the arena, and should hold for the weights, too.
                session_options=given if LIMIT in ours else _weights_apart(given),
                provider_options=options.provider_options(),
            )

    @property
    def _graphs(self) -> bool:
        """Whether CUDA graphs may be captured: as the caller has it, and only where a replay reads what it should.

        Before 1.31 the sizes that a Concat copies to the GPU were read again at a replay, from memory that others had used
        since (https://github.com/microsoft/onnxruntime/pull/32121).
        """
        wanted = wants_graphs(split(self.session_options)[0])
        release = tuple(int(part) for part in self.runtime.__version__.split(".")[:2] if part.isdigit())
        return wanted and release >= (1, 31)

    def _shaped(self, session: Session) -> ShapedSession:
        labels = len(self.manifest.labels)
        return ShapedSession(self.runtime, session, labels=labels, index=self.choice.index, graphs=self._graphs)

    def _verify(self, variant: Variant, runner: Runner) -> str:
        """Replay the golden texts as often as it takes for their shapes to be captured and replayed, others in between."""
        for _ in range(CAPTURE_AT):
            verify(self.manifest, variant, self.tokenizer, runner, self.choice.device)
        return verify(self.manifest, variant, self.tokenizer, runner, self.choice.device)


def _weights_apart(given: Any) -> Any:
    """Add to a user's session options where the weights go; ``onnxruntime.SessionOptions`` are used as they are."""
    return {WEIGHTS_APART: "1", **(given or {})} if given is None or isinstance(given, Mapping) else given


def _whole(variant: Variant) -> bool:
    """Tell whether a graph has no reason to leave the GPU: made for it, and without arithmetic on shapes."""
    return variant.target == "cuda" and "Shape" not in variant.nodes
