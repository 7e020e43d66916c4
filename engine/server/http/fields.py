"""Fields of requests, read strictly: each one known, there once, and of its type."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .refusals import RefusedError

M = TypeVar("M", bound=BaseModel)


def read_object(body: bytearray) -> dict[str, Any]:
    """Return the object that a body holds.

    Raises:
        RefusedError: It is no JSON, no object, or a field is there twice.
    """
    try:
        fields = json.loads(body, object_pairs_hook=_once)
    except RecursionError:
        raise RefusedError(422, "the body is nested too deeply") from None
    except ValueError as error:
        raise RefusedError(422, f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RefusedError(422, 'the body is not an object: send {"field": value}')
    return fields


def parse(kind: type[M], fields: dict[str, Any]) -> M:
    """Return a request from its fields; one that is null says nothing, whatever its name.

    Raises:
        RefusedError: A field is unknown, is missing, or is not of its type.
    """
    known = kind.model_fields
    given = {name: value for name, value in fields.items() if value is not None or name in known}
    for name in given:
        if name not in known:
            raise RefusedError(422, f"{name[:40]!a} is not a field: there are {', '.join(known)}")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "the body"
        field = known.get(name)
        # Of a field with several forms pydantic names only one; the description says all.
        forms = field.description if field is not None and name in given and len(first["loc"]) > 1 else None
        inner = name if forms else ".".join(map(str, first["loc"])) or name
        message = "not a field" if first["type"] == "extra_forbidden" else first["msg"]
        raise RefusedError(422, f"{inner[:80].encode('ascii', 'backslashreplace').decode()}: {forms or message}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is there twice")
    return fields
