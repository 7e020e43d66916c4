"""The OpenAPI schema, which schemathesis compares with the answers; and bodies and bytes that hypothesis makes."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_process import Service, http_post, read

# Not: that all that the schema allows is taken. It cannot say which model can do what, how long a text may be, which fields
# exclude each other. Nor that all that it forbids is refused: a field that is null counts as one that is not there.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
FIELDS = (
    *("inputs", "parameters", "options", "model", "truncate", "truncation_direction", "raw_scores", "query", "texts"),
    *(
        "documents",
        "return_text",
        "top_n",
        "return_documents",
        "rank_fields",
        "max_tokens_per_doc",
        "input",
        "text_1",
        "text_2",
    ),
    *("queries", "items", "data_1", "data_2", "truncate_prompt_tokens", "truncation_side", "use_activation", "priority"),
)
PATHS = ("/", "/predict", "/rerank", "/v1/rerank", "/v2/rerank", "/classify", "/score", "/tag", "/models/mood", "/models/order")
settings.register_profile("server", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("server")


def fuzz(service: Service, folder: Path, *options: str) -> None:
    pytest.importorskip("schemathesis", reason='schemathesis is not installed: pip install "fusedbert[test]"')
    main = "from schemathesis.cli import schemathesis; schemathesis()"
    command = [sys.executable, "-c", main, "run", f"{service.address}/openapi.json", "--checks", ",".join(CHECKS)]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", "1", "--request-timeout", "60"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"Tested: 1[0-9]$", done.stdout, re.MULTILINE), done.stdout[-2000:]


def test_answers_are_as_the_schema_says(service: Service, tmp_path: Path) -> None:
    fuzz(service, tmp_path)
    assert service.post({"inputs": "good"})[0] == 200


def test_the_schema_names_the_key_and_no_path_forgets_to_ask_for_it(locked: Service, tmp_path: Path) -> None:
    fuzz(locked, tmp_path, "--header", "Authorization: Bearer open-sesame")
    schema = json.loads(locked.get("/openapi.json"))
    asking = {path for path, methods in schema["paths"].items() for each in methods.values() if each.get("security")}
    assert asking == set(schema["paths"]) - {"/health", "/ping", "/metrics"}


texts = st.text(st.characters(codec="utf-8"), max_size=40)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | texts
    | st.sampled_from(["mood", "order", "names"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
strings = texts | st.lists(texts, min_size=1, max_size=4)
bodies = st.dictionaries(st.sampled_from(FIELDS), values | strings, max_size=5)


@settings(max_examples=300)
@given(path=st.sampled_from(PATHS), body=bodies)
def test_any_fields_are_answered_or_refused_by_name(service: Service, path: str, body: dict[str, Any]) -> None:
    status, answer = service.post(body, path)
    assert status in (200, 404, 413, 422), answer
    if status != 200:
        error = answer.get("error", answer.get("message"))
        message = error["message"] if isinstance(error, dict) else error
        assert message and "\n" not in message and len(message) < 1000


@settings(max_examples=200)
@given(body=st.binary(max_size=60), start=st.sampled_from([b"", b'{"inputs": ', b'{"inputs": "a"', b'{"inputs": "']))
def test_any_bytes_of_a_body_are_answered(service: Service, body: bytes, start: bytes) -> None:
    status, answer = service.post(start + body)
    assert status in (200, 404, 413, 422) and isinstance(answer, dict if status != 200 else list)


@settings(max_examples=200)
@given(data=st.data())
def test_any_bytes_of_a_request_are_answered_or_the_connection_is_closed(service: Service, data: Any) -> None:
    request = bytearray(http_post({"inputs": "a"}).replace(b"host: x", b"connection: close"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(request) - 1))
        request[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    connection = service.connect(bytes(request))
    connection.shutdown(1)  # no more will come, so that the server need not wait for it
    with contextlib.suppress(ConnectionResetError):
        answer = read(connection)
        assert answer == b"" or (answer[:9] == b"HTTP/1.1 " and answer[9:10] in (b"2", b"4")), answer
    assert service.get("/health") == ""
