"""Requests that the server does not take: fields, bodies, lengths and paths."""

from __future__ import annotations

import gzip
import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from service_process import POST, Service, read, running_service


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"inputs": "a " * 30}, 200, ""),
        ({"inputs": "a " * 31}, 413, "max_length is 32"),
        ({"inputs": [["a"]] * 33}, 413, "batch size 33"),
        ({"inputs": [["a"]] * 10_000}, 413, "batch size 10000"),
        ({"inputs": "a" * 100_001}, 413, "100001 characters"),
        ({"inputs": [["a" * 50_000, "b" * 50_001]]}, 413, "100001 characters"),
        (b'{"inputs": "\\ud800"}', 422, "surrogate"),
        ({"inputs": []}, 422, "inputs: "),
        ({"inputs": [["a", "b", "c"]]}, 422, "inputs: "),
        ({"inputs": 3}, 422, "inputs: "),
        (b"{no json", 422, "not JSON"),
        ({}, 422, "inputs: "),
        ({"inputs": "a", "truncation_directoin": "Left"}, 422, "'truncation_directoin' is not a field"),
        (b'{"inputs": "a", "\\ud800": 1}', 422, "'\\ud800' is not a field"),
        ({"inputs": "a", "x" * 100_000: 1}, 422, "is not a field"),
        ({"inputs": "a", **dict.fromkeys(map(str, range(100_000)), 1)}, 422, "'0' is not a field"),
        ({"inputs": {"text": "a"}}, 422, "inputs: "),
        ({"inputs": [["a"], {"text": "a"}]}, 422, "inputs: "),
        ({"inputs": [[3] * 300_000]}, 422, "inputs: "),
        ({"inputs": "a", "truncation_direction": "up"}, 422, "truncation_direction: "),
        ({"inputs": "a", "truncate": "no"}, 422, "truncate: "),
        ({"inputs": "a", "raw_scores": 1}, 422, "raw_scores: "),
        ({"inputs": "a", "model": ["mood"]}, 422, "model: "),
        ({"inputs": "a", "model": "names"}, 422, "names cannot classify texts"),
        ({"inputs": "a", "model": "nobody"}, 404, "no model has the name 'nobody'"),
        ({"inputs": "a", "model": "\U0001f600" * 10_000}, 404, "no model has the name"),
        (b'{"inputs": "a", "inputs": "b"}', 422, "twice"),
        (b'{"inputs": NaN}', 422, "inputs: "),
        (b'{"inputs": 1e999}', 422, "inputs: "),
        (b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}", 422, "nested too deeply"),
        (b'{"inputs": ' + b"[" * 900_000 + b"}", 422, "nested too deeply"),
        (b'{"inputs": ' + b"9" * 100_000 + b"}", 422, "not JSON"),
        (b'{"inputs": "\xff"}', 422, "not JSON"),
        (b'{"inputs": "\xed\xa0\x80"}', 422, "surrogate"),
        (b'{"inputs": "a\x00"}', 422, "not JSON"),
        ('{"inputs": "a"}'.encode("utf-16"), 200, ""),  # as JSON may be, by its oldest definition
        (b"[]", 422, "not an object"),
        (b"null", 422, "not an object"),
        (b"", 422, "not JSON"),
    ],
)
def test_what_the_server_does_not_take_is_refused_in_one_line(service: Service, body: Any, status: int, named: str) -> None:
    found, answer = service.post(body)
    assert found == status
    if status != 200:
        assert named in answer["error"] and "\n" not in answer["error"] and len(answer["error"]) < 300
        assert answer["error_type"] in ("Validation", "Tokenizer", "NotFound")


def test_a_compressed_body_is_refused(service: Service) -> None:
    data = gzip.compress(b'{"inputs": "a"}')
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(urllib.request.Request(service.address + "/predict", data, headers), timeout=60)
    assert raised.value.code == 415 and "content-encoding is 'gzip'" in json.load(raised.value)["error"]


@pytest.mark.parametrize("name", ["top_k", "candidate_labels"])
def test_a_wrong_parameter_is_named(service: Service, name: str) -> None:
    assert service.post({"inputs": "a", "parameters": {name: 0}}, "/")[1]["error"].startswith(f"parameters.{name}: ")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"inputs": "a", "parameters": {"top_k": 0}}),
        ("/", {"inputs": "a", "parameters": {"function_to_apply": "loud"}}),
        ("/tag", {"inputs": "a", "parameters": {"aggregation_strategy": "loud"}}),
        ("/rerank", {"query": "a"}),
        ("/rerank", {"query": "a", "texts": ["b"], "documents": ["b"]}),
        ("/v1/rerank", {"query": "a", "documents": []}),
        ("/v2/rerank", {"query": "a", "documents": [{"image": "b"}]}),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "rank_fields": ["title"]}),
        ("/classify", {"input": [[1, 2]]}),
        ("/score", {"text_1": "a"}),
        ("/score", {"text_1": "a", "documents": "b"}),
        ("/score", {"text_1": [], "text_2": []}),
        ("/score", {"text_1": "a", "text_2": "b", "queries": "c", "items": "d"}),
    ],
)
def test_every_path_refuses_what_it_cannot_do(service: Service, path: str, body: Any) -> None:
    status, answer = service.post(body, path)
    assert status in (413, 422), answer
    assert "\n" not in json.dumps(answer) and len(json.dumps(answer)) < 1000


