"""What else runs a BERT on this GPU, each in a process of its own, where torch has a GPU.

They are transformers in fp16 with sdpa, the same compiled by torch, and the graph that optimum's O4 makes.
``python -m fusedbert.bench.gpu_peers NAME`` reads a job from stdin and writes what it measured to stdout, both JSON.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import FusedBertError

from .gpu_o4 import open_o4
from .stats.timing import sample, warm_up

TRANSFORMERS, COMPILED, O4 = "transformers", "torch_compile", "optimum_o4"
PEERS = (TRANSFORMERS, O4, COMPILED)  # the one that takes longest to prepare comes last
BATCHES = (64, 256)  # of texts, tried for the throughput; the better one counts
PASSES = 3

Run = Callable[[NDArray[np.int64]], NDArray[np.float32]]  # ids [batch, tokens] -> logits [batch, labels] on the host


class PeerError(FusedBertError, RuntimeError):
    """A peer could not be measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a peer is to do.

    Attributes:
        checkpoint: Folder of the model.
        device: ``cuda``, or ``cpu`` in a dry run.
        shapes: Batches of random ids to time, texts x tokens.
        seconds: For each of them.
        texts: To score from the string on, sorted by length; none, where that is not asked for.
        vocabulary: Ids are drawn below it.
    """

    checkpoint: str
    device: str
    shapes: Sequence[tuple[int, int]]
    seconds: float
    texts: Sequence[str]
    vocabulary: int


def why_not(device: str) -> str | None:
    """Say why the peers cannot be measured on ``cuda`` or ``cpu``, or None where they can."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    return "torch sees no GPU" if device == "cuda" and not torch.cuda.is_available() else None


def measure(name: str, job: Job, *, timeout: float) -> dict[str, Any]:
    """Measure a peer in a process of its own.

    Args:
        name: One of ``PEERS``.
        job: What to do.
        timeout: Seconds after which it is ended.

    Returns:
        ``latency_ms`` by shape, and ``texts_per_s`` where texts were given.

    Raises:
        PeerError: It failed, or was ended; the message has its last line.
    """
    command = [sys.executable, "-m", "fusedbert.bench.gpu_peers", name]
    try:
        done = subprocess.run(
            command, input=json.dumps(dataclasses.asdict(job)), capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"{name} was ended after {timeout:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise PeerError(f"{name} failed: {last[:300]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def latency_ms(run: Run, batch: int, tokens: int, vocabulary: int, most_seconds: float) -> float:
    """Time batches of random ids to logits on the host; the median, in milliseconds."""
    rng = np.random.default_rng(0)

    def once() -> float:
        ids = rng.integers(5, vocabulary, size=(batch, tokens))
        begun = perf_counter()
        run(ids)
        return perf_counter() - begun

    once()  # compiles, captures
    warm_up(once, cap=most_seconds / 2)
    return 1e3 * float(np.median(sample(once, least_samples=20, least_seconds=most_seconds / 4, most_seconds=most_seconds)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transformers:
    """A checkpoint in transformers: fp16 (fp32 in a dry run), sdpa.

    Attributes:
        model: The module, on ``device``.
        tokenizer: Its tokenizer.
        device: ``cuda``, or ``cpu`` in a dry run.
    """

    model: Any
    tokenizer: Any
    device: str

    @classmethod
    def load(cls, checkpoint: Path, device: str) -> Transformers:
        """Load from a folder."""
        import torch
        from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

        dtype = torch.float16 if device == "cuda" else torch.float32
        model = BertForSequenceClassification.from_pretrained(checkpoint, dtype=dtype, attn_implementation="sdpa")
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"), pad_token="[PAD]")
        return cls(model=model.eval().to(device), tokenizer=tokenizer, device=device)

    def ids_to_logits(self, *, compiled: bool) -> Run:
        """Return what runs a batch of ids without padding."""
        import torch

        model = torch.compile(self.model, mode="reduce-overhead") if compiled else self.model

        def run(ids: NDArray[np.int64]) -> NDArray[np.float32]:
            there = torch.from_numpy(ids)
            with torch.inference_mode():
                found = model(input_ids=there.to(self.device), attention_mask=torch.ones_like(there).to(self.device)).logits
                logits: NDArray[np.float32] = found.float().cpu().numpy()
                return logits

        return run

    def texts_per_second(self, texts: Sequence[str], *, max_length: int) -> float:
        """Score texts sorted by length from the string on; the best batch size's best pass."""
        return max(self._rate(texts, max_length, batch) for batch in BATCHES)

    def _rate(self, texts: Sequence[str], max_length: int, batch: int) -> float:
        import torch

        rates = []
        for _ in range(1 + PASSES):
            begun = perf_counter()
            ordered = sorted(texts, key=len)
            with torch.inference_mode():
                for start in range(0, len(ordered), batch):
                    encoded = self.tokenizer(
                        ordered[start : start + batch],
                        padding=True,
                        truncation=True,
                        max_length=max_length,
                        return_tensors="pt",
                    ).to(self.device)
                    self.model(**encoded).logits.float().cpu()
            rates.append(len(texts) / (perf_counter() - begun))
        return max(rates[1:])


def work(name: str, job: Job) -> dict[str, Any]:
    """Do a job here; returns what ``measure`` does."""
    found: dict[str, Any] = {}
    if name == O4:
        run = open_o4(Path(job.checkpoint), job.device)
    else:
        peer = Transformers.load(Path(job.checkpoint), job.device)
        run = peer.ids_to_logits(compiled=name == COMPILED)
        if job.texts:
            found["texts_per_s"] = peer.texts_per_second(job.texts, max_length=512)
    found["latency_ms"] = {
        f"{batch}x{tokens}": latency_ms(run, batch, tokens, job.vocabulary, job.seconds) for batch, tokens in job.shapes
    }
    return found


if __name__ == "__main__":
    print(json.dumps(work(sys.argv[1], Job(**json.load(sys.stdin)))))
