"""The protocols of the servers: requests for the labels of texts, and their answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A path, the body of a request for some texts, and the reader of its answer."""

    path: str
    body: Callable[[Sequence[str]], dict[str, Any]]
    labels: Callable[[Any], list[str]]  # from the answer's JSON, a label for each text

    def request(self, texts: Sequence[str]) -> bytes:
        """Return the bytes of an HTTP request."""
        body = json.dumps(self.body(texts)).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def best(scores: Sequence[dict[str, Any]]) -> str:
    """Return the label of the highest score."""
    return str(max(scores, key=lambda entry: float(entry["score"]))["label"])


def _predict(texts: Sequence[str]) -> dict[str, Any]:
    return {"inputs": texts[0] if len(texts) == 1 else [[text] for text in texts]}


def _predicted(answer: Any) -> list[str]:
    return [best(scores) for scores in (answer if isinstance(answer[0], list) else [answer])]


PROTOCOLS = {
    "tei": Protocol("/predict", _predict, _predicted),
    "infinity": Protocol(
        "/classify",
        lambda texts: {"model": "model", "input": list(texts), "raw_scores": False},
        lambda answer: [best(scores) for scores in answer["data"]],
    ),
    "pipeline": Protocol(
        "/classify", lambda texts: {"inputs": list(texts)}, lambda answer: [str(entry["label"]) for entry in answer]
    ),
}
