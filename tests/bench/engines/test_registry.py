import dataclasses
import json
import os
import subprocess
import sys

import pytest

from fusedbert.bench.engines import registry
from fusedbert.bench.engines.base import Job, Tolerance
from fusedbert.bench.engines.batches import Shape
from fusedbert.bench.engines.environments import CUDA_ENVIRONMENTS, ENVIRONMENTS, OURS, links
from fusedbert.bench.engines.registry import SPECS, groups, make_engine, names, select, spec_of
from fusedbert.engine.errors import CheckpointError, MissingDependencyError, OptionError

# A worker may load only these packages of any environment before it knows its engine.
LIGHT = {"fusedbert", "numpy", "tokenizers"}


@pytest.fixture
def job(checkpoint, tmp_path):
    return Job(checkpoint=checkpoint, artifact=checkpoint, work=tmp_path, device="cpu", threads=1, max_length=64)


def test_names_are_unique_and_fusedberts_come_first():
    assert len(set(names())) == len(SPECS)
    assert names()[:4] == ("fusedbert-fp32", "fusedbert-int8", "fusedbert-bf16", "fusedbert-fp16")
    assert not set(names()) & set(groups())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_an_entry_says_all_that_a_run_needs(spec, repository):
    file, _, name = spec.implementation.partition(":")
    assert f"class {name}(" in (repository / "bench" / "engines" / f"{file}.py").read_text(encoding="utf-8")
    assert spec.environment in (OURS, *ENVIRONMENTS, *CUDA_ENVIRONMENTS)
    assert spec.devices and set(spec.devices) <= {"cpu", "cuda"}
    assert (spec.tolerance is Tolerance.INT8) == spec.precision.startswith("int8")
    assert (spec.tolerance is Tolerance.FP32) == (spec.precision == "fp32")
    assert spec.is_fusedbert == (spec.environment == OURS)
    assert spec.per_shape == spec.title.startswith("torch.compile")


def test_groups_stand_for_the_engines_of_the_device():
    openvino = ["openvino-fp32", "openvino-bf16", "openvino-int8", "openvino-int8-bf16"]
    assert [spec.name for spec in select(["openvino"], device="cpu")] == openvino
    everything = {spec.name for spec in select(["all"], device="cpu")}
    assert {"fusedbert-int8", "transformers-pipeline", "ctranslate2-int8"} <= everything
    assert not everything & {"fusedbert-fp16", "transformers-fp16", "optimum-o4"}
    on_cuda = {spec.name for spec in select(["all"], device="cuda")}
    assert {"fusedbert-fp16", "transformers-fp16", "optimum-o4"} <= on_cuda and "openvino-int8" not in on_cuda


def test_an_engine_named_twice_runs_once():
    found = [spec.name for spec in select([" optimum-int8", "", "optimum", "optimum-int8"], device="cpu")]
    assert found == ["optimum-int8", "optimum-fp32"]


@pytest.mark.parametrize(
    ("wanted", "device", "message"),
    [
        ("openvino-int4", "cpu", "unknown engine 'openvino-int4'.*openvino-int8"),
        ("optimum-o4", "cpu", "does not run on cpu: it runs on cuda"),
        ("ctranslate2", "cuda", "no engine of ctranslate2 runs on cuda"),
    ],
)
def test_a_wrong_name_is_refused_with_the_valid_ones(wanted, device, message):
    with pytest.raises(OptionError, match=message):
        select([wanted], device=device)


def test_a_job_survives_json(job, tmp_path):
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    given = Job.from_json({**job.to_json(), "checkpoint": None, "calibration": str(tmp_path / "texts.txt")})
    assert given.checkpoint is None and given.calibration == tmp_path / "texts.txt"
    of_shape = dataclasses.replace(job, shape=Shape(batch=8, tokens=128))
    assert Job.from_json(json.loads(json.dumps(of_shape.to_json()))) == of_shape


def test_the_folder_of_a_job_follows_the_checkpoint_and_holds_the_calibration_texts(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDBERT_BENCH", str(tmp_path / "bench"))
    monkeypatch.setenv("FUSEDBERT_CACHE", str(tmp_path / "cache"))
    other = tmp_path / "other"
    other.mkdir()
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        (other / file).write_bytes((checkpoint / file).read_bytes() + b" ")

    def make(folder):
        return Job.make(checkpoint=folder, artifact=folder, device="cpu", threads=1, max_length=64)

    job = make(checkpoint)
    assert job == make(checkpoint)
    assert job.work.parent == tmp_path / "bench" / "converted"
    assert job.work != make(other).work
    assert job.calibration is not None
    lines = job.calibration.read_text(encoding="utf-8").splitlines()
    assert len(lines) > 100 and max(map(len, lines)) > 200
    with pytest.raises(CheckpointError, match="no weights"):
        make(tmp_path / "cache")


def test_a_missing_engine_is_reported_with_the_command_that_installs_it(job, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name="openvino")

    monkeypatch.setattr(registry.importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match="fusedbert bench setup openvino"):
        make_engine("openvino-int8", job)


def test_a_worker_loads_nothing_heavy_before_its_engine():
    modules = sorted({f"fusedbert.bench.engines.{spec.implementation.partition(':')[0]}" for spec in SPECS})
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    with links() as folder:
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heavy = {"torch", "transformers", "onnxruntime", "onnx", "openvino", "nncf", "optimum", "ctranslate2", "scipy", "click"}
    assert not set(done.stdout.split()) & heavy
    assert set(done.stdout.split()) >= LIGHT


def test_spec_of_names_every_engine_in_its_error():
    with pytest.raises(OptionError) as error:
        spec_of("nothing")
    assert all(name in str(error.value) for name in names())
    assert "\n" not in str(error.value)
