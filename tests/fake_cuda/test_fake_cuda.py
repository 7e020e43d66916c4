"""ONNX Runtime's real CUDA provider on the fake CUDA device (``device/``): make test-cuda runs these.

The provider does on the host all that it does on a GPU: it chooses nodes and kernels, copies, captures, and holds memory.
Nothing is computed; tests/engine/run/cuda/test_gpu.py compares logits on a real GPU.
"""

from __future__ import annotations

import itertools
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fusedbert.bench.run.cuda_timing import CANDIDATES
from fusedbert.export import export_checkpoint

pytestmark = pytest.mark.fake_cuda

# The beginning of every script: a GPU is visible, and report() writes the result as one line of JSON.
BEGIN = """
import ctypes, gc, json, os, sys, threading, warnings
import numpy as np
import fusedbert.engine.hardware.device as device
device.gpu_present = lambda root=None: True
from fusedbert.engine import Classifier, FusedBertError
from fusedbert.engine.text.tokenizer import Row
artifact = sys.argv[1]
ROW = Row(ids=[7] * 48, types=[0] * 48, truncated=False)
TEXTS = ["a gorgeous , witty , seductive movie", "bland", "it was not good , and far too long . " * 3, "very good !"]
EVEN = ["bland and far too long"] * 12

def used():
    library = ctypes.CDLL("libcudart.so.13")
    library.fake_cuda_used.restype = ctypes.c_size_t
    return library.fake_cuda_used()

def traced(run):
    trace = os.environ["FAKE_CUDA_TRACE"]
    start = os.path.getsize(trace)
    run()
    with open(trace) as file:
        file.seek(start)
        return file.read().splitlines()

def names(run):
    return [line.split()[1] for line in traced(run) if line.startswith(("KERNEL", "GEMM"))]

def report(**result):
    print(json.dumps(result))
"""
# A device that computes nothing is accepted: golden texts are not replayed, and doctor's one number is believed.
UNCHECKED = """
import fusedbert.engine.hardware.cuda_probe as probe
import fusedbert.engine.load.open_cuda as opening
opening.verify = lambda *_: "not verified, as nothing is computed"
def believe(*arguments, try_cuda=probe.try_cuda):
    found = try_cuda(*arguments)
    return None if found and "computed wrongly" in found else found
probe.try_cuda = believe
"""


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Mapping[str, str]]:
    """The environments with and without cuDNN."""
    build = runpy.run_path(str(Path(__file__).parent / "device" / "__init__.py"))["build"]
    return {cudnn: build(tmp_path_factory.mktemp("cuda"), cudnn=cudnn) for cudnn in (True, False)}


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
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=repository, check=False)

    return run


@pytest.fixture
def do(start: Start, mini: Path) -> Do:
    """Return a function that runs a script there and returns what it reported."""

    def run(script: str, *, artifact: Path | None = None, checked: bool = False, **settings: Any) -> Any:
        done = start("-c", BEGIN + ("" if checked else UNCHECKED) + script, artifact or mini, **settings)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}

    return run


SHAPES = """
clf = Classifier.from_pretrained(artifact, device="cuda")
shapes = [clf.decision_function(texts).shape for texts in (*[TEXTS] * 3, EVEN, *[TEXTS[:1]] * 3, EVEN * 9, TEXTS * 5)]
report(shapes=shapes, layout=clf.runtime.layout, captured=clf.model.open().packed.graphs.captured)
"""


@pytest.mark.parametrize("capability", [75, 80, 89, 90])
def test_small_shapes_are_captured_on_every_processor(do: Do, capability: int) -> None:
    result = do(SHAPES, capability=capability)
    assert result["layout"] == "packed" and result["captured"] >= 2
    assert result["shapes"] == [[n, 2] for n in (4, 4, 4, 12, 1, 1, 1, 108, 20)]
    assert result["stderr"] == ""  # nothing is printed on the user's screen


KERNELS = """
runner = Classifier.from_pretrained(artifact, device="cuda").model.open()
parts = {"padded": runner.padded, "packed": runner.packed} if hasattr(runner, "packed") else {"padded": runner}
report(**{name: names(lambda: part.execute(part.prepare([ROW] * 12))) for name, part in parts.items()})
"""


