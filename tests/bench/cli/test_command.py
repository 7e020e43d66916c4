import json
import os
import re
import signal
import subprocess

import onnxruntime
import pytest
from commands import FUSEDBERT

from fusedbert.bench.engines import registry
from fusedbert.bench.latency.measure import render

QUICK = ("bench", "latency", "--shapes", "1x8,2x16", "--rounds", "2", "--seconds", "0.02", "--threads", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def document(fusedbert, artifact):
    done = fusedbert(*QUICK, "--precision", "fp32", "--against", "fusedbert-fp32", "-m", artifact, "--json", check=True)
    return json.loads(done.stdout)  # one document and nothing else


def test_the_document_names_its_schema_and_what_was_measured(document, artifact):
    assert (document["schema"], document["kind"]) == ("fusedbert.bench/2", "latency")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", document["started"])
    manifest = json.loads((artifact / "fusedbert.json").read_text(encoding="utf-8"))
    assert document["model"]["source"] == manifest["source"]["sha256"]
    others = {"gated": False, "local_layers": 0, "window": 0, "terms": 0}
    assert document["model"]["size"] == {"layers": 3, "hidden": 384, "intermediate": 1536, **others}
    assert document["settings"]["rounds"] == 2
    assert document["settings"]["reference"] == "fusedbert-fp32"  # only an artifact
    assert document["command"][:3] == ["fusedbert", "bench", "latency"]


def test_the_machine_is_on_record(document):
    machine = document["machine"]
    assert machine["cpu"]
    assert 1 <= machine["cores"] <= machine["logical"] <= os.cpu_count()
    assert machine["versions"]["onnxruntime"] == onnxruntime.__version__
    assert {"quota", "memory_bytes", "system", "python", "features", "gpus"} <= set(machine)
    assert len(machine["load_average"]["before"]) == len(machine["load_average"]["after"]) == 3


def test_each_shape_has_ordered_percentiles_over_all_rounds(document):
    engine = document["contenders"][0]
    assert (engine["status"], engine["device"], engine["threads"]) == ("measured", "cpu", 1)
    assert engine["check"]["texts"] > 100
    assert engine["check"]["max_abs_logit"] <= engine["check"]["tolerance"]
    assert [entry["shape"] for entry in engine["results"]] == ["1x8", "2x16"]
    for entry in engine["results"]:
        assert 0 < entry["p50_ms"] <= entry["p90_ms"] <= entry["p99_ms"]
        assert entry["sequences_per_second"] == pytest.approx(1e3 * entry["batch"] / entry["mean_ms"])
        assert [visit["round"] for visit in entry["rounds"]] == [0, 1]
        assert sum(visit["samples"] for visit in entry["rounds"]) == entry["samples"] > 2
        assert entry["share_of_ceiling"] > 0


def test_ceiling_and_overhead_are_measured(document):
    gemm = document["ceiling"]["gemm"]
    assert set(gemm) == {"fp32", "int8"}
    assert min(gemm.values()) > 1
    assert document["ceiling"]["bandwidth_gb_s"] > 0
    overhead = document["overhead"]
    assert overhead["tokens"] == 16
    assert overhead["text_us"] > overhead["overhead_us"]
    assert overhead["session_us"] > 0


def test_an_engine_compared_with_itself_runs_twice(document):
    assert [each["name"] for each in document["contenders"]] == ["fusedbert-fp32", "fusedbert-fp32-again"]
    assert [each["status"] for each in document["contenders"]] == ["measured"] * 2
    assert [(each["peer"], each["shape"], each["pairs"]) for each in document["ratios"]] == [
        ("fusedbert-fp32-again", "1x8", 2),
        ("fusedbert-fp32-again", "2x16", 2),
    ]
    assert document["summary"][0]["low"] <= document["summary"][0]["geometric_mean"] <= document["summary"][0]["high"]


def test_without_peers_the_table_names_device_precision_and_why(document):
    text = render({**document, "contenders": document["contenders"][:1], "ratios": []})
    assert re.search(r"^shape +p50 ms +p90 ms +p99 ms +seq/s +ceiling +samples$", text, flags=re.MULTILINE)
    assert re.search(r"^1x8 +[\d.]+ +[\d.]+ +[\d.]+ +\d+ +\d+% +\d+$", text, flags=re.MULTILINE)
    assert "fusedbert-fp32: fp32 on cpu" in text
    assert "fp32 was asked for" in text
    assert re.search(r"overhead -?\d+ us with tokenizing", text)


def test_an_engine_without_its_environment_is_named_and_skipped(fusedbert, checkpoint, tmp_path):
    arguments = ("--rounds", "1", "--against", "openvino-int8", "-m", checkpoint)
    done = fusedbert(*QUICK, *arguments, env={"FUSEDBERT_BENCH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert re.search(r"^openvino-int8 missing: .*fusedbert bench setup openvino$", done.stdout, flags=re.MULTILINE)
    for name in ("fusedbert-fp32", "fusedbert-int8"):
        assert re.search(rf"^{name} +[\d.]+ +\d+% +[\d.]+ +\d+%$", done.stdout, flags=re.MULTILINE)


def test_ctrl_c_leaves_the_results_so_far(artifact, tmp_path):
    command = [*FUSEDBERT, *QUICK, "--rounds", "1000", "-m", str(artifact), "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FUSEDBERT_CACHE": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    ) as process:
        try:
            assert process.stderr is not None
            assert any(line.startswith("round") for line in process.stderr)  # the first slow rounds
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    found = json.loads(stdout)
    (engine,) = found["contenders"]
    assert process.returncode == 130
    assert engine["status"] == "interrupted"
    assert len(engine["results"][0]["rounds"]) >= 2
    assert "interrupted, these are the results so far" in stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--shapes", "1x16,2x513"], 2, "shape 2x513 has 513 tokens, the model takes at most 512"),
        (["--shapes", "1by16"], 2, "shape '1by16' is not BATCHxTOKENS"),
        (["--rounds", "0"], 2, "0 is not in the range"),
        (["--threads", "0"], 2, "0 is not in the range"),
        (["--seconds", "0"], 2, "0 is not in the range"),
        (["--precision", "fp8"], 2, "fp8"),
        (["--device", "tpu"], 2, "tpu"),
        (["--device", "cuda:1"], 2, "set CUDA_VISIBLE_DEVICES=1"),
        (["--against", "tensorflow"], 2, "unknown engine 'tensorflow'"),
        (["--against", "openvino"], 2, "give the checkpoint as MODEL, or as --checkpoint FOLDER"),
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


def test_the_help_of_a_measurement_lists_the_groups_of_engines(fusedbert):
    printed = " ".join(fusedbert("bench", "latency", "--help", check=True).stdout.split())
    assert f"groups ({', '.join(registry.groups())})" in printed


def test_help_lists_every_command_without_importing_one(fusedbert):
    done = fusedbert("bench", "--help", check=True)
    for name in ("latency", "corpus", "rank", "load", "startup", "compare", "setup"):
        assert re.search(rf"^  {name} +\w", done.stdout, flags=re.MULTILINE)
