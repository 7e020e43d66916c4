"""Tokenizer files of a checkpoint, merged as in transformers' ``PreTrainedTokenizerBase.from_pretrained``.

That is version 5, and 4.57 where both agree. All added tokens are in ``added_tokens_decoder`` of tokenizer_config.json, if
present; else in special_tokens_map.json (over tokenizer_config.json), added_tokens.json and tokenizer.json.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from fusedbert.engine.errors import CheckpointError, shown

from ..checkpoint.architecture import read_json

Token = AddedToken | str
CONFIG = "tokenizer_config.json"
TOKENIZER = "tokenizer.json"
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Special tokens with a standard name, in the order in which missing ones are added."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    """The merged files of ``folder``."""

    folder: Path
    config: Mapping[str, Any]  # tokenizer_config.json, overridden by special_tokens_map.json
    added: Mapping[int, AddedToken]  # added tokens by id, of which transformers uses only the order
    special: Mapping[str, Token | None]  # named special tokens, also with names that only this model has
    extra: tuple[Token, ...]  # special tokens without a name
    listed: bool = False  # whether they are extra_special_tokens, the newer key, be it an empty list

    def flag(self, name: str, default: bool | None) -> bool | None:
        """Return a switch of tokenizer_config.json, None only if ``default`` is; raise ``CheckpointError`` for other values."""
        value = self.config.get(name, default)
        if isinstance(value, bool) or (value is None and default is None):
            return value
        raise CheckpointError(f"{self.folder / CONFIG} has {name} = {shown(value)}, expected true or false: mend it")


def read_files(folder: Path) -> TokenizerFiles:
    """Read a folder's tokenizer files; raise ``CheckpointError`` if one is damaged or has unknown content."""
    config, spec = read_json(folder / CONFIG, "tokenizer") or {}, read_json(folder / TOKENIZER, "tokenizer")
    versions = config.get("fast_tokenizer_files") or []
    if others := [name for name in versions if name != TOKENIZER] if isinstance(versions, list) else [versions]:
        raise CheckpointError(
            f"{folder / CONFIG} names {shown(others[0])} next to {TOKENIZER}, for other versions of transformers: which one "
            "the model was trained with is not known; keep that one as tokenizer.json, and take fast_tokenizer_files out"
        )
    names = config.get("model_input_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{folder / CONFIG} has model_input_names = {shown(names)}, expected a list of names: mend it")
    more = {} if "added_tokens_decoder" in config else read_json(folder / "special_tokens_map.json", "tokenizer") or {}
    try:
        own, listed, extra, current = _unnamed(config, more)
        config |= {name: value for name, value in more.items() if name in NAMED}
        if "added_tokens_decoder" in config:
            added = {int(i): _dict_token(value) for i, value in config["added_tokens_decoder"].items()}
        else:
            added = _legacy_added(folder, config, listed, spec)
        special = {name: _named(config[name], added, mapped=name in more) for name in NAMED if name in config} | own
        tokens = tuple(_token(token) for token in extra)
    except CheckpointError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise CheckpointError(
            f"the tokenizer files of {folder} have a token in an unknown form ({error}): save the tokenizer again"
        ) from None
    return TokenizerFiles(folder=folder, config=config, added=added, special=special, extra=tokens, listed=current)


def _unnamed(config: Mapping[str, Any], more: Mapping[str, Any]) -> tuple[dict[str, Token], list[Any], list[Any], bool]:
    """Find the special tokens without a standard name, in tokenizer_config.json and special_tokens_map.json.

    ``extra_special_tokens`` is a list, or an object of names; its older name ``additional_special_tokens`` counts if the newer
    key is missing or was an object. Return tokens by the model's names, ``extra_special_tokens``, all without a name, and
    whether ``extra_special_tokens`` has these.
    """
    extra, current = config.get("extra_special_tokens"), "extra_special_tokens" in config
    additional = config.get("additional_special_tokens")
    if "additional_special_tokens" in config and not extra:
        extra, additional, current = additional, None, True
    explicit = {name: value for name, value in config.items() if _is_own(name) and isinstance(value, str)}
    if isinstance(extra, Mapping):
        explicit, extra, current = {**explicit, **extra}, None, False
    explicit = explicit or dict(config.get("model_specific_special_tokens") or {})
    typed: dict[str, Any] = {
        name: value for name, value in config.items() if _is_own(name) and isinstance(value, dict) and "__type" in value
    }
    typed |= {name: _special(value) for name, value in more.items() if _is_own(name) and isinstance(value, str | dict)}
    further = more.get("extra_special_tokens")
    if isinstance(further, Mapping):  # it takes the place of a list
        explicit, extra, current = {**explicit, **further}, None, False
    elif further:
        extra, current = [*(extra or []), *(_special(token) for token in further)], True
    additional = more.get("additional_special_tokens", additional)
    own = {name: _token(value) for name, value in {**typed, **explicit}.items()}
    return own, list(extra or []), list((extra if current else additional) or []), current


def token_text(token: Token) -> str:
    """Return the text of a token."""
    return token if isinstance(token, str) else token.content


def _is_own(name: str) -> bool:
    """Return whether only this model has a name, such as ``entity_token``."""
    return name.endswith("_token") and name not in NAMED


def _legacy_added(
    folder: Path, config: Mapping[str, Any], extra: Iterable[Any], spec: Mapping[str, Any] | None
) -> dict[int, AddedToken]:
    """Read the added tokens from added_tokens.json, overridden by tokenizer.json."""
    named = {token_text(_token(config[name])) for name in NAMED if config.get(name)}
    named |= {token_text(_token(token)) for token in extra}
    added = {}
    for content, index in (read_json(folder / "added_tokens.json", "tokenizer") or {}).items():
        special = content in named
        added[int(index)] = AddedToken(content, normalized=not special, special=special)
    for entry in (spec or {}).get("added_tokens", ()):
        added[int(entry["id"])] = _dict_token({name: value for name, value in entry.items() if name != "id"})
    return added


def _named(value: Any, added: Mapping[int, AddedToken], *, mapped: bool) -> Token | None:
    """Return a named token, as it was added if it was."""
    if value is None:
        return None
    token = _special(value) if mapped else _token(value)
    return next((each for each in added.values() if each.content == token_text(token)), token)


def _token(value: Any) -> Token:
    return value if isinstance(value, str | AddedToken) else _dict_token(value)


def _special(value: Any) -> Token:
    return _dict_token({**value, "special": True}) if isinstance(value, dict) else _token(value)


def _dict_token(value: Any) -> AddedToken:
    if not isinstance(value, dict):
        raise TypeError(shown(value))
    fields = {name: each for name, each in value.items() if name != "__type"}
    return AddedToken(fields.pop("content"), **fields)
