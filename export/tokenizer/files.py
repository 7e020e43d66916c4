"""What a checkpoint's folder says of its tokenizer: tokenizer.json, and the smaller files beside it.

Newer checkpoints have tokenizer.json, which holds everything. Older ones have a vocabulary, and separate files for what was
added to it. Which file wins over which is as in transformers'
``PreTrainedTokenizerBase.from_pretrained`` (version 5, and 4.57 where both agree):

* ``added_tokens_decoder`` in tokenizer_config.json, where it is there, is the whole truth about added tokens;
* else special_tokens_map.json (over tokenizer_config.json), added_tokens.json and the added tokens of tokenizer.json.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from fusedbert.engine.errors import CheckpointError

CONFIG = "tokenizer_config.json"
TOKENIZER = "tokenizer.json"
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The special tokens that have a name of their own, in the order in which those that the vocabulary lacks are added."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    """The files of a folder, read and merged; nothing is built yet.

    Attributes:
        folder: Where they lie.
        config: tokenizer_config.json, with what special_tokens_map.json says over it.
        added: Added tokens by the id that the files give them; transformers goes by their order alone.
        special: Named special tokens that the files mention, a text or a token; of a model's own names, too.
        extra: Special tokens without a name.
    """

    folder: Path
    config: Mapping[str, Any]
    added: Mapping[int, AddedToken]
    special: Mapping[str, AddedToken | str | None]
    extra: tuple[AddedToken | str, ...]

    def flag(self, name: str, default: bool | None) -> bool | None:
        """Return a switch of tokenizer_config.json.

        Raises:
            CheckpointError: It is neither true nor false; null only counts where the default is None.
        """
        value = self.config.get(name, default)
        if isinstance(value, bool) or (value is None and default is None):
            return value
        raise CheckpointError(f"{self.folder / CONFIG} has {name} = {value!r}, expected true or false: mend it")


def read_files(folder: Path) -> TokenizerFiles:
    """Read a folder's tokenizer files.

    Raises:
        CheckpointError: One of them is damaged, or says something in a form that is not known.
    """
    config, spec = read_json(folder / CONFIG) or {}, read_json(folder / TOKENIZER)
    _refuse_versions(folder, config)
    names = config.get("model_input_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{folder / CONFIG} has model_input_names = {names!r}, expected a list of names: mend it")
    more = {} if "added_tokens_decoder" in config else read_json(folder / "special_tokens_map.json") or {}
    try:
        own, listed, extra = _unnamed(config, more)
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
            f"the tokenizer files of {folder} name a token in a form that is not known ({error}): save the tokenizer again"
        ) from None
    return TokenizerFiles(folder=folder, config=config, added=added, special=special, extra=tokens)


def _unnamed(config: Mapping[str, Any], more: Mapping[str, Any]) -> tuple[dict[str, AddedToken | str], list[Any], list[Any]]:
    """Find the special tokens beyond the usual names, in tokenizer_config.json and special_tokens_map.json.

    ``extra_special_tokens`` is a list, or an object of names of the model's own; ``additional_special_tokens``, its older
    name, counts where the newer key is not there, or was an object. Names such as ``entity_token`` stand for themselves.

    Returns:
        Tokens by names of the model's own; those of ``extra_special_tokens``; and all that have no name.
    """
    extra, given = config.get("extra_special_tokens"), "extra_special_tokens" in config
    additional = config.get("additional_special_tokens")
    if "additional_special_tokens" in config and not extra:
        extra, additional, given = additional, None, True
    explicit = {name: value for name, value in config.items() if _is_own(name) and isinstance(value, str)}
    if isinstance(extra, Mapping):
        explicit, extra, given = {**explicit, **extra}, None, False
    explicit = explicit or dict(config.get("model_specific_special_tokens") or {})
    typed: dict[str, Any] = {
        name: value for name, value in config.items() if _is_own(name) and isinstance(value, dict) and "__type" in value
    }
    typed |= {name: _special(value) for name, value in more.items() if _is_own(name) and isinstance(value, str | dict)}
    further = more.get("extra_special_tokens")
    if isinstance(further, Mapping):  # it takes the place of a list
        explicit, extra, given = {**explicit, **further}, None, False
    elif further:
        extra, given = [*(extra or []), *(_special(token) for token in further)], True
    additional = more.get("additional_special_tokens", additional)
    own = {name: _token(value) for name, value in {**typed, **explicit}.items()}
    return own, list(extra or []), list((extra if given else additional) or [])


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is no such file.

    Raises:
        CheckpointError: It cannot be read, or holds something else.
    """
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}): save the tokenizer again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}, expected an object: save the tokenizer again")
    return value


def text_of(token: AddedToken | str) -> str:
    """Return a token's text."""
    return token if isinstance(token, str) else token.content


def _refuse_versions(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that keeps a tokenizer.json for each of several versions of transformers."""
    others = [name for name in config.get("fast_tokenizer_files") or [] if name != TOKENIZER]
    if others:
        raise CheckpointError(
            f"{folder / CONFIG} names {others[0]!r} beside {TOKENIZER}, for other versions of transformers: which one the "
            "model was trained with is not known; keep that one as tokenizer.json, and take fast_tokenizer_files out"
        )


def _is_own(name: str) -> bool:
    """Tell whether a key is the name of a special token that the model has made up, such as ``entity_token``."""
    return name.endswith("_token") and name not in NAMED


def _legacy_added(
    folder: Path, config: Mapping[str, Any], extra: Iterable[Any], spec: Mapping[str, Any] | None
) -> dict[int, AddedToken]:
    """Read the added tokens where tokenizer_config.json has none: added_tokens.json, then tokenizer.json over it."""
    named = {text_of(_token(config[name])) for name in NAMED if config.get(name)}
    named |= {text_of(_token(token)) for token in extra}
    added = {}
    for content, index in (read_json(folder / "added_tokens.json") or {}).items():
        special = content in named
        added[int(index)] = AddedToken(content, normalized=not special, special=special)
    for entry in (spec or {}).get("added_tokens", ()):
        added[int(entry["id"])] = _dict_token({name: value for name, value in entry.items() if name != "id"})
    return added


def _named(value: Any, added: Mapping[int, AddedToken], *, mapped: bool) -> AddedToken | str | None:
    """Return a named token; where it is an added one as well, with what is said of it there."""
    if value is None:
        return None
    token = _special(value) if mapped else _token(value)
    return next((found for found in added.values() if found.content == text_of(token)), token)


def _token(value: Any) -> AddedToken | str:
    """Return a token as the files hold it: bare, or as an object."""
    if isinstance(value, str | AddedToken):
        return value
    if not isinstance(value, dict):
        raise TypeError(f"{value!r}")
    return _dict_token({name: each for name, each in value.items() if name != "__type"})


def _special(value: Any) -> AddedToken | str:
    """Return a token of special_tokens_map.json: all of them are special."""
    return _dict_token({**value, "special": True}) if isinstance(value, dict) else _token(value)


def _dict_token(value: Any) -> AddedToken:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r}")
    given = {name: each for name, each in value.items() if name != "__type"}
    return AddedToken(given.pop("content"), **given)
