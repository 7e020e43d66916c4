"""Every public call of the engine, as a user's type checker sees it: ``make types`` checks this file, no test runs it.

``assert_type`` says what a call gives; a line that becomes wrong is a change of the interface.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine import (
    Batch,
    Classifier,
    FusedBertError,
    InputError,
    OptionError,
    Runtime,
    Scorer,
    Stats,
    TextTooLongError,
    Window,
    WindowScore,
    ZeroShot,
    __version__,
    observe,
    prometheus,
    score_file,
)
from fusedbert.engine.explain import Attentions, WordEffect
from fusedbert.engine.scoring.summary import Summary


def load() -> None:
    """Every way to load."""
    assert_type(Classifier.from_pretrained(), Classifier)
    assert_type(Classifier.from_pretrained("artifacts/sst2"), Classifier)
    assert_type(Classifier.from_pretrained(Path("artifacts/sst2"), device="cuda:1", precision="fp16"), Classifier)
    Classifier.from_pretrained(
        "org/model",
        device="cpu",
        precision="auto",
        threads=2,
        max_length=128,
        long_text="window",
        revision="main",
        token="hf_...",
        cache_dir=Path("cache"),
        local_files_only=True,
        session_options={"session.intra_op.allow_spinning": "0"},
    )
    Classifier.from_pretrained(long_text=Window(stride=64, aggregate="max"))
    Classifier.from_pretrained(long_text=Window())
    Classifier.from_pretrained(long_text=Window(by="sentence", sentences=1, aggregate="max", label="INJECTION"))
    Classifier.from_pretrained(device=-1, split_special_tokens=True)
    Classifier.from_pretrained(threads="two")  # type: ignore[arg-type]
    Classifier.from_pretrained(None, "cpu")  # type: ignore[call-arg]
    with Classifier.from_pretrained() as clf:
        assert_type(clf, Classifier)
    clf.close()


def pipeline(clf: Classifier) -> None:
    """transformers' pipeline: what comes back depends on what is given, as there."""
    clf("text")
    clf(["a", "b"], top_k=None)
    clf({"text": "a", "text_pair": "b"}, top_k=2, function_to_apply="sigmoid", truncation=False)
    clf(("a", "b"))
    clf([("a", "b"), "c", {"text": "d"}])
    clf("text", top_k="all")  # type: ignore[arg-type]
    clf("text", padding=True, truncation="only_first", max_length=128, truncation_side="left", batch_size=8)
    clf("text", threshold=0.3, split_special_tokens=True)
    clf(np.array(["a", "b"]), threshold={"anger": 0.3})
    clf("text", threshold={None: 0.3, "anger": 0.6})
    clf("text", truncation=1.5)  # type: ignore[arg-type]
    clf("text", tpo_k=1)  # type: ignore[call-arg]
    results: Iterator[dict[str, Any] | list[dict[str, Any]]] = clf.stream(text for text in ("a", "b"))
    next(results)
    clf.stream(["a", ("a", "b")], top_k=None, function_to_apply="none", truncation=True)


def verbs(clf: Classifier) -> None:
    """The methods of scikit-learn."""
    assert_type(clf.predict(["a"]), list[str] | list[list[str]])
    assert_type(clf.predict_proba(["a", ("a", "b")]), NDArray[np.float32])
    assert_type(clf.decision_function(text for text in "ab"), NDArray[np.float32])
    assert_type(clf.classes_, list[str])
    clf.predict(["a"], 3)  # type: ignore[call-arg]
    clf.predict(["a"], threshold=[0.1, 0.2])
    assert_type(clf.thresholds, tuple[float, ...] | None)


def account(clf: Classifier) -> None:
    """Everything a classifier reports."""
    assert_type(clf.runtime, Runtime)
    assert_type(clf.runtime.device, str)
    assert_type(clf.runtime.file, Path)
    assert_type(clf.runtime.threads, int)
    assert_type(clf.max_length, int)
    assert_type(clf.problem_type, str)
    assert_type(clf.truncated, int)
    assert_type(clf.stats, Stats)
    assert_type(clf.stats.texts, int)
    assert_type(clf.stats.padding, float)
    assert_type(clf.stats.seconds.run, float)
    assert_type(clf.stats.to_dict(), dict[str, Any])
    clf.stats.texts = 0  # type: ignore[misc]
    assert_type(__version__, str)


def metrics(clf: Classifier) -> None:
    """Counters."""
    assert_type(prometheus(clf), str)
    assert_type(prometheus({"reviews": clf}, prefix="nlp"), str)

    def record(batch: Batch) -> None:
        assert_type(batch.run_seconds, float)
        assert_type(batch.rows, int)

    assert_type(observe(clf, record), Callable[[], None])
    seen: list[Batch] = []
    observe(clf, seen.append)
    observe(clf, print)


def long_text(clf: Classifier) -> None:
    """Windows."""
    found = clf.windows("a long text", "and its pair", function_to_apply="softmax", window=Window(by="sentence"))
    assert_type(found, list[WindowScore])
    assert_type(found[0].start, int)
    assert_type(found[0].logits, tuple[float, ...])
    assert_type(found[0].scores["POSITIVE"], float)
    Window("tokens")  # type: ignore[call-arg]


def attention(clf: Classifier) -> None:
    """The attention weights."""
    shown = clf.attentions("a text", "its pair", occlusion=False)
    assert_type(shown, Attentions)
    assert_type(shown.weights, NDArray[np.float32])
    assert_type(shown.tokens, tuple[str, ...])
    assert_type(shown.effects, tuple[WordEffect, ...] | None)
    assert_type(shown.to_html(max_bytes=2_000_000), str)
    shown.save_npz(Path("attention.npz"))


def scoring() -> None:
    """Files, and batches of a data framework."""
    summary = score_file(
        "reviews.csv",
        Path("scored.parquet"),
        model="artifacts/sst2",
        text_column="review",
        probabilities=True,
        on_error="null",
        long_text=Window(stride=16),
        resume=True,
    )
    assert_type(summary, Summary)
    assert_type(summary.rows, int)
    scorer = Scorer("artifacts/sst2", text_column="review", threads=2, long_text="window")
    assert_type(scorer({"review": ["fine"]}), dict[str, Any])


def zero_shot(clf: Classifier) -> None:
    """Labels chosen at the call."""
    with ZeroShot(clf) as chosen, ZeroShot.from_pretrained("artifacts/nli", threads=1) as loaded:
        assert_type(chosen, ZeroShot)
        chosen("text", candidate_labels=["a", "b"], hypothesis_template="It is {}.", multi_label=True)
        loaded(["text", "other"], "a, b")
        assert_type(loaded.stream((text for text in ("a", "b")), ["a"]), Iterator[dict[str, Any]])
        chosen("text")  # type: ignore[call-arg]
        chosen("text", "a", multi_class=True)  # type: ignore[call-arg]
        chosen(5, "a")  # type: ignore[arg-type]
    score_file("reviews.csv", "out.csv", candidate_labels="a, b", hypothesis_template="It is {}.", multi_label=True)
    Scorer("artifacts/nli", candidate_labels=["a", "b"])


def errors(clf: Classifier) -> str:
    """fusedbert's errors, and the built-in ones that they derive from."""
    try:
        clf("text", truncation=False)
    except TextTooLongError as error:
        assert_type(error, TextTooLongError)
    except (InputError, OptionError):
        raise
    except FusedBertError as error:
        return str(error)
    except ValueError:
        pass
    return ""


def elsewhere(clf: Classifier) -> None:
    """Another process."""
    again: Classifier = pickle.loads(pickle.dumps(clf))
    again.close()
