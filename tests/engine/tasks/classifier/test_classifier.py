"""Loading, the methods of scikit-learn, order, exactness, streams, threads, and refused calls."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import random
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fusedbert.engine import ArtifactError, Classifier, ClosedError, InferenceError, InputError, OptionError, TextTooLongError
from fusedbert.engine.hardware.device import Device

TEXTS = ["good movie", "", "the plot was very dull", "bad", "really loved this film, the actor was fine!", " \t", "x\0y", "😀"]


@pytest.fixture
def clf(artifact: Path) -> Iterator[Classifier]:
    with Classifier.from_pretrained(artifact, threads=2) as classifier:
        yield classifier


def test_logits_are_those_of_the_equations_in_order(clf: Classifier, reference: Callable[..., np.ndarray]) -> None:
    items = [*TEXTS, ("good", "bad"), ("", "dull movie")]
    found = clf.decision_function(items)
    assert found.dtype == np.float32 and found.shape == (10, 2)
    np.testing.assert_allclose(found, reference(items), atol=1e-5)
    order = list(reversed(range(len(items))))
    np.testing.assert_allclose(clf.decision_function([items[i] for i in order]), found[order], atol=1e-6)


def test_a_score_does_not_depend_on_its_batch(clf: Classifier) -> None:
    generator = random.Random(0)
    words = ["good", "bad", "movie", "plot", "was", "very", "not", "the", "dull"]
    texts = [" ".join(generator.choices(words, k=generator.randrange(0, 30))) for _ in range(300)]
    alone = np.concatenate([clf.decision_function([text]) for text in texts])
    np.testing.assert_allclose(clf.decision_function(texts), alone, atol=1e-6)


def test_the_methods_of_scikit_learn_follow_the_equations(clf: Classifier, reference: Callable[..., np.ndarray]) -> None:
    logits = reference(TEXTS)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities = clf.predict_proba(TEXTS)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert probabilities.dtype == np.float32
    assert clf.classes_ == ["NEGATIVE", "POSITIVE"]
    assert clf.predict(TEXTS) == [clf.classes_[i] for i in expected.argmax(axis=1)]
    assert clf.predict(np.array(TEXTS[:2])) == clf.predict(TEXTS[:2])
    for empty in (clf.predict_proba([]), clf.decision_function([])):
        assert empty.shape == (0, 2) and empty.dtype == np.float32
    assert clf.predict([]) == []


@pytest.mark.parametrize("verb", ["predict", "predict_proba", "decision_function", "stream"])
def test_a_single_text_is_not_accepted_as_a_collection(clf: Classifier, verb: str) -> None:
    with pytest.raises(InputError, match=r"\[text\]"):
        getattr(clf, verb)("good movie")


def test_multi_label_scores_are_sigmoids(make_artifact: Callable[..., Path], reference: Callable[..., np.ndarray]) -> None:
    labels = tuple("abcdefgh")
    clf = Classifier.from_pretrained(make_artifact(labels, "multi_label_classification"))
    expected = [[label for label, logit in zip(labels, row, strict=True) if logit >= 0] for row in reference(TEXTS, 8)]
    assert clf.predict(TEXTS) == expected
    assert len(set(map(tuple, expected))) > 1


def test_regression_gives_values(make_artifact: Callable[..., Path], reference: Callable[..., np.ndarray]) -> None:
    clf = Classifier.from_pretrained(make_artifact(("value",), "regression"))
    np.testing.assert_allclose(clf.predict_proba(TEXTS), reference(TEXTS, 1), atol=1e-5)
    with pytest.raises(OptionError, match="decision_function"):
        clf.predict(TEXTS)


def test_a_graph_without_segments_gets_only_its_declared_inputs(make_artifact: Callable[..., Path]) -> None:
    clf = Classifier.from_pretrained(make_artifact(types=False))
    assert clf.decision_function(["good", ("good", "bad")]).shape == (2, 2)


def test_stream_is_lazy_in_order_and_reads_little_ahead(clf: Classifier) -> None:
    read = 0

    def endless() -> Iterator[Any]:
        nonlocal read
        for number in itertools.count():
            read += 1
            yield ("good", "bad") if number % 3 == 0 else {"text": "bad " * (number % 5)} if number % 3 == 1 else "movie"

    results = clf.stream(endless())
    assert read == 0
    first = next(results)
    assert read == 1
    items = list(itertools.islice(endless(), 1000))
    expected = clf(items)
    read = 0
    for result, other in zip(itertools.chain([first], results), expected, strict=False):
        assert result == {"label": other["label"], "score": pytest.approx(other["score"], abs=1e-6)}
    assert read < 1600


def test_stream_names_the_place_of_a_bad_item(clf: Classifier) -> None:
    items: list[Any] = [*["good"] * 700, None]
    results = clf.stream(items)
    with pytest.raises(InputError, match="text 700 is None"):
        list(results)


def test_truncated_texts_are_counted_or_refused(artifact: Path, clf: Classifier) -> None:
    long = "good " * 100
    clf([long, "bad", long])
    assert clf.truncated == 2
    with pytest.raises(TextTooLongError, match="text 1 has 102 tokens, max_length is 32"):
        clf(["bad", long], truncation=False)
    with Classifier.from_pretrained(artifact, long_text="error", max_length=10) as strict:
        with pytest.raises(TextTooLongError, match="max_length is 10"):
            strict.predict([long])
        assert strict(long, truncation=True)[0]["label"] in strict.classes_


def test_a_megabyte_of_text_is_classified_quickly(clf: Classifier) -> None:
    assert clf("good movie, " * 90_000)[0]["label"] in clf.classes_


def test_eight_threads_get_the_results_of_one(clf: Classifier) -> None:
    generator = random.Random(1)
    batches = [[generator.choice(TEXTS) for _ in range(generator.randrange(1, 12))] for _ in range(200)]
    expected = [clf.decision_function(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(clf.decision_function, batches))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_runtime_and_repr_describe_the_classifier(clf: Classifier, artifact: Path) -> None:
    runtime = clf.runtime
    assert (runtime.device, runtime.provider, runtime.precision) == ("cpu", "CPUExecutionProvider", "fp32")
    assert runtime.file == artifact / "onnx/model.onnx" and runtime.threads == 2
    assert "fp32" in runtime.why and "2 threads as asked for" in runtime.why
    with pytest.raises(AttributeError):
        runtime.device = "cuda"  # type: ignore[misc]
    assert "fp32 on cpu" in repr(clf) and "POSITIVE" in repr(clf)


def test_a_closed_classifier_is_refused(artifact: Path) -> None:
    with Classifier.from_pretrained(artifact) as clf:
        clf("good")
    for call in (lambda: clf("good"), lambda: clf.predict(["good"]), lambda: list(clf.stream(["good"]))):
        with pytest.raises(ClosedError, match="from_pretrained"):
            call()
    clf.close()
    assert "closed" in repr(clf)


def test_closing_frees_the_graph(artifact: Path) -> None:
    clf = Classifier.from_pretrained(artifact)
    graph = weakref.ref(clf.model.open())
    clf.close()
    gc.collect()
    assert graph() is None
    assert clf.classes_ and clf.max_length  # small objects stay


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"device": "gpu"}, "auto, cpu, cuda, cuda:N"),
        ({"device": "cuda:x"}, "cuda:N"),
        ({"device": None}, "cuda:N"),
        ({"device": 10**5000}, "cuda:N"),
        ({"precision": "fp64"}, "auto, fp32, int8, bf16, fp16"),
        ({"precision": "int8"}, "fp32 for cpu; make one with fusedbert export"),
        ({"long_text": "drop"}, "truncate, error, window"),
        ({"threads": 0}, "from 1 to 4096"),
        ({"threads": 10**400}, "from 1 to 4096"),
        ({"threads": 1.5}, "from 1 to 4096"),
        ({"max_length": 2}, "from 3 up"),
        ({"max_length": 33}, "up to 32 tokens"),
        ({"split_special_tokens": 1}, "give True, False or None"),
        ({"batch_size": 8}, "clf(texts, batch_size=...)"),
        ({"top_k": None}, "clf(texts, top_k=...)"),
        ({"torch_dtype": "auto"}, "give precision"),
        ({"device_map": "auto"}, "give device"),
        ({"tokenizer": "bert-base-uncased"}, "leave it out"),
        ({"session_options": 3}, "SessionOptions or a mapping"),
        ({"session_options": {"no_such_thing": 1}}, "no_such_thing"),
        ({"session_options": {"intra_op_num_threads": "two"}}, "intra_op_num_threads"),
    ],
)
def test_wrong_options_are_refused_with_the_valid_values(artifact: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError) as caught:
        Classifier.from_pretrained(artifact, **options)
    assert named in str(caught.value)


def test_calls_refuse_wrong_options(clf: Classifier) -> None:
    for options in ({"top_k": 0}, {"function_to_apply": "max"}, {"truncation": "longest"}):
        with pytest.raises(OptionError, match=next(iter(options))):
            clf("good", **options)  # type: ignore[arg-type]


def test_devices_are_parsed_and_printed() -> None:
    assert [str(Device.parse(text)) for text in ("auto", "cpu", "cuda", "cuda:3")] == ["auto", "cpu", "cuda:0", "cuda:3"]


def test_devices_of_transformers_are_understood() -> None:
    import torch

    given = (0, 3, -1, torch.device("cuda:1"), torch.device("cuda", 0), torch.device("cpu"), torch.device("cpu", 0))
    assert [str(Device.parse(each)) for each in given] == ["cuda:0", "cuda:3", "cpu", "cuda:1", "cuda:0", "cpu", "cpu"]
    assert str(Device.parse(torch.device("cuda"))) == "cuda:0"
    for wrong in (True, False, -2, 10**5, 0.0, torch.device("mps"), torch.device("meta"), int, object()):
        with pytest.raises(OptionError, match="give one of auto, cpu, cuda, cuda:N"):
            Device.parse(wrong)


def test_the_users_session_options_take_precedence(artifact: Path, reference: Callable[..., np.ndarray]) -> None:
    own = onnxruntime.SessionOptions()
    own.intra_op_num_threads = 1
    mapping = {"intra_op_num_threads": 1, "session.intra_op.allow_spinning": "0"}
    for given in (own, mapping):
        with Classifier.from_pretrained(artifact, threads=2, session_options=given) as clf:
            assert clf.runtime.threads == 1
            np.testing.assert_allclose(clf.decision_function(TEXTS), reference(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "asked"),
    [(None, False), ({}, False), ({"fusedbert.kernels": "0"}, False), ({"intra_op_num_threads": 1}, True)],
)
def test_the_runtime_says_threads_as_asked_for_only_on_request(artifact: Path, settings: Any, asked: bool) -> None:
    with Classifier.from_pretrained(artifact, session_options=settings) as clf:
        assert ("as asked for" in clf.runtime.why) == asked


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, None])
def test_a_damaged_graph_is_refused(artifact: Path, content: bytes | None) -> None:
    graph = artifact / "onnx/model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ArtifactError, match=r"model\.onnx has \d+ bytes, the manifest says"):
        Classifier.from_pretrained(artifact)
    graph.write_bytes(b"\xff" * len(whole))
    _rewrite(artifact)  # as if the export had written it
    with pytest.raises(ArtifactError, match=r"model\.onnx (cannot be loaded|is not an ONNX graph).*export") as caught:
        Classifier.from_pretrained(artifact)
    assert "\n" not in str(caught.value)
    graph.unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx is missing"):
        Classifier.from_pretrained(artifact)


def test_a_manifest_path_outside_the_folder_is_refused(artifact: Path) -> None:
    manifest = artifact / "fusedbert.json"
    manifest.write_text(manifest.read_text().replace("onnx/model.onnx", "../model.onnx"))
    with pytest.raises(ArtifactError, match="not a path inside"):
        Classifier.from_pretrained(artifact)


def test_a_graph_that_is_not_a_classifier_is_refused(artifact: Path, make_artifact: Callable[..., Path]) -> None:
    import onnx

    graph = onnx.load(artifact / "onnx/model.onnx")
    graph.graph.input[0].name = "pixels"
    for node in graph.graph.node:
        node.input[:] = ["pixels" if name == "input_ids" else name for name in node.input]
    onnx.save(graph, artifact / "onnx/model.onnx")
    _rewrite(artifact)
    with pytest.raises(ArtifactError, match="inputs pixels"):
        Classifier.from_pretrained(artifact)


def test_nan_is_an_error_and_not_a_label(artifact: Path) -> None:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(artifact / "onnx/model.onnx")
    bias = next(each for each in graph.graph.initializer if each.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.array([np.nan, 0], dtype=np.float32), "bias"))
    onnx.save(graph, artifact / "onnx/model.onnx")
    _rewrite(artifact, golden=())
    with Classifier.from_pretrained(artifact) as clf, pytest.raises(InferenceError, match="text 0"):
        clf(["good", "bad"])


def test_labels_that_do_not_fit_the_graph_are_refused(make_artifact: Callable[..., Path]) -> None:
    folder = make_artifact(("a", "b", "c"))
    _rewrite(folder, labels=("a", "b", "c", "d"), golden=())
    with Classifier.from_pretrained(folder) as clf, pytest.raises(InferenceError, match="shape"):
        clf("good")


def test_a_failed_run_is_one_error(artifact: Path) -> None:
    tokenizer = artifact / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"good": 4', '"good": 4000'))  # beyond the embedding table
    _rewrite(artifact, golden=())
    with Classifier.from_pretrained(artifact) as clf, pytest.raises(InferenceError, match=r"batch of shape \(1, 3\)") as caught:
        clf("good")
    assert "\n" not in str(caught.value)


def _rewrite(folder: Path, **changes: Any) -> None:
    """Write the manifest again for files that a test has changed, so that they do not count as damaged."""
    from fusedbert.engine.artifact import read_manifest, write_manifest

    write_manifest(folder, dataclasses.replace(read_manifest(folder), **changes))
