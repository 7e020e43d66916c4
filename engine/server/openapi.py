"""The OpenAPI schema of the paths that answer with a model's results."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from .http.front import OPEN
from .http.refusals import Dialect
from .protocols.endpoints import ENDPOINTS, Endpoint

_REF = "#/components/schemas/{model}"
_TEXT = {"type": "string"}
_TEI = {"error": _TEXT, "error_type": _TEXT}
_COHERE = {"message": _TEXT, "detail": _TEXT}
_OPENAI = {"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": {"type": "integer"}}
_ERRORS: dict[Dialect, dict[str, Any]] = {
    Dialect.TEI: _TEI,
    Dialect.COHERE: _COHERE,
    Dialect.EITHER: _COHERE | _TEI,
    Dialect.OPENAI: {"error": {"type": "object", "properties": _OPENAI, "required": list(_OPENAI)}},
}
STATUSES = {
    400: "This is not HTTP.",
    401: "The API key is missing or wrong.",
    404: "No model has this name, or none can do this.",
    408: "The body did not arrive in time.",
    413: "The body, a text, or the number of texts is above a limit.",
    415: "The body is not application/json.",
    422: "A field is unknown, missing, or not of its type.",
    424: "The model failed.",
    429: "Too much waits: ask again after Retry-After seconds.",
    503: "The server is closing.",
}


def schema_of(app: FastAPI) -> dict[str, Any]:
    """Return the schema of an application, made once: FastAPI's, and the requests and answers of ``ENDPOINTS``."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        forms = [form for endpoint in ENDPOINTS for form in endpoint.forms]
        kinds = dict.fromkeys(
            [*((form.request, "validation") for form in forms), *((form.response, "serialization") for form in forms)]
        )
        references, definitions = models_json_schema(list(kinds), ref_template=_REF)  # type: ignore[arg-type]
        found.setdefault("components", {}).setdefault("schemas", {}).update(definitions.get("$defs", {}))
        for endpoint in ENDPOINTS:
            for path in endpoint.paths:
                found["paths"].setdefault(path, {})["post"] = _operation(endpoint, path, references)
        if app.state.service.options.api_key is not None:
            _lock(found)
        app.openapi_schema = found
    return app.openapi_schema


def _lock(schema: dict[str, Any]) -> None:
    """Add the key to a schema, for which the page of the schema then asks."""
    schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if method == "post" or path not in OPEN:
                operation["security"] = [{"key": []}]
                operation["responses"].setdefault("401", _refusal(STATUSES[401], Dialect.EITHER))


def _operation(endpoint: Endpoint, path: str, references: Any) -> dict[str, Any]:
    forms = endpoint.forms
    first = (forms[0].handler.__doc__ or "").splitlines()[0]
    answers = _one_of([references[form.response, "serialization"] for form in forms])
    responses: dict[str, Any] = {"200": {"description": "The results.", "content": {"application/json": {"schema": answers}}}}
    responses |= {str(status): _refusal(meaning, endpoint.dialect) for status, meaning in STATUSES.items()}
    responses["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    requests = _one_of([references[form.request, "validation"] for form in forms])
    return {
        "summary": first,
        "operationId": "post_" + (path.strip("/").replace("/", "_") or "root"),
        "requestBody": {"required": True, "content": {"application/json": {"schema": requests}}},
        "responses": responses,
    }


def _refusal(meaning: str, dialect: Dialect) -> dict[str, Any]:
    fields = _ERRORS[dialect]
    schema = {"type": "object", "properties": fields, "required": list(fields)}
    return {"description": meaning, "content": {"application/json": {"schema": schema}}}


def _one_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
