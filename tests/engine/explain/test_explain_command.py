"""``fusedbert explain``: the page, the JSON document, and the ways it can fail."""

import json


def test_explain_writes_a_page_and_prints_the_answer(fusedbert, attentive, tmp_path):
    page = tmp_path / "new" / "page.html"
    done = fusedbert("explain", "The spaghetti was bland.", "-m", attentive, "-o", page, check=True)
    assert done.stdout.startswith("NEGATIVE  0.9")
    assert f"wrote {page}" in done.stderr
    text = page.read_text(encoding="utf-8")
    assert "spaghetti" in text and text.startswith("<!doctype html>")
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_json_is_one_document_and_needs_no_page(fusedbert, attentive):
    done = fusedbert("explain", "Is it good?", "--pair", "It is.", "-m", attentive, "--json", check=True)
    document = json.loads(done.stdout)
    assert document["tokens"][0] == "[CLS]" and document["text_pair"] == "It is."
    assert len(document["weights"]) == 3
    assert done.stderr == ""


def test_the_embedded_default_is_exported_once(fusedbert, tmp_path):
    env = {"FUSEDBERT_CACHE": str(tmp_path / "cache")}
    for exports in (1, 0):
        done = fusedbert("explain", "fine", "-o", tmp_path / "page.html", env=env, check=True)
        assert done.stderr.count("exporting sst2-mini into the cache") == exports
    (made,) = (tmp_path / "cache" / "artifacts").iterdir()
    assert sorted(path.name for path in (made / "onnx").iterdir()) == ["model.onnx", "model_attentions.onnx"]


def test_an_artifact_without_the_graph_names_the_command(fusedbert, artifact, tmp_path):
    done = fusedbert("explain", "fine", "-m", artifact, "-o", tmp_path / "page.html")
    assert done.returncode == 1
    assert f"fusedbert export sst2-mini {artifact} --attentions --force" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


def test_a_call_without_an_output_is_refused(fusedbert, attentive, tmp_path):
    for arguments in (["fine"], ["fine", "-o", tmp_path], []):
        done = fusedbert("explain", *arguments, "-m", attentive)
        assert done.returncode == 2, arguments
        assert "Error:" in done.stderr


def test_an_unwritable_page_is_one_line(fusedbert, attentive, tmp_path):
    (tmp_path / "file").write_text("")
    done = fusedbert("explain", "fine", "-m", attentive, "-o", tmp_path / "file" / "page.html")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr and len(done.stderr.splitlines()) == 1
