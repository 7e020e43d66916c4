"""Cohere's client, unchanged but for its base_url, in both versions of the interface."""

from __future__ import annotations

from typing import Any

import pytest
from service_process import Service

cohere = pytest.importorskip("cohere", reason='cohere is not installed: pip install "fusedbert[test]"')
QUERY = "was the movie good"
DOCUMENTS = ["a dull plot", "the movie was really good", "", "music", "the movie was really good"]


def client(service: Service, version: int, key: str = "any") -> Any:
    return (cohere.Client if version == 1 else cohere.ClientV2)(key, base_url=service.address, max_retries=0)


def ranked(judges: Any, top: int | None = None) -> list[tuple[int, Any]]:
    """Return index and score of each document, the best first."""
    found = judges.order.rank(QUERY, DOCUMENTS, top)
    return [(each["corpus_id"], pytest.approx(each["score"], abs=1e-5)) for each in found]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("top", [None, 2, 100])
def test_rerank(service: Service, judges: Any, version: int, top: int | None) -> None:
    found = client(service, version).rerank(model="order", query=QUERY, documents=DOCUMENTS, top_n=top)
    assert [(each.index, each.relevance_score) for each in found.results] == ranked(judges, top)
    assert isinstance(found.id, str) and found.id
    assert found.meta.api_version.version == str(version)


def test_documents_may_be_objects_and_come_back(service: Service, judges: Any) -> None:
    documents = [{"text": text} for text in DOCUMENTS]
    found = client(service, 1).rerank(model="order", query=QUERY, documents=documents, return_documents=True)
    assert [(each.index, each.relevance_score) for each in found.results] == ranked(judges)
    assert [each.document.text for each in found.results] == [DOCUMENTS[index] for index, _ in ranked(judges)]
    without = client(service, 1).rerank(model="order", query=QUERY, documents=DOCUMENTS, return_documents=False)
    assert {each.document for each in without.results} == {None}


@pytest.mark.parametrize("version", [1, 2])
def test_long_documents_are_cut(service: Service, judges: Any, version: int) -> None:
    documents = ["good " * 600, "bad"]
    found = client(service, version).rerank(model="order", query=QUERY, documents=documents)
    expected = judges.order.rank(QUERY, documents)
    assert [(each.index, each.relevance_score) for each in found.results] == [
        (each["corpus_id"], pytest.approx(each["score"], abs=1e-5)) for each in expected
    ]


def test_the_fields_that_cohere_documents_are_taken(service: Service, judges: Any) -> None:
    one = client(service, 1).rerank(
        model="order", query=QUERY, documents=DOCUMENTS, max_chunks_per_doc=10, rank_fields=["text"], return_documents=None
    )
    two = client(service, 2).rerank(model="order", query=QUERY, documents=DOCUMENTS, max_tokens_per_doc=4096, priority=3)
    for found in (one, two):
        assert [(each.index, each.relevance_score) for each in found.results] == ranked(judges)


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_wrong_is_the_clients_own_exception(service: Service, locked: Service, version: int) -> None:
    with pytest.raises(cohere.errors.NotFoundError) as caught:
        client(service, version).rerank(model="nobody", query=QUERY, documents=DOCUMENTS)
    assert "nobody" in caught.value.body["message"]
    with pytest.raises(cohere.errors.UnprocessableEntityError) as caught:
        client(service, version).rerank(model="order", query=QUERY, documents=DOCUMENTS, top_n=-1)
    assert "top_n" in caught.value.body["message"]
    with pytest.raises(cohere.errors.UnauthorizedError):
        client(locked, version, "wrong").rerank(model="order", query=QUERY, documents=DOCUMENTS)
    found = client(locked, version, "open-sesame").rerank(model="order", query=QUERY, documents=DOCUMENTS)
    assert len(found.results) == len(DOCUMENTS)
