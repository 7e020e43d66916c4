"""ONNX Runtime's real CUDA provider on the fake CUDA device (``device/``): make test-cuda runs these.

The provider does on the host all that it does on a GPU: it chooses nodes and kernels, copies, captures, and holds memory.
Nothing is computed; tests/engine/run/cuda/test_gpu.py compares logits on a real GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fusedbert.bench.run.cuda_candidates import CANDIDATES
from fusedbert.engine.artifact import read_manifest, write_manifest
from fusedbert.export.graph.cuda.packed import CudaFp16Packed

pytestmark = pytest.mark.fake_cuda

Start = Callable[..., "subprocess.CompletedProcess[str]"]
Do = Callable[..., Any]


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


PROGRAM = """
import sys
import fusedbert.engine as engine
import fusedbert.engine.hardware.device as device
import fusedbert.engine.load.open_cuda as opening
device.gpu_present = lambda root=None: True
opening.verify = lambda *_: "not verified, as nothing is computed"
clf = engine.Classifier.from_pretrained(sys.argv[1], device="cuda")
"""


def test_a_classifier_that_lives_until_the_end_of_a_program_ends_quietly(start: Start, mini: Path, tmp_path: Path) -> None:
    """Its session is freed after the names of modules are gone."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = start(program, mini)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_and_classifiers_do_not_spoil_each_others_captures(do: Do) -> None:
    result = do("""
both = [Classifier.from_pretrained(artifact, device="cuda") for _ in range(2)]
answers = []
def work(n):
    answers.extend(both[i % 2].decision_function(TEXTS[:n]).shape == (n, 2) for i in range(8))
threads = [threading.Thread(target=work, args=(1 + n % 4,)) for n in range(8)]
lines = traced(lambda: ([t.start() for t in threads], [t.join() for t in threads]))
report(answers=answers, captured=[clf.model.open().graphs.captured for clf in both],
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
    assert isinstance(result["large"], int) and result["large"] <= 64 + 8, result


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


def test_the_packed_graph_works_without_cudnn(do: Do) -> None:
    result = do(WARNED, cudnn=False)
    assert (result["device"], result["layout"], result["error"], result["warned"]) == ("cuda:0", "packed", "", [])


def test_an_operator_that_is_missing_leaves_the_padded_graph(do: Do, mini: Path, tmp_path: Path) -> None:
    """As in an ONNX Runtime that does not have the packed graph's."""
    artifact = Path(shutil.copytree(mini, tmp_path / "artifact"))
    graph = artifact / CudaFp16Packed.file
    graph.write_bytes(graph.read_bytes().replace(b"PackedMultiHeadAttention", b"PackedMultiHeadAttentioX"))
    write_manifest(artifact, read_manifest(artifact))  # with these bytes
    result = do(
        """
clf = Classifier.from_pretrained(artifact, device="cuda")
report(layout=clf.runtime.layout, why=clf.runtime.why, shape=clf.decision_function(TEXTS).shape)
""",
        artifact=artifact,
    )
    assert (result["layout"], result["shape"]) == ("padded", [4, 2])
    assert "padded, as the packed graph does not work here" in result["why"] and "AttentioX" in result["why"]


DOCTOR = """
import contextlib, io
from fusedbert.engine.cli import main
with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
    main(["doctor", "-m", artifact, "--json"])
found = json.loads(printed.getvalue())["findings"]
report(findings={finding["name"]: finding["value"] for finding in found}, all=found)
"""


@pytest.mark.parametrize(
    ("settings", "checked", "cause"),
    [
        ({}, False, None),
        ({"cudnn": False}, False, "cudnn_missing"),
        ({"devices": 0}, True, "no_device"),
        ({"driver_too_old": 1}, True, "driver_too_old"),
        ({}, True, "unknown"),  # the session computes wrongly
    ],
)
def test_doctor_distinguishes_them(do: Do, settings: dict[str, Any], checked: bool, cause: str | None) -> None:
    """``fusedbert doctor`` as a user runs it."""
    findings = do(DOCTOR, checked=checked, **settings)["findings"]
    assert findings["cuda"]["cause"] == cause, findings["cuda"]
    assert findings["cuda"]["works"] == (cause in (None, "cudnn_missing"))
    if cause is None:
        assert findings["model_runtime"]["device"] == "cuda:0"


def test_libraries_in_other_folders_of_the_path_are_found(
    do: Do, libraries: dict[bool, Mapping[str, str]], tmp_path: Path
) -> None:
    """As pip lays them out, CUDA in one folder of the path, cuDNN in another; the loader knows only the driver."""
    built, cuda, cudnn, driver = Path(libraries[True]["LD_LIBRARY_PATH"]), *(tmp_path / name for name in ("a", "b", "driver"))
    places = {"libcuda.so.1": driver, "libcudnn.so.9": cudnn / "nvidia/cudnn/lib"}
    for file in built.glob("lib*.so.*"):
        place = places.get(file.name, cuda / "nvidia/cu13/lib")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)

    def variables(*layers: Path) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (*map(str, layers), os.environ.get("PYTHONPATH", ""))))
        return {"LD_LIBRARY_PATH": str(driver), "PYTHONPATH": path}

    def halved(file: Path) -> bytes:
        return file.read_bytes()[: file.stat().st_size // 2]

    def cause(*layers: Path) -> str | None:
        return str(do(DOCTOR, variables=variables(*layers))["findings"]["cuda"]["cause"])

    assert [cause(cuda, cudnn), cause(cuda), cause(cudnn)] == ["None", "cudnn_missing", "cuda_libraries_missing"]
    error = do(WARNED, checked=True, variables=variables(cudnn))["error"]  # of the graph nothing is known yet
    assert "cuda:0 did not engage: " in error and "the CUDA libraries are not found: " in error and "graph" not in error
    optional = cudnn / "nvidia/cudnn/lib/libcudnn.so.9"
    optional.write_bytes(halved(optional))  # mapped, it would end the process
    (found,) = (each for each in do(DOCTOR, variables=variables(cuda, cudnn))["all"] if each["name"] == "cuda")
    assert (found["value"]["works"], found["value"]["cause"]) == (True, "cudnn_missing")
    assert f"{optional} is damaged: " in found["advice"]
    damaged = cuda / "nvidia/cu13/lib/libcublasLt.so.13"
    for left in (halved(damaged), b""):
        damaged.write_bytes(left)
        assert cause(cuda, cudnn) == "cuda_library_damaged"
        assert f"{damaged} is damaged: " in do(WARNED, checked=True, variables=variables(cuda, cudnn))["error"]


def test_the_tests_marked_gpu_pass(start: Start) -> None:
    """So that few of their lines run for the first time on a GPU; where they compare numbers, nothing was computed."""
    done = start("-m", "pytest", "-q", "-m", "gpu", "-k", "not fp32", "tests/engine/run/cuda/test_gpu.py")
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout[-4000:]


CHECK = """
from pathlib import Path
from fusedbert.bench import gpu_steps
from fusedbert.bench.engines.random import models
from fusedbert.bench.run import cuda_candidates
def on_cuda(function):
    return lambda *arguments, on_cpu, **named: function(*arguments, on_cpu=False, **named)
models.build_artifact = on_cuda(models.build_artifact)
models.open_on_cpu = models.open_on_cuda
cuda_candidates.open_candidates = on_cuda(cuda_candidates.open_candidates)
check = gpu_steps.Check(work=Path(artifact), dry_run=True, sst2=None)
steps = ("parity", "latency", "throughput", "reviews", "padding", "large", "candidates", "families", "soak")
report(**{name: getattr(gpu_steps, name)(check) for name in steps})
"""


def test_the_steps_of_gpu_check_measure(do: Do, tmp_path: Path) -> None:
    """The steps of ``make gpu-check`` with models of two layers: the figures mean nothing, and all are there."""
    steps = do(CHECK, artifact=tmp_path / "work")
    assert len(steps["parity"]["layouts"]) == 3 and steps["latency"]["attention_nodes_on_cuda"] == 2
    assert steps["throughput"]["packed_over_padded"] > 0 and steps["large"]["seq384_per_s"] > 0
    assert len(steps["padding"]["crossover"]) == 6 and list(steps["candidates"]) == list(CANDIDATES)
    assert len(steps["soak"]["memory_used_mib"]) == 10 and steps["soak"]["batches"] == 30
