"""Many callers of one model: ``Batcher`` inside a process, and the server over HTTP."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError

if TYPE_CHECKING:
    from .app import create_app
    from .options import ServerOptions
    from .process import run, serve

__all__ = ["ServerOptions", "create_app", "run", "serve"]

_LAZY = {"create_app": "app", "run": "process", "serve": "process", "ServerOptions": "options"}


def __getattr__(name: str) -> Any:
    """Import a name on first use, which needs the packages of the extra ``serve``."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fusedbert"):
            raise
        raise MissingDependencyError.of(error.name or "fastapi", "serve", "serve models over HTTP") from None
