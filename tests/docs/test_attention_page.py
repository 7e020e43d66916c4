"""docs/attention.md is correct: its code runs, prints what it shows, and computes what the exported graph computes."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "attention.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
NODE = "layer.0/attention/Attention"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone after the commands of the page have run."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "models").symlink_to(ROOT / "models")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "FUSEDBERT_CACHE": str(folder / "cache")}
    (commands,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    for command in commands.splitlines():
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    return folder


@pytest.fixture(scope="module")
def run(clone):
    """The page's code, run block by block: the output of each, and the names defined at the end."""
    names: dict = {}
    printed = []
    before = Path.cwd()
    os.chdir(clone)
    try:
        for code, _ in STEPS:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, names)
            printed.append(out.getvalue())
    finally:
        os.chdir(before)
        np.set_printoptions(edgeitems=3, precision=8, suppress=False)
    return printed, names


@pytest.fixture(scope="module")
def graph(clone, run, tmp_path_factory):
    """The inputs and outputs of the exported graph's first attention node, for the same tokens."""
    model = onnx.load(clone / "artifacts" / "attentive" / "onnx" / "model_attentions.onnx")
    (node,) = [node for node in model.graph.node if node.name == NODE]
    names = dict(zip(("q", "k", "v", "context"), (*node.input[:3], node.output[0]), strict=True))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names.values())
    path = tmp_path_factory.mktemp("opened") / "model.onnx"
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ids = np.array([run[1]["tokens"].ids])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    found = dict(zip(names, session.run(list(names.values()), feeds), strict=True))
    return found | {"attention": session.run(["attentions"], feeds)[0]}


def test_every_block_of_code_has_its_output():
    assert len(STEPS) == PAGE.count("```python") == PAGE.count("```text") >= 7


def test_the_code_prints_what_the_page_shows(run):
    for (code, shown), printed in zip(STEPS, run[0], strict=True):
        assert printed == shown, code


def test_each_step_is_what_the_graph_computes(run, graph):
    names = run[1]
    mine = names["mine"]
    for name in ("q", "k", "v", "context"):
        ours, theirs = names[name], graph[name][0][:, mine]  # [tokens, d]
        assert np.abs(ours - theirs).max() < 1e-5, name
    assert np.abs(names["attention"] - graph["attention"][0, 0, names["head"]]).max() < 1e-5
    assert np.abs(names["scores"] - names["shown"].scores(0, names["head"])).max() < 1e-4
    assert np.abs(names["scaled"] * np.sqrt(32) - names["scores"]).max() < 1e-12


def test_the_statements_on_two_heads_hold(run):
    weights = run[1]["shown"].weights
    assert weights[0, 2].argmax(axis=-1)[1:].tolist() == [0, 1, 2, 3]
    assert weights[1, 8].argmax(axis=-1)[1:-1].tolist() == [2, 3, 4]


def test_the_second_row_goes_mostly_to_the_other_words(run):
    row = run[1]["attention"][1]
    assert set(np.argsort(row)[-2:]) == {2, 3} and row[2] + row[3] > 0.5


def test_the_table_is_arithmetic():
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) \|$", PAGE, flags=re.MULTILINE)
    assert len(rows) == 4
    for _, layers, heads, total, width, d, root in rows:
        assert int(layers) * int(heads) == int(total)
        assert int(width) == int(heads) * int(d)
        assert float(root) == pytest.approx(int(d) ** 0.5, abs=0.005)


def test_links_and_pictures_are_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGE) if "://" not in link]
    assert links and [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert (ROOT / "docs" / "explain.png").stat().st_size < 200_000


def test_the_command_of_the_page_writes_a_page(clone):
    assert shutil.which("bash")
    assert "action" in (clone / "artifacts" / "action.html").read_text(encoding="utf-8")
