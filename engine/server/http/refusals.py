"""Errors as answers: their status, and the body that the client of each protocol expects."""

from __future__ import annotations

import enum
import json
from typing import Any

from starlette.responses import Response

from ...errors import ClosedError, DeadlineError, FusedBertError, InputError, OptionError, OverloadError, TextTooLongError


class Dialect(enum.Enum):
    """Whose bodies of errors a path has."""

    TEI = enum.auto()  # text-embeddings-inference: {"error", "error_type"}
    COHERE = enum.auto()  # {"message"}, and Jina's {"detail"}
    EITHER = enum.auto()  # all of these, on a path that all have
    OPENAI = enum.auto()  # vLLM: {"error": {"message", "type", "param", "code"}}


# The types of text-embeddings-inference by status; others are "Validation".
_TYPES = {401: "Unauthorized", 404: "NotFound", 424: "Backend", 429: "Overloaded", 503: "Unhealthy"}
# The types of OpenAI's API, which vLLM follows.
_OPENAI_TYPES = {401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError"}


class RefusedError(Exception):
    """A request that is answered with an error; ``retry_after`` are the seconds after which to ask again."""

    def __init__(self, status: int, message: str, kind: str | None = None, *, retry_after: int | None = None) -> None:
        message = message.encode("utf-8", "backslashreplace").decode()  # it may name half of a surrogate pair
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after
        self.kind = kind or _TYPES.get(status, "Validation")

    @classmethod
    def of(cls, error: FusedBertError) -> RefusedError:
        """Give an error of the engine the status that text-embeddings-inference gives such a one."""
        if isinstance(error, (OverloadError, DeadlineError)):
            return cls(429, str(error))
        if isinstance(error, TextTooLongError):
            return cls(413, str(error))
        if isinstance(error, InputError):
            return cls(422, str(error), "Tokenizer")
        if isinstance(error, OptionError):
            return cls(422, str(error))
        return cls(503 if isinstance(error, ClosedError) else 424, str(error))

    def answer(self, dialect: Dialect) -> Response:
        """Return the answer."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.status == 408:  # it has more to send, which is not worth waiting for; after a 413 that is read and dropped
            headers["connection"] = "close"
        return json_response(_body(self, dialect), self.status, headers)


def _body(refused: RefusedError, dialect: Dialect) -> dict[str, Any]:
    if dialect is Dialect.OPENAI:
        kind = _OPENAI_TYPES.get(refused.status, "BadRequestError" if refused.status < 500 else "InternalServerError")
        return {"error": {"message": refused.message, "type": kind, "param": None, "code": refused.status}}
    found = {} if dialect is Dialect.TEI else {"message": refused.message, "detail": refused.message}
    return found if dialect is Dialect.COHERE else found | {"error": refused.message, "error_type": refused.kind}


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a value as JSON; no number of it may be infinite."""
    try:
        body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, in a field of a document that comes back
        body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status_code=status, headers=headers, media_type="application/json")
