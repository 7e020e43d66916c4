"""A classifier on CUDA, as far as it can be tested without a GPU: layouts, buffers, captured graphs, threads, falling back."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.engine import Classifier, ClosedError, DeviceError, InferenceError, OptionError
from fusedbert.engine.artifact import PACKED, PADDED, read_manifest, write_manifest
from fusedbert.engine.run.cuda import graphs as graphs_module
from fusedbert.engine.run.cuda import runners
from fusedbert.engine.run.cuda.graphs import cuda_lock
from fusedbert.engine.run.cuda.runners import ChoosingRunner
from fusedbert.engine.run.session import Session
from fusedbert.engine.text.tokenizer import Row

MIXED = ["good", "the movie was not very good . " * 4, "bad !", "", "the movies was bad", "very " * 30]
EVEN = ["good movie"] * 12


@pytest.fixture
def expected(exported: Path) -> Iterator[Callable[[list[str]], np.ndarray]]:
    """Return a function that gives the fp32 graph's logits."""
    with Classifier.from_pretrained(exported, device="cpu", precision="fp32") as clf:
        yield clf.decision_function


@pytest.fixture
def short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the padded graph accept texts of any length, because the model of the tests takes only short ones."""
    monkeypatch.setattr(runners, "PADDED_FROM", 1)


def holds_the_lock(within: float = 0.2) -> bool:
    """Return whether the lock is held: a new thread cannot enter within so many seconds."""
    entered = threading.Event()

    def enter() -> None:
        with cuda_lock:
            entered.set()

    threading.Thread(target=enter, daemon=True).start()
    return not entered.wait(within)


def test_packed_and_padded_by_what_a_batch_wastes(exported: Path, cuda: Any, expected: Any, monkeypatch: Any) -> None:
    fake = cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    assert (clf.runtime.device, clf.runtime.precision, clf.runtime.layout) == ("cuda:0", "fp16", PACKED)
    assert "packed; padded for large batches of texts from 192 tokens on with at most 10% padding" in clf.runtime.why
    assert "golden texts within" in clf.runtime.why and clf.runtime.file.name == "model_fp16_packed.onnx"
    padded, packed = fake.sessions
    runs = len(padded.graphs), len(packed.graphs)
    np.testing.assert_allclose(clf.decision_function(MIXED), expected(MIXED), atol=0.03)
    assert (len(padded.graphs), len(packed.graphs)) == (runs[0], runs[1] + 1)
    np.testing.assert_allclose(clf.decision_function(EVEN), expected(EVEN), atol=0.03)  # short texts
    assert (len(padded.graphs), len(packed.graphs)) == (runs[0], runs[1] + 2)
    monkeypatch.setattr(runners, "PADDED_FROM", 4)
    np.testing.assert_allclose(clf.decision_function(EVEN), expected(EVEN), atol=0.03)
    assert (len(padded.graphs), len(packed.graphs)) == (runs[0] + 1, runs[1] + 2)
    unequal = MIXED * 2  # too many for a CUDA graph, but with much padding
    np.testing.assert_allclose(clf.decision_function(unequal), expected(unequal), atol=0.03)
    assert (len(padded.graphs), len(packed.graphs)) == (runs[0] + 1, runs[1] + 3)
    few = EVEN[:8]  # a small batch, where the fewer kernels of the packed graph count
    np.testing.assert_allclose(clf.decision_function(few), expected(few), atol=0.03)
    assert (len(padded.graphs), len(packed.graphs)) == (runs[0] + 1, runs[1] + 4)


def test_both_graphs_are_verified(exported: Path, cuda: Any) -> None:
    fake = cuda()
    Classifier.from_pretrained(exported, device="cuda")
    assert all(session.graphs for session in fake.sessions)


def test_a_padded_graph_that_fails_is_replaced_by_the_packed_one(
    exported: Path, cuda: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its attention needs cuDNN, which may be missing; that of the packed graph does not."""
    fake = cuda(fails={"model_fp16.onnx": "dlopen failed for libcudnn.so: libcudnn.so: cannot open shared object file"})
    clf = Classifier.from_pretrained(exported, device="cuda")
    assert clf.runtime.layout == PACKED and clf.runtime.file.name == "model_fp16_packed.onnx"
    assert "packed, as the padded graph does not work here" in clf.runtime.why and "cuDNN is not found" in clf.runtime.why
    np.testing.assert_allclose(clf.decision_function(EVEN), expected(EVEN), atol=0.03)
    assert fake.sessions[1].graphs


