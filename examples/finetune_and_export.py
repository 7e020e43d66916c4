"""Fine-tune a pretrained encoder on a csv of labelled texts, export it, and classify with the runtime.

python examples/finetune_and_export.py examples/tickets.csv artifacts/tickets --encoder models/sst2-mini

The csv has a header and the columns text and label. The encoder is a folder or a hub id. Training needs torch and
transformers; what comes out needs neither.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fusedbert.engine import Classifier
from fusedbert.export import export_checkpoint


def read(path: str) -> list[tuple[str, str]]:
    """Read the labelled texts."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def finetune(rows: list[tuple[str, str]], encoder: str, output: str, epochs: int) -> None:
    """Train a classifier on top of ``encoder`` and save the checkpoint."""
    labels = sorted({label for _, label in rows})
    ids = {label: i for i, label in enumerate(labels)}
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder,
        id2label=dict(enumerate(labels)),
        label2id=ids,
        problem_type="single_label_classification",
        ignore_mismatched_sizes=True,  # the encoder's own classifier, where it has one, is for other labels
        dtype=torch.float32,
    ).to(device)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0.01)
    for epoch in range(epochs):
        random.shuffle(rows)
        total = 0.0
        for start in range(0, len(rows), 12):
            texts, names = zip(*rows[start : start + 12], strict=True)
            batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(device)
            loss = model(**batch, labels=torch.tensor([ids[name] for name in names], device=device)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item() * len(texts)
        print(f"epoch {epoch + 1}/{epochs} on {device}: loss {total / len(rows):.3f}")
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def main() -> None:
    """Train, export, classify."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("csv")
    parser.add_argument("artifact")
    parser.add_argument("--encoder", default="models/sst2-mini")
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as checkpoint:
        finetune(read(arguments.csv), arguments.encoder, checkpoint, arguments.epochs)
        export_checkpoint(checkpoint, arguments.artifact, name="tickets", force=True, progress=print)
    with Classifier.from_pretrained(arguments.artifact) as clf:
        for text in ("The login page shows an error.", "My package has not arrived.", "I was billed two times."):
            (answer,) = clf(text)
            print(f"{answer['label']:10} {answer['score']:.3f}  {text}")


if __name__ == "__main__":
    main()
