import json
import re

import pytest

from fusedbert.bench import timing

QUICK = ("bench", "latency", "--shapes", "1x8,2x16", "--rounds", "2", "--threads", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def document(fusedbert, artifact):
    done = fusedbert(*QUICK, "-m", artifact, "--json", check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)  # one document and nothing else


def test_the_document_names_its_schema_and_what_was_measured(document, artifact):
    assert document["schema"] == "fusedbert.bench.latency/1"
    assert set(document) == {"schema", "started", "machine", "model", "settings", "contenders"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", document["started"])
    manifest = json.loads((artifact / "fusedbert.json").read_text(encoding="utf-8"))
    assert document["model"]["source"] == manifest["source"]["sha256"]
    assert document["settings"]["rounds"] == 2


def test_the_machine_is_on_record(document):
    import os

    import onnxruntime

    machine = document["machine"]
    assert machine["cpu"]
    assert 1 <= machine["cores"] <= machine["logical"] <= os.cpu_count()
    assert machine["versions"]["onnxruntime"] == onnxruntime.__version__
    assert {"quota", "memory_bytes", "system", "python", "features"} <= set(machine)
    assert len(machine["load_average"]["before"]) == len(machine["load_average"]["after"]) == 3


def test_each_shape_has_ordered_percentiles_over_all_rounds(document):
    (contender,) = document["contenders"]
    assert (contender["name"], contender["device"], contender["threads"]) == ("fusedbert", "cpu", 1)
    assert [entry["shape"] for entry in contender["results"]] == ["1x8", "2x16"]
    for entry in contender["results"]:
        assert 0 < entry["p50_ms"] <= entry["p90_ms"] <= entry["p99_ms"]
        assert entry["sequences_per_second"] == pytest.approx(1e3 * entry["batch"] / entry["mean_ms"])
        assert len(entry["rounds"]) == 2
        assert sum(visit["samples"] for visit in entry["rounds"]) == entry["samples"] >= 2 * timing.LEAST_SAMPLES
        assert all(visit["warm_up"]["iterations"] >= 2 for visit in entry["rounds"])


def test_without_json_it_is_a_table_that_names_device_precision_and_why(fusedbert, artifact):
    done = fusedbert(*QUICK[:2], "--shapes", "1x8", "--rounds", "1", "--precision", "fp32", "-m", artifact, check=True)
    assert re.search(r"^shape +p50 ms +p90 ms +p99 ms +seq/s +samples$", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^1x8 +[\d.]+ +[\d.]+ +[\d.]+ +\d+ +\d+$", done.stdout, flags=re.MULTILINE)
    assert "fusedbert: fp32 on cpu" in done.stdout
    assert "fp32 was asked for" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--shapes", "1x16,2x513"], 2, "shape 2x513 has 513 tokens, the model takes at most 512"),
        (["--shapes", "1by16"], 2, "shape '1by16' is not BATCHxTOKENS"),
        (["--rounds", "0"], 2, "0 is not in the range"),
        (["--threads", "0"], 2, "0 is not in the range"),
        (["--precision", "fp8"], 2, "fp8"),
        (["--device", "tpu"], 2, "tpu"),
        (["-m", "no/such/folder/here"], 1, "no/such/folder/here does not exist"),
    ],
)
def test_a_wrong_call_is_one_short_error(fusedbert, artifact, arguments, status, says):
    done = fusedbert("bench", "latency", "-m", artifact, *arguments)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_broken_manifest_is_named_and_nothing_is_timed(fusedbert, tmp_path):
    (tmp_path / "fusedbert.json").write_text("{", encoding="utf-8")
    done = fusedbert("bench", "latency", "-m", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "fusedbert.json" in done.stderr
