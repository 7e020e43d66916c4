"""ONNX Runtime's real CUDA provider on the fake CUDA device (``device/``): make test-cuda runs these.

The provider does on the host all that it does on a GPU: it chooses nodes and kernels, copies, captures, and holds memory. Only
the arithmetic is the fake device's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fusedbert.bench.engines.packed_attention import CANDIDATES
from fusedbert.export import export_checkpoint

pytestmark = pytest.mark.fake_cuda
FOLDER = Path(__file__).parent / "device"

# The beginning of every script: a GPU is visible, and report() writes the result as one line of JSON.
BEGIN = """
import ctypes, gc, json, os, sys, threading, warnings
import numpy as np
import fusedbert.engine.hardware.device as device
device.gpu_present = lambda root=None: True
from fusedbert.engine import Classifier, FusedBertError
from fusedbert.engine.run.cuda.runners import ChoosingRunner
from fusedbert.engine.text.tokenizer import Row
artifact = sys.argv[1]
TEXTS = ["a gorgeous , witty , seductive movie", "bland", "it was not good , and far too long . " * 3, "very good !"]
EVEN = ["bland and far too long"] * 12

def used():
    library = ctypes.CDLL("libcudart.so.13")
    library.fake_cuda_used.restype = ctypes.c_size_t
    return library.fake_cuda_used()

def kernels(run):
    trace = os.environ["FAKE_CUDA_TRACE"]
    start = os.path.getsize(trace)
    run()
    with open(trace) as file:
        file.seek(start)
        return file.read().splitlines()

def report(**result):
    print(json.dumps(result))
"""


def _device() -> ModuleType:
    import importlib.util

    spec = importlib.util.spec_from_file_location("fake_cuda_device", FOLDER / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Mapping[str, str]]:
    """The environments with and without cuDNN."""
    return {cudnn: _device().build(tmp_path_factory.mktemp("cuda"), cudnn=cudnn) for cudnn in (True, False)}


@pytest.fixture(scope="session")
def mini(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded checkpoint as an artifact with all graphs."""
    folder = tmp_path_factory.mktemp("fake_cuda") / "sst2-mini"
    export_checkpoint(repository / "models" / "sst2-mini", folder, required=True)
    return folder


Start = Callable[..., "subprocess.CompletedProcess[str]"]
Do = Callable[..., Any]


@pytest.fixture
def start(libraries: dict[bool, Mapping[str, str]], repository: Path, tmp_path: Path) -> Start:
    """Return a function that runs Python in a process with the device, whose ``FAKE_CUDA_*`` settings are keywords."""

    def run(*arguments: object, cudnn: bool = True, **settings: object) -> subprocess.CompletedProcess[str]:
        (tmp_path / "trace").touch()
        environment = {
            **os.environ,
            **libraries[cudnn],
            "FUSEDBERT_CACHE": str(tmp_path / "cache"),
            "FUSEDBERT_TEST_FAKE_CUDA": "1",
            "FAKE_CUDA_TRACE": str(tmp_path / "trace"),
            **{f"FAKE_CUDA_{name.upper()}": str(value) for name, value in settings.items()},
        }
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=repository, timeout=280, check=False
        )

    return run


@pytest.fixture
def do(start: Start, mini: Path) -> Do:
    """Return a function that runs a script there and returns what it reported."""

    def run(script: str, *, artifact: Path | None = None, **settings: Any) -> Any:
        done = start("-c", BEGIN + script, artifact or mini, **settings)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}

    return run


ANSWERS = """
judge = Classifier.from_pretrained(artifact, device="cpu", precision="fp32")
clf = Classifier.from_pretrained(artifact, device="cuda")
differences = [float(np.abs(clf.decision_function(texts) - judge.decision_function(texts)).max())
               for texts in (TEXTS, TEXTS, TEXTS, TEXTS[::-1], EVEN, TEXTS[:1], TEXTS[1:2], TEXTS[:1], EVEN * 9, TEXTS * 5)]
captured = clf.model.open().packed.graphs.captured
report(differences=differences, why=clf.runtime.why, captured=captured)
"""


@pytest.mark.parametrize("capability", [75, 80, 89, 90])
def test_logits_are_those_of_fp32_on_every_processor(do: Do, capability: int) -> None:
    """Padded and packed, plain, captured and replayed: the provider passes the right arguments to its kernels."""
    result = do(ANSWERS, capability=capability)
    assert max(result["differences"]) < 0.01, result
    assert "golden texts within" in result["why"] and result["captured"] >= 2
    assert result["stderr"] == ""  # nothing is printed on the user's screen


