"""The engine as ``gpu_check`` measures it: the padded and the packed graph each by itself, and the one that chooses.

Without a GPU the same parts are put together on the CPU provider, with the packed graph's stand-in: nothing that is timed
so means anything, but every line of the check has run before it meets a GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from fusedbert.engine.artifact import PACKED, read_manifest
from fusedbert.engine.errors import ArtifactError, DeviceError
from fusedbert.engine.hardware.device import CPU, CUDA, Choice, import_onnxruntime
from fusedbert.engine.load.open import load
from fusedbert.engine.options import Options
from fusedbert.engine.run.cuda.graphs import ShapedSession
from fusedbert.engine.run.cuda.placement import RECORD
from fusedbert.engine.run.cuda.runners import ChoosingRunner, PackedRunner, PaddedCudaRunner
from fusedbert.engine.run.plan import plan
from fusedbert.engine.run.prefetch import ahead
from fusedbert.engine.run.runner import Prepared, Runner
from fusedbert.engine.run.session import open_session
from fusedbert.engine.text.inputs import check_items
from fusedbert.engine.text.tokenizer import Row, TextTokenizer

from .engines.batches import Vocabulary, read_vocabulary
from .stats.timing import sample, warm_up

PLAIN = 32  # texts of a plain batch: in the order they come, padded to the longest


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuEngine:
    """An artifact's graphs for CUDA, open.

    Attributes:
        runner: Chooses between the two; ``runner.padded`` and ``runner.packed`` are the graphs by themselves.
        tokenizer: The artifact's.
        vocabulary: Its word pieces, to draw random texts from.
        provider: Where the nodes are expected.
    """

    runner: ChoosingRunner
    tokenizer: TextTokenizer
    vocabulary: Vocabulary
    provider: str

    @classmethod
    def open(cls, folder: Path, *, on_cpu: bool) -> GpuEngine:
        """Open an artifact on the first GPU, or its stand-ins on the CPU.

        Raises:
            DeviceError: CUDA does not engage, or the packed graph does not work there; the message says why.
        """
        runner = _on_cpu(folder) if on_cpu else _on_cuda(folder)
        manifest = read_manifest(folder)
        return cls(
            runner=runner,
            tokenizer=TextTokenizer.load(folder, manifest.max_length),
            vocabulary=read_vocabulary(folder),
            provider=CPU if on_cpu else CUDA,
        )

    def attention_nodes(self) -> int | None:
        """Count the attention nodes on the device, of the graph that has fewer there; None where nobody tells."""
        counts = []
        for part in (self.runner.padded, self.runner.packed):
            try:
                assigned = part.shaped.session.raw.get_provider_graph_assignment_info()
            except Exception:  # an ONNX Runtime that does not record it
                return None
            nodes = [node for each in assigned if each.ep_name == self.provider for node in each.get_nodes()]
            counts.append(sum("Attention" in node.op_type for node in nodes))
        return min(counts)

    def random_rows(self, texts: int, tokens: int, rng: np.random.Generator) -> list[Row]:
        """Draw texts of random word pieces between [CLS] and [SEP], all of one length."""
        ids = rng.choice(self.vocabulary.ordinary, size=(texts, tokens))  # [texts, tokens]
        ids[:, 0], ids[:, -1] = self.vocabulary.first, self.vocabulary.last
        return [Row(ids=row, types=[0] * tokens, truncated=False) for row in ids.tolist()]


def _on_cuda(folder: Path) -> ChoosingRunner:
    loaded = load(folder, Options.parse(device="cuda"))
    if not isinstance(loaded.runner, ChoosingRunner):
        raise DeviceError(f"{folder} runs without its packed graph: {loaded.runtime.why}")
    return loaded.runner


def _on_cpu(folder: Path) -> ChoosingRunner:
    runtime, manifest = import_onnxruntime(), read_manifest(folder)
    pad_id = TextTokenizer.load(folder, manifest.max_length).pad_id
    shaped = []
    for layout in ("padded", PACKED):
        variant = manifest.variant(target="cuda", precision="fp16", layout=layout)
        if variant is None:
            raise ArtifactError(f"{folder} has no {layout} graph for CUDA: export it with --for all")
        choice = Choice(provider=CPU, why="a dry run")
        session = open_session(runtime, folder / variant.file, choice, threads=2, session_options={RECORD: "1"})
        labels = len(manifest.labels)
        shaped.append(ShapedSession(runtime, session, labels=labels, device="cpu", graphs=True, pin=lambda *_: None))
    padded = PaddedCudaRunner(shaped=shaped[0], pad_id=pad_id, max_length=manifest.max_length)
    return ChoosingRunner(padded=padded, packed=PackedRunner(shaped=shaped[1], pad_id=pad_id))


def latency_from_ids(engine: GpuEngine, runner: Runner, tokens: int, *, most_seconds: float) -> float:
    """Time one text from token ids to logits on the host: the median, in milliseconds.

    Args:
        engine: Draws the ids.
        runner: What computes: the engine's, or one of its two graphs.
        tokens: Length of the text.
        most_seconds: When to stop.
    """
    rng = np.random.default_rng(0)

    def run() -> float:
        rows = engine.random_rows(1, tokens, rng)
        begun = perf_counter()
        runner.execute(runner.prepare(rows))
        return perf_counter() - begun

    return _median_ms(run, most_seconds)


def latency_from_text(engine: GpuEngine, tokens: int, texts: Sequence[str], *, most_seconds: float) -> float:
    """Time one text from the string to logits on the host, cut to ``tokens``: the median, in milliseconds."""
    tokenizer = dataclasses.replace(engine.tokenizer, max_length=tokens)
    rng = np.random.default_rng(0)

    def run() -> float:
        items = check_items([" ".join(rng.choice(texts, size=1 + tokens // 8).tolist())])
        begun = perf_counter()
        engine.runner.execute(engine.runner.prepare(tokenizer.encode(items)))
        return perf_counter() - begun

    return _median_ms(run, most_seconds)


def _median_ms(run: object, most_seconds: float) -> float:
    assert callable(run)
    warm_up(run, cap=most_seconds / 2)
    return 1e3 * float(np.median(sample(run, least_samples=50, least_seconds=most_seconds / 4, most_seconds=most_seconds / 2)))


def sequences_per_second(engine: GpuEngine, batch: int, tokens: int, *, seconds: float) -> float:
    """Run equal batches for some time, the next one laid out while one runs; return texts per second."""
    rng = np.random.default_rng(0)
    drawn = [engine.random_rows(batch, tokens, rng) for _ in range(4)]
    runner = engine.runner

    def batches() -> Iterator[Prepared]:
        while True:
            for rows in drawn:
                yield runner.prepare(rows)

    source = ahead(batches())
    for _ in range(3):  # buffers, and cuBLAS's choice of kernels
        runner.execute(next(source))  # type: ignore[arg-type]
    begun, done = perf_counter(), 0
    while (spent := perf_counter() - begun) < seconds or not done:
        runner.execute(next(source))  # type: ignore[arg-type]
        done += batch
    source.close()
    return done / spent


def texts_per_second(engine: GpuEngine, runner: Runner, texts: Sequence[str], *, plain: bool = False, passes: int = 3) -> float:
    """Score texts from the string on, tokenizing ahead; the best of some passes after one that warms up.

    Args:
        engine: The tokenizer's.
        runner: What computes.
        texts: The texts.
        plain: Whether batches are ``PLAIN`` texts as they come, and not planned by length.
        passes: Passes that count.
    """

    def batches() -> Iterator[Prepared]:
        for start in range(0, len(texts), runner.window):
            rows = engine.tokenizer.encode(check_items(texts[start : start + runner.window]))
            planned = (range(i, min(i + PLAIN, len(rows))) for i in range(0, len(rows), PLAIN))
            for batch in planned if plain else plan([len(row.ids) for row in rows], runner.budget):
                yield runner.prepare([rows[i] for i in batch])

    rates = []
    for _ in range(1 + passes):
        begun = perf_counter()
        for prepared in ahead(batches()):
            runner.execute(prepared)
        rates.append(len(texts) / (perf_counter() - begun))
    return max(rates[1:])