@pytest.mark.parametrize(
    "path", ["/nowhere", "/predict/", "//predict", "/models/", "/models//predict", "/models/nobody/predict", "/../predict"]
)
def test_a_path_that_is_not_there(service: Service, path: str) -> None:
    status, answer = service.post({"inputs": "a"}, path)
    assert status == 404 and answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", "POST"),
        ("PUT", "/", "GET, HEAD, POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_does_not_have(service: Service, method: str, path: str, allowed: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    assert answer.status == 405 and ", ".join(sorted(answer.headers["allow"].split(", "))) == allowed
    assert json.load(answer)["error"]
    connection.close()


@pytest.mark.parametrize("path", ["/health", "/ping", "/", "/info", "/metrics"])
def test_probes_may_ask_for_headers_only(service: Service, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.request("HEAD", path)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read() == b""
    connection.close()


def test_a_large_body_is_refused_before_it_is_sent(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", "2000001")
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413 and "2000001 bytes" in json.load(answer)["error"]
    connection.close()


@pytest.mark.parametrize("megabytes", [3, 20])
def test_a_client_that_first_sends_all_of_a_large_body_gets_the_answer(service: Service, megabytes: int) -> None:
    for _ in range(3):
        status, answer = service.post(b" " * (megabytes * 1_000_000))
        assert status == 413 and f"{megabytes}000000 bytes" in answer["error"]


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (b'{"text": "b", "year": 1999, "tags": ["c", null, {"d": 1.5}]}', 200),
        (b'{"text": "b", "title": "\\ud800"}', 200),
        (b'{"text": "b", "year": NaN}', 422),
        (b'{"text": "b", "year": [1e999]}', 422),
        (b'{"text": "b", "deep": ' + b"[" * 100 + b"]" * 100 + b"}", 200),
        (b'{"text": "b", "deep": ' + b"[" * 900 + b"]" * 900 + b"}", 422),
    ],
)
def test_fields_of_a_document_come_back_as_they_were(service: Service, document: bytes, status: int) -> None:
    found, answer = service.post(b'{"query": "a", "documents": [' + document + b"]}", "/v1/rerank")
    assert found == status
    if status == 200:
        assert answer["results"][0]["document"] == json.loads(document)


@pytest.mark.parametrize("kind", [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=a", b""])
def test_another_content_type_is_refused(service: Service, kind: bytes) -> None:
    """A page of another site could send these in its visitor's name, without asking first."""
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: %s\r\nconnection: close\r\ncontent-length: 15\r\n\r\n" % kind
    assert read(service.connect(head, b'{"inputs": "a"}')).startswith(b"HTTP/1.1 415 ")


def test_a_client_that_asks_before_it_sends_may_go_on(service: Service) -> None:
    with service.connect(POST + b"expect: 100-continue\r\ncontent-length: 15\r\nconnection: close\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b'{"inputs": "a"}')
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_special_tokens_of_strangers_are_text_with_the_option(service: Service, artifact: Path) -> None:
    body = {"inputs": "[SEP] " * 11}  # as text each is [, s, ##e, ##p and ]
    assert service.post(body)[0] == 200
    with running_service(artifact, "--split-special-tokens") as other:
        assert other.post(body)[0] == 413


def test_either_end_of_a_text_may_be_cut(service: Service) -> None:
    """Of a text whose start is good and whose end is bad, and which is longer than the model reads."""
    text = "good " * 100 + "bad " * 100

    def scores(inputs: str, **fields: Any) -> dict[str, Any]:
        status, answer = service.post({"inputs": inputs, "truncate": True, **fields})
        assert status == 200
        return {each["label"]: pytest.approx(each["score"], abs=1e-4) for each in answer}

    start, end = scores("good " * 30), scores("bad " * 30)
    assert start != end
    for left, right in (("Left", "Right"), ("left", "right")):
        assert scores(text, truncation_direction=left) == end and scores(text, truncation_direction=right) == start
    assert scores(text) == scores(text, truncation_direction=None) == start


def test_more_texts_than_the_queue_holds_are_413_and_do_not_come_again(artifact: Path) -> None:
    with running_service(artifact, "--max-queue", "4") as service:
        status, answer = service.post({"inputs": [["a"]] * 5})
        assert status == 413 and "5 texts are more than may wait, 4" in answer["error"]
        assert service.post({"inputs": [["a"]] * 4})[0] == 200
