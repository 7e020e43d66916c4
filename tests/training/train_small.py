"""Train a small ModernBERT or DeBERTa on labelled sentences, a fusedbert model being the teacher: to prove exports with.

    python tests/training/train_small.py train.tsv FOLDER --family deberta --held-out dev.tsv test.tsv

Random weights do not show what rounding to int8 costs; trained ones do. The model has its family's parts at a small size
(``small_models``). The teacher labels parts of sentences and joined ones, so that texts longer than a window, and far
positions, are seen too (distillation: Hinton et al. 2015). FOLDER is written as transformers saves it. It needs torch,
transformers and fusedbert.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_models import FAMILIES, LABELS
from training_texts import Sentence, draw_views, plain, read_sentences

from fusedbert.engine import Classifier

MOST_TOKENS = 256  # of a training text; longer ones are cut
BATCH_TOKENS = 2048  # of a batch, padding included
SHUFFLED = 4096  # texts that are sorted by length together, so that batches have little padding
WARM_UP, DECAY, CLIP = 0.06, 0.01, 1.0
TEACHER_SHARE = 0.5  # of the target of a sentence with a label; a view without one has only the teacher's
Rows = list[tuple[list[int], np.ndarray]]  # token ids and target [labels] of each text


def main() -> None:
    """Train, measure on what was held out, and write the model."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    held_out = {path: read_sentences(path) for path in options.held_out}
    hidden = {plain(each.text) for sentences in held_out.values() for each in sentences}
    given = read_sentences(options.data)
    sentences = [each for each in given if plain(each.text) not in hidden]
    print(f"{len(sentences)} sentences, {len(given) - len(sentences)} left out because they are held out", flush=True)
    family = FAMILIES[options.family]
    tokenizer = family.train_tokenizer([each.text for each in sentences], options.seed)
    model = family.make_model(tokenizer)
    print(f"{sum(each.numel() for each in model.parameters())} weights, {len(tokenizer)} tokens", flush=True)
    started = time.monotonic()
    with Classifier.from_pretrained(options.teacher, device="cpu", threads=options.threads) as teacher:
        train(model, tokenizer, teacher, sentences, hidden, options)
    seconds = time.monotonic() - started
    accuracies = {path.name: accuracy(model, tokenizer, each) for path, each in held_out.items()}
    for name, share in accuracies.items():
        print(f"{name}: {share:.2%} right", flush=True)
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    about = {"sentences": len(sentences), "epochs": options.epochs, "seed": options.seed, "seconds": round(seconds)}
    (options.output / "training.json").write_text(json.dumps({**about, "accuracy": accuracies}, indent=2) + "\n")
    print(f"{options.output}: {seconds:.0f} s of training", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small model with a fusedbert model as teacher.")
    parser.add_argument("data", type=Path, help="tsv with the columns sentence and label")
    parser.add_argument("output", type=Path, help="folder of the model")
    parser.add_argument("--family", choices=FAMILIES, default="modernbert")
    parser.add_argument("--held-out", type=Path, nargs="*", default=[], help="tsv files to measure on, never trained on")
    parser.add_argument("--teacher", help="model of fusedbert with the same two labels; default: the embedded one")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, help="batches at most, for a trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="products in bfloat16, faster where the processor has them")
    return parser.parse_args()


def train(
    model: Any,
    tokenizer: Any,
    teacher: Classifier,
    sentences: Sequence[Sentence],
    hidden: set[str],
    options: argparse.Namespace,
) -> None:
    """Train for some epochs, each on new views of the sentences; AdamW, the rate rising shortly and then falling to zero."""
    rate = FAMILIES[options.family].rate
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=DECAY)
    progress = Progress(options.epochs, options.steps)
    for epoch in range(options.epochs):
        rng = random.Random(f"{options.seed} {epoch}")
        rows = label(draw_views(sentences, hidden, rng), tokenizer, teacher)
        model.train()
        for share, (inputs, target) in batches(rows, tokenizer.pad_token_id, rng):
            done = progress.done(epoch + share)
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, done / WARM_UP, (1 - done) / (1 - WARM_UP))
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
                logits = model(**inputs).logits.float()
            loss = -(target * logits.log_softmax(dim=-1)).sum(dim=-1).mean()  # cross entropy with soft targets
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            progress.step(done, loss.item(), inputs["input_ids"].numel())
            if progress.finished:
                return


