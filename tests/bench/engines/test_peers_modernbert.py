"""Every engine on a ModernBERT, in its environment, where `fusedbert bench setup` has built it; transformers in float64 judges.

The weights are wide enough for attention to matter, and texts reach beyond the window of 128 tokens, so that an engine that
ignored it, or the padding, would be far off.
"""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fusedbert.bench.engines.base import Job, Tolerance
from fusedbert.bench.engines.batches import Shape, random_batch, read_vocabulary
from fusedbert.bench.engines.environments import OURS, links, python_of, variables
from fusedbert.bench.engines.random.modernbert import ModernShape, write_checkpoint
from fusedbert.bench.engines.registry import SPECS
from fusedbert.bench.run.process import EngineFailedError, Worker

LENGTHS = (5, 64, 129, 130, 400, 257)
PEERS = [spec for spec in SPECS if "cpu" in spec.devices and spec.environment not in (OURS, "ctranslate2")]
# The largest difference of a logit, as a share of how far the texts' logits spread.
CLOSE = {Tolerance.FP32: 1e-5, Tolerance.REDUCED: 0.05, Tolerance.INT8: 0.2}


@pytest.fixture(scope="module")
def wide(checkpoint, tmp_path_factory):
    """A small random ModernBERT whose weights have the spread 1 / sqrt(width)."""
    folder = tmp_path_factory.mktemp("peers") / "modernbert"
    write_checkpoint(folder, ModernShape(layers=4, heads=4, hidden=256, inner=384), checkpoint / "vocab.txt")
    tensors = load_file(folder / "model.safetensors")
    scale = 256**-0.5 / 0.02
    wider = {
        name: scale * each if name.startswith("model.layers") and each.ndim == 2 else each for name, each in tensors.items()
    }
    save_file(wider, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def texts(wide):
    vocabulary = read_vocabulary(wide)
    random = np.random.default_rng(0)
    return [random_batch(Shape(batch=1, tokens=n), vocabulary, random).input_ids[0].tolist() for n in LENGTHS]


def judge(folder, texts, **changes):
    """Return transformers' logits of each text by itself, in float64, [texts, 2]."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    automatic = transformers.AutoModelForSequenceClassification
    module = automatic.from_pretrained(folder, dtype=torch.float64, local_files_only=True, **changes).eval()
    with torch.inference_mode():
        return np.concatenate([module(input_ids=torch.tensor([ids])).logits.numpy() for ids in texts])


@pytest.fixture(scope="module")
def expected(wide, texts):
    return judge(wide, texts)


@pytest.mark.peers
def test_an_engine_without_the_window_would_be_far_off(wide, texts, expected):
    off = np.abs(judge(wide, texts, local_attention=100_000) - expected).max(axis=1) / np.ptp(expected, axis=0).max()
    assert off[0] == off[1] == 0 and off[LENGTHS.index(400)] > 1.5 * max(CLOSE.values())


@pytest.mark.peers
@pytest.mark.timeout(900)
@pytest.mark.parametrize("spec", PEERS, ids=lambda spec: spec.name)
def test_a_peer_agrees_with_transformers_in_float64(spec, wide, texts, expected):
    python = python_of(spec.environment)
    if python is None:
        pytest.skip(f"run fusedbert bench setup {spec.environment}")
    job = Job.make(checkpoint=wide, artifact=wide, device="cpu", threads=2, max_length=512)
    batches = [{"ids": ids, "types": [[0] * len(each) for each in ids]} for ids in (texts, texts[4:5])]
    with links() as folder, Worker(python, variables(folder, threads=2)) as worker:
        worker.call("prepare", timeout=500, engine=spec.name, job=job.to_json())
        worker.call("open", timeout=400, tokenizer=str(wide))
        together, by_itself = map(np.array, worker.call("check", timeout=200, batches=batches, pad=50283)["logits"])
    spread = np.ptp(expected, axis=0).max()
    assert np.abs(together - expected).max() <= CLOSE[spec.tolerance] * spread
    assert np.abs(by_itself - expected[4:5]).max() <= CLOSE[spec.tolerance] * spread


@pytest.mark.peers
def test_ctranslate2_says_that_it_does_not_take_one(wide):
    python = python_of("ctranslate2")
    if python is None:
        pytest.skip("run fusedbert bench setup ctranslate2")
    job = Job.make(checkpoint=wide, artifact=wide, device="cpu", threads=2, max_length=512)
    with links() as folder, Worker(python, variables(folder, threads=2)) as worker, pytest.raises(EngineFailedError) as caught:
        worker.call("prepare", timeout=200, engine="ctranslate2-fp32", job=job.to_json())
    assert "'modernbert'" in str(caught.value)
