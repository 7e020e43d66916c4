"""The same run on a real local Ray of 2 CPUs; `make test-ray` runs these, in an environment that has Ray."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import DeviceError, InputError, OptionError, Scorer, score_file

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def ray() -> Any:
    module = pytest.importorskip("ray")
    module.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield module
    module.shutdown()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """100,000 rows of a few hundred texts, in an order that makes a mix-up visible."""
    path = tmp_path / "in.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        file.writelines(f"{n:06d},good film {n % 7} with a {'very ' * (n * n % 11)}dull plot\n" for n in range(100_000))
    return path


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_two_actors_give_the_local_output(name: str, ray: Any, many: Path, artifact: Path, tmp_path: Path) -> None:
    local = score_file(many, tmp_path / f"local-{name}", model=artifact)
    summary = score_file(many, tmp_path / name, model=artifact, on="ray", actors=2)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"local-{name}").read_bytes()
    assert summary.rows == 100_000 and summary.labels == local.labels


def test_several_inputs_on_ray_give_the_local_output(ray: Any, artifact: Path, tmp_path: Path) -> None:
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.csv")
        files[-1].write_text("id,text\n" + "".join(f"{n},good film {n % 7}\n" for n in range(5000)), encoding="utf-8")
    score_file(files, tmp_path / "local.csv", model=artifact)
    score_file(files, tmp_path / "out.csv", model=artifact, on="ray", actors=2)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_candidate_labels_on_ray_give_the_local_output(ray: Any, artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,text\n" + "".join(f"{n},good film {n % 97}\n" for n in range(3000)), encoding="utf-8")
    more: dict[str, Any] = {"candidate_labels": "music, plot", "hypothesis_template": "It is {}.", "probabilities": True}
    with pytest.warns(UserWarning, match="begins with 'entail'"):  # of the embedded model the last label counts
        score_file(source, tmp_path / "local.csv", model=artifact, **more)
        score_file(source, tmp_path / "out.csv", model=artifact, on="ray", actors=2, **more)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_entities_on_ray_are_the_local_ones(ray: Any, tokens_artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,text\n" + "".join(f"{n},the movies was good {'not ' * (n % 60)}bad\n" for n in range(10_000)))
    for strategy in ("none", "max"):
        options: dict[str, Any] = {"model": tokens_artifact, "aggregation_strategy": strategy, "threads": 1}
        score_file(source, tmp_path / f"local-{strategy}.jsonl", **options)
        score_file(source, tmp_path / f"{strategy}.jsonl", **options, on="ray", actors=2)
        assert (tmp_path / f"{strategy}.jsonl").read_bytes() == (tmp_path / f"local-{strategy}.jsonl").read_bytes()


def actor_processes() -> list[int]:
    """Process ids of the actors that hold the model, as Ray titles them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::") and b"_Actor" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_killed_actor_does_not_change_the_output(ray: Any, many: Path, artifact: Path, tmp_path: Path) -> None:
    score_file(many, tmp_path / "local.csv", model=artifact)
    killed: list[int] = []

    def progress(done: Any) -> None:
        if done.rows >= 8192 and not killed:
            killed.extend(actor_processes()[:1])
            for process in killed:
                os.kill(process, signal.SIGKILL)

    score_file(many, tmp_path / "out.csv", model=artifact, on="ray", actors=2, progress=progress)
    assert killed
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_a_run_may_change_between_ray_and_local(ray: Any, many: Path, artifact: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(at: int) -> Any:
        def progress(done: Any) -> None:
            if done.rows >= at:
                raise Stop

        return progress

    score_file(many, tmp_path / "local.csv", model=artifact)
    with pytest.raises(Stop):
        score_file(many, tmp_path / "out.csv", model=artifact, on="ray", progress=stop(40_000))
    with pytest.raises(Stop):
        score_file(many, tmp_path / "out.csv", model=artifact, resume=True, progress=stop(60_000))
    summary = score_file(many, tmp_path / "out.csv", model=artifact, on="ray", resume=True)
    assert summary.resumed >= 49_152
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_errors_on_ray_are_those_of_fusedbert(ray: Any, artifact: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "good"}\n{"text": null}\n', encoding="utf-8")
    with pytest.raises(InputError, match="row 2 cannot be scored: 'text' is null"):
        score_file(source, tmp_path / "out.csv", model=artifact, on="ray")
    with pytest.raises(DeviceError, match="5 Ray actors"):
        score_file(source, tmp_path / "out.csv", model=artifact, on="ray", actors=5, force=True)
    with pytest.raises(OptionError, match="is a stream"):
        score_file("-", tmp_path / "new.csv", model=artifact, on="ray", input_format="csv")


def test_a_scorer_maps_a_dataset(ray: Any, artifact: Path) -> None:
    import ray.data

    texts = [f"good film {n}" for n in range(500)]
    options = {"model": str(artifact), "threads": 1}
    mapped = ray.data.from_items([{"id": n, "text": text} for n, text in enumerate(texts)]).map_batches(
        Scorer, fn_constructor_kwargs=options, batch_size=64, num_cpus=0.5, concurrency=2
    )
    rows = sorted(mapped.take_all(), key=lambda row: row["id"])
    assert [row["text"] for row in rows] == texts
    expected = Scorer(artifact, threads=1)({"text": texts})
    assert [row["label"] for row in rows] == list(expected["label"])
    assert [row["score"] for row in rows] == pytest.approx(list(expected["score"]), abs=1e-5)


def test_a_wrong_ray_address_is_one_error(artifact: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    ray.shutdown()
    source = tmp_path / "in.csv"
    source.write_text("text\ngood\n", encoding="utf-8")
    start = time.monotonic()
    with pytest.raises(DeviceError, match=r"Ray on 127\.0\.0\.1:1 cannot be used .*--ray-address"):
        score_file(source, tmp_path / "out.csv", model=artifact, on="ray", ray_address="127.0.0.1:1")
    assert time.monotonic() - start < 60
