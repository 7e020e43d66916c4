"""``make gpu-check`` without a GPU: every step runs on tiny models, and the result has the agreed keys, spelled out here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fusedbert.bench import gpu_check, gpu_steps
from fusedbert.bench.gpu_check import STEPS, main, rounded
from fusedbert.bench.gpu_steps import Check
from fusedbert.bench.run.cuda_candidates import CANDIDATES, PRESENT, PRODUCTS
from fusedbert.engine.cli.process import TerminatedError
from fusedbert.engine.errors import InputError
from fusedbert.engine.hardware import device
from fusedbert.engine.hardware.device import gpu_present, import_onnxruntime, inspect_offer

FIELDS = {
    "gpu": None,
    "driver": None,
    "onnxruntime": None,
    "bert_base": ["latency_1x128_p50_ms", "seq128_per_s", "text_1_p50_ms"],
    "bert_large": ["seq384_per_s"],
    "sst2": ["label_agreement", "over_transformers_fp16", "packed_over_padded"],
    "attention_nodes_on_cuda": None,
}
QUICK = "parity,latency,padding"


def check(folder: Path, *arguments: str) -> int:
    return main(["--dry-run", "--output", str(folder / "out"), "--work", str(folder / "work"), *arguments])


def result(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "out" / "dry-run-on-the-CPU.json").read_text())
    assert isinstance(found, dict)
    return found


def test_a_dry_run_takes_every_step(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\n" + "".join(f"it is {'very ' * n}good .\t1\n" for n in range(20)))
    assert check(tmp_path, "--sst2", str(tmp_path / "dev.tsv")) == 0, capfd.readouterr().err
    found = result(tmp_path)
    steps = found["steps"]
    assert list(steps) == list(STEPS) and {step["status"] for step in steps.values()} == {"ok"}, steps
    assert {key: sorted(found[key]) if isinstance(found[key], dict) else None for key in FIELDS} == FIELDS
    assert found["dry_run"] is True and found["onnxruntime"] and found["sst2"]["label_agreement"] == 1.0
    assert all(value > 0 for part in ("bert_base", "bert_large", "sst2") for value in found[part].values())
    assert set(steps["parity"]["figures"]["layouts"]) == {"engine", "padded", "packed"}
    assert len(steps["padding"]["figures"]["crossover"]) == 6 and steps["soak"]["figures"]["batches"] == 30
    peers = steps["peers"]["figures"]
    assert set(peers["p50_ms"]) == {"fusedbert-fp32", "transformers-fp32"} == set(peers["texts_per_s"]["reviews"])
    families = steps["families"]["figures"]
    assert families["deberta_1x128_max_abs_difference"] < 0.01 and families["modernbert_packed_1x128_p50_ms"] > 0
    assert all(len(rates) == 4 for rates in steps["reviews"]["figures"]["passes_texts_per_s"].values())
    timed = steps["candidates"]["figures"]
    assert list(timed) == list(CANDIDATES)
    assert max(each[f"{which}max_abs_difference"] for each in timed.values() for which in ("", "trained_")) < 0.01
    assert timed[PRESENT]["trained_max_abs_difference"] == 0.0 < timed[PRODUCTS]["trained_max_abs_difference"]  # it is computed
    assert all(each[f"{batch}_ms"] > 0 for each in timed.values() for batch in ("short", "128", "384", "1x128"))
    assert set(steps["kernels"]["figures"]) == {"padded_1x128", "packed_1x128", "padded_2x128", "packed_2x128"}


def test_resuming_skips_steps_that_succeeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    broken = ["latency"]

    def apart(name: str, options: object) -> dict[str, Any]:
        ran.append(name)
        assert len(ran) == 1 or ran[-2] in result(tmp_path)["steps"]  # on disk before the next one begins
        failed = name in broken
        status = {"status": "failed", "why": "the device fell off the bus"} if failed else {"status": "ok", "why": ""}
        return {**status, "figures": {} if failed else {"label_agreement": 0.5}, "seconds": 1.0}

    monkeypatch.setattr(gpu_check, "run_apart", apart)
    assert check(tmp_path, "--steps", QUICK) == 1
    found = result(tmp_path)
    assert found["steps"]["latency"]["why"] == "the device fell off the bus" and found["bert_base"]["text_1_p50_ms"] is None
    assert found["sst2"]["label_agreement"] == 0.5
    del ran[:], broken[:]
    assert check(tmp_path, "--steps", "latency", "--resume") == 0
    assert ran == ["latency"] and list(result(tmp_path)["steps"]) == QUICK.split(",")
    assert check(tmp_path, "--steps", QUICK, "--resume") == 0
    assert ran == ["latency"]


@pytest.mark.parametrize(
    ("stop", "status", "says"),
    [(KeyboardInterrupt(), 130, "GPU_CHECK=--resume"), (TerminatedError(), 130, "--resume"), (None, 1, "cannot be written")],
)
def test_what_ends_it_early_is_said_in_one_line(
    stop: BaseException | None,
    status: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def apart(name: str, options: object) -> dict[str, Any]:
        if stop is not None and name == "latency":
            raise stop
        return {"status": "ok", "why": "", "figures": {}, "seconds": 1.0}

    monkeypatch.setattr(gpu_check, "run_apart", apart)
    if stop is None:
        (tmp_path / "out").write_text("a file where a folder is wanted")
    assert check(tmp_path, "--steps", QUICK) == status
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("gpu-check: ") and says in last
    assert stop is None or list(result(tmp_path)["steps"]) == ["parity"]


def test_a_step_that_fails_or_hangs_is_reported_in_one_line_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, "--steps", "throughput,parity", "--sst2", str(tmp_path / "none.tsv")) == 1
    steps = result(tmp_path)["steps"]
    assert "none.tsv" in steps["throughput"]["why"] and "\n" not in steps["throughput"]["why"]
    assert {step["status"] for step in steps.values()} == {"failed"}
    monkeypatch.setattr(gpu_check, "STEPS", {"parity": (0.05, "")})
    assert check(tmp_path, "--steps", "parity") == 1
    assert result(tmp_path)["steps"]["parity"]["status"] == "timed out"
    assert check(tmp_path, "--steps", "parity", "--minutes", "0") == 1
    assert "the time was up" in result(tmp_path)["steps"]["parity"]["why"]
    assert "parity timed out: gpu_step: no answer within" in capfd.readouterr().err


def test_steps_are_listed_and_a_wrong_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(STEPS)
    assert all(callable(getattr(gpu_steps, name)) for name in STEPS)
    with pytest.raises(SystemExit):
        check(tmp_path, "--steps", "latncy")
    assert "unknown step 'latncy'" in capsys.readouterr().err


def test_without_a_gpu_it_says_so_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if inspect_offer(import_onnxruntime()).obstacle() is None:
        pytest.skip("there is a GPU here")
    assert main(["--output", str(tmp_path), "--work", str(tmp_path)]) == 1
    assert "--dry-run" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_texts_are_read_from_a_file_or_built_in(tmp_path: Path) -> None:
    def texts(file: Path | None, least: int = 1) -> list[str]:
        return Check(work=tmp_path, dry_run=False, sst2=file).texts(least)

    assert len(texts(None)) > 50 and len(texts(None, 9000)) > 8000
    (tmp_path / "imdb.tsv").write_text('label\ttext\n1\tgood "film\n')
    assert texts(tmp_path / "imdb.tsv") == ['good "film']
    (tmp_path / "empty.tsv").write_text("text\n")
    with pytest.raises(InputError, match="empty"):
        texts(tmp_path / "empty.tsv")


def test_numbers_are_rounded_and_others_are_null() -> None:
    assert rounded([float("nan"), float("inf"), 1.0]) == [None, None, 1.0]
    assert rounded({"a": [1.23456, {"b": 17601.23}], 7: None, "d": 12345678}) == {
        "a": [1.235, {"b": 17600.0}],
        "7": None,
        "d": 12345678,
    }


# The environment


def test_the_environment_links_the_packages_and_sees_those_of_an_outer_environment(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network and without pip: a new environment imports the engine, and what this interpreter has, twice over."""
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "farther.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "around")  # as of an environment around this one, by a file .pth of its packages
    for name in ("env", "inner"):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / name)], check=True)
    python = gpu_check.make_environment(tmp_path / "env")
    assert gpu_check.make_environment(tmp_path / "env") == python  # twice does no harm

    def run(python: Path, code: str, **variables: str) -> str:
        command = [str(python), "-c", f"from fusedbert.bench import gpu_check; {code}"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ, **variables}
        )
        return done.stdout

    code = "import fusedbert.engine.errors as e, fusedbert.bench as b; print(e.__file__, b.__path__)"
    found, imports = run(python, code), repository / ".imports"
    assert str(imports / "fusedbert" / "engine" / "errors.py") in found
    assert (imports / "fusedbert" / "engine").resolve() == repository / "engine"
    assert run(python, "import farther; print(farther.__file__)") == f"{tmp_path / 'around' / 'farther.py'}\n"
    code = "print(gpu_check.missing(gpu_check.DRY_RUN), gpu_check.missing(gpu_check.NEEDED))"
    # By the .pth file all is there, since this is a virtual environment's interpreter; onnxruntime is here without CUDA.
    assert run(python, code) == "[] ['onnxruntime']\n"
    code = "print(gpu_check.missing(gpu_check.NEEDED) == [*gpu_check.NEEDED])"
    assert run(tmp_path / "inner/bin/python", code, PYTHONPATH=str(imports)) == "True\n"