def label(views: Sequence[Sentence], tokenizer: Any, teacher: Classifier) -> Rows:
    """Tokenize texts, and give each its target: the teacher's probabilities, mixed with the label where there is one."""
    probabilities = np.asarray(teacher.predict_proba([view.text for view in views]))  # [texts, labels]
    encoded = tokenizer([view.text for view in views], truncation=True, max_length=MOST_TOKENS)["input_ids"]
    rows = []
    for view, ids, target in zip(views, encoded, probabilities, strict=True):
        if view.label is not None:
            target = TEACHER_SHARE * target + (1 - TEACHER_SHARE) * np.eye(len(LABELS))[view.label]
        rows.append((ids, target))
    return rows


def batches(rows: Rows, pad: int, rng: random.Random) -> Iterator[tuple[float, tuple[dict[str, torch.Tensor], torch.Tensor]]]:
    """Yield batches of texts of similar length in random order, each with the share of the rows that came before it."""
    parts: list[Rows] = []
    for start in range(0, len(rows), SHUFFLED):
        block: list[Rows] = [[]]
        for row in sorted(rows[start : start + SHUFFLED], key=lambda row: len(row[0])):
            if (len(block[-1]) + 1) * len(row[0]) > BATCH_TOKENS:
                block.append([])
            block[-1].append(row)
        rng.shuffle(block)
        parts += block
    seen = 0
    for part in parts:
        yield seen / len(rows), (pad_rows([ids for ids, _ in part], pad), torch.tensor(np.stack([t for _, t in part])).float())
        seen += len(part)


def pad_rows(rows: Sequence[list[int]], pad: int) -> dict[str, torch.Tensor]:
    """Lay out token ids as one batch, padded on the right: ids and mask, int64 ``[texts, tokens]``."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


@dataclasses.dataclass
class Progress:
    """A line every few seconds: what is done, the loss, tokens a second, and about how long it takes yet."""

    epochs: int
    most: int | None  # batches
    steps: int = 0
    tokens: int = 0
    loss: float = 0.7  # of the last batches, on average

    def __post_init__(self) -> None:
        self.started = self.shown = time.monotonic()

    @property
    def finished(self) -> bool:
        """True after the last of the batches that were asked for."""
        return self.most is not None and self.steps >= self.most

    def done(self, epochs: float) -> float:
        """Return the share of the training that is done, below 1."""
        return self.steps / self.most if self.most is not None else epochs / self.epochs

    def step(self, done: float, loss: float, tokens: int) -> None:
        """Count a batch."""
        self.steps, self.tokens, self.loss = self.steps + 1, self.tokens + tokens, 0.98 * self.loss + 0.02 * loss
        now = time.monotonic()
        if now - self.shown > 5 or self.finished:
            self.shown, spent = now, now - self.started
            rate, left = self.tokens / spent, spent / max(done, 1e-3) - spent
            print(f"{done:5.1%}  loss {self.loss:.3f}  {rate:.0f} tokens/s  {left:.0f} s left", flush=True)


def accuracy(model: Any, tokenizer: Any, sentences: Sequence[Sentence]) -> float:
    """Return the share of labelled sentences that the model answers rightly, one at a time and in float32."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for sentence in sentences:
            inputs = pad_rows([tokenizer(sentence.text)["input_ids"]], tokenizer.pad_token_id)
            right += int(model(**inputs).logits.argmax()) == sentence.label
    return right / len(sentences)


if __name__ == "__main__":
    main()
