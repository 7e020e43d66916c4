"""huggingface_hub's InferenceClient, unchanged, against the server's URL."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from service_process import Service

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with tokenizers")
TEXTS = ["good movie", "a really dull plot , not very good", "", "größer \U0001f600"]


def client(service: Service, path: str = "", token: str = "any") -> Any:
    return hub.InferenceClient(model=service.address + path, token=token)


def plain(found: Any) -> list[dict[str, Any]]:
    """Return what the client has parsed as dicts; scores may differ in the last digits."""
    return [
        {
            name: pytest.approx(value, abs=1e-5) if name == "score" else value
            for name, value in each.items()
            if value is not None
        }
        for each in found
    ]


@pytest.mark.parametrize("path", ["", "/", "/models/mood", "/models/mood/"])
def test_text_classification(service: Service, judges: Any, path: str) -> None:
    for text in TEXTS:
        found = client(service, path).text_classification(text)
        assert plain(found) == judges.mood(text, top_k=None)


@pytest.mark.parametrize(
    "options", [{"top_k": 1}, {"top_k": 2}, {"function_to_apply": "none"}, {"function_to_apply": "sigmoid"}]
)
def test_the_parameters_of_text_classification_are_honoured(service: Service, judges: Any, options: dict[str, Any]) -> None:
    found = client(service).text_classification(TEXTS[1], **options)
    assert plain(found) == judges.mood(TEXTS[1], **{"top_k": None, **options})


def test_text_classification_in_a_coroutine(service: Service, judges: Any) -> None:
    async def ask() -> Any:
        asker = hub.AsyncInferenceClient(model=service.address, token="any")
        return await asyncio.gather(*(asker.text_classification(text) for text in TEXTS))

    assert list(map(plain, asyncio.run(ask()))) == judges.mood(TEXTS, top_k=None)


@pytest.mark.parametrize("strategy", [None, "none", "simple", "first", "average", "max"])
def test_token_classification(service: Service, judges: Any, strategy: Any) -> None:
    """Without a strategy it is simple, as in the hosted API."""
    text = "the good movie was not very bad"
    found = client(service, "/models/names").token_classification(text, aggregation_strategy=strategy)
    expected = judges.names(text, aggregation_strategy=strategy or "simple")
    assert expected and plain(found) == expected


def test_the_parameters_of_token_classification_are_honoured(service: Service, judges: Any) -> None:
    text = "the good movie was not very bad"
    options = {"aggregation_strategy": "none", "ignore_labels": ["O", "I-NAME"]}
    found = client(service, "/models/names").token_classification(text, **options)
    assert plain(found) == judges.names(text, **options)
    options = {"aggregation_strategy": "simple", "stride": 4}
    found = client(service, "/models/names").token_classification(text * 20, **options)
    assert plain(found) == judges.names(text * 20, **options)


def test_long_texts_are_cut_as_in_the_hosted_api(service: Service, judges: Any) -> None:
    assert plain(client(service).text_classification("good " * 600)) == judges.mood("good " * 600, top_k=None)


def test_what_is_wrong_reaches_the_caller(service: Service) -> None:
    with pytest.raises(hub.errors.HfHubHTTPError, match="function_to_apply") as caught:
        client(service).text_classification("a", function_to_apply="loudest")
    assert caught.value.response.status_code == 422
    with pytest.raises(hub.errors.HfHubHTTPError) as caught:
        client(service).text_classification("a" * 100_001)
    assert caught.value.response.status_code == 413 and "100001 characters" in caught.value.response.json()["error"]
    with pytest.raises(hub.errors.HfHubHTTPError) as caught:
        client(service, "/models/nobody").text_classification("a")
    assert caught.value.response.status_code == 404


def test_the_token_is_the_key(locked: Service, judges: Any) -> None:
    found = client(locked, token="open-sesame").text_classification("good movie")
    assert plain(found) == judges.mood("good movie", top_k=None)
    with pytest.raises(hub.errors.HfHubHTTPError) as caught:
        client(locked, token="wrong").text_classification("good movie")
    assert caught.value.response.status_code == 401
