"""``make gpu-check`` without a GPU: every step runs on tiny models, and the result has the agreed keys, spelled out here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner

from fusedbert.bench import gpu_check, gpu_peers, gpu_setup, gpu_steps
from fusedbert.bench.gpu_check import main, read_texts, rounded
from fusedbert.bench.gpu_device import driver_version
from fusedbert.bench.gpu_plan import Check, Plan
from fusedbert.engine.errors import StorageError
from fusedbert.engine.hardware.device import gpu_present, import_onnxruntime, inspect_offer


def test_a_dry_run_takes_every_step(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\n" + "".join(f"it is {'very ' * n}good .\t1\n" for n in range(20)))
    done = CliRunner().invoke(main, ["--dry-run", "--output", str(tmp_path / "out"), "--sst2", str(tmp_path / "dev.tsv")])
    details = json.loads(next((tmp_path / "out").glob("*.details.json")).read_text())
    assert done.exit_code == 0, (done.output, details)
    assert details["not_measured"] == {} and details["dry_run"] is True and details["texts"] == "dev.tsv"
    assert set(details["seconds"]) == {name for name, _ in gpu_check.STEPS}
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "out/dry-run-on-the-CPU.json").read_text())
    assert {key: sorted(value) if isinstance(value, dict) else None for key, value in result.items()} == {
        "gpu": None,
        "driver": None,
        "onnxruntime": None,
        "bert_base": ["latency_1x128_p50_ms", "seq128_per_s", "text_1_p50_ms"],
        "bert_large": ["seq384_per_s"],
        "sst2": ["label_agreement", "over_transformers_fp16", "packed_over_padded"],
        "attention_nodes_on_cuda": None,
    }
    assert result["sst2"]["label_agreement"] == 1.0
    assert all(value > 0 for part in ("bert_base", "bert_large", "sst2") for value in result[part].values())
    assert details["soak"]["batches"] == 30 and len(details["crossover"]) == 6
    assert set(details["bert_base"]["latency_1x128_p50_ms"]) == {"padded", "packed"}
    peers = {"transformers", "optimum_o4"}
    assert set(details["peers"]["latency_ms"]) == {"fusedbert", *peers} and set(details["peers"]["times_faster"]) == peers
    assert all(ms > 0 for times in details["peers"]["latency_ms"].values() for ms in times.values())


def test_a_peer_that_fails_is_told_by_its_last_line(tmp_path: Path) -> None:
    job = gpu_peers.Job(checkpoint=str(tmp_path), device="cpu", shapes=[(1, 16)], seconds=0.1, texts=[], vocabulary=100)
    with pytest.raises(gpu_peers.PeerError, match=r"transformers failed: .*"):
        gpu_peers.measure("transformers", job, timeout=120)
    with pytest.raises(gpu_peers.PeerError, match=r"transformers was ended after 0 s"):
        gpu_peers.measure("transformers", job, timeout=0.05)


def test_the_driver_as_the_kernel_module_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert driver_version(file) is None
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (root@localhost)\n")
    assert driver_version(file) == "580.95.05"


def test_a_step_that_fails_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(check: Check) -> None:
        raise RuntimeError("the device\nfell off the bus")

    monkeypatch.setattr(gpu_check, "STEPS", (("machine", gpu_steps.machine), ("bert_base", broken)))
    done = CliRunner().invoke(main, ["--dry-run", "--output", str(tmp_path)])
    details = json.loads((tmp_path / "dry-run-on-the-CPU.details.json").read_text())
    assert done.exit_code == 1
    assert details["not_measured"] == {"bert_base": "RuntimeError: the device fell off the bus"}
    late = CliRunner().invoke(main, ["--dry-run", "--output", str(tmp_path), "--minutes", "0"])
    details = json.loads((tmp_path / "unknown.details.json").read_text())
    assert late.exit_code == 1 and details["not_measured"]["machine"] == "the time was up"


def test_without_a_gpu_it_says_so_at_once(tmp_path: Path) -> None:
    if inspect_offer(import_onnxruntime()).obstacle() is None:
        pytest.skip("there is a GPU here")
    done = CliRunner().invoke(main, ["--output", str(tmp_path)])
    assert done.exit_code == 1 and "--dry-run" in done.stderr and list(tmp_path.iterdir()) == []


def test_texts(tmp_path: Path) -> None:
    assert len(read_texts(None, 10**9)) == 872
    (tmp_path / "imdb.tsv").write_text('label\ttext\n1\tgood "film\n')
    assert read_texts(tmp_path / "imdb.tsv", 5) == ['good "film']
    (tmp_path / "other.tsv").write_text("a\tb\n1\t2\n")
    for name in ("other.tsv", "missing.tsv"):
        with pytest.raises(StorageError, match=name):
            read_texts(tmp_path / name, 5)


def test_what_is_no_number_is_null() -> None:
    assert rounded([float("nan"), float("inf"), 1.0]) == [None, None, 1.0]


def test_figures_are_there_before_the_last_step(tmp_path: Path) -> None:
    check = Check(plan=Plan.make(dry_run=True), dry_run=True, folder=tmp_path, texts=["a"], deadline=monotonic() + 60)
    check.step("machine", gpu_steps.machine)
    gpu_check.write(check, tmp_path)
    found = json.loads((tmp_path / "dry-run-on-the-CPU.json").read_text())
    assert found["onnxruntime"] and found["bert_base"]["seq128_per_s"] is None


def test_numbers_are_rounded() -> None:
    assert rounded({"a": [1.23456, {"b": 17601.23}], "c": None, "d": 12345678}) == {
        "a": [1.235, {"b": 17600.0}],
        "c": None,
        "d": 12345678,
    }


def test_the_environment_links_the_packages(tmp_path: Path, repository: Path) -> None:
    """Without a network and without pip: a new environment imports the engine from this repository."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python = tmp_path / "env/bin/python"
    folder = gpu_setup.link(python)
    assert gpu_setup.link(python) == folder  # twice does no harm
    code = "import fusedbert.engine.errors as e, fusedbert.bench as b; print(e.__file__, b.__path__)"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert str(folder / "engine" / "errors.py") in done.stdout
    assert (folder / "engine").resolve() == repository / "engine"
    assert set(gpu_setup.missing(python)) == set(gpu_setup.NEEDED)
    assert gpu_setup.missing(Path(sys.executable)) == ["onnxruntime"]  # it is here, without CUDA
    assert gpu_setup.missing(Path(sys.executable), gpu_setup.DRY_RUN) == []