def test_roberta(do: Do, checkpoint_at: Callable[..., Path], tmp_path: Path) -> None:
    """Its positions are counted on the device."""
    export_checkpoint(checkpoint_at(tmp_path / "roberta", family="roberta", positions=130), tmp_path / "a", required=True)
    assert max(do(ANSWERS, artifact=tmp_path / "a")["differences"]) < 0.03


@pytest.mark.parametrize(("heads", "hidden"), [(2, 24), (2, 12)])
@pytest.mark.parametrize("capability", [80, 90])
def test_heads_that_the_fused_kernel_of_the_last_layer_does_not_take(
    do: Do, checkpoint_at: Callable[..., Path], tmp_path: Path, capability: int, heads: int, hidden: int
) -> None:
    """Of widths that are no multiple of 8: unfused, the last layer read the starts of the queries as those of the keys."""
    source = checkpoint_at(tmp_path / "source", heads=heads, hidden=hidden, positions=130)
    export_checkpoint(source, tmp_path / "a", required=True)
    result = do(
        """
judge = Classifier.from_pretrained(artifact, device="cpu", precision="fp32")
clf = Classifier.from_pretrained(artifact, device="cuda")
differences = [clf.decision_function(texts) - judge.decision_function(texts) for texts in (TEXTS, TEXTS * 4)]
report(worst=[float(np.abs(difference).max()) for difference in differences])
""",
        artifact=tmp_path / "a",
        capability=capability,
    )
    assert max(result["worst"]) < 0.03


KERNELS = """
clf = Classifier.from_pretrained(artifact, device="cuda")
runner, result = clf.model.open(), {}
row = Row(ids=[7] * 48, types=[0] * 48, truncated=False)
for name, part in (("padded", runner.padded), ("packed", runner.packed)):
    lines = kernels(lambda: part.execute(part.prepare([row] * 12)))
    result[name] = [line.split()[1] for line in lines if line.startswith(("KERNEL", "GEMM"))]
report(**result)
"""
CUTLASS, TENSORRT, CUDNN = "attention_kernel_batched_impl", "fmha_v2", "cudnn"


@pytest.mark.parametrize(
    ("capability", "padded", "packed"),
    [(75, [TENSORRT] * 2, [TENSORRT] * 3), (80, [TENSORRT] * 2, [TENSORRT] * 3), (90, [CUDNN] * 2, [CUTLASS] * 3)],
)
def test_every_attention_node_gets_a_fused_kernel(do: Do, capability: int, padded: list[str], packed: list[str]) -> None:
    result = do(KERNELS, capability=capability)

    def attention(names: list[str]) -> list[str]:
        return [kind for name in names for kind in (CUTLASS, TENSORRT, CUDNN) if kind.lower() in name.lower()]

    assert attention(result["padded"]) == [*padded, CUTLASS]  # the last layer has one query a text
    assert attention(result["packed"]) == packed
    assert not any("softmax" in name.lower() for name in (*result["padded"], *result["packed"]))  # nothing is unfused
    assert len(result["packed"]) < len(result["padded"])


def test_a_small_batch_is_one_copy_in_a_replay_and_one_copy_out(do: Do) -> None:
    result = do("""
clf = Classifier.from_pretrained(artifact, device="cuda")
for _ in range(3):
    clf.decision_function(TEXTS[:1])
lines = kernels(lambda: clf.decision_function(TEXTS[:1]))
report(kinds=[line.split()[:2] if line.startswith("COPY") else line.split()[:1] for line in lines])
""")
    assert result["kinds"] == [["COPY", "1"], ["REPLAY"], ["COPY", "2"]]


def test_memory_is_flat_and_given_back(do: Do) -> None:
    result = do(
        """
import fusedbert.engine.load.open_cuda as opening
opening.verify = lambda *_: "not verified, as nothing is computed"
clf = Classifier.from_pretrained(artifact, device="cuda")
rng, runner, seen = np.random.default_rng(0), clf.model.open(), []
for number in range(1, 3001):
    lengths = rng.integers(3, 129, size=int(rng.integers(1, 33)))
    rows = [Row(ids=[7] * int(n), types=[0] * int(n), truncated=False) for n in lengths]
    runner.execute(runner.prepare(rows))
    if number % 1000 == 0:
        seen.append(used())
del runner
clf.close()
gc.collect()
report(seen=seen, closed=used())
""",
        compute=0,
    )
    first, *later = result["seen"]
    assert later == [first] * len(later), result
    assert result["closed"] < 8 << 20


