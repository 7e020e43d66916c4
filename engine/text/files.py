"""The files of an artifact's tokenizer, and the ids that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..errors import ArtifactError, without_panic
from ..hardware.json_file import LARGE, check_regular, read_json_file

AGAIN = "export the checkpoint again"
_MOST_IDS = 2**31  # a tokenizer's ids are below


def read_tokenizer(path: Path) -> Tokenizer:
    """Read an artifact's tokenizer.json.

    Raises:
        ArtifactError: It is missing or damaged.
    """
    try:
        check_regular(path.stat(), LARGE)
        with without_panic():
            return Tokenizer.from_file(str(path))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: {AGAIN}") from None
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ArtifactError(f"{path} cannot be read as a tokenizer ({error}): {AGAIN}") from None


def read_config(path: Path) -> dict[str, Any]:
    """Read an artifact's JSON object; empty if the file is missing.

    Raises:
        ArtifactError: It cannot be read as JSON.
    """
    return read_json_file(path, way_out=AGAIN) or {}


def pad_id(raw: Tokenizer, settings: Mapping[str, Any], config: Mapping[str, Any], padding: Mapping[str, Any]) -> int:
    """Return the padding id: the tokenizer's pad token, else the model's, else the tokenizer file's, else 0."""
    candidates = (named_id(raw, settings.get("pad_token")), config.get("pad_token_id"), padding.get("pad_id"))
    return next((each for each in candidates if type(each) is int and 0 <= each < _MOST_IDS), 0)


def named_id(raw: Tokenizer, token: Any) -> int | None:
    """Return the id of a token of tokenizer_config.json, which may be an object; None if it is not in the vocabulary."""
    token = token.get("content") if isinstance(token, dict) else token
    return raw.token_to_id(token) if isinstance(token, str) else None
