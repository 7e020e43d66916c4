"""What else runs a BERT on this GPU: transformers in fp16 with sdpa, as it is and compiled. Where torch has a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from fusedbert.bench.timing import sample, warm_up


def why_not(device: str) -> str | None:
    """Say why the peers cannot be measured on ``cuda`` or ``cpu``, or None where they can."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    return "torch sees no GPU" if device == "cuda" and not torch.cuda.is_available() else None


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

    def texts_per_second(self, texts: Sequence[str], *, max_length: int, batches: Sequence[int], passes: int = 3) -> float:
        """Score texts sorted by length from the string on; the best batch size's best pass."""
        return max(self._rate(texts, max_length, batch, passes) for batch in batches)

    def _rate(self, texts: Sequence[str], max_length: int, batch: int, passes: int) -> float:
        import torch

        rates = []
        for _ in range(1 + passes):
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

    def latency_ms(self, batch: int, tokens: int, vocabulary: int, *, compiled: bool, most_seconds: float) -> float:
        """Time a batch of random ids to logits on the host; the median, in milliseconds."""
        import torch

        model = torch.compile(self.model, mode="reduce-overhead") if compiled else self.model
        rng = np.random.default_rng(0)

        def run() -> float:
            ids = torch.from_numpy(rng.integers(5, vocabulary, size=(batch, tokens)))
            begun = perf_counter()
            with torch.inference_mode():
                model(input_ids=ids.to(self.device), attention_mask=torch.ones_like(ids).to(self.device)).logits.float().cpu()
            return perf_counter() - begun

        run()  # compiles
        warm_up(run, cap=most_seconds / 2)
        return 1e3 * float(np.median(sample(run, least_samples=20, least_seconds=most_seconds / 4, most_seconds=most_seconds)))
