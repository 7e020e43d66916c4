"""A smoke test of an installation: export the embedded checkpoint, classify, score files, and ask doctor.

`make test-lowest`, `make test-newest` and `make release-check` run it in environments without the packages of the tests, with
any release of the dependencies. `--kernels there` or `--kernels missing` says what the installation has to hold.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

TEXTS = ["I really loved this movie.", "A tedious, lifeless mess.", "电影很好 " * 2_000]
PACKAGES = ["numpy", "tokenizers", "click", "tqdm", "onnxruntime", "onnx", "safetensors", "scipy", "pyarrow"]


def fusedbert(*arguments: object) -> str:
    """Return what the command prints; its failure is that of the script."""
    tool = shutil.which("fusedbert", path=sysconfig.get_path("scripts"))  # on Windows it is not where Python is
    assert tool is not None, sysconfig.get_path("scripts")
    command = [tool, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_kernels(expected: str) -> None:
    """Compare the library in the package, and doctor's word about it, with what was expected."""
    from fusedbert.engine import kernels

    loaded = kernels.loaded()
    assert ("missing" if loaded is None else "there") == expected, loaded and loaded.path
    (finding,) = (each for each in json.loads(fusedbert("doctor", "--json"))["findings"] if each["name"] == "kernels")
    print(f"kernels: {finding}", flush=True)
    assert expected == "missing" or finding["status"] == "ok", finding


def score(folder: Path, artifact: Path, kinds: list[str], expected: list[str]) -> None:
    """Score the texts from a file of each kind."""
    quoted = "".join(f'"{text}"\n' for text in TEXTS)
    (folder / "texts.csv").write_text(f"text\n{quoted}", encoding="utf-8")
    if "parquet" in kinds:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": TEXTS}), folder / "texts.parquet")
    for kind in kinds:
        scored = folder / f"scored-{kind}.jsonl"
        fusedbert("score", folder / f"texts.{kind}", "--model", artifact, "--output", scored)
        labels = [json.loads(line)["label"] for line in scored.read_text(encoding="utf-8").splitlines()]
        assert labels == expected, (kind, labels, expected)
    if "parquet" in kinds:
        import pyarrow.parquet as pq

        fusedbert("score", folder / "texts.csv", "--model", artifact, "--output", folder / "scored.parquet")
        assert pq.read_table(folder / "scored.parquet")["label"].to_pylist() == expected


def main() -> None:
    """Run the commands, and compare what they say about the same texts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", choices=["there", "missing"])
    expected_kernels = parser.parse_args().kernels

    from fusedbert.engine import Classifier

    warnings.filterwarnings("ignore", message="text 2 has more tokens")
    found = versions()
    print(f"Python {sys.version.split()[0]}, " + ", ".join(f"{name} {number}" for name, number in found.items()), flush=True)
    checkpoint = importlib.resources.files("fusedbert.models") / "sst2-mini"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifact = folder / "artifact"
        fusedbert("export", checkpoint, artifact, "--for", "all")
        fusedbert("doctor", "--model", artifact)
        expected: list[str] = []
        for precision in ("fp32", "int8"):
            with Classifier.from_pretrained(artifact, device="cpu", precision=precision) as classifier:
                expected = list(map(str, classifier.predict(TEXTS)))
                print(f"{precision}: {classifier.runtime.why}", flush=True)
            assert expected[:2] == ["POSITIVE", "NEGATIVE"], (precision, expected)
        assert "POSITIVE" in fusedbert("classify", "--model", artifact, TEXTS[0])
        score(folder, artifact, ["csv", "parquet"] if "pyarrow" in found else ["csv"], expected)
    if expected_kernels is not None:
        check_kernels(expected_kernels)
    print("export, classify and score work")


if __name__ == "__main__":
    main()
