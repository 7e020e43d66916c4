"""Bytes that are not quite HTTP, or that two servers could read in two ways: refused, and the connection closed."""

from __future__ import annotations

import json
import sys

import pytest
from service_process import CHUNKED, POST, Service, http_post, read

BODY = b'{"inputs": "a"}'
HIDDEN = b"GET /info HTTP/1.1\r\nhost: x\r\n\r\n"  # what a proxy would take for a part of the body
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def alone(service: Service, *parts: bytes) -> bytes:
    """Return the answer, which must be the only one, on a connection that the server closes."""
    answer = read(service.connect(b"".join(parts)))
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    return answer


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: -1",
        b"content-length: +15",
        b"content-length: 0x0f",
        b"content-length: 15, 15",
        b"content-length: 1 5",
        b"content-length: 99999999999999999999999",
        b"content-length: 15\r\ncontent-length: 16",
        b"content-length: 15\r\ncontent-length: 15",
        b"transfer-encoding: chunked\r\ncontent-length: 15",
        b"content-length: 15\r\ntransfer-encoding: chunked",
        b"transfer-encoding: xchunked\r\ncontent-length: 15",
        b"transfer-encoding: chunked, identity",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity",
        b"content-length : 15",
        b"content length: 15",
        b" content-length: 15",
        b"content-length: 15\r\n folded: yes",
        b"\x00: 15",
        b"a: \x00",
        b"a: b\rcontent-length: 15",
    ],
)
def test_lengths_and_headers_that_can_be_read_in_two_ways_are_refused(service: Service, head: bytes) -> None:
    answer = alone(service, POST, head, b"\r\n\r\n", BODY, HIDDEN)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    "chunks",
    [
        b"-1\r\n" + BODY,
        b"f;\x00\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"0x0f\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n" + BODY,
        b"e\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"\r\n0\r\n\r\n",
        b"f\n" + BODY + b"\n0\n\n",
    ],
)
def test_chunks_that_are_not_quite_chunks_are_refused(service: Service, chunks: bytes) -> None:
    answer = alone(service, CHUNKED, chunks, HIDDEN)
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "start",
    [
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 100,
    ],
)
def test_what_is_not_a_request_is_refused(service: Service, start: bytes) -> None:
    assert alone(service, start, b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_another_protocol_is_not_offered(service: Service, upgrade: bytes) -> None:
    head = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    head += b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nupgrade: " + upgrade + b"\r\n\r\n"
    with service.connect(head) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_chunks_with_extensions_and_trailers_are_a_body(service: Service) -> None:
    chunks = b"5;a=b\r\n" + BODY[:5] + b"\r\na\r\n" + BODY[5:] + b"\r\n0\r\na: b\r\n\r\n"
    with service.connect(CHUNKED, chunks) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_requests_in_one_piece_are_answered_in_their_order(service: Service) -> None:
    words = ["good", "bad", "dull", "music"] * 8
    requests = [http_post({"inputs": word}) for word in words]
    requests[-1] = requests[-1].replace(b"host: x", b"connection: close")
    found = read(service.connect(b"".join(requests)))
    bodies = [json.loads(each.partition(b"\r\n\r\n")[2]) for each in found.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [service.post({"inputs": word})[1] for word in words]


def test_a_refused_request_does_not_spoil_the_next_one(service: Service) -> None:
    bad = http_post(b"{no json")
    good = http_post({"inputs": "good"}).replace(b"host: x", b"connection: close")
    found = read(service.connect(bad + good))
    assert [each[:3] for each in found.split(b"HTTP/1.1 ")[1:]] == [b"422", b"200"]


@pytest.mark.parametrize("header", [b"a: " + b"x" * 70_000, b"a: b\r\n" * 12_000, b"x" * 70_000])
def test_endless_headers_are_refused(service: Service, header: bytes) -> None:
    answer = read(service.connect(b"GET /health HTTP/1.1\r\n", header))
    assert answer[9:12] in (b"431", b"400") and answer.count(b"HTTP/1.1 ") == 1


def test_an_endless_path_is_refused(service: Service) -> None:
    assert read(service.connect(b"GET /" + b"a" * 70_000))[9:12] in (b"431", b"414", b"400")


@linux
def test_requests_far_ahead_of_their_answers_close_the_connection_and_take_little_memory(service: Service) -> None:
    before = service.status("VmHWM")
    for _ in range(20):
        connection = service.connect()
        with pytest.raises(ConnectionError):
            for _ in range(5000):  # 100 MB
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 500)
        connection.close()
    assert service.post({"inputs": "good"})[0] == 200
    assert service.status("VmHWM") - before < 60_000
