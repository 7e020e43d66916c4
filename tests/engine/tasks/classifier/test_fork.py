"""A classifier in a process that was forked after it was loaded: it works, ends, and counts for itself.

Each case runs in a separate interpreter: a fork of the test process would inherit the locks of its threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

HEAD = """
import multiprocessing, os, sys, threading, warnings
from concurrent.futures import ThreadPoolExecutor
from fusedbert.engine import Classifier, ClosedError, DeviceError
TEXTS = ["good movie", "bad", "the plot was very dull", "good " * 20] * 8
clf = Classifier.from_pretrained(sys.argv[1], threads=int(sys.argv[2]))
expected = clf.predict_proba(TEXTS)

def same(found):
    return bool(abs(found - expected).max() < 1e-6)

def in_child(work):
    \"\"\"Fork, run there, and leave as a program does: through the interpreter's end, which lets go of everything.\"\"\"
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(0 if work() else 1)
"""


def run(code: str, artifact: Path, threads: int = 2) -> list[str]:
    """Run a program; one that hangs fails at the time limit."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", HEAD + code, str(artifact), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_child_answers_and_ends(artifact: Path, threads: int) -> None:
    code = "print(in_child(lambda: same(clf.predict_proba(TEXTS)))); print(same(clf.predict_proba(TEXTS)))"
    assert run(code, artifact, threads) == ["0", "True"]


def test_a_child_reads_special_tokens_as_its_parent(artifact: Path) -> None:
    code = """
clf = Classifier.from_pretrained(sys.argv[1], threads=1, split_special_tokens=True)
texts = ["good [SEP] bad"]
parent = [clf(texts, split_special_tokens=each) for each in (None, False)]
print(parent[0] != parent[1])
print(in_child(lambda: [clf(texts, split_special_tokens=each) for each in (None, False)] == parent))
"""
    assert run(code, artifact, 1) == ["True", "0"]


def test_a_child_that_does_not_use_it_ends(artifact: Path) -> None:
    # New threads of the child replace those that a fork does not copy.
    code = """
def work():
    workers = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(8)]
    [worker.start() for worker in workers]
    return True
print(in_child(work), in_child(lambda: True))
"""
    assert run(code, artifact) == ["0", "0"]


def test_many_threads_of_a_child_open_the_graph_once(artifact: Path) -> None:
    code = """
import fusedbert.engine.model as module
opened = []
real = module.load
module.load = lambda *given: opened.append(given) or real(*given)
def work():
    with ThreadPoolExecutor(8) as pool:
        return all(map(same, pool.map(clf.predict_proba, [TEXTS] * 16))) and len(opened) == 1
print(in_child(work))
"""
    assert run(code, artifact) == ["0"]


def test_a_fork_while_other_threads_run_is_safe(artifact: Path) -> None:
    code = """
over = threading.Event()
def busy():
    while not over.is_set():
        clf.predict_proba(TEXTS)
        clf.stats
workers = [threading.Thread(target=busy) for _ in range(3)]
[worker.start() for worker in workers]
print({in_child(lambda: same(clf.predict_proba(TEXTS)) and clf.stats.texts == len(TEXTS)) for _ in range(10)})
over.set()
[worker.join() for worker in workers]
"""
    assert run(code, artifact) == ["{0}"]


def test_a_child_of_a_child_answers(artifact: Path) -> None:
    code = "print(in_child(lambda: same(clf.predict_proba(TEXTS)) and in_child(lambda: same(clf.predict_proba(TEXTS))) == 0))"
    assert run(code, artifact) == ["0"]


def test_each_process_counts_for_itself(artifact: Path) -> None:
    code = """
before = clf.stats
print(in_child(lambda: clf.stats.texts == 0 and len(clf("good")) == 1 and clf.stats.texts == 1), clf.stats == before)
"""
    assert run(code, artifact) == ["0", "True"]


def test_a_closed_classifier_stays_closed_in_a_child_which_may_close_its_own(artifact: Path) -> None:
    code = """
def close():
    clf.close()
    try:
        clf("good")
    except ClosedError:
        return True
print(in_child(close), same(clf.predict_proba(TEXTS)))
clf.close()
print(in_child(close))
"""
    assert run(code, artifact) == ["0", "True", "0"]


def test_a_child_may_change_its_working_directory(artifact: Path) -> None:
    code = """
os.chdir(os.path.dirname(sys.argv[1]))
clf = Classifier.from_pretrained(os.path.basename(sys.argv[1]), threads=1)
def work():
    os.chdir("/")
    return same(clf.predict_proba(TEXTS))
print(in_child(work))
"""
    assert run(code, artifact) == ["0"]


def test_a_forked_graph_on_a_gpu_is_refused(artifact: Path) -> None:
    code = """
import dataclasses
clf.model.runtime = dataclasses.replace(clf.runtime, provider="CUDAExecutionProvider", device="cuda:0")
def work():
    try:
        clf("good")
    except DeviceError as error:
        return "cuda:0" in str(error) and "spawn" in str(error)
print(in_child(work))
"""
    assert run(code, artifact) == ["0"]


def test_a_pool_of_forked_workers_answers(artifact: Path) -> None:
    code = """
def work(i):
    return same(clf.predict_proba(TEXTS)), os.getpid()
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map(work, range(8))
print(all(each for each, _ in found), os.getpid() not in {pid for _, pid in found})
"""
    assert run(code, artifact) == ["True", "True"]


def test_onnxruntime_starts_no_thread_for_telemetry(artifact: Path) -> None:
    # A child would not have its thread, and would wait for it at the end.
    code = "print(len(os.listdir('/proc/self/task')), [name for name in os.environ if 'TELEMETRY' in name])"
    if Path("/proc/self/task").is_dir():
        assert run(code, artifact, threads=1) == ["1", "[]"]
