"""A pickled classifier is loaded again by its path: in another process, from another directory, without secrets."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fusedbert.engine import Classifier, ClosedError, ModelNotFoundError, OptionError, Window

TEXTS = ["good movie", "bad", "the plot was very dull", "good " * 50]


def test_an_unpickled_classifier_answers_as_before(artifact: Path) -> None:
    with Classifier.from_pretrained(artifact, threads=1, max_length=20, long_text=Window(stride=2, aggregate="max")) as clf:
        expected = clf.predict_proba(TEXTS)
        for other in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
            np.testing.assert_allclose(other.predict_proba(TEXTS), expected, atol=1e-6)
            assert other.max_length == 20 and other.stats.windows == clf.stats.windows > 1
            assert dataclasses.replace(other.runtime, why="") == dataclasses.replace(clf.runtime, why="")
        assert len(pickle.dumps(clf)) < 2000  # a path and options


def test_a_relative_path_is_found_from_another_folder(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(artifact.parent)
    pickled = pickle.dumps(Classifier.from_pretrained(artifact.name))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickled)("good")


def test_a_pickle_keeps_no_access_token(artifact: Path) -> None:
    pickled = pickle.dumps(Classifier.from_pretrained(artifact, token="hf_secret"))
    assert b"hf_secret" not in pickled and pickle.loads(pickled).model.options.token is None


def test_a_session_options_object_and_a_closed_classifier_cannot_be_pickled(artifact: Path) -> None:
    clf = Classifier.from_pretrained(artifact, session_options=onnxruntime.SessionOptions())
    with pytest.raises(OptionError, match="give a mapping"):
        pickle.dumps(clf)
    mapping = Classifier.from_pretrained(artifact, session_options={"session.intra_op.allow_spinning": "0"})
    assert pickle.loads(pickle.dumps(mapping))("good")
    clf.close()
    with pytest.raises(ClosedError):
        pickle.dumps(clf)


def test_an_unpickled_classifier_without_its_folder_is_refused(artifact: Path, tmp_path: Path) -> None:
    clf = Classifier.from_pretrained(artifact)
    pickled = pickle.dumps(clf)
    artifact.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelNotFoundError):
        pickle.loads(pickled)
    assert clf("good")  # the loaded one does not need its file any more


SPAWN = """
import multiprocessing, sys
from fusedbert.engine import Classifier

def work(given):
    clf, text = given
    return clf(text)

if __name__ == "__main__":
    clf = Classifier.from_pretrained(sys.argv[1], threads=1)
    texts = ["good", "bad movie", "very dull"]
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            found = pool.map(work, [(clf, text) for text in texts])
        print(all(abs(a[0]["score"] - clf(text)[0]["score"]) < 1e-6 for a, text in zip(found, texts)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs forkserver")
def test_spawned_workers_answer(artifact: Path, tmp_path: Path) -> None:
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN)
    done = subprocess.run(
        [sys.executable, str(script), str(artifact)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.split() == ["True", "True"], done.stderr