def test_two_graphs_that_fail_are_an_error(exported: Path, cuda: Any) -> None:
    cuda(fails={"model_fp16.onnx": "CUDA failure 700: an illegal memory access", "model_fp16_packed.onnx": "CUDA failure 700"})
    with pytest.raises(InferenceError, match=r"model_fp16\.onnx failed on 4 texts"):
        Classifier.from_pretrained(exported, device="cuda")
    with pytest.warns(RuntimeWarning, match=r"model_fp16\.onnx failed"):
        assert Classifier.from_pretrained(exported).runtime.device == "cpu"


def test_an_artifact_without_a_packed_graph_runs_padded(own_artifact: Path, cuda: Any, expected: Any) -> None:
    manifest = read_manifest(own_artifact)
    variants = tuple(v for v in manifest.variants if v.layout == PADDED)
    write_manifest(own_artifact, dataclasses.replace(manifest, variants=variants))
    cuda()
    clf = Classifier.from_pretrained(own_artifact, device="cuda")
    assert clf.runtime.layout == PADDED and "no packed graph" in clf.runtime.why
    np.testing.assert_allclose(clf.decision_function(MIXED), expected(MIXED), atol=0.03)


def test_a_packed_graph_that_does_not_load_is_not_used(own_artifact: Path, cuda: Any, expected: Any) -> None:
    (own_artifact / "onnx/model_fp16_packed.stand-in").write_bytes(b"no graph")
    cuda()
    clf = Classifier.from_pretrained(own_artifact, device="cuda")
    assert clf.runtime.layout == PADDED and "packed graph does not work here" in clf.runtime.why
    np.testing.assert_allclose(clf.decision_function(MIXED), expected(MIXED), atol=0.03)


def test_a_device_that_computes_wrongly_is_refused(own_artifact: Path, cuda: Any) -> None:
    manifest = read_manifest(own_artifact)
    golden = [dataclasses.replace(g, logits=tuple(x + 0.5 for x in g.logits)) for g in manifest.golden]
    # The CPU's graphs are allowed as much: they are what auto falls back to.
    variants = [
        dataclasses.replace(v, parity=dataclasses.replace(v.parity, max_abs_logit=1.0)) if v.target == "cpu" else v
        for v in manifest.variants
    ]
    write_manifest(own_artifact, dataclasses.replace(manifest, golden=tuple(golden), variants=tuple(variants)))
    cuda()
    with pytest.raises(DeviceError, match=r"computes the golden texts wrongly: a logit is off by 0\.5"):
        Classifier.from_pretrained(own_artifact, device="cuda")
    with pytest.warns(RuntimeWarning, match="golden texts wrongly"):
        clf = Classifier.from_pretrained(own_artifact)
    assert clf.runtime.device == "cpu" and "golden" in clf.runtime.why
    assert clf("good")[0]["label"] in clf.classes_


def test_nodes_that_are_not_on_the_gpu_are_named(exported: Path, cuda: Any) -> None:
    cuda(elsewhere=("BiasGelu",))
    with pytest.raises(DeviceError, match=r"cuda:0 does not run 2 of the graph's nodes: BiasGelu \(.*feed_forward/BiasGelu\)"):
        Classifier.from_pretrained(exported, device="cuda")


def test_the_obstacle_to_cuda_is_named_where_the_cpu_lacks_the_precision(exported: Path, cuda: Any) -> None:
    cuda(elsewhere=("BiasGelu",))
    with pytest.raises(
        OptionError, match=r"precision='fp16' on cpu: .*; fusedbert runs on the CPU, because cuda:0 does not run 2"
    ):
        Classifier.from_pretrained(exported, precision="fp16")


