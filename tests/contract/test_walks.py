"""The length of the main call paths: how many files a call enters, and how often it moves from one file to another."""

import inspect
import sys
import threading
from pathlib import Path

import pytest

import fusedbert.engine
from fusedbert.engine import Batcher, Classifier

ENGINE = Path(fusedbert.engine.__file__).resolve().parent
NOT_CALLS = ("<lambda>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<module>")


class Walk:
    """Counts calls of the engine's functions; entering a generator counts once."""

    def __init__(self):
        self.files = set()
        self.crossings = []
        self._generators = []

    def profile(self, frame, event, _):
        if event != "call" or not ours(frame) or frame in self._generators:
            return
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            self._generators.append(frame)
        self.files.add(file_of(frame))
        caller = frame.f_back
        while caller is not None and (not ours(caller) or caller.f_code.co_name in NOT_CALLS):
            caller = caller.f_back  # through comprehensions and the standard library
        if caller is not None and frame.f_code.co_name not in NOT_CALLS and file_of(caller) != file_of(frame):
            self.crossings.append(f"{file_of(caller)} -> {file_of(frame)}:{frame.f_code.co_name}")


def ours(frame):
    return Path(frame.f_code.co_filename).resolve().is_relative_to(ENGINE)


def file_of(frame):
    return Path(frame.f_code.co_filename).resolve().relative_to(ENGINE).as_posix()


@pytest.fixture(scope="module")
def clf(embedded):
    with Classifier.from_pretrained(embedded, device="cpu", precision="int8", threads=1) as classifier:
        classifier("I really loved this movie.")
        yield classifier


def test_from_text_to_label(clf):
    walk = Walk()
    sys.setprofile(walk.profile)
    try:
        clf("I really loved this movie.")
    finally:
        sys.setprofile(None)
    assert len(walk.files) <= 9, sorted(walk.files)
    assert len(walk.crossings) <= 20, walk.crossings


def test_from_a_request_to_its_answer(clf):
    walk = Walk()
    threading.setprofile(walk.profile)  # those of the workers, which start below
    try:
        with Batcher(clf, workers=1) as batcher:
            batcher.submit("I really loved this movie.").result(20)
            walk.files.clear()
            sys.setprofile(walk.profile)
            batcher.submit("I really loved this movie.").result(20)
            sys.setprofile(None)
            found = set(walk.files)
    finally:
        threading.setprofile(None)
        sys.setprofile(None)
    assert {"server/batcher/__init__.py", "server/batcher/worker.py", "run/session.py"} <= found
    assert len(found) <= 12, sorted(found)
