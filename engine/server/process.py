"""The processes of a server: one or several, their end, and what they print."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from ..errors import OptionError, StorageError, check_integer
from .app import Service, create_app
from .http.connection import Connection
from .models import Models, Sources, parse_models
from .monitoring.log import LogFormat, event, set_up
from .options import ServerOptions

_BACKLOG = 2048
_LONGEST = 90  # bytes of a folder with Unix sockets, whose names take up to 108
_TRIES, _PAUSE = 6000, 0.1  # to see whether the port is open, and seconds between


def serve(
    models: Sources = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    options: ServerOptions | None = None,
    access_log: bool = False,
    log_format: LogFormat = "text",
    **loading: Any,
) -> None:
    """Serve models over HTTP until SIGINT or SIGTERM, with ``workers`` processes; other arguments as ``create_app``.

    Raises:
        OptionError: An option is out of range.
        StorageError: The port cannot be listened on.
        FusedBertError: A model cannot be loaded.
    """
    check_integer("workers", workers)
    options = dataclasses.replace(options or ServerOptions(), processes=workers)
    listener = _bind(host, port)
    set_up(log_format)  # before anything is loaded, also where worker processes do the rest
    names = parse_models(models)
    with listener:
        if workers == 1:
            app = create_app(names, options=options, access_log=access_log, **loading)
            run(app, listener=listener, log_format=None)
        else:
            _run_several(names, listener, workers, options, log_format, access_log=access_log, **loading)


def run(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    listener: socket.socket | None = None,
    log_format: LogFormat | None = "text",
) -> None:
    """Serve an application of ``create_app``, with its limits on connections, until SIGINT or SIGTERM.

    The log goes to stderr; with ``log_format=None`` to where the program sends ``logging``.
    """
    service: Service = app.state.service
    options = service.options
    listener = listener or _bind(host, port)
    if log_format is not None:
        set_up(log_format)
    models = service.load()  # before the port is open, and before uvicorn, which would print a traceback
    Connection.limit(options.read_timeout, options.max_connections)
    server = uvicorn.Server(_config(app, options))
    _announce(listener, list(models.served), 1)
    with _Stopped():
        server.run([listener])
    event("stopped")


class _Stopped:
    """Ends a program in order at SIGTERM: uvicorn raises the signal again when it has ended, to whoever was there before."""

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, _nothing) for number in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *_: object) -> None:
        for number, handler in getattr(self, "_before", {}).items():
            signal.signal(number, handler)


def _nothing(*_: object) -> None:
    pass


def _config(app: Any, options: ServerOptions, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever sends these headers could write any address into the log
        backlog=_BACKLOG,
        timeout_keep_alive=options.keep_alive,  # type: ignore[arg-type]
        timeout_graceful_shutdown=options.drain,  # type: ignore[arg-type]
        **more,
    )


def _bind(host: str, port: int) -> socket.socket:
    """Take a port; clients cannot connect to it yet."""
    check_integer("port", port, 0, 65_535)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise StorageError(f"cannot listen on {host}, port {port}: {error.strerror}: give another --host or --port") from None
    listener.set_inheritable(True)
    return listener


def _announce(listener: socket.socket, names: list[str], workers: int) -> None:
    """Log the address once it is listened on."""
    threading.Thread(target=_announce_soon, args=(listener.getsockname()[:2], names, workers), daemon=True).start()


def _announce_soon(listened: tuple[str, int], names: list[str], workers: int) -> None:
    host, port = listened
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    for _ in range(_TRIES):
        with contextlib.suppress(OSError), socket.create_connection((reached, port), timeout=1):
            break
        time.sleep(_PAUSE)
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    processes = "" if workers == 1 else f" with {workers} processes"
    event(f"serving {', '.join(names)} on {address}{processes}; a page to try it is there; Ctrl+C ends it")


def _run_several(
    names: dict[str, Any],
    listener: socket.socket,
    workers: int,
    options: ServerOptions,
    log_format: LogFormat,
    **keywords: Any,
) -> None:
    if os.name == "nt":
        raise OptionError("several workers need a system with Unix sockets: start a server on each of several ports")
    app = create_app(names, options=options, **keywords)
    models: Models = app.state.service.load()  # here too, so that an export happens once, and an error is reported once
    found = list(models.served)
    models.close()
    with _shared_folder() as folder:
        make = functools.partial(_worker_app, names, options=options, log_format=log_format, siblings=folder, **keywords)
        config = _config(make, options, factory=True, workers=workers)
        _announce(listener, found, workers)
        with _Stopped():
            _Workers(config, [listener]).run()
    event("stopped")


class _Workers(Multiprocess):
    """Worker processes; one that dies is started again, and the log says so."""

    def keep_subprocess_alive(self) -> None:
        """Start those again that have died."""
        before = list(self.processes)
        super().keep_subprocess_alive()
        for each in before:
            if each not in self.processes:
                how = f"process {each.pid} ended with {each.exitcode}"
                event(f"{how}, and another takes its place", level=logging.WARNING)


@contextlib.contextmanager
def _shared_folder() -> Iterator[str]:
    """Make a folder in which the processes find each other."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="fusedbert-serve-")
    except OSError as error:
        way_out = "set TMPDIR to one that can be written, or leave out --workers"
        raise StorageError(f"several processes need a folder for temporary files: {error}: {way_out}") from None
    with folder as name:
        if len(os.fsencode(name)) > _LONGEST:
            raise StorageError(
                f"{name} is too long for the name of a Unix socket in it: set TMPDIR to a folder with a shorter path"
            )
        yield name


def _worker_app(names: dict[str, Any], *, options: ServerOptions, log_format: LogFormat, **keywords: Any) -> FastAPI:
    """Make the application of a worker process, which ends when its parent does."""
    set_up(log_format)
    Connection.limit(options.read_timeout, options.max_connections)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    return create_app(names, options=options, **keywords)


def _end_with(parent: Any) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