def test_provider_options_reach_the_session(exported: Path, cuda: Any) -> None:
    fake = cuda()
    Classifier.from_pretrained(exported, device="cuda:1", session_options={"cuda.gpu_mem_limit": 2**31})
    for options in fake.provider_options:
        assert options == {
            "device_id": "1",
            "arena_extend_strategy": "kNextPowerOfTwo",
            "use_tf32": "0",
            "enable_cuda_graph": "1",
            "gpu_mem_limit": str(2**31),
        }
    with pytest.raises(OptionError, match="cuda:N"):
        Classifier.from_pretrained(exported, device="cuda", session_options={"cuda.device_id": 1})


@pytest.mark.usefixtures("short_is_long")
def test_a_small_shape_is_captured_at_its_second_use(exported: Path, cuda: Any) -> None:
    fake = cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    padded, packed = fake.sessions
    packed.graphs.clear()
    first = clf.decision_function(["the movie was very bad " * 5])
    again = [clf.decision_function(["the movie was very bad " * 5]) for _ in range(3)]
    assert packed.graphs[0] == "-1" and len(set(packed.graphs[1:])) == 1 and int(packed.graphs[1]) >= 1
    for logits in again:
        np.testing.assert_array_equal(logits, first)
    padded.graphs.clear()
    for _ in range(3):  # 12 texts: kernels run longer than they take to launch
        clf.decision_function(EVEN)
    assert padded.graphs == ["-1"] * 3


def test_verification_covers_captured_and_replayed_graphs(exported: Path, cuda: Any) -> None:
    fake = cuda()
    Classifier.from_pretrained(exported, device="cuda")
    replayed = [graph for session in fake.sessions for graph in set(session.graphs) if session.graphs.count(graph) > 1]
    assert set(replayed) - {"-1"}


def test_failed_captures_stop_capturing_but_no_call(exported: Path, cuda: Any, expected: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(graphs_module, "RETRY_AFTER", 1)
    monkeypatch.setattr(graphs_module, "MOST_FAILURES", 3)
    fake = cuda(captures=False)
    clf = Classifier.from_pretrained(exported, device="cuda")
    for _ in range(30):
        np.testing.assert_allclose(clf.decision_function(["not bad"]), expected(["not bad"]), atol=0.03)
    assert {graph for session in fake.sessions for graph in session.graphs} == {"-1"}
    assert fake.sessions[1].refused == 3  # and then it is not tried again


def test_a_capture_that_failed_is_tried_again(exported: Path, cuda: Any, expected: Any, monkeypatch: Any) -> None:
    """Memory may have been short for a moment, or a release elsewhere may have broken the capture."""
    monkeypatch.setattr(graphs_module, "RETRY_AFTER", 2)
    fake = cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    runner = clf.model.open()
    assert isinstance(runner, ChoosingRunner)
    packed, text = fake.sessions[1], ["the movie was very bad " * 5]
    before, packed.captures = runner.packed.graphs.captured, False
    for _ in range(4):
        np.testing.assert_allclose(clf.decision_function(text), expected(text), atol=0.03)
    assert packed.refused == 1 and runner.packed.graphs.captured == before
    packed.captures = True
    for _ in range(6):
        np.testing.assert_allclose(clf.decision_function(text), expected(text), atol=0.03)
    assert runner.packed.graphs.captured == before + 1


@pytest.mark.usefixtures("short_is_long")
def test_a_batch_without_memory_runs_in_halves(exported: Path, cuda: Any, expected: Any, monkeypatch: Any) -> None:
    cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    run, tried = graphs_module.IoBuffers.run, []
    layouts: list[bool] = []

    def small(self: Any, arrays: Any, *, graph: int | None) -> np.ndarray:
        tried.append(arrays["input_ids"].size)
        layouts.append("token_offset" in arrays)
        if arrays["input_ids"].size > 100:
            raise RuntimeError("bfc_arena.cc:376 Available memory of 1048576 is smaller than requested bytes of 8388608")
        return run(self, arrays, graph=graph)

    monkeypatch.setattr(graphs_module.IoBuffers, "run", small)
    for texts, packed in ((MIXED * 9, True), (EVEN * 5, False)):
        tried.clear()
        layouts.clear()
        np.testing.assert_allclose(clf.decision_function(texts), expected(texts), atol=0.03)
        assert max(tried) > 100 and set(layouts) == {packed}
    monkeypatch.setattr(
        graphs_module.IoBuffers, "run", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("CUDA failure 2: out of memory"))
    )
    with pytest.raises(InferenceError, match=r"no memory left: .*raise cuda\.gpu_mem_limit if it is set"):
        clf.decision_function(MIXED)


