"""Servers that behave in known ways, for the real client, and their factory: ``python http_servers.py PORT KIND``."""

import asyncio
import functools
import json
import sys
from pathlib import Path

from fusedbert.bench.engines.environments import OURS
from fusedbert.bench.engines.registry import make_spec
from fusedbert.bench.load.http.servers import ServedEngine

HEALTH = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def label(text):
    return "POSITIVE" if "good" in text else "NEGATIVE"


def answer(body, kind):
    """Return the bytes of an answer to a request of /predict."""
    if kind == "busy":
        return b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\nretry-after: 1\r\n\r\n{}"
    inputs = json.loads(body)["inputs"]
    texts = [inputs] if isinstance(inputs, str) else [text for (text,) in inputs]
    labels = ["NEGATIVE" if kind == "wrong" else label(text) for text in texts]
    found = [[{"label": "other", "score": 0.1}, {"label": each, "score": 0.9}] for each in labels]
    data = json.dumps(found[0] if isinstance(inputs, str) else found).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data


class Server:
    """Kinds: quick, busy (429), wrong (labels), pieces (of an answer), slow (50 ms, one by one), hang, closing (after two)."""

    def __init__(self, kind):
        self.kind, self.lane, self.connections, self.served = kind, asyncio.Lock(), 0, 0

    async def connected(self, reader, writer):
        self.connections += 1
        served = 0
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                if self.kind == "closing" and served == 2:
                    return  # a request is dropped unread
                served += 1
                await self.reply(head, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def reply(self, head, body, writer):
        if head.startswith(b"GET"):
            writer.write(HEALTH)
            return
        self.served += 1
        data = answer(body, self.kind)
        if self.kind == "hang":
            await asyncio.sleep(60)
        if self.kind == "slow":
            async with self.lane:
                await asyncio.sleep(0.05)
        if self.kind == "pieces":
            writer.write(data[:25])
            await writer.drain()
            await asyncio.sleep(0.02)
            data = data[25:]
        writer.write(data)


async def serve(port, kind):
    server = await asyncio.start_server(Server(kind).connected, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


class FakeServer(ServedEngine):
    """The kind is the engine's name; ``ends`` is a server that ends at once."""

    packages = ("numpy",)
    protocol = "tei"

    @functools.cached_property
    def folder(self):
        return self.job.artifact

    def program(self):
        ends = ["-c", "raise SystemExit('no such model')"]
        return [sys.executable, *(ends if self.name == "ends" else [str(Path(__file__).resolve())])]

    def arguments(self, model, port):
        return [port, self.name]


def make(name, job):
    return FakeServer(make_spec(name, f"{name} fp32", "FakeServer", environment=OURS), job)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
