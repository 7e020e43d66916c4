import os
import subprocess
import sys
import time

import pytest

from fusedbert.bench.run.process import ContenderFailedError, Worker


@pytest.fixture
def start(setting):
    """Start a worker that finds the fake contenders; all are stopped at the end."""
    workers = []

    def run():
        workers.append(Worker.start(None, {"PYTHONPATH": os.pathsep.join(map(str, setting.python_path))}))
        return workers[-1]

    yield run
    for worker in workers:
        worker.stop()


@pytest.fixture
def ask(setting):
    """What ``prepare`` takes for a fake."""
    return lambda name: {"contender": name, "job": setting.job.to_json(), "factory": "fake_contenders:make"}


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_a_library_prints_does_not_disturb_the_answers(start, ask, checkpoint):
    worker = start()
    assert worker.call("prepare", timeout=30, **ask("right"))["seconds"] < 5
    loaded = worker.call("load", timeout=30, tokenizer=str(checkpoint))
    assert loaded["description"]["versions"] == {"fake": "1"}
    assert worker.last_words() == "and another below Python"
    found = worker.call("latency", timeout=30, batch=2, tokens=8, seed=[0, 0, 0], seconds=0.01, samples=5)
    assert len(found["seconds"]) >= 5


def test_an_exception_is_one_line_with_its_kind_and_the_worker_goes_on(start, ask):
    worker = start()
    with pytest.raises(ContenderFailedError, match=r"^prepare: ValueError: no such model of that kind$") as caught:
        worker.call("prepare", timeout=30, **ask("raises"))
    assert caught.value.kind == "ValueError"
    assert worker.call("prepare", timeout=30, **ask("right"))


@pytest.mark.parametrize("task", ["nothing", "../escape", "os.path"])
def test_a_task_that_there_is_not_is_an_error(start, task):
    with pytest.raises(ContenderFailedError, match=r"nothing|no name of a task"):
        start().call(task, timeout=30)


def test_a_crash_is_told_with_its_signal_and_last_words(start, ask, checkpoint):
    worker = start()
    worker.call("prepare", timeout=30, **ask("crashes"))
    with pytest.raises(ContenderFailedError, match="load: its process was ended by SIGABRT: about to go"):
        worker.call("load", timeout=30, tokenizer=str(checkpoint))
    with pytest.raises(ContenderFailedError, match="SIGABRT"):
        worker.call("load", timeout=30, tokenizer=str(checkpoint))


def test_leaving_is_told_with_its_status(start, ask, checkpoint):
    worker = start()
    worker.call("prepare", timeout=30, **ask("leaves"))
    with pytest.raises(ContenderFailedError, match="left with status 1: SystemExit: 3"):
        worker.call("load", timeout=30, tokenizer=str(checkpoint))


def test_a_hang_is_ended_after_the_limit(start, ask, checkpoint):
    worker = start()
    worker.call("prepare", timeout=30, **ask("hangs"))
    with pytest.raises(ContenderFailedError, match=r"load: no answer within 0 s, so its process was ended"):
        worker.call("load", timeout=0.2, tokenizer=str(checkpoint))
    assert gone(worker.pid)


def test_an_interpreter_that_is_not_there_is_our_error(tmp_path):
    with pytest.raises(ContenderFailedError, match="cannot be started"):
        Worker.start(tmp_path / "python")


def test_a_stopped_worker_is_gone_and_stopping_twice_is_fine(start):
    worker = start()
    worker.stop()
    assert gone(worker.pid)
    worker.stop()


def test_no_worker_outlives_the_process_that_started_it():
    program = (
        "from fusedbert.bench.run.process import Worker; import os; w = Worker.start(); print(w.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    pid = int(done.stdout)
    for _ in range(100):
        if gone(pid):
            break
        time.sleep(0.1)
    assert gone(pid)


def test_a_worker_starts_with_the_standard_library_alone():
    program = "import fusedbert.bench.run.worker, sys; print({n.split('.')[0] for n in sys.modules} & {'numpy', 'tokenizers'})"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
