"""The artifact of a real export: names and keys as other tools expect them. Written out here, not taken from the code."""

import hashlib
import json

import onnx
import onnxruntime
import pytest
from safetensors import safe_open

KEYS = {
    "format",
    "source",
    "created_with",
    "architecture",
    "problem_type",
    "labels",
    "max_length",
    "files",
    "variants",
    "golden",
    "requires",
    "parity_avx2",
    "sha256",
}
VARIANT = {"file", "target", "precision", "outputs", "opset", "nodes", "fused_attention", "parity", "layout"}
KNOWN = {
    "README.md",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "fusedbert.json",
    "onnx/model.onnx",
    "onnx/model_int8.onnx",
    "onnx/model_bf16.onnx",
    "onnx/model_fp16.onnx",
    "onnx/model_fp16_packed.onnx",
}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def manifest(artifact):
    return json.loads((artifact / "fusedbert.json").read_text(encoding="utf-8"))


def test_the_files_have_the_names_that_optimum_and_transformers_js_know(artifact):
    found = {path.relative_to(artifact).as_posix() for path in artifact.rglob("*") if path.is_file()}
    assert found >= {"config.json", "tokenizer.json", "tokenizer_config.json", "fusedbert.json", "onnx/model.onnx"}
    assert found <= KNOWN | {f"{name}_data" for name in KNOWN}


def test_the_manifest_has_the_agreed_keys(manifest, checkpoint):
    assert set(manifest) == KEYS
    assert manifest["format"] == 1
    assert manifest["architecture"] == "bert"
    assert manifest["problem_type"] == "single_label_classification"
    assert manifest["labels"] == ["NEGATIVE", "POSITIVE"]
    assert manifest["max_length"] == 512
    assert manifest["source"]["sha256"] == {"model.safetensors": sha256(checkpoint / "model.safetensors")}
    assert {"fusedbert", "onnx"} <= set(manifest["created_with"])


def test_every_other_file_is_listed_with_its_size_and_hash(artifact, manifest):
    found = {path.relative_to(artifact).as_posix(): path for path in artifact.rglob("*") if path.is_file()}
    del found["fusedbert.json"]
    assert set(manifest["files"]) == set(found)
    for name, path in found.items():
        assert manifest["files"][name] == {"bytes": path.stat().st_size, "sha256": sha256(path)}


def test_the_manifest_ends_with_its_own_hash(artifact, manifest):
    content = (artifact / "fusedbert.json").read_bytes()
    assert list(manifest)[-1] == "sha256"
    assert manifest["sha256"] == hashlib.sha256(content.replace(manifest["sha256"].encode(), b"0" * 64)).hexdigest()


def test_each_variant_says_what_its_graph_is(artifact, manifest):
    assert [entry["file"] for entry in manifest["variants"] if (entry["target"], entry["precision"]) == ("cpu", "fp32")] == [
        "onnx/model.onnx"
    ]
    for entry in manifest["variants"]:
        assert set(entry) == VARIANT
        graph = onnx.load(artifact / entry["file"]).graph
        counts = {}
        for node in graph.node:
            name = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
            counts[name] = counts.get(name, 0) + 1
        assert entry["nodes"] == counts
        assert entry["outputs"] == [output.name for output in graph.output] == ["logits"]
        assert entry["fused_attention"] == 3  # one for each layer of the embedded checkpoint
        assert sum(count for name, count in counts.items() if "Attention" in name) == 3
        assert {"reference", "texts", "max_abs_logit", "label_agreement"} <= set(entry["parity"])


def test_the_fp32_graph_passes_the_gate_and_the_golden_texts(manifest):
    fp32 = next(entry for entry in manifest["variants"] if entry["precision"] == "fp32")
    assert fp32["parity"]["max_abs_logit"] <= 1e-4
    assert fp32["parity"]["label_agreement"] == 1.0
    assert fp32["parity"]["texts"] >= 10
    assert len(manifest["golden"]) >= 3
    assert all(len(entry["logits"]) == 2 and isinstance(entry["text"], str) for entry in manifest["golden"])


def test_the_graph_runs_in_bare_onnxruntime_and_uses_the_weights_of_the_checkpoint(artifact, checkpoint):
    session = onnxruntime.InferenceSession(str(artifact / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert {node.name for node in session.get_inputs()} <= {"input_ids", "attention_mask", "token_type_ids"}
    assert [node.name for node in session.get_outputs()] == ["logits"]
    with safe_open(checkpoint / "model.safetensors", framework="numpy") as weights:
        classifier = weights.get_tensor("classifier.weight").astype("float32")
    graph = onnx.load(artifact / "onnx" / "model.onnx").graph
    stored = [onnx.numpy_helper.to_array(entry) for entry in graph.initializer if sorted(entry.dims) == [2, 384]]
    assert any((array == classifier).all() for array in (*stored, *(array.T for array in stored)) if array.shape == (2, 384))


def test_two_exports_of_the_same_checkpoint_are_the_same_bytes(artifact, fusedbert, checkpoint, tmp_path):
    fusedbert("export", checkpoint, tmp_path / "again", check=True)
    for path in artifact.rglob("*"):
        if path.is_file():
            assert sha256(path) == sha256(tmp_path / "again" / path.relative_to(artifact)), path.name
