import os

import numpy as np
import onnxruntime
import pytest

from fusedbert.bench.latency import roofline
from fusedbert.bench.latency.roofline import Roofline, measure_roofline, write_products


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(roofline, "SIZES", ((4, 32, 16), (8, 16, 64)))


def test_the_products_compute_what_their_operations_count(small, tmp_path):
    products = write_products(tmp_path, "cpu", roofline.SIZES)
    assert [(each["precision"], each["operations"]) for each in products] == [
        ("fp32", 2 * 4 * 32 * 16),
        ("int8", 2 * 4 * 32 * 16),
        ("fp32", 2 * 8 * 16 * 64),
        ("int8", 2 * 8 * 16 * 64),
    ]
    for product in products:
        session = onnxruntime.InferenceSession(product["file"], providers=["CPUExecutionProvider"])
        a = np.random.default_rng(0).standard_normal((product["rows"], product["columns"])).astype(np.float32)
        c = np.asarray(session.run(["c"], {"a": a})[0])
        assert c.shape[0] == product["rows"]
        assert c.size * product["columns"] * 2 == product["operations"]


def test_the_measurement_gives_a_rate_for_each_precision(small):
    found = measure_roofline("cpu", 1, {}, seconds=0.005)
    assert set(found.gemm) == {"fp32", "int8"}
    entry = found.entry()
    assert entry["bandwidth_gb_s"] > 0
    assert "4x32x16" in entry["how"]


def test_without_onnx_the_roofline_is_left_out_with_the_reason(small, tmp_path):
    (tmp_path / "onnx.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    found = measure_roofline("cpu", 1, {"PYTHONPATH": path}, seconds=0.005)
    assert found.entry() == {"gemm": {}, "bandwidth_gb_s": None, "how": found.how}
    assert "not measured: roofline: MissingDependencyError: onnx is needed" in found.how


def test_a_share_refers_to_its_precision():
    found = Roofline(gemm={"fp32": 100e9, "int8": 400e9}, bandwidth=None, how="")
    assert found.share(50e9, 1.0, "fp32") == pytest.approx(0.5)
    assert found.share(50e9, 1.0, "int8+bf16") == pytest.approx(0.125)
    assert found.share(50e9, 1.0, "bf16") is None


def test_of_two_measurements_the_higher_counts():
    quiet = Roofline(gemm={"fp32": 5.0, "int8": 1.0}, bandwidth=None, how="quiet")
    noisy = Roofline(gemm={"fp32": 2.0, "int8": 3.0}, bandwidth=4.0, how="noisy")
    assert quiet.or_better(noisy) == Roofline(gemm={"fp32": 5.0, "int8": 3.0}, bandwidth=4.0, how="quiet")
    failed = Roofline(gemm={}, bandwidth=None, how="not measured: so")
    assert failed.or_better(noisy) == noisy
