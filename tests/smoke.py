"""A smoke test for any release of the dependencies: export the embedded checkpoint, classify, score files.

`make test-lowest` and `make test-newest` run it in environments without the packages of the tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

CHECKPOINT = Path(__file__).parents[1] / "models" / "sst2-mini"
TEXTS = ["I really loved this movie.", "A tedious, lifeless mess.", "电影很好 " * 2_000]
PACKAGES = ["numpy", "tokenizers", "click", "tqdm", "onnxruntime", "onnx", "safetensors", "scipy", "pyarrow"]


def fusedbert(*arguments: object) -> str:
    """Return what the command prints; its failure is that of the script."""
    command = [str(Path(sys.executable).with_name("fusedbert")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def main() -> None:
    """Run the commands, and compare what they say about the same texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fusedbert.engine import Classifier

    warnings.filterwarnings("ignore", message="text 2 has more tokens")
    print(f"Python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifact = folder / "artifact"
        fusedbert("export", CHECKPOINT, artifact, "--for", "all")
        fusedbert("doctor", "--model", artifact)
        expected = []
        for precision in ("fp32", "int8"):
            with Classifier.from_pretrained(artifact, device="cpu", precision=precision) as classifier:
                expected = list(classifier.predict(TEXTS))
            assert expected[:2] == ["POSITIVE", "NEGATIVE"], (precision, expected)
        assert "POSITIVE" in fusedbert("classify", "--model", artifact, TEXTS[0])
        pq.write_table(pa.table({"text": TEXTS}), folder / "texts.parquet")
        quoted = "".join(f'"{text}"\n' for text in TEXTS)
        (folder / "texts.csv").write_text(f"text\n{quoted}", encoding="utf-8")
        for kind in ("parquet", "csv"):
            scored = folder / f"scored-{kind}.jsonl"
            fusedbert("score", folder / f"texts.{kind}", "--model", artifact, "--output", scored)
            labels = [json.loads(line)["label"] for line in scored.read_text(encoding="utf-8").splitlines()]
            assert labels == expected, (kind, labels, expected)
        fusedbert("score", folder / "texts.csv", "--model", artifact, "--output", folder / "scored.parquet")
        assert pq.read_table(folder / "scored.parquet")["label"].to_pylist() == expected
    print("export, classify and score work")


if __name__ == "__main__":
    main()
