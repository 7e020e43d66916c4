"""The memory of a connection, when it has ended."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import weakref
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason='uvicorn is not installed: pip install "fusedbert[serve]"')

import uvicorn
from uvicorn.server import ServerState

from fusedbert.engine.server.http.connection import Connection


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer any request."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_has_ended_is_freed(reset: bool) -> None:
    """uvicorn's timer of idle connections would hold one that was reset, and all of its last request."""
    config, made = uvicorn.Config(answer, log_config=None, timeout_keep_alive=600), list[Any]()

    def make() -> Connection:
        connection = Connection(config, ServerState(), {})
        made.append(weakref.ref(connection))
        return connection

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(make, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        client.setblocking(False)
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 200 ")
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        for _ in range(1000):
            gc.collect()
            if made[0]() is None:
                break
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("it is still there")
        server.close()

    asyncio.run(run())
