"""Clients that post JSON themselves, in the shapes of Jina, vLLM and text-embeddings-inference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from service_process import Service

QUERY = "was the movie good"
DOCUMENTS = ["a dull plot", "the movie was really good", "", "music"]
# What vLLM's clients may send with any request, as its defaults.
VLLM = {
    "user": "someone",
    "truncate_prompt_tokens": -1,
    "truncation_side": "right",
    "priority": 0,
    "padding": "do_not_pad",
    "request_id": "42",
    "cache_salt": None,
    "use_activation": True,
}


def near(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


def ranked(judges: Any, **options: Any) -> list[tuple[int, Any]]:
    found = judges.order.rank(QUERY, DOCUMENTS, **options)
    return [(each["corpus_id"], near(each["score"])) for each in found]


def pairs(results: Any, name: str) -> list[tuple[int, float]]:
    return [(each["index"], each[name]) for each in results]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_jinas_rerank(service: Service, judges: Any, path: str) -> None:
    body = {"model": "order", "query": QUERY, "documents": DOCUMENTS, "top_n": 3, "return_documents": True}
    status, found = service.post(body, path, key="jina_any")
    assert status == 200 and {"model", "usage", "results"} <= set(found)
    assert found["model"] == "order" and found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] > 0
    assert pairs(found["results"], "relevance_score") == ranked(judges, top_k=3)
    assert [each["document"]["text"] for each in found["results"]] == [DOCUMENTS[each["index"]] for each in found["results"]]


def test_the_errors_of_rerank_are_where_each_client_looks(service: Service) -> None:
    body = {"model": "nobody", "query": QUERY, "documents": DOCUMENTS}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        status, found = service.post(body, path)
        assert status == 404 and "results" not in found
        assert "nobody" in found["message"] and "nobody" in found["detail"]  # Cohere's clients, and those of Jina
    status, found = service.post({"query": QUERY, "texts": DOCUMENTS, "model": "nobody"}, "/rerank")
    assert status == 404 and "nobody" in found["error"] and found["error_type"]


def test_a_query_without_room_for_documents_is_cut_with_and_without_their_limit(service: Service) -> None:
    body = {"model": "order", "query": "good movie " * 30, "documents": DOCUMENTS}
    status, found = service.post(body, "/v1/rerank")
    assert status == 200
    status, limited = service.post({**body, "max_tokens_per_doc": 5}, "/v1/rerank")
    assert status == 200 and limited["results"] == found["results"]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_vllms_rerank(service: Service, judges: Any, path: str) -> None:
    body = {"model": "order", "query": QUERY, "documents": DOCUMENTS, "top_n": 0, "max_tokens_per_doc": 0, **VLLM}
    status, found = service.post(body, path)
    assert status == 200, found
    assert pairs(found["results"], "relevance_score") == ranked(judges)
    status, found = service.post(body | {"use_activation": False}, path)
    assert pairs(found["results"], "relevance_score") == ranked(judges, function_to_apply="none")


def test_text_embeddings_inferences_rerank(service: Service, judges: Any) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS}
    status, found = service.post(body, "/rerank")
    assert status == 200 and pairs(found, "score") == ranked(judges)
    assert {frozenset(each) for each in found} == {frozenset({"index", "score"})}
    status, found = service.post(body | {"raw_scores": True, "return_text": True, "truncate": None}, "/rerank")
    assert pairs(found, "score") == ranked(judges, function_to_apply="none")
    assert [each["text"] for each in found] == [DOCUMENTS[each["index"]] for each in found]
    assert service.post({"query": QUERY, "texts": ["good " * 600]}, "/rerank")[0] == 413
    assert service.post({"query": QUERY, "texts": ["good " * 600], "truncate": True}, "/rerank")[0] == 200


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_vllms_classify(service: Service, judges: Any, path: str) -> None:
    texts = ["good movie", "the plot was dull"]
    expected = judges.mood.predict_proba(texts)
    for given in (texts, texts[0]):
        status, found = service.post({"model": "mood", "input": given, "add_special_tokens": True, **VLLM}, path)
        assert status == 200, found
        assert found["object"] == "list" and found["model"] == "mood" and found["created"] > 0
        rows = expected if given is texts else expected[:1]
        assert [each["index"] for each in found["data"]] == list(range(len(rows)))
        for each, row in zip(found["data"], rows, strict=True):
            assert each["probs"] == near(row.tolist()) and each["num_classes"] == 3
            assert each["label"] == judges.mood.classes_[row.argmax()]
        assert found["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_vllms_score(service: Service, judges: Any, path: str) -> None:
    expected = judges.order.predict_pairs([(QUERY, document) for document in DOCUMENTS])
    bodies = [
        {"text_1": QUERY, "text_2": DOCUMENTS},
        {"text_1": [QUERY], "text_2": DOCUMENTS},
        {"text_1": [QUERY] * len(DOCUMENTS), "text_2": DOCUMENTS},
    ]
    for body in bodies:
        status, found = service.post({"model": "order", **body, **VLLM}, path)
        assert status == 200, found
        assert [each["index"] for each in found["data"]] == list(range(len(DOCUMENTS)))
        assert [each["score"] for each in found["data"]] == near(expected.tolist())
    status, found = service.post({"text_1": QUERY, "text_2": DOCUMENTS[0]}, path)
    assert [each["score"] for each in found["data"]] == near([expected[0]])
    status, found = service.post({"text_1": [QUERY, QUERY], "text_2": DOCUMENTS}, path)
    assert status == 422 and found["error"]["code"] == 422 and "text_" in found["error"]["message"]


def wrong() -> Iterator[tuple[str, dict[str, Any]]]:
    """Bodies with a field that asks for what cannot be done."""
    yield "input", {"input": [1, 2, 3]}
    yield "messages", {"input": "a", "messages": []}
    yield "add_special_tokens", {"input": "a", "add_special_tokens": False}
    yield "mm_processor_kwargs", {"input": "a", "mm_processor_kwargs": {"a": 1}}
    yield "use_activaton", {"input": "a", "use_activaton": True}


@pytest.mark.parametrize(("name", "body"), wrong())
def test_what_classify_cannot_do_is_refused_by_name(service: Service, name: str, body: dict[str, Any]) -> None:
    status, found = service.post(body, "/classify")
    assert status == 422 and name in found["error"]["message"] and found["error"]["type"] == "BadRequestError"


def test_the_key_is_asked_for(locked: Service) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "model": "order"}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        assert locked.post(body, path)[0] == 401
        assert locked.post(body, path, key="open-sesam")[0] == 401
        assert locked.post(body, path, key="open-sesame")[0] == 200
    for path in ("/predict", "/", "/classify", "/score", "/tag", "/models/mood/predict"):
        assert locked.post({}, path)[0] == 401, path
