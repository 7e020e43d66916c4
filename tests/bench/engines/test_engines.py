"""The engines: fusedbert and transformers as installed, the others with a stand-in or in their own environments."""

import dataclasses
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fusedbert.bench.engines.base import Engine, Job, Tolerance
from fusedbert.bench.engines.batches import Shape, TextBatches, pad, random_batch, read_vocabulary
from fusedbert.bench.engines.environments import OURS, links, python_of, stage_folder, variables
from fusedbert.bench.engines.fusedbert import FusedBert
from fusedbert.bench.engines.openvino import read_calibration
from fusedbert.bench.engines.registry import SPECS, make_engine, spec_of
from fusedbert.bench.engines.transformers import FOR_ANY, FOR_ONE
from fusedbert.bench.run.process import Worker
from fusedbert.engine.errors import CheckpointError, ClosedError, FusedBertError, InputError
from fusedbert.engine.hardware.packages import versions
from fusedbert.export.parity.texts import CHECK_TEXTS

TEXTS = [text for text in CHECK_TEXTS if text]
CALIBRATION = stage_folder("export") / "calibration.txt"
LENGTH = 64


@pytest.fixture
def job(checkpoint, artifact, tmp_path):
    return Job(checkpoint=checkpoint, artifact=artifact, work=tmp_path, device="cpu", threads=1, max_length=LENGTH)


@pytest.fixture
def padded(artifact):
    """Texts of every length as one batch."""
    batches = TextBatches.read(artifact)
    return batches.pad(batches.encode(TEXTS, max_length=LENGTH))


@pytest.fixture(scope="module")
def expected(artifact):
    """fusedbert's fp32 logits of ``TEXTS``, one text at a time, so without padding."""
    job = Job(checkpoint=None, artifact=artifact, work=artifact, device="cpu", threads=1, max_length=LENGTH)
    engine = make_engine("fusedbert-fp32", job)
    engine.load()
    batches = TextBatches.read(artifact)
    rows = [engine.logits(batches.pad([row])) for row in batches.encode(TEXTS, max_length=LENGTH)]
    engine.close()
    return np.concatenate(rows)


# fusedbert


def test_the_classifier_exists_from_load_to_close(job):
    engine = make_engine("fusedbert-fp32", job)
    assert isinstance(engine, FusedBert)
    assert engine.classifier is None
    engine.load()
    loaded = engine.classifier
    assert loaded is not None and loaded.predict(["fine"]) == ["POSITIVE"]
    engine.close()
    assert engine.classifier is None


class Recorder:
    """A tokenizer that records its changes."""

    def __init__(self):
        self.cut = []

    def no_padding(self):
        pass

    def enable_truncation(self, max_length):
        self.cut.append(max_length)

    def encode_batch(self, texts):
        return texts


def test_the_tokenizer_is_changed_only_for_another_length():
    tokenizer: Any = Recorder()
    batches = TextBatches(tokenizer, pad_id=0)
    for length in (64, 64, 32, 32, 64):
        batches.encode(["a text"], max_length=length)
    assert tokenizer.cut == [64, 32, 64]


def test_texts_may_be_tokenized_from_many_threads(artifact):
    batches = TextBatches.read(artifact)
    alone = [row.ids for row in TextBatches.read(artifact).encode(TEXTS, max_length=LENGTH)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: [row.ids for row in batches.encode(TEXTS, max_length=LENGTH)], range(64)))
    assert all(each == alone for each in found)


