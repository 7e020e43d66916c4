"""``fusedbert serve``: models over HTTP."""

from __future__ import annotations

import logging
import os
from typing import Any

import click

from ..errors import FusedBertError, OptionError
from ..server.monitoring.log import event, set_up
from ..server.options import ServerOptions
from .options import device_option, precision_option, read_long_text, refuse_long_texts, split_special_tokens_option

_SECONDS = click.FloatRange(min=0, max=86_400)
_COUNT = click.IntRange(min=1)


def _limit(name: str, kind: Any, text: str) -> Any:
    """Return the option of a field of ``ServerOptions``."""
    default = getattr(ServerOptions, name)
    return click.option(
        f"--{name.replace('_', '-')}", name, type=kind, default=default, show_default=default is not None, help=text
    )


_LIMITS = (
    _limit("max_batch", _COUNT, "The most texts of a request."),
    _limit("max_documents", _COUNT, "The most texts or documents of a request that ranks."),
    _limit("max_bytes", _COUNT, "The most bytes of a request."),
    _limit("max_held", _COUNT, "The most bytes of all requests that are read or wait."),
    _limit("max_chars", _COUNT, "The most characters of a text."),
    _limit("max_queue", _COUNT, "The most texts that wait for a model."),
    _limit("max_tokens", _COUNT, "The most tokens of a run, padding included.  [default: the device's optimum]"),
    _limit("max_connections", _COUNT, "The most connections of a process."),
    _limit("timeout", _SECONDS, "Seconds that a text may wait for its run."),
    _limit("read_timeout", _SECONDS, "Seconds that the headers of a request may take, and its body."),
    _limit("keep_alive", _SECONDS, "Seconds that a connection may be idle."),
    _limit("drain", _SECONDS, "Seconds that answers under way have at SIGTERM."),
)


def _limits(command: Any) -> Any:
    for option in reversed(_LIMITS):
        command = option(command)
    return command


@click.command()
@click.argument("models", metavar="[[NAME=]MODEL]...", nargs=-1)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="Port; 0 for any that is free.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--threads", type=_COUNT, default=1, show_default=True, help="Threads of one run; 1 is best for many callers.")
@device_option
@precision_option
@refuse_long_texts
@split_special_tokens_option
@_limits
@click.option("--api-key", envvar="FUSEDBERT_API_KEY", metavar="KEY", help="Key that requests must have; or FUSEDBERT_API_KEY.")
@click.option("--access-log", is_flag=True, help="Log each request.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of the log.")
def serve(models: tuple[str, ...], host: str, port: int, workers: int, access_log: bool, log_format: Any, **given: Any) -> int:
    """Serve each MODEL over HTTP, with a page to try it; without one the embedded default.

    It speaks the protocols of text-embeddings-inference, Cohere, Jina and vLLM: /predict, /rerank, /v1/rerank, /v2/rerank,
    /classify, /score; and /tag. A MODEL's name is its folder's or its hub id, or NAME.
    """
    if os.environ.get("FUSEDBERT_API_KEY") == "" and given["api_key"] is None:  # meant to be one, most likely
        raise click.UsageError("FUSEDBERT_API_KEY is empty: give it a key, or unset it to serve without one")
    limits = {name: given.pop(name) for name in ServerOptions.__dataclass_fields__ if name in given}
    given["long_text"] = read_long_text(given)
    options = ServerOptions(**limits)
    from .. import server

    given |= {"host": host, "port": port, "workers": workers, "access_log": access_log, "log_format": log_format}
    try:
        server.serve(models, options=options, **given)
    except FusedBertError as error:
        if log_format == "text":
            raise
        set_up(log_format)  # the last line of the log is an object too
        event(" ".join(str(error).split()), level=logging.ERROR)
        return 2 if isinstance(error, OptionError) else 1
    return 0
