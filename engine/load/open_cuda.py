"""The opening of an artifact's graph on CUDA: the packed one, or the padded one where that does not work."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from ..artifact import PACKED, PADDED, Manifest, Variant
from ..errors import ArtifactError, DeviceError, InferenceError
from ..hardware.device import CUDA, Choice
from ..run.cuda import provider
from ..run.cuda.flash import attention_kernels
from ..run.cuda.graphs import CAPTURE_AT, GraphCache, cuda_lock
from ..run.cuda.runners import PackedRunner, PaddedCudaRunner, PaddedScoresRunner, PlainCudaRunner
from ..run.runner import Runner
from ..run.session import NOT_ENGAGED, Session, open_session, release
from ..text.tokenizer import TextTokenizer
from .golden import verify


@dataclasses.dataclass(frozen=True, kw_only=True)
class CudaOpener:
    """Opens graphs of one artifact on one device."""

    runtime: ModuleType
    folder: Path
    manifest: Manifest
    tokenizer: TextTokenizer
    choice: Choice
    session_options: Any = None

    def open(self, variant: Variant) -> tuple[Session, Runner, str, str]:
        """Open and verify a graph's packed sibling, or the graph itself where that does not work or there is none.

        Returns:
            Session, runner, layout, and the reason.

        Raises:
            DeviceError: CUDA does not engage, does not run the whole graph, or computes wrongly.
            ArtifactError: The file is damaged.
            InferenceError: The graph failed.
        """
        if cuda_lock.inherited:
            raise DeviceError(
                f"process {os.getpid()} was forked from one that uses CUDA, which does not survive a fork: load the "
                "classifier only in the child, or start processes with multiprocessing's 'spawn'"
            )
        sibling = self.manifest.variant(target=variant.target, precision=variant.precision, layout=PACKED)
        if sibling is None:
            session, runner, verified = self._open_itself(variant)
            return session, runner, PADDED, f"padded, as the artifact has no packed graph; {verified}"
        try:
            packed, verified = self.open_packed(sibling)
            return packed.graphs.session, packed, PACKED, f"packed; {verified}"
        except (ArtifactError, DeviceError, InferenceError) as error:
            found = str(error)  # without the error, which holds on to the packed graph's memory
        reason = f"the packed graph does not work here ({found})"
        try:
            session, runner, verified = self._open_itself(variant)
        except (DeviceError, InferenceError) as error:
            if str(error) == found or NOT_ENGAGED in str(error):  # by CUDA itself; the graph is not to blame
                raise
            raise DeviceError(f"{error}; {reason}") from error
        return session, runner, PADDED, f"padded, as {reason}; {verified}"

    def _open_itself(self, variant: Variant) -> tuple[Session, Runner, str]:
        """Open a padded graph, without fixed buffers and CUDA graphs if ONNX Runtime refuses these."""
        if variant.target == "cuda":
            try:
                padded, verified = self.open_padded(variant)
                return padded.graphs.session, padded, verified
            except (ArtifactError, DeviceError) as error:
                if _stays_on_gpu(variant) or provider.REFUSED not in str(error):
                    raise
        session = self._open(variant, graphs=False)
        plain = PlainCudaRunner(session=session, pad_id=self.tokenizer.pad_id)
        return session, plain, self._verify(variant, plain)

    def open_padded(self, variant: Variant) -> tuple[PaddedCudaRunner, str]:
        """Open a padded graph; return its runner and what was verified. Raises as ``open`` does."""
        length = self.manifest.most_tokens
        runner = PaddedCudaRunner(graphs=self._graph_cache(variant), pad_id=self.tokenizer.pad_id, max_length=length)
        return runner, self._verify(variant, runner)

    def open_packed(self, variant: Variant) -> tuple[PackedRunner, str]:
        """Open a packed graph; return its runner and what was verified. Raises as ``open`` does."""
        runner = packed_runner(variant, self._graph_cache(variant), self.tokenizer.pad_id)
        return runner, self._verify(variant, runner)

    def _graph_cache(self, variant: Variant) -> GraphCache:
        session, labels, by_token = self._session(variant), len(self.manifest.labels), self.manifest.by_token
        index, graphs = self.choice.index, self._wants_graphs
        return GraphCache(self.runtime, session, labels=labels, by_token=by_token, index=index, graphs=graphs)

    def _session(self, variant: Variant) -> Session:
        if not _stays_on_gpu(variant):  # sizes, which the CPU computes, are the same at every replay of a shape
            return self._open(variant, graphs=self._wants_graphs)
        try:
            session = self._open(variant, graphs=self._wants_graphs)
        except (ArtifactError, DeviceError) as error:
            if provider.REFUSED not in str(error):
                raise
            # With CUDA graphs ONNX Runtime refuses a node on the CPU without naming it; without them it can be asked.
            other = self._open(variant, graphs=False)
            provider.refuse_off_device(provider.off_device(other.raw, CUDA), self.choice.device)
            raise
        provider.refuse_off_device(provider.off_device(session.raw, CUDA), self.choice.device)
        return session

    def _open(self, variant: Variant, *, graphs: bool) -> Session:
        user, options = provider.split_options(self.session_options)
        if _stays_on_gpu(variant):
            options = provider.with_entries(options, provider.placement_record(self.runtime))
        if provider.LIMIT not in user:  # a limit applies to the arena, and should apply to the weights, too
            options = provider.with_entries(options, provider.WEIGHTS_APART)
        with cuda_lock, attention_kernels(self.choice.index, user, cudnn=_OF_CUDNN in variant.nodes):
            return open_session(
                self.runtime,
                self.folder / variant.file,
                self.choice,
                threads=1,  # of a graph made for CUDA at most sizes are computed on the CPU
                session_options=options,
                provider_options=provider.provider_options(self.choice.index, graphs=graphs, user=user),
            )

    @property
    def _wants_graphs(self) -> bool:
        # Before 1.31 a replay read the sizes that a Concat copies to the GPU from memory that had been reused since
        # (https://github.com/microsoft/onnxruntime/pull/32121).
        user, _ = provider.split_options(self.session_options)
        return provider.wants_graphs(user) and release(self.runtime.__version__) >= (1, 31)

    def _verify(self, variant: Variant, runner: Runner) -> str:
        """Replay the golden texts until their shapes have been captured and replayed, with others in between."""
        results = [verify(self.manifest, variant, self.tokenizer, runner, self.choice.device) for _ in range(CAPTURE_AT + 1)]
        return results[-1]


def packed_runner(variant: Variant, graphs: GraphCache, pad_id: int) -> PackedRunner:
    """Return the runner of a packed graph."""
    # Among packed graphs only those that lay texts out with padding, for the scores of positions, read a shape.
    kind = PackedRunner if _stays_on_gpu(variant) else PaddedScoresRunner
    return kind(graphs=graphs, pad_id=pad_id, block=graphs.session.block)


_OF_CUDNN = "com.microsoft:Attention"  # the operator that cuDNN computes faster than others do


def _stays_on_gpu(variant: Variant) -> bool:
    """Return whether a graph was made for CUDA, without arithmetic on shapes, which the CPU would run."""
    return variant.target == "cuda" and "Shape" not in variant.nodes
