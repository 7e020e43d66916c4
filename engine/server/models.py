"""The models that a server has: loaded by name, each with its queue, and found for a request."""

from __future__ import annotations

import enum
import functools
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import OptionError
from ..hardware.cpu import inspect_machine
from ..load import Options
from ..load.open import load
from ..model import Model
from ..tasks.classifier import Classifier
from ..tasks.heads import MultiHeadClassifier, classifier_of
from ..tasks.loaded import Loaded
from ..tasks.rank import RankOptions
from ..tasks.token_classifier import TokenClassifier
from ..text.inputs import Text
from .batcher import Answers, Batcher, Form
from .http.refusals import RefusedError
from .options import ServerOptions

_log = logging.getLogger("fusedbert.engine.server")
DEFAULT = "default"  # the name of the embedded model
_RETRY = 60  # seconds of Retry-After at most
_WINDOW = 1.0  # seconds between two counts of the answers


class Ability(enum.Enum):
    """The abilities that requests ask of a model; the value follows "can"."""

    PREDICT = "classify texts"
    CLASSIFY = "classify texts by one head"
    RANK = "rank texts"
    TAG = "find entities"


Source: TypeAlias = "str | os.PathLike[str]"
Sources: TypeAlias = "Source | Sequence[Source] | Mapping[str, Source | None] | None"


def parse_models(models: Sources) -> dict[str, Any]:
    """Return the models by name, from a mapping, or from ``MODEL`` and ``NAME=MODEL``; None for the embedded default.

    A model's own name is its folder's, or its hub id.

    Raises:
        OptionError: Two have the same name, or a name is not usable in a URL.

    Example:
        >>> parse_models(["org/sst2", "stars=nlptown/bert-base-multilingual-uncased-sentiment"])
        {'org/sst2': 'org/sst2', 'stars': 'nlptown/bert-base-multilingual-uncased-sentiment'}
    """
    if isinstance(models, Mapping):
        pairs = [(str(name), model) for name, model in models.items()]
    else:
        listed = [models] if models is None or isinstance(models, (str, os.PathLike)) else list(models)
        pairs = [_named(model) for model in listed or [None]]
    found: dict[str, Any] = {}
    for name, model in pairs:
        if name in found:
            raise OptionError(f"two models have the name {name!r}: give one of them another, NAME=MODEL")
        if not name or not name.isprintable() or set(name) & set(":?#%\\ "):
            raise OptionError(f"a model's name is {name!r}: give one without spaces and the signs : ? # % \\, as NAME=MODEL")
        found[name] = model
    return found


def _named(model: Any) -> tuple[str, Any]:
    if model is None:
        return DEFAULT, None
    text = os.fspath(model)
    name, sign, source = text.partition("=")
    if sign and not Path(text).exists():
        return name, source
    return (Path(text).resolve().name if Path(text).exists() else text.rstrip("/")), text


class ServedModel:
    """A loaded model, or one head of it, and the queue of its texts."""

    def __init__(self, name: str, source: str, clf: Any, options: ServerOptions) -> None:
        self.name, self.source, self.created = name, source, int(time.time())
        self.clf: Loaded = clf
        self.options = options
        self.batcher = Batcher(
            clf, max_queue=options.max_queue, max_tokens=options.max_tokens, workers=_threads(clf, options.processes)
        )
        self.abilities = frozenset(_abilities(clf))
        self._seen = ((time.monotonic(), 0),) * 2  # when answers were counted the last two times, and how many there were

    @property
    def model(self) -> Model:
        """The loaded model, which computes the logits."""
        return self.clf.model

    async def run(self, texts: Sequence[Text], form: Form) -> Answers:
        """Run texts, within the limits of the server.

        Raises:
            RefusedError: As ``check``.
            FusedBertError: As ``Batcher.run``.
        """
        self.check(texts)
        self._look()
        return await self.batcher.run(texts, form, timeout=self.options.timeout)

    def check(self, texts: Sequence[Text]) -> None:
        """Check texts before they are tokenized.

        Raises:
            RefusedError: A text has too many characters, or there are more texts than may wait.
        """
        if len(texts) > self.options.max_queue:
            raise RefusedError(
                413, f"{len(texts)} texts are more than may wait, {self.options.max_queue}: send fewer at a time"
            )
        most = self.options.max_chars
        for text in texts:
            size = len(text.text) + len(text.pair or "")
            if size > most:
                raise RefusedError(413, f"text {text.index} has {size} characters, the limit is {most}")

    def retry_after(self) -> int:
        """Estimate the seconds until the texts that wait now are answered, from 1 to 60."""
        stats, (then, answered) = self.batcher.stats, self._seen[0]
        rate = (stats.answered - answered) / max(time.monotonic() - then, 1e-3)
        return max(1, min(_RETRY, math.ceil(stats.waiting / rate))) if rate > 0 else 1

    def _look(self) -> None:
        """Count the answers, so that their rate is that of the last seconds."""
        now, (_, last) = time.monotonic(), self._seen
        if now - last[0] > _WINDOW:
            found = now, self.batcher.stats.answered
            self._seen = (last if now - last[0] < 10 * _WINDOW else found), found


