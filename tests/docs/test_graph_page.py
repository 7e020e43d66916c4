"""docs/bert-to-graph.md is correct: the nodes and tensors that it names are in the exported graphs."""

import re
from pathlib import Path

import onnx
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "bert-to-graph.md").read_text(encoding="utf-8")
FILES = {"fp32": "model", "int8": "model_int8", "bf16": "model_bf16", "fp16": "model_fp16", "packed": "model_fp16_packed"}
SECTIONS = {title.strip(): body for title, body in re.findall(r"^## (.*)\n((?:(?!^## ).*\n)*)", PAGE, flags=re.MULTILINE)}


@pytest.fixture(scope="module")
def graphs(artifact):
    return {short: onnx.load(artifact / "onnx" / f"{name}.onnx").graph for short, name in FILES.items()}


def rows():
    """Section, short name of the graph, and the row's cells."""
    for title, body in SECTIONS.items():
        for line in body.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
            shorts = cells[0].split(", ") if cells else []
            if shorts and set(shorts) <= set(FILES):
                yield from ((title, short, cells[1:]) for short in shorts)


def scopes(title, last):
    """Return the pattern of the names of a section's nodes."""
    if title == "The last layer":
        return [f"layer.{last}/"]
    return {"Embeddings": ["embeddings/"], "Mask": ["mask/", "inputs/"], "Head": ["head/"]}.get(title, ["layer.0/"])


def test_the_page_has_a_row_for_every_graph():
    found = {(title, short) for title, short, _ in rows()}
    for title in ("Embeddings", "Mask", "Queries, keys, values", "Attention", "The last layer", "Head"):
        assert {short for section, short in found if section == title} == set(FILES), title


@pytest.mark.parametrize(("title", "short", "cells"), rows())
def test_named_nodes_and_tensors_exist(graphs, title, short, cells):
    graph = graphs[short]
    last = max(int(match[1]) for node in graph.node if (match := re.match(r"layer\.(\d+)/", node.name)))
    inside = [node for node in graph.node if node.name.startswith(tuple(scopes(title, last)))]
    types = {(node.op_type, node.domain == "com.microsoft") for node in inside}
    weights = {tensor.name for tensor in graph.initializer}
    known = weights | {each.name for each in graph.input}
    for span, star in re.findall(r"`([^`]+)`(\\\*)?", " ".join(cells)):
        if re.fullmatch(r"[A-Z][A-Za-z0-9]{2,}", span):
            assert (span, bool(star)) in types, f"{span} is not a node of {title} in {short}"
        elif re.fullmatch(r"(layer\.i|embeddings|head)/[a-z_.]+", span):
            assert span.replace("layer.i", "layer.0") in weights, f"{span} is not a tensor of {short}"
        elif title == "The last layer" and re.fullmatch(r"(query|key|value|key_value)\.weight", span):
            assert f"layer.{last}/attention/{span}" in weights, f"{span} is not a tensor of {short}"
        elif span in ("cumulative_lengths", "token_offset", "position_ids"):
            assert span in known


def test_the_scale_is_where_the_page_says(graphs):
    for short, graph in graphs.items():
        node = next(node for node in graph.node if node.name.startswith("layer.0/") and "Attention" in node.op_type)
        scales = [onnx.helper.get_attribute_value(each) for each in node.attribute if each.name == "scale"]
        assert scales == ([] if short in ("int8", "bf16") else [pytest.approx(1.0 if short == "fp32" else 32**-0.5)])


def test_links_lead_to_existing_files():
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