def test_threads_and_classifiers_do_not_spoil_each_others_captures(do: Do) -> None:
    result = do("""
judge = Classifier.from_pretrained(artifact, device="cpu", precision="fp32")
both = [Classifier.from_pretrained(artifact, device="cuda") for _ in range(2)]
wanted = {n: judge.decision_function(TEXTS[:n]) for n in range(1, 5)}
worst = []
def work(n):
    worst.extend(float(np.abs(both[i % 2].decision_function(TEXTS[:n]) - wanted[n]).max()) for i in range(8))
threads = [threading.Thread(target=work, args=(1 + n % 4,)) for n in range(8)]
lines = kernels(lambda: ([t.start() for t in threads], [t.join() for t in threads]))
report(worst=max(worst), answers=len(worst), spoiled=[line for line in lines if "SPOILED" in line])
""")
    assert result["answers"] == 64 and result["worst"] < 0.01 and result["spoiled"] == []


def test_a_forked_child_is_told_and_does_not_wait_for_ever(do: Do) -> None:
    """Also where another thread of the parent was on the GPU at the moment of the fork."""
    result = do("""
import time
clf, stop = Classifier.from_pretrained(artifact, device="cuda"), threading.Event()
def work():
    while not stop.is_set():
        clf(TEXTS * 10)
thread = threading.Thread(target=work)
thread.start()
time.sleep(0.3)
read, write = os.pipe()
child = os.fork()
if not child:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = Classifier.from_pretrained(artifact)
        said = other.runtime.device + " " + other.runtime.why + " " + other(TEXTS[0])[0]["label"]
        try:
            Classifier.from_pretrained(artifact, device="cuda")
        except FusedBertError as error:
            said += " " + str(error)
    os.write(write, said.encode())
    os._exit(0)
os.close(write)
with os.fdopen(read) as pipe:
    said = pipe.read()
stop.set()
thread.join()
report(said=said, ended=os.waitpid(child, 0)[1])
""")
    assert result["said"].startswith("cpu ") and "POSITIVE" in result["said"] and result["ended"] == 0
    assert result["said"].count("forked from one that uses CUDA") == 2


def test_a_limit_of_memory_holds(do: Do) -> None:
    result = do(
        """
import fusedbert.engine.load.open_cuda as opening
opening.verify = lambda *_: "not verified, as nothing is computed"
def hold(mib):
    try:
        with Classifier.from_pretrained(artifact, device="cuda", session_options={"cuda.gpu_mem_limit": mib << 20}) as clf:
            clf(TEXTS * 64)
            return used() >> 20
    except FusedBertError as error:
        return str(error)
report(small=hold(4), large=hold(64))
""",
        compute=0,
    )
    assert "no memory left" in result["small"], result
    assert isinstance(result["large"], int) and result["large"] <= 2 * 64 + 8, result  # of each of the two graphs


def test_a_wrong_option_is_the_caller_s_mistake_and_no_reason_for_the_cpu(do: Do) -> None:
    result = do("""
from fusedbert.engine import OptionError
said = []
for options in ({"cuda.nonsense": 1}, {"cuda.use_tf32": "maybe"}):
    try:
        Classifier.from_pretrained(artifact, session_options=options)
    except OptionError as error:
        said.append(str(error))
report(said=said)
""")
    assert 'does not take: Unknown provider option: "nonsense"' in result["said"][0]
    assert 'Failed to parse provider option "use_tf32"' in result["said"][1]


WARNED = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    clf = Classifier.from_pretrained(artifact)
try:
    Classifier.from_pretrained(artifact, device="cuda")
    error = ""
except FusedBertError as raised:
    error = str(raised)
report(device=clf.runtime.device, layout=clf.runtime.layout, warned=[str(w.message) for w in caught], error=error,
     label=clf(TEXTS[0])[0]["label"])