def _threads(clf: Loaded, processes: int) -> int | None:
    """Return the threads that run batches: a process has its share of the cores; None for all of them, or for a GPU."""
    runtime = clf.runtime
    if processes == 1 or runtime.device != "cpu":
        return None
    return max(1, inspect_machine().cores // max(1, runtime.threads) // processes)


def _abilities(clf: Loaded) -> Iterator[Ability]:
    if isinstance(clf, TokenClassifier):
        yield Ability.TAG
        return
    yield Ability.PREDICT
    if isinstance(clf, Classifier):
        yield Ability.CLASSIFY
        try:
            RankOptions.of(clf.model, None, {})
        except OptionError:
            return
        yield Ability.RANK


class Models:
    """The models of a server, by name; a head of a model with several is ``NAME:HEAD``."""

    def __init__(self, models: Mapping[str, Any], options: ServerOptions, loading: Mapping[str, Any]) -> None:
        self.served: dict[str, ServedModel] = {}
        self._whole: list[Loaded] = []
        try:
            for name, model in models.items():
                self._load(name, model, options, loading)
        except BaseException:
            self.close()
            raise

    def _load(self, name: str, model: Any, options: ServerOptions, loading: Mapping[str, Any]) -> None:
        parsed = Options.parse(**loading)
        loaded = Model(load(model, parsed), parsed)
        clf: Loaded = TokenClassifier(loaded) if loaded.source.manifest.by_token else classifier_of(loaded)
        self._whole.append(clf)
        source = "the embedded default" if model is None else str(model)
        parts: dict[str, Any] = {name: clf}
        if isinstance(clf, MultiHeadClassifier):
            parts |= {f"{name}:{head}": each for head, each in clf.heads.items()}
        for key, each in parts.items():
            self.served[key] = ServedModel(key, source, each, options)
        clf.__call__("warm up")  # type: ignore[operator]
        _log.info("%s: %s", name, clf.runtime.why, extra={"model": name})

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The names, in the order in which they were given."""
        return tuple(self.served)

    def find(self, name: str | None, ability: Ability) -> ServedModel:
        """Return the model of a name; without one the first that has the ability. With a single model any name is its own.

        Raises:
            RefusedError: There is none, or it lacks the ability.
        """
        found = self.named(name)
        if found is not None:
            if ability not in found.abilities:
                raise RefusedError(422, f"{name} cannot {ability.value}: {self._able(ability)}", "Validation")
            return found
        for each in self.served.values():
            if ability in each.abilities and ":" not in each.name:  # a head is named by whoever wants it
                return each
        raise RefusedError(404, f"{', '.join(self.names)} cannot {ability.value}: {self._able(ability)}")

    def named(self, name: str | None) -> ServedModel | None:
        """Return the model of a name; None without a name, and with a single model, whose name clients need not know.

        Raises:
            RefusedError: There are several, and none has the name.
        """
        if name is None or (len(self._whole) == 1 and name not in self.served):
            return None
        return self.served[self.check(name)]

    def check(self, name: str) -> str:
        """Return the name of a model; RefusedError if none has it."""
        if name not in self.served:
            raise RefusedError(404, f"no model has the name {ascii(name)[:80]}: there are {', '.join(self.names)}")
        return name

    def _able(self, ability: Ability) -> str:
        able = [each.name for each in self.served.values() if ability in each.abilities]
        return f"give one of {', '.join(able)}" if able else "start the server with a model that can"

    def close(self) -> None:
        """Close the queues without running what waits, and free the models."""
        for each in self.served.values():
            each.batcher.close(drain=False)
        for clf in self._whole:
            clf.close()