@pytest.mark.parametrize(
    ("needed", "peers", "exits", "says"),
    [
        (["onnxruntime"], [], 1, "WHEELS=FOLDER"),
        (
            [],
            ["torch", "transformers"],
            0,
            "torch, transformers could not be installed: what needs it will not be compared with",
        ),
        ([], [], 0, ""),
    ],
)
def test_what_is_missing_and_cannot_be_had(
    needed: list[str],
    peers: list[str],
    exits: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(gpu_setup.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(gpu_setup, "link", lambda _: tmp_path)
    monkeypatch.setattr(gpu_setup, "sees_gpu", lambda _: True)
    monkeypatch.setattr(gpu_setup, "missing", lambda _, asked=gpu_setup.NEEDED: peers if asked is gpu_setup.PEERS else needed)
    commands: list[list[str]] = []
    monkeypatch.setattr(gpu_setup.subprocess, "run", lambda command, **_: commands.append(command))
    assert gpu_setup.main([str(tmp_path / "env"), "wheels"]) == exits
    assert says in capsys.readouterr().err
    asked = [command[command.index("--disable-pip-version-check") + 1 :] for command in commands]
    source = ["--no-index", "--find-links", "wheels"]
    with_libraries, without = "onnxruntime-gpu[cuda,cudnn]>=1.31", "onnxruntime-gpu>=1.31"
    assert asked == [
        *([[*source, with_libraries], ["--no-deps", *source, without]] if needed else []),  # where CUDA's are the system's
        *([[*source, "torch>=2.6", "transformers>=5"]] if peers else []),
    ]
    assert gpu_setup.main([]) == 2


def test_without_a_gpu_nothing_is_fetched(repository: Path, tmp_path: Path) -> None:
    if gpu_present():
        pytest.skip("there is a GPU here")
    command = [sys.executable, str(repository / "bench/gpu_setup.py"), str(tmp_path / "env")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "no NVIDIA GPU is visible" in done.stderr and "--dry-run" in done.stderr