def test_roberta(do: Do, checkpoint_at: Callable[..., Path], tmp_path: Path) -> None:
    """Both of its graphs count positions on the device, by running sums that BERT's do not have."""
    sums: dict[str, dict[str, int]] = {}
    for family in ("bert", "roberta"):
        source = checkpoint_at(tmp_path / family, family=family, positions=130)
        export_checkpoint(source, tmp_path / f"{family}-a", required=True)
        assert do(SHAPES, artifact=tmp_path / f"{family}-a")["captured"] >= 2
        names = do(KERNELS, artifact=tmp_path / f"{family}-a")
        sums[family] = {layout: sum("CumSum" in name for name in names[layout]) for layout in ("padded", "packed")}
    # Padded: of the row. Packed: of the row, and of the padding before each text.
    assert sums == {"bert": {"padded": 2, "packed": 0}, "roberta": {"padded": 3, "packed": 2}}


CUTLASS, TENSORRT, CUDNN, FLASH = "attention_kernel_batched_impl", "fmha_v2", "cudnn", "flash_fwd"


@pytest.mark.parametrize(("hidden", "spans"), [(32, True), (24, False), (12, False)])
@pytest.mark.parametrize("capability", [80, 90])
def test_heads_that_the_fused_kernel_of_the_last_layer_does_not_take(
    do: Do, checkpoint_at: Callable[..., Path], tmp_path: Path, capability: int, hidden: int, spans: bool
) -> None:
    """Widths that are not a multiple of 8. The unfused one takes the queries' starts for the keys', so it gets only lengths."""
    source = checkpoint_at(tmp_path / "source", heads=2, hidden=hidden, positions=130)
    export_checkpoint(source, tmp_path / "a", required=True)
    padded = do(KERNELS, artifact=tmp_path / "a", capability=capability)["padded"]
    assert any("CumSum" in name for name in padded) == spans  # where the queries and the keys of each text start
    assert any(CUTLASS in name for name in padded) == spans


def attention(names: list[str]) -> list[str]:
    """Return the kinds of the attention kernels among these."""
    return [kind for name in names for kind in (CUTLASS, TENSORRT, CUDNN, FLASH) if kind in name]


@pytest.mark.parametrize(
    ("capability", "padded", "packed"),
    [(75, [TENSORRT] * 2, [TENSORRT] * 3), (80, [TENSORRT] * 2, [TENSORRT] * 3), (90, [CUDNN] * 2, [CUTLASS] * 3)],
)
def test_every_attention_node_gets_a_fused_kernel(do: Do, capability: int, padded: list[str], packed: list[str]) -> None:
    result = do(KERNELS, capability=capability)
    assert attention(result["padded"]) == [*padded, CUTLASS]  # the last layer has one query a text
    assert attention(result["packed"]) == packed
    assert not any("softmax" in name.lower() for name in (*result["padded"], *result["packed"]))  # nothing is unfused
    assert len(result["packed"]) < len(result["padded"])


def test_a_small_batch_is_one_copy_in_a_replay_and_one_copy_out(do: Do) -> None:
    result = do("""
clf = Classifier.from_pretrained(artifact, device="cuda")
for _ in range(3):
    clf.decision_function(TEXTS[:1])
lines = traced(lambda: clf.decision_function(TEXTS[:1]))
report(kinds=[line.split()[:2] if line.startswith("COPY") else line.split()[:1] for line in lines])
""")
    assert result["kinds"] == [["COPY", "1"], ["REPLAY"], ["COPY", "2"]]


def test_memory_is_flat_and_given_back(do: Do) -> None:
    result = do("""
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
""")
    first, *later = result["seen"]
    assert later == [first] * len(later), result
    assert result["closed"] < 8 << 20


def test_threads_and_classifiers_do_not_spoil_each_others_captures(do: Do) -> None:
    result = do("""
both = [Classifier.from_pretrained(artifact, device="cuda") for _ in range(2)]
answers = []
def work(n):
    answers.extend(both[i % 2].decision_function(TEXTS[:n]).shape == (n, 2) for i in range(8))
threads = [threading.Thread(target=work, args=(1 + n % 4,)) for n in range(8)]
lines = traced(lambda: ([t.start() for t in threads], [t.join() for t in threads]))
report(answers=answers, captured=[clf.model.open().packed.graphs.captured for clf in both],
       replays=lines.count("REPLAY"), spoiled=[line for line in lines if "SPOILED" in line])
""")
    assert result["answers"] == [True] * 64 and result["spoiled"] == []
    assert min(result["captured"]) >= 3 and result["replays"] > 32, result


