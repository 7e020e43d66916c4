"""A model of the server: what is refused before it is tokenized, and when to ask again."""

from __future__ import annotations

import asyncio
import types
from typing import Any

import pytest

pytest.importorskip("fastapi", reason='fastapi is not installed: pip install "fusedbert[serve]"')

from fusedbert.engine.errors import OptionError
from fusedbert.engine.model import Model
from fusedbert.engine.server import ServerOptions
from fusedbert.engine.server.http.refusals import RefusedError
from fusedbert.engine.server.models import Models, ServedModel
from fusedbert.engine.server.protocols.documents import DocumentsRequest, rerank_v1


def test_no_text_is_tokenized_before_its_characters_are_counted(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Models({"order": served["order"]}, ServerOptions(max_chars=100), {"threads": 1})
    monkeypatch.setattr(Model, "tokenize", lambda *_: pytest.fail("it was tokenized"))
    request = DocumentsRequest(query="a" * 101, documents=["b"], max_tokens_per_doc=5)
    try:
        with pytest.raises(RefusedError, match="101 characters, the limit is 100"):
            asyncio.run(rerank_v1(models, request))
    finally:
        models.close()


def test_the_time_to_ask_again_is_by_the_answers_of_the_last_seconds(judges: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now, stats = [0.0], types.SimpleNamespace(answered=0, waiting=0)
    monkeypatch.setattr("fusedbert.engine.server.models.time.monotonic", lambda: now[0])
    model = ServedModel("mood", "", judges.mood, ServerOptions())
    model.batcher.close()

    async def run(*_: Any, **__: Any) -> None:
        pass

    model.batcher = types.SimpleNamespace(stats=stats, run=run)  # type: ignore[assignment]
    assert model.retry_after() == 1
    for second, answered, waiting, expected in [
        (3600.0, 0, 0, 1),
        (3600.5, 100, 1000, 5),  # 200 a second, after an hour without requests
        (3601.5, 200, 100, 1),
        (3603.0, 500, 100_000, 60),
        (3604.5, 800, 2000, 10),
    ]:
        now[0], stats.answered, stats.waiting = second, answered, waiting
        asyncio.run(model.run([], None))  # type: ignore[arg-type]
        assert model.retry_after() == expected, second


@pytest.mark.parametrize("key", ["", " ", " a", "a ", "a\n", "\u00e4"])
def test_a_key_that_no_header_can_hold_is_refused(key: str) -> None:
    with pytest.raises(OptionError, match="api_key"):
        ServerOptions(api_key=key)