def test_the_timed_logits_are_those_of_the_graph(artifact, job):
    batch = random_batch(Shape(batch=3, tokens=12), read_vocabulary(artifact), np.random.default_rng(0))
    engine = make_engine("fusedbert-fp32", job)
    engine.prepare()
    engine.load()
    found = engine.logits(batch)
    session = onnxruntime.InferenceSession(str(artifact / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    feeds = {node.name: getattr(batch, node.name) for node in session.get_inputs()}
    assert found.shape == (3, 2)
    assert np.abs(found - np.asarray(session.run(["logits"], feeds)[0])).max() <= 1e-5
    assert engine.describe()["threads"] == 1
    engine.close()
    with pytest.raises(FusedBertError, match="load"):
        engine.logits(batch)


@pytest.mark.filterwarnings("ignore:text .* more tokens than max_length")
@pytest.mark.parametrize(("name", "close"), [("fusedbert-fp32", 1e-5), ("fusedbert-int8", 0.5)])
def test_fusedbert_gives_the_same_logits_for_texts_and_a_padded_batch(name, close, job, padded, expected):
    engine = make_engine(name, job)
    engine.load()
    assert engine.name == name
    assert f"fusedbert-{engine.describe()['precision']}" == name
    assert np.abs(engine.logits(padded) - expected).max() <= close
    assert np.abs(engine.texts(TEXTS, batch_size=3, max_length=LENGTH) - expected).max() <= close
    with pytest.raises(ValueError, match="loaded with 64"):
        engine.texts(TEXTS, batch_size=3, max_length=32)
    engine.close()


# transformers, which is installed wherever the tests run


@pytest.mark.parametrize(("name", "close"), [("transformers-fp32", 1e-4), ("transformers-bf16", 0.1)])
def test_transformers_gives_the_logits_of_fusedbert(name, close, job, padded, expected):
    pytest.importorskip("transformers")
    engine = make_engine(name, job)
    engine.load()
    for found in (engine.logits(padded), engine.texts(TEXTS, batch_size=4, max_length=LENGTH)):
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= close
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95
    about = engine.describe()
    assert (about["precision"], about["compiled"], about["threads"]) == (name.split("-")[1], False, 1)
    assert about["engine"] == f"transformers {about['versions']['transformers']}"


@pytest.fixture
def inputs():
    """The names of the inputs of each call of a compiled module."""
    return []


@pytest.fixture
def compiled(job, inputs, monkeypatch):
    """Open a compiled engine; torch traces and guards as always, and runs the traced graph without compiling it to code."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")

    def compile_module(module, compile_it=torch.compile, **options):
        made = compile_it(module, backend="eager", **options)
        return lambda **arrays: (inputs.append(set(arrays)), made(**arrays))[1]

    def make(shape):
        engine = make_engine("transformers-compile-fp32", dataclasses.replace(job, shape=shape))
        engine.load()
        return engine

    monkeypatch.setattr(torch, "compile", compile_module)
    yield make
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def test_a_module_that_is_compiled_for_a_shape_takes_no_other_and_no_padding(compiled, inputs, artifact):
    batches, (row,) = TextBatches.read(artifact), TextBatches.read(artifact).encode(TEXTS[:1], max_length=LENGTH)
    tokens, types = len(row.ids), [[0] * len(row.ids)] * 2
    engine = compiled(Shape(batch=2, tokens=tokens))
    ours = make_engine("fusedbert-fp32", engine.job)
    ours.load()
    full = pad([row.ids, row.ids[:1] + row.ids[2:] + row.ids[-1:]], types, batches.pad_id)
    assert np.abs(engine.logits(full) - ours.logits(full)).max() <= 1e-4
    with pytest.raises(InputError, match=f"compiled for 2x{tokens} without padding"):
        engine.logits(pad([row.ids, row.ids[:2]], [types[0], [0, 0]], batches.pad_id))
    with pytest.raises(RuntimeError, match="recompile"):
        engine.logits(pad([row.ids[:2], row.ids[:2]], [[0, 0]] * 2, batches.pad_id))
    assert engine.describe()["compiled"] == FOR_ONE != FOR_ANY
    assert all(names == {"input_ids", "token_type_ids"} for names in inputs) and inputs  # a mask would exclude flash attention


def test_a_module_that_is_compiled_without_a_shape_takes_all(compiled, inputs, padded, expected):
    engine = compiled(None)
    assert np.abs(engine.logits(padded) - expected).max() <= 1e-4
    assert np.abs(engine.texts(TEXTS, batch_size=3, max_length=LENGTH) - expected).max() <= 1e-4
    assert engine.describe()["compiled"] == FOR_ANY and all("attention_mask" in names for names in inputs)


def test_the_pipeline_gives_logits_in_the_order_of_texts_and_labels(job, expected):
    pytest.importorskip("transformers")
    engine = make_engine("transformers-pipeline", job)
    engine.load()
    assert np.abs(engine.texts(TEXTS, batch_size=99, max_length=LENGTH) - expected).max() <= 1e-4
    assert engine.describe()["batch_size"] == 8


# From texts to logits


class Counting(Engine):
    """Returns the number and the sum of unmasked tokens, and records the batches."""

    packages = ("numpy",)

    def load(self):
        self._model, self.seen = self, []

    def logits(self, batch):
        self._open()
        self.seen.append(batch.input_ids.shape)
        return np.stack([batch.attention_mask.sum(1), (batch.input_ids * batch.attention_mask).sum(1)], axis=1).astype("f4")


def test_texts_run_sorted_by_length_and_return_in_order(job):
    counting = Counting(spec_of("openvino-fp32"), job)
    counting.load()
    found = counting.texts(TEXTS, batch_size=4, max_length=LENGTH)
    batched, counting.seen = counting.seen, []
    alone = np.concatenate([counting.texts([text], batch_size=1, max_length=LENGTH) for text in TEXTS])
    assert (found == alone).all()
    assert [rows for rows, _ in batched] == [4] * (len(TEXTS) // 4) + [len(TEXTS) % 4] * (len(TEXTS) % 4 > 0)
    lengths = [tokens for _, tokens in batched]
    assert lengths == sorted(lengths) and lengths[-1] == LENGTH  # the longest text was cut there
    with pytest.raises(InputError, match="no texts to run"):
        counting.texts([], batch_size=4, max_length=LENGTH)


def test_a_peer_without_a_checkpoint_or_before_load_says_so(job, padded):
    counting = Counting(spec_of("openvino-fp32"), dataclasses.replace(job, checkpoint=None))
    with pytest.raises(CheckpointError, match="openvino-fp32 is converted from a checkpoint"):
        _ = counting.checkpoint
    with pytest.raises(ClosedError, match="openvino-fp32 is not loaded"):
        counting.logits(padded)


# Conversions


def test_a_conversion_is_made_once_for_all_that_it_depends_on(job, tmp_path, monkeypatch):
    made, engine = [], Counting(spec_of("openvino-fp32"), job)

    def make(folder):
        made.append(folder)
        (folder / "model").write_text("x")

    first = engine.converted("engine", make, "fp32")
    assert (first / "model").read_text() == "x" and first.parent == tmp_path
    assert engine.converted("engine", make, "fp32") == first
    assert len(made) == 1
    assert engine.converted("engine", make, "int8") != first
    assert len(made) == 2
    monkeypatch.setattr("fusedbert.bench.engines.base.versions", lambda _: {"numpy": "another"})
    assert engine.converted("engine", make, "fp32") != first
    assert len(made) == 3


def test_a_conversion_that_fails_leaves_nothing(job, tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        Counting(spec_of("openvino-fp32"), job).converted("engine", fail)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_calibration_texts_are_spread_over_a_longer_file(tmp_path):
    from fusedbert.export.calibrate import built_in_texts

    texts = read_calibration(CALIBRATION, 1000)
    assert texts == [line for line in (" ".join(text.split()) for text in built_in_texts()) if line]
    (tmp_path / "many.txt").write_text("".join(f"text {i}\n\n" for i in range(1000)))
    assert read_calibration(tmp_path / "many.txt", 4) == ["text 0", "text 250", "text 500", "text 750"]
    with pytest.raises(CheckpointError, match="calibration texts"):
        read_calibration(None, 4)


# Engines with a stand-in in their place


def test_openvino_gets_the_hints_of_the_job_and_the_inputs_that_the_graph_has(job, padded, monkeypatch, tmp_path):
    seen = {}

    class Compiled:
        inputs = tuple(types.SimpleNamespace(any_name=name) for name in ("input_ids", "attention_mask"))

        def get_property(self, name):
            return seen["config"].get(name, 1)

        def create_infer_request(self):
            return types.SimpleNamespace(infer=self.infer)

        def infer(self, feeds, share_inputs):
            seen["feeds"] = feeds
            return [np.ones((len(feeds["input_ids"]), 2), np.float32)]

    class Core:
        def read_model(self, file):
            return seen.setdefault("file", file)

        def compile_model(self, model, device, config):
            seen.update(device=device, config=config)
            return Compiled()

    monkeypatch.setitem(sys.modules, "openvino", types.SimpleNamespace(Core=Core))
    monkeypatch.setattr(Engine, "converted", lambda engine, name, make, *about: engine.job.work / name)
    engine = make_engine("openvino-bf16", dataclasses.replace(job, threads=2))
    engine.load()
    assert seen["file"] == tmp_path / "openvino-fp32" / "model.xml"
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 2, "INFERENCE_PRECISION_HINT": "bf16"}
    assert (seen["device"], seen["config"]) == ("CPU", hints)
    assert engine.logits(padded).shape == (len(TEXTS), 2)
    assert set(seen["feeds"]) == {"input_ids", "attention_mask"}
    assert engine.describe()["precision"] == "bf16"
    for name, hint in (("openvino-int8", "f32"), ("openvino-int8-bf16", "bf16")):
        monkeypatch.setitem(seen, "config", {})
        seen.pop("file")
        quantized = make_engine(name, dataclasses.replace(job, calibration=CALIBRATION))
        quantized.load()
        assert seen["config"]["INFERENCE_PRECISION_HINT"] == hint
        assert seen["file"] == tmp_path / "openvino-int8" / "model.xml"
        assert "nncf" in quantized.describe()["quantization"]


def test_ctranslate2_gets_lengths_for_the_mask_and_a_head_in_numpy(job, padded, monkeypatch, tmp_path):
    seen = {}

    class Encoder:
        compute_type = "int8_float32"

        def __init__(self, folder, **options):
            seen.update(options)

        def forward_batch(self, ids, lengths, token_type_ids):
            seen.update(ids=ids, lengths=lengths, types=token_type_ids)
            return types.SimpleNamespace(pooler_output=np.tile(np.array([1, 2, 3], dtype=np.float32), (len(ids), 1)))

    view = types.SimpleNamespace(from_array=lambda array: array)
    monkeypatch.setitem(sys.modules, "ctranslate2", types.SimpleNamespace(Encoder=Encoder, StorageView=view))
    monkeypatch.setattr(Engine, "converted", lambda *_: tmp_path)
    weight, bias = (np.array(values, dtype=np.float32) for values in ([[1, 0], [0, 1], [1, 1]], [10, 20]))
    np.savez(tmp_path / "head.npz", weight=weight, bias=bias)
    engine = make_engine("ctranslate2-int8", dataclasses.replace(job, threads=2))
    engine.load()
    assert (seen["compute_type"], seen["intra_threads"], seen["inter_threads"]) == ("int8_float32", 2, 1)
    assert engine.logits(padded).tolist() == [[14, 25]] * len(TEXTS)
    assert seen["ids"].dtype == seen["lengths"].dtype == np.int32
    assert (seen["lengths"] == padded.attention_mask.sum(1)).all()
    assert seen["types"] == padded.token_type_ids.tolist()


def test_versions_are_those_of_the_installed_packages():
    assert set(versions(("numpy", "no-such-package"))) == {"numpy"}


# The engines themselves, where `fusedbert bench setup` has built their environments


@pytest.mark.peers
@pytest.mark.timeout(600)
@pytest.mark.parametrize("spec", [spec for spec in SPECS if "cpu" in spec.devices], ids=lambda spec: spec.name)
def test_an_engine_in_its_environment_agrees_with_fusedbert(spec, checkpoint, artifact, padded, expected):
    python = python_of(spec.environment)
    if python is None:
        pytest.skip(f"run fusedbert bench setup {spec.environment}")
    job = Job.make(checkpoint=checkpoint, artifact=artifact, device="cpu", threads=2, max_length=LENGTH)
    request = {
        "batches": [
            {"ids": [ids[:n].tolist() for ids, n in zip(padded.input_ids, padded.attention_mask.sum(1), strict=True)]},
            {"ids": [padded.input_ids[0, : padded.attention_mask[0].sum()].tolist()]},
        ],
        "pad": 0,
    }
    for batch in request["batches"]:
        batch["types"] = [[0] * len(ids) for ids in batch["ids"]]
    with links() as folder, Worker(python, {} if spec.environment == OURS else variables(folder, threads=2)) as worker:
        worker.call("prepare", timeout=500, engine=spec.name, job=job.to_json())
        about = worker.call("open", timeout=200, tokenizer=str(artifact))["description"]
        together, alone = (np.array(part) for part in worker.call("check", timeout=200, **request)["logits"])
    assert about["precision"] == spec.precision and about["engine"].startswith(spec.engine)
    close = {Tolerance.FP32: 1e-4, Tolerance.REDUCED: 0.1, Tolerance.INT8: 0.8}[spec.tolerance]
    assert np.abs(together - expected).max() <= close
    assert np.abs(alone - expected[:1]).max() <= close
    assert (together.argmax(1) == expected.argmax(1)).mean() >= 0.95
