"""Score a file of reviews, go on where a killed run stopped, and read the result: python examples/score_reviews.py."""

import csv
import sys
from pathlib import Path

from fusedbert.engine import score_file

reviews = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("reviews.csv")
scored = Path(sys.argv[2] if len(sys.argv) > 2 else "scored.csv")
summary = score_file(reviews, scored, model=sys.argv[3] if len(sys.argv) > 3 else None, on_error="null", resume=True)
print(summary.rows, "rows,", summary.errors, "without a score:", dict(summary.labels))
with scored.open(encoding="utf-8", newline="") as file:
    for row in csv.DictReader(file):
        print(row["id"], row["label"] or "-", row["score"] or "-", row["review"])