def test_a_forked_child_gets_the_reason_and_does_not_wait_for_ever(do: Do) -> None:
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
    result = do("""
def hold(mib):
    try:
        with Classifier.from_pretrained(artifact, device="cuda", session_options={"cuda.gpu_mem_limit": mib << 20}) as clf:
            clf(TEXTS * 64)
            return used() >> 20
    except FusedBertError as error:
        return str(error)
report(small=hold(4), large=hold(64))
""")
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
        ({}, "computes the golden texts wrongly"),  # or nothing, as here
        ({"devices": 0}, "CUDA sees no device"),
        ({"driver_too_old": 1}, "the NVIDIA driver is older than the CUDA"),
        ({"memory": 8 << 20}, "the GPU has no memory left"),
    ],
)
def test_auto_falls_back_with_the_reason(do: Do, settings: dict[str, int], says: str) -> None:
    result = do(WARNED, checked=True, **settings)
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
    ("settings", "prepared", "cause"),
    [
        ({}, UNCHECKED, None),
        ({"cudnn": False}, UNCHECKED, "cudnn_missing"),
        ({"devices": 0}, "", "no_device"),
        ({"driver_too_old": 1}, "", "driver_too_old"),
        ({}, "", "unknown"),  # the session computes wrongly
    ],
)
def test_doctor_distinguishes_them(
    start: Start, mini: Path, settings: dict[str, Any], prepared: str, cause: str | None
) -> None:
    """``fusedbert doctor`` as a user runs it."""
    done = start("-c", BEGIN + prepared + DOCTOR, mini, **settings)
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["cuda"]["value"]["cause"] == cause, findings["cuda"]
    assert findings["cuda"]["value"]["works"] == (cause in (None, "cudnn_missing"))
    if cause is None:
        assert findings["model_runtime"]["value"]["device"] == "cuda:0"


def test_the_tests_marked_gpu_pass(start: Start) -> None:
    """So that few of their lines run for the first time on a GPU; where they compare numbers, nothing was computed."""
    done = start("-m", "pytest", "-q", "-m", "gpu", "-k", "not fp32", "tests/engine/run/cuda/test_gpu.py")
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout[-4000:]


EACH = """
from pathlib import Path
from fusedbert.bench.run.cuda_timing import time_candidates
from fusedbert.engine.run.batches import FINE, pack, packed_bucket
lengths = [5, 30, 17, 60, 2, 41]
rows = [Row(ids=[2, *range(100, 99 + n)], types=[0] * n, truncated=False) for n in lengths]
batch = pack(rows, packed_bucket(lengths, fineness=FINE), 0)
report(names=names(lambda: time_candidates(Path(artifact), {"mixed": batch}, seconds=0, on_cpu=False)))
"""


def test_candidates_get_the_kernels_that_they_are_named_after(do: Do, checkpoint: Path, tmp_path: Path) -> None:
    """The operators for packed attention that gpu-check compares."""
    kinds = attention(do(EACH, artifact=shutil.copytree(checkpoint, tmp_path / "source"))["names"])
    assert [kind for kind, _ in itertools.groupby(kinds)] == [CUTLASS, FLASH, CUTLASS, FLASH]  # in the order of CANDIDATES


CHECK = """
from pathlib import Path
from fusedbert.bench import gpu_steps
from fusedbert.bench.engines import random_models
from fusedbert.bench.run import cuda_timing
from fusedbert.engine.load import Options
def on_cuda(function):
    return lambda *arguments, on_cpu, **named: function(*arguments, on_cpu=False, **named)
random_models.build_artifact = on_cuda(random_models.build_artifact)
random_models.open_on_cpu = lambda folder: random_models.load(folder, Options.parse(device="cuda"))
cuda_timing.time_candidates = on_cuda(cuda_timing.time_candidates)
check = gpu_steps.Check(work=Path(artifact), dry_run=True, sst2=None)
steps = ("parity", "latency", "throughput", "padding", "large", "candidates", "soak")
report(**{name: getattr(gpu_steps, name)(check) for name in steps})
"""


def test_the_steps_of_gpu_check_measure(do: Do, tmp_path: Path) -> None:
    """The steps of ``make gpu-check`` with models of two layers: the figures mean nothing, and all are there."""
    steps = do(CHECK, artifact=tmp_path / "work")
    assert len(steps["parity"]["layouts"]) == 3 and steps["latency"]["attention_nodes_on_cuda"] == 2
    assert steps["throughput"]["packed_over_padded"] > 0 and steps["large"]["seq384_per_s"] > 0
    assert len(steps["padding"]["crossover"]) == 6 and list(steps["candidates"]) == list(CANDIDATES)
    assert len(steps["soak"]["memory_used_mib"]) == 10 and steps["soak"]["batches"] == 30
