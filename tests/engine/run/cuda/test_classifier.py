"""A classifier on CUDA, as far as it can be tested without a GPU: layouts, buffers, captured graphs, threads, falling back."""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.engine import Classifier, ClosedError, DeviceError, InferenceError, OptionError
from fusedbert.engine.run.cuda import flash
from fusedbert.engine.run.cuda import graphs as graphs_module
from fusedbert.engine.run.cuda.graphs import cuda_lock
from fusedbert.engine.run.cuda.runners import PackedRunner, PaddedCudaRunner
from fusedbert.engine.run.session import Session
from fusedbert.engine.text.tokenizer import Row

MIXED = ["good", "the movie was not very good . " * 4, "bad !", "", "the movies was bad", "very " * 30]
EVEN = ["good movie"] * 40  # too many for a CUDA graph


def holds_the_lock(within: float = 0.2) -> bool:
    """Return whether the lock is held: a new thread cannot enter within so many seconds."""
    entered = threading.Event()

    def enter() -> None:
        with cuda_lock:
            entered.set()

    threading.Thread(target=enter, daemon=True).start()
    return not entered.wait(within)


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


def test_sessions_are_made_with_flash_attention_from_96_tokens_on(exported: Path, cuda: Any, monkeypatch: Any) -> None:
    class Hopper:
        def cudaDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:
            ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = 9
            return 0

    monkeypatch.delenv(flash.VARIABLE, raising=False)
    monkeypatch.setattr(flash, "cuda_runtime", Hopper)
    fake = cuda()
    Classifier.from_pretrained(exported, device="cuda")
    assert fake.flash_from == ["96"] and flash.VARIABLE not in os.environ
    Classifier.from_pretrained(exported, device="cuda", session_options={"cuda.sdpa_kernel": 2})
    assert fake.flash_from[1:] == [None]


def test_a_small_shape_is_captured_at_its_second_use(exported: Path, cuda: Any) -> None:
    fake = cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    (packed,) = fake.sessions
    packed.graphs.clear()
    first = clf.decision_function(["the movie was very bad " * 5])
    again = [clf.decision_function(["the movie was very bad " * 5]) for _ in range(3)]
    assert packed.graphs[0] == "-1" and len(set(packed.graphs[1:])) == 1 and int(packed.graphs[1]) >= 1
    for logits in again:
        np.testing.assert_array_equal(logits, first)
    packed.graphs.clear()
    for _ in range(3):  # 40 texts: kernels run longer than they take to launch
        clf.decision_function(EVEN)
    assert packed.graphs == ["-1"] * 3


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
    assert fake.sessions[0].refused == 3  # and then it is not tried again


def test_a_capture_that_failed_is_tried_again(exported: Path, cuda: Any, expected: Any, monkeypatch: Any) -> None:
    """Memory may have been short for a moment, or a release elsewhere may have broken the capture."""
    monkeypatch.setattr(graphs_module, "RETRY_AFTER", 2)
    fake = cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    runner = clf.model.open()
    assert isinstance(runner, PackedRunner)
    packed, text = fake.sessions[0], ["the movie was very bad " * 5]
    before, packed.captures = runner.graphs.captured, False
    for _ in range(4):
        np.testing.assert_allclose(clf.decision_function(text), expected(text), atol=0.03)
    assert packed.refused == 1 and runner.graphs.captured == before
    packed.captures = True
    for _ in range(6):
        np.testing.assert_allclose(clf.decision_function(text), expected(text), atol=0.03)
    assert runner.graphs.captured == before + 1


@pytest.mark.parametrize("artifact", ["exported", "padded_artifact"])
def test_a_batch_without_memory_runs_in_halves(
    artifact: str, cuda: Any, expected: Any, monkeypatch: Any, request: pytest.FixtureRequest
) -> None:
    cuda()
    clf = Classifier.from_pretrained(request.getfixturevalue(artifact), device="cuda")
    run, tried = graphs_module.IoBuffers.run, []

    def small(self: Any, arrays: Any, *, graph: int | None) -> np.ndarray:
        tried.append(arrays["input_ids"].size)
        if arrays["input_ids"].size > 100:
            raise RuntimeError("bfc_arena.cc:376 Available memory of 1048576 is smaller than requested bytes of 8388608")
        return run(self, arrays, graph=graph)

    monkeypatch.setattr(graphs_module.IoBuffers, "run", small)
    np.testing.assert_allclose(clf.decision_function(MIXED * 9), expected(MIXED * 9), atol=0.03)
    assert max(tried) > 100
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


def test_sessions_take_turns(exported: Path, cuda: Any) -> None:
    """Two classifiers are two sessions: while one of them captures, the other must not copy."""
    fake = cuda()
    both = [Classifier.from_pretrained(exported, device="cuda") for _ in range(2)]
    session = type(fake.sessions[0])
    session.at_once.clear()
    runs = [len(each.graphs) for each in fake.sessions]
    jobs = itertools.product(both, (MIXED, EVEN))
    threads = [threading.Thread(target=lambda c=c, t=t: [c.decision_function(t) for _ in range(40)]) for c, t in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(session.at_once) >= 160 and set(session.at_once) == {1}
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


@pytest.mark.parametrize(("artifact", "kind"), [("exported", PackedRunner), ("padded_artifact", PaddedCudaRunner)])
def test_captured_graphs_of_several_texts_and_buffers_are_bounded(
    artifact: str,
    kind: type[PackedRunner] | type[PaddedCudaRunner],
    cuda: Any,
    monkeypatch: Any,
    request: pytest.FixtureRequest,
) -> None:
    """Single texts, which gain most, have few shapes, and find a place however many others came before."""
    monkeypatch.setattr(graphs_module, "MAX_GRAPHS", 3)
    monkeypatch.setattr(graphs_module, "MAX_BUFFERS", 2)
    cuda()
    runner = Classifier.from_pretrained(request.getfixturevalue(artifact), device="cuda").model.open()
    assert isinstance(runner, kind)
    rng, before = np.random.default_rng(0), runner.graphs.captured
    for texts in (*rng.integers(2, 40, size=80).tolist(), *[1] * 60):
        lengths = rng.integers(1, 39, size=texts).tolist()
        runner.execute(runner.prepare([Row(ids=[5] * n, types=[0] * n, truncated=False) for n in lengths]))
    assert runner.graphs.buffered <= 2
    assert before < 6 == runner.graphs.captured  # three of several texts, and single ones of 16, 32 and 38 or 48 tokens


def test_the_first_thread_runs_captured_graphs_and_later_ones_share_a_thread(
    exported: Path, cuda: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A captured graph belongs to its thread: only a few threads run captured graphs, each under its own number."""
    cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
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


def test_buffers_are_reused(exported: Path, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda()
    clf = Classifier.from_pretrained(exported, device="cuda")
    made: list[Any] = []
    make = graphs_module.IoBuffers
    monkeypatch.setattr(graphs_module, "IoBuffers", lambda *args, **rest: made.append(make(*args, **rest)) or made[-1])
    results = [clf.decision_function([text] * 40) for text in ("good", "bad", "good", "movie", "good")]
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