def test_auto_takes_the_cpu_where_only_it_has_the_precision(exported: Path, cuda: Any) -> None:
    cuda()
    clf = Classifier.from_pretrained(exported, precision="int8")
    assert (clf.runtime.device, clf.runtime.precision) == ("cpu", "int8")
    assert "CPU, because the artifact has no int8 graph for CUDA" in clf.runtime.why
    with pytest.raises(OptionError, match="int8 runs only on the CPU"):
        Classifier.from_pretrained(exported, device="cuda", precision="int8")
    assert Classifier.from_pretrained(exported).runtime.device == "cuda:0"


@pytest.mark.parametrize(("value", "wanted"), [("1", "1"), (True, "1"), ("0", "0"), (0, "0"), (False, "0")])
def test_a_user_may_turn_cuda_graphs_off(exported: Path, cuda: Any, value: Any, wanted: str) -> None:
    fake = cuda()
    Classifier.from_pretrained(exported, device="cuda", session_options={"cuda.enable_cuda_graph": value})
    assert {options["enable_cuda_graph"] for options in fake.provider_options} == {wanted}
    # A graph that was not made for CUDA has no captures, whatever the settings.
    fake.provider_options.clear()
    settings = {"cuda.enable_cuda_graph": 1}
    Classifier.from_pretrained(exported, device="cuda", precision="fp32", session_options=settings)
    assert {options["enable_cuda_graph"] for options in fake.provider_options} == {"0"}


def test_nothing_is_captured_by_an_onnxruntime_with_unsafe_replays(exported: Path, cuda: Any) -> None:
    fake = cuda(version="1.30.2")
    clf = Classifier.from_pretrained(exported, device="cuda")
    for _ in range(3):
        clf.decision_function(["not bad"])
    assert {options["enable_cuda_graph"] for options in fake.provider_options} == {"0"}
    assert {graph for session in fake.sessions for graph in session.graphs} == {"-1"}