"""


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"wrong": 1}, "computes the golden texts wrongly"),
        ({"devices": 0}, "CUDA sees no device"),
        ({"driver_too_old": 1}, "the NVIDIA driver is older than the CUDA"),
        ({"memory": 8 << 20}, "the GPU has no memory left"),
    ],
)
def test_auto_falls_back_with_the_reason(do: Do, settings: dict[str, int], says: str) -> None:
    result = do(WARNED, **settings)
    assert result["device"] == "cpu" and result["label"] == "POSITIVE"
    assert len(result["warned"]) == 1 and says in result["warned"][0] and says in result["error"], result


def test_without_cudnn_the_packed_graph_is_left(do: Do) -> None:
    result = do(WARNED, cudnn=False)
    assert (result["device"], result["layout"], result["error"], result["warned"]) == ("cuda:0", "packed", "", [])


DOCTOR = """
from fusedbert.engine.cli import main
main(["doctor", "-m", artifact, "--json"])
"""


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({}, None),
        ({"cudnn": False}, "cudnn_missing"),
        ({"devices": 0}, "no_device"),
        ({"driver_too_old": 1}, "driver_too_old"),
    ],
)
def test_doctor_tells_them_apart(start: Start, mini: Path, settings: dict[str, Any], cause: str | None) -> None:
    """``fusedbert doctor`` as a user runs it."""
    done = start("-c", BEGIN + DOCTOR, mini, **settings)
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["cuda"]["value"]["cause"] == cause, findings["cuda"]
    assert findings["cuda"]["value"]["works"] == (cause in (None, "cudnn_missing"))
    if cause is None:
        assert findings["model_runtime"]["value"]["device"] == "cuda:0"


def test_the_tests_marked_gpu_pass(start: Start) -> None:
    """So no line of them runs for the first time on a GPU. That of memory computes for minutes here; there is one above."""
    done = start("-m", "pytest", "-q", "-m", "gpu", "-k", "not memory", "tests/engine/run/cuda/test_gpu.py")
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout[-4000:]


EACH = """
import shutil
from pathlib import Path
from fusedbert.bench.engines.packed_attention import time_candidates
from fusedbert.engine.run.batches import FINE, pack, packed_bucket
source = Path(shutil.copytree(sys.argv[2], sys.argv[3]))  # with trained weights: a wrong layout of theirs would show
lengths = [5, 30, 17, 60, 2, 41]
rows = [Row(ids=[2, *range(100, 99 + n)], types=[0] * n, truncated=False) for n in lengths]
batch = pack(rows, packed_bucket(lengths, fineness=FINE), 0)
result = time_candidates(source, {"mixed": batch}, seconds=0.01, on_cpu=False)
print(json.dumps({name: each["max_abs_difference"] for name, each in result.items()}))
"""


def test_candidates_compute_the_same(start: Start, checkpoint: Path, tmp_path: Path) -> None:
    """The operators for packed attention that gpu-check compares."""
    done = start("-c", BEGIN + EACH, "", checkpoint, tmp_path / "source")
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout.splitlines()[-1])
    assert len(differences) == 4 and max(differences.values()) < 0.01, differences


CHECK = """
from pathlib import Path
from fusedbert.bench import gpu_steps
def on_cuda(function):
    return lambda *arguments, on_cpu, **named: function(*arguments, on_cpu=False, **named)
for name in ("build_artifact", "CudaLayouts", "time_candidates"):
    setattr(gpu_steps, name, on_cuda(getattr(gpu_steps, name)))
check = gpu_steps.Check(work=Path(sys.argv[2]), dry_run=True, sst2=None)
steps = ("parity", "latency", "throughput", "padding", "large", "candidates", "soak")
report(**{name: getattr(gpu_steps, name)(check) for name in steps})
"""


def test_the_steps_of_gpu_check_measure(start: Start, mini: Path, tmp_path: Path) -> None:
    """The steps of ``make gpu-check`` with models of two layers: the figures mean nothing, and all are there."""
    done = start("-c", BEGIN + CHECK, mini, tmp_path / "work")
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout.splitlines()[-1])
    assert steps["parity"]["label_agreement"] == 1.0 and steps["latency"]["attention_nodes_on_cuda"] == 2
    assert steps["throughput"]["packed_over_padded"] > 0 and steps["large"]["seq384_per_s"] > 0
    assert len(steps["padding"]["crossover"]) == 6
    assert len(steps["soak"]["memory_used_mib"]) == 10 and steps["soak"]["batches"] == 30
    assert list(steps["candidates"]) == list(CANDIDATES)
    assert max(timed["max_abs_difference"] for timed in steps["candidates"].values()) < 0.01, steps["candidates"]