@pytest.mark.parametrize(
    ("needed", "peers", "goes_on", "says"),
    [
        (["onnxruntime"], [], False, "WHEELS=FOLDER"),
        (
            [],
            ["torch", "transformers"],
            True,
            "torch, transformers could not be installed: the steps peers and kernels will fail",
        ),
        ([], [], True, ""),
    ],
)
def test_what_is_missing_and_cannot_be_installed(
    needed: list[str],
    peers: list[str],
    goes_on: bool,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(device, "gpu_present", lambda: True)
    monkeypatch.setattr(gpu_check, "missing", lambda modules: peers if modules is gpu_check.PEERS else needed)
    commands: list[list[str]] = []
    monkeypatch.setattr(gpu_check.subprocess, "run", lambda command, **_: commands.append(command))
    assert gpu_check.install_missing(Path("wheels"), dry_run=False) == goes_on
    assert says in capsys.readouterr().err
    asked = [command[command.index("--disable-pip-version-check") + 1 :] for command in commands]
    source = ["--no-index", "--find-links", "wheels"]
    runtime, others = ["onnxruntime-gpu[cuda,cudnn]>=1.31"], ["torch>=2.6", "transformers>=5"]
    if needed:  # without its dependencies the second time, since CUDA's libraries may be the system's
        assert asked == [[*source, *runtime], [*source, "--no-deps", *runtime]]
    else:
        assert asked == ([[*source, *others]] if peers else [])


def test_a_dry_run_installs_no_torch_and_says_which_steps_need_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "missing", lambda modules: ["torch"] if modules is gpu_check.PEERS else [])
    monkeypatch.setattr(gpu_check.subprocess, "run", lambda *_, **__: pytest.fail("something was installed"))
    assert gpu_check.install_missing(None, dry_run=True)
    said = capsys.readouterr().err
    assert "torch not installed by a dry run: the steps peers and kernels will fail, unless PYTHON names" in said


def test_what_was_installed_is_not_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpu_present", lambda: True)
    absent = {"onnxruntime", "numpy"}
    monkeypatch.setattr(gpu_check, "missing", lambda modules: [name for name in modules if name in absent])
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> None:
        commands.append(command)
        absent.clear()

    monkeypatch.setattr(gpu_check.subprocess, "run", run)
    assert gpu_check.install_missing(None, dry_run=False)
    assert len(commands) == 1 and "--no-deps" not in commands[0]


def test_without_a_gpu_nothing_is_installed(repository: Path, tmp_path: Path) -> None:
    if gpu_present():
        pytest.skip("there is a GPU here")
    command = [sys.executable, str(repository / "bench/gpu_check.py"), "--environment", str(tmp_path / "env")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "no NVIDIA GPU is visible" in done.stderr and "--dry-run" in done.stderr