@pytest.mark.usefixtures("short_is_long")
def test_sessions_take_turns(exported: Path, cuda: Any) -> None:
    """The padded and the packed graph are two sessions: while one of them captures, the other must not copy."""
    fake = cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    session = type(fake.sessions[0])
    session.at_once.clear()
    runs = [len(each.graphs) for each in fake.sessions]
    threads = [
        threading.Thread(target=lambda t=t: [clf.decision_function(t) for _ in range(40)]) for t in (MIXED, EVEN, ["ok"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(session.at_once) >= 120 and set(session.at_once) == {1}
    assert all(len(each.graphs) > before for each, before in zip(fake.sessions, runs, strict=True))  # both ran


def test_a_graph_for_the_cpu_takes_its_turn_on_cuda(
    exported: Path, cuda: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its allocations would break the captures of others."""
    cuda()
    clf = Classifier.from_pretrained(exported, device="cuda", precision="fp32")
    wanted, run, held = expected(MIXED), Session.run, []

    def record(self: Session, feeds: Any) -> np.ndarray:
        held.append(holds_the_lock())
        return run(self, feeds)

    monkeypatch.setattr(Session, "run", record)
    np.testing.assert_allclose(clf.decision_function(MIXED), wanted, atol=1e-4)
    assert held and all(held)


@pytest.mark.usefixtures("short_is_long")
def test_a_session_is_freed_in_its_turn(exported: Path, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release from another thread would break a capture, and with it a run without a capture."""
    released: list[bool] = []

    def pin(address: int, size: int, *, index: int) -> Callable[[], None]:
        return lambda: released.append(holds_the_lock())

    monkeypatch.setattr(graphs_module, "pin_memory", pin)
    cuda()
    with Classifier.from_pretrained(exported, device="cuda") as clf:
        clf.decision_function(MIXED)
        clf.decision_function(EVEN)
    assert len(released) >= 2 and all(released)
    assert not holds_the_lock(within=5.0)


def test_captured_graphs_and_buffers_are_bounded(exported: Path, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs_module, "MAX_GRAPHS", 3)
    monkeypatch.setattr(graphs_module, "MAX_BUFFERS", 2)
    cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    runner = clf.model.open()
    assert isinstance(runner, ChoosingRunner)
    rng = np.random.default_rng(0)
    for part in (runner.padded, runner.packed):
        for _ in range(60):
            lengths = rng.integers(1, 38, size=int(rng.integers(1, 12)))
            part.execute(part.prepare([Row(ids=[5] * int(n), types=[0] * int(n), truncated=False) for n in lengths]))
        assert part.graphs.captured == 3 and part.graphs.buffered <= 2


def test_the_first_thread_runs_captured_graphs_and_later_ones_share_a_thread(
    exported: Path, cuda: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A captured graph belongs to its thread: only a few threads run captured graphs, each under its own number."""
    cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    runner = clf.model.open()
    assert isinstance(runner, ChoosingRunner)
    ran: list[tuple[str, int | None]] = []
    run = graphs_module.IoBuffers.run

    def record(self: Any, arrays: Any, *, graph: int | None) -> np.ndarray:
        ran.append((threading.current_thread().name, graph))
        return run(self, arrays, graph=graph)

    monkeypatch.setattr(graphs_module.IoBuffers, "run", record)
    wrong: list[float] = []

    def work() -> None:
        wrong.extend(float(np.abs(clf.decision_function(["not bad"]) - wanted).max()) for _ in range(4))

    wanted = expected(["not bad"])
    names = {"MainThread": "MainThread", "first": "first", "second": "fusedbert-cuda_0", "third": "fusedbert-cuda_0"}
    graphs: dict[str, set[int | None]] = {}
    for name, expected_in in names.items():
        ran.clear()
        thread = threading.Thread(target=work, name=name)
        work() if name == "MainThread" else (thread.start(), thread.join())
        assert {where for where, _ in ran} == {expected_in}
        graphs[name] = {graph for _, graph in ran} - {None}
    assert max(wrong) < 0.03
    numbers = [graphs["MainThread"], graphs["first"], graphs["second"]]
    assert all(len(each) == 1 for each in numbers) and len(set().union(*numbers)) == 3
    assert graphs["third"] == graphs["second"]


@pytest.mark.usefixtures("short_is_long")
def test_buffers_are_reused(exported: Path, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    made: list[Any] = []
    make = graphs_module.IoBuffers
    monkeypatch.setattr(graphs_module, "IoBuffers", lambda *args, **rest: made.append(make(*args, **rest)) or made[-1])
    results = [clf.decision_function([text] * 20) for text in ("good", "bad", "good", "not bad", "good")]
    assert len(made) == 1
    np.testing.assert_array_equal(results[0], results[2])  # a later run does not overwrite the result
    np.testing.assert_array_equal(results[0], results[4])
    assert np.abs(results[0] - results[1]).max() > 0.01


def test_many_threads_get_the_same_results(exported: Path, cuda: Any, expected: Any) -> None:
    cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    wanted = {n: expected(MIXED[:n]) for n in range(1, 7)}
    wrong: list[int] = []

    def work(n: int) -> None:
        differences = [np.abs(clf.decision_function(MIXED[:n]) - wanted[n]).max() for _ in range(10)]
        wrong.extend(n for difference in differences if difference > 0.03)

    threads = [threading.Thread(target=work, args=(n,)) for n in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_error_of_the_graph_leaves_no_thread_behind(exported: Path, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    clf.decision_function(EVEN)
    before = threading.active_count()
    monkeypatch.setattr(
        graphs_module.IoBuffers, "run", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("CUDA failure 2: out of memory"))
    )
    with pytest.raises(InferenceError, match="no memory left"):
        clf.decision_function(EVEN * 100)
    assert threading.active_count() == before


def test_many_windows_keep_their_order(exported: Path, cuda: Any, expected: Any) -> None:
    """More texts than a window: a thread tokenizes them ahead of the runs, and every result is at its place."""
    cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    rng = np.random.default_rng(3)
    texts = ["".join(rng.choice(["good ", "bad ", "not "], size=rng.integers(1, 9))) for _ in range(1100)]
    np.testing.assert_allclose(clf.decision_function(texts), expected(texts), atol=0.03)
    assert threading.active_count() < 20
    clf.close()
    with pytest.raises(ClosedError):
        clf.decision_function(texts)
