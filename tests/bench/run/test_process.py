import os
import subprocess
import sys
import time

import pytest

from fusedbert.bench.run.process import EngineFailedError, Worker


@pytest.fixture
def start(settings):
    """Start a worker that finds the fake engines; all are stopped at the end."""
    workers = []

    def run():
        workers.append(Worker(None, {"PYTHONPATH": os.pathsep.join(map(str, settings.python_path))}))
        return workers[-1]

    yield run
    for worker in workers:
        worker.stop()


@pytest.fixture
def ask(settings):
    """Return a function that makes the request of ``prepare`` for a fake."""
    return lambda name: {"engine": name, "job": settings.job.to_json(), "factory": "fake_engines:make"}


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def soon_gone(pid):
    for _ in range(100):
        if gone(pid):
            return True
        time.sleep(0.1)
    return False


def test_what_a_library_prints_does_not_disturb_the_answers(start, ask, checkpoint):
    worker = start()
    assert worker.call("prepare", timeout=30, **ask("right"))["seconds"] < 5
    loaded = worker.call("open", timeout=30, tokenizer=str(checkpoint))
    assert loaded["description"]["versions"] == {"fake": "1"}
    assert worker.last_words() == "and another below Python"
    found = worker.call("latency", timeout=30, batch=2, tokens=8, seed=[0, 0, 0], seconds=0.01, samples=5)
    assert len(found["seconds"]) >= 5


def test_an_exception_is_one_line_with_its_kind_and_the_worker_goes_on(start, ask):
    worker = start()
    with pytest.raises(EngineFailedError, match=r"^prepare: ValueError: no such model of that kind$") as caught:
        worker.call("prepare", timeout=30, **ask("raises"))
    assert caught.value.kind == "ValueError"
    assert worker.call("prepare", timeout=30, **ask("right"))


@pytest.mark.parametrize("task", ["nothing", "../escape", "os.path"])
def test_an_unknown_task_is_an_error(start, task):
    with pytest.raises(EngineFailedError, match=r"nothing|not the name of a task"):
        start().call(task, timeout=30)


def test_a_crash_is_reported_with_its_signal_and_last_output(start, ask, checkpoint):
    worker = start()
    worker.call("prepare", timeout=30, **ask("crashes"))
    with pytest.raises(EngineFailedError, match="open: its process was ended by SIGABRT: about to go"):
        worker.call("open", timeout=30, tokenizer=str(checkpoint))
    with pytest.raises(EngineFailedError, match="SIGABRT"):
        worker.call("open", timeout=30, tokenizer=str(checkpoint))


def test_an_exit_is_reported_with_its_status(start, ask, checkpoint):
    worker = start()
    worker.call("prepare", timeout=30, **ask("leaves"))
    with pytest.raises(EngineFailedError, match="left with status 1: SystemExit: 3"):
        worker.call("open", timeout=30, tokenizer=str(checkpoint))


def test_a_hang_is_ended_after_the_limit(start, ask, checkpoint):
    worker = start()
    worker.call("prepare", timeout=30, **ask("hangs"))
    with pytest.raises(EngineFailedError, match=r"open: no answer within 0 s, so its process was ended"):
        worker.call("open", timeout=0.2, tokenizer=str(checkpoint))
    assert gone(worker.pid)


def test_a_missing_interpreter_is_one_error(tmp_path):
    with pytest.raises(EngineFailedError, match="cannot be started"):
        Worker(tmp_path / "python")


def test_a_stopped_worker_is_gone_and_stopping_twice_is_fine(start):
    worker = start()
    worker.stop()
    assert gone(worker.pid)
    worker.stop()


@pytest.mark.parametrize("busy", [False, pytest.param(True, marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux"))])
def test_no_worker_outlives_the_process_that_started_it(settings, ask, checkpoint, busy):
    variables = {"PYTHONPATH": os.pathsep.join(map(str, settings.python_path))}
    lines = [
        "import os, threading, time; from fusedbert.bench.run.process import Worker",
        f"w = Worker(None, {variables!r}); w.call('prepare', timeout=30, **{ask('hangs')!r}); print(w.pid, flush=True)",
        f"call = lambda: w.call('open', timeout=60, tokenizer={str(checkpoint)!r})",
        *(["threading.Thread(target=call, daemon=True).start(); time.sleep(0.5)"] if busy else []),
        "os._exit(0)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60, check=True)
    assert soon_gone(int(done.stdout))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its parent")
def test_no_program_of_a_step_outlives_its_process():
    program = "import os, time; print(os.getpid(), flush=True); os.kill(os.getppid(), 9); time.sleep(60)"
    step = f"from fusedbert.bench.gpu_steps import run_program; run_program({program!r})"
    done = subprocess.run([sys.executable, "-c", step], stdout=subprocess.PIPE, timeout=50, check=False)
    assert done.returncode == -9 and soon_gone(int(done.stdout))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its parent")
def test_a_program_whose_parent_has_gone_before_ends_at_once():
    program = "from fusedbert.bench.run.worker import end_with_parent; end_with_parent(0); print('goes on')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_worker_starts_with_only_the_standard_library():
    program = "import fusedbert.bench.run.worker, sys; print({n.split('.')[0] for n in sys.modules} & {'numpy', 'tokenizers'})"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
