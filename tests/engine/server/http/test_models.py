"""Several models of one server: chosen by the body, by the URL, or by what they can do; and the heads of one."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service_process import Service, running_service

from fusedbert.engine import MultiHeadClassifier
from fusedbert.engine.server.protocols.calls import Relevance
from fusedbert.engine.text.outputs import Function

TEXT = "good movie"


def near(expected: Any) -> Any:
    if isinstance(expected, dict):
        return {name: near(value) for name, value in expected.items()}
    return list(map(near, expected)) if isinstance(expected, list) else pytest.approx(expected, abs=1e-5)


def labels(expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"label": each["label"], "score": near(each["score"])} for each in expected]


def test_a_model_is_chosen_by_the_body_by_the_url_or_by_what_it_can_do(service: Service, judges: Any) -> None:
    expected = {"mood": labels(judges.mood(TEXT, top_k=None)), "order": labels(judges.order(TEXT, top_k=None))}
    for name, answer in expected.items():
        assert service.post({"inputs": TEXT, "model": name}) == (200, answer)
        assert service.post({"inputs": TEXT}, f"/models/{name}/predict") == (200, answer)
        assert service.post({"inputs": TEXT, "model": "other"}, f"/models/{name}/predict") == (200, answer)
    assert service.post({"inputs": TEXT}) == (200, expected["mood"])
    assert service.post({"inputs": TEXT, "model": None}) == (200, expected["mood"])
    status, found = service.post({"query": TEXT, "texts": [TEXT]}, "/rerank")  # order is the only one that can
    assert status == 200 and found[0]["score"] == near(judges.order.rank(TEXT, [TEXT])[0]["score"])
    status, found = service.post({"inputs": TEXT}, "/tag")
    assert status == 200 and [each["word"] for each in found] == [each["word"] for each in judges.names(TEXT)]


def test_every_path_is_there_below_a_model(service: Service) -> None:
    for path, body in (
        ("/models/order/rerank", {"query": "a", "texts": ["b"]}),
        ("/models/order/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("/models/order/v2/rerank", {"query": "a", "documents": ["b"]}),
        ("/models/order/score", {"text_1": "a", "text_2": "b"}),
        ("/models/mood/v1/classify", {"input": "a"}),
        ("/models/names/tag", {"inputs": "a"}),
        ("/models/names", {"inputs": "a"}),
    ):
        assert service.post(body, path)[0] == 200, path
    assert service.post({"inputs": "a"}, "/models/mood/nowhere")[0] == 404
    assert service.post({"inputs": "a"}, "/models/names/predict")[0] == 422


def test_info_is_there_below_a_model_and_other_pages_are_not(service: Service) -> None:
    assert json.loads(service.get("/models/order/info"))["served_model_name"] == "order"
    for path in ("/models/nobody/info", "/models/order", "/models/order/", "/models/order/health", "/models/order/nowhere"):
        with pytest.raises(urllib.error.HTTPError) as raised:
            service.get(path)
        assert raised.value.code == 404 and json.load(raised.value)["error"], path


@pytest.mark.parametrize("others", [[], [[-9.0], [-7.0], [-8.0]]])
def test_documents_whose_scores_are_rounded_to_1_are_ordered_by_their_logits(others: list[list[float]]) -> None:
    logits = np.hstack([*([np.array(others, np.float32)] if others else []), np.array([[19.0], [25.0], [22.0]], np.float32)])
    function = Function.SOFTMAX if others else Function.SIGMOID
    found = Relevance(function=function, column=logits.shape[1] - 1).results(logits, ("label",) * logits.shape[1])
    assert {score for score, _ in found} == {1.0}
    assert sorted(range(3), key=found.__getitem__, reverse=True) == [1, 2, 0]


def test_the_models_are_listed(service: Service, judges: Any) -> None:
    listed = json.loads(service.get("/v1/models"))
    assert [each["id"] for each in listed["data"]] == ["mood", "order", "names"] and listed["object"] == "list"
    assert all(each["object"] == "model" and each["created"] > 0 and each["owned_by"] for each in listed["data"])
    info = json.loads(service.get("/info"))
    assert info["served_model_name"] == "mood" and info["max_input_length"] == 32 and info["max_client_batch_size"] == 32
    assert info["model_type"]["classifier"]["label2id"] == {"NEGATIVE": 0, "NEUTRAL": 1, "POSITIVE": 2}
    assert [(each["name"], each["can"]) for each in info["models"]] == [
        ("mood", ["classify", "predict"]),
        ("order", ["classify", "predict", "rank"]),
        ("names", ["tag"]),
    ]


def test_a_single_model_takes_any_name_in_a_body(artifact: Path) -> None:
    with running_service(artifact) as service:
        answers = [service.post({"inputs": TEXT, "model": name}) for name in (None, "artifact", "gpt-4", "a/b")]
        (name,) = (each["name"] for each in json.loads(service.get("/info"))["models"])
        answers.append(service.post({"inputs": TEXT, "model": "gpt-4"}, f"/models/{name}/predict"))
        assert {status for status, _ in answers} == {200} and all(found == answers[0][1] for _, found in answers)
        for path in ("/models/gpt-4/predict", f"/models/{name}/prdict"):  # a URL is written by hand, and has typos
            assert service.post({"inputs": TEXT}, path)[0] == 404


def test_a_ranker_says_so_as_text_embeddings_inference_does(served: dict[str, Path]) -> None:
    with running_service(f"some/ranker={served['order']}") as service:
        info = json.loads(service.get("/info"))
        assert info["model_type"] == {"reranker": {"id2label": {"0": "RELEVANT"}, "label2id": {"RELEVANT": 0}}}
        assert service.post({"query": "a", "texts": ["b"]}, "/models/some/ranker/rerank")[0] == 200
        assert service.post({"query": "a", "texts": ["b"]}, "/")[0] == 200  # as there


def test_a_name_may_have_quotes_and_letters_of_any_language(artifact: Path) -> None:
    name = 'org/an-"odd"-näme'
    with running_service(f"{name}={artifact}") as service:
        found = [line for line in service.get("/metrics").splitlines() if "model=" in line]
        assert found and all('model="org/an-\\"odd\\"-näme"' in line for line in found)


@pytest.fixture(scope="module")
def headed(heads_artifact: Path, served: dict[str, Path]) -> Iterator[Service]:
    """A server of a model with three heads, and of another one."""
    with running_service(f"all={heads_artifact}", f"order={served['order']}") as service:
        yield service


def test_heads_are_answered_together_or_one_by_name(headed: Service, heads_artifact: Path) -> None:
    with MultiHeadClassifier.from_pretrained(heads_artifact, threads=1) as clf:
        expected = {name: labels(found) for name, found in clf(TEXT, top_k=None).items()}
    assert headed.post({"inputs": TEXT, "model": "all"}) == (200, expected)
    for name, answer in expected.items():
        assert headed.post({"inputs": TEXT, "model": f"all:{name}"}) == (200, answer)
        assert headed.post({"inputs": TEXT}, f"/models/all:{name}/predict") == (200, answer)
    status, found = headed.post({"input": TEXT, "model": "all:mood"}, "/classify")
    assert status == 200 and found["model"] == "all:mood" and found["data"][0]["num_classes"] == 2
    status, found = headed.post({"input": TEXT, "model": "all"}, "/classify")
    assert status == 422 and "all:mood" in found["error"]["message"]
    assert headed.post({"inputs": TEXT, "model": "all:nobody"})[0] == 404


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["a={}", "a={}"], "two models have the name 'a'"),
        (["a b={}"], "a model's name is 'a b'"),
        (["a={}/nowhere"], "nowhere"),
        (["{}", "--max-queue", "0"], "--max-queue"),
    ],
)
def test_what_cannot_be_served_is_reported_at_the_start(
    fusedbert: Any, artifact: Path, arguments: list[str], named: str
) -> None:
    done = fusedbert("serve", *(each.format(artifact) for each in arguments), "--port", "0")
    assert done.returncode != 0 and named in done.stderr and "Traceback" not in done.stderr
