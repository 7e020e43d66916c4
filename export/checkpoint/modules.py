"""The parts of a checkpoint: one folder of transformers, or the modules of a reranker of sentence-transformers.

A reranker's settings become the entries that a classifier's config.json would have.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusedbert.engine.errors import CheckpointError
from fusedbert.engine.load.reranker import is_reranker
from fusedbert.engine.load.unsupported import refuse

from .architecture import IDENTITY, Architecture, HeadStep, classifies_tokens, describe, read_config
from .layouts import POOLER, Layout
from .sentence_transformers import CONFIG, Dense, LayerNorm, Modules, read_modules
from .weights import Weights

LEAST = 3  # tokens of the shortest limit that is accepted
MULTI_LABEL = "multi_label_classification"
_ACTIVATIONS = {"identity": "torch.nn.modules.linear.Identity", "sigmoid": "torch.nn.modules.activation.Sigmoid"}
_AGAIN = "save the model again"
_OTHER_ROUTE = re.compile("try (fusedbert export )?--via optimum")  # which is for classifiers of texts
_NO_ROUTE = "a token classifier has no other route"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a checkpoint."""

    folder: Path  # of the encoder's config.json, weights and tokenizer
    config: Mapping[str, Any]  # the entries that a classifier's config.json has
    modules: Modules | None  # None for a classifier of transformers

    @property
    def limit(self) -> int | None:
        """Longest text in tokens; None for the tokenizer's."""
        return None if self.modules is None else self.modules.max_length

    @property
    def lower_case(self) -> bool:
        """True if the tokenizer has to lowercase texts."""
        return self.modules is not None and self.modules.lower_case

    @property
    def takes_pairs(self) -> bool | None:
        """True if the model takes pairs; None if no file says so."""
        return None if self.modules is None else True

    @property
    def has_own_head(self) -> bool:
        """True if modules are the head, and not the family's classifier."""
        return self.modules is not None and self.modules.pooling is not None

    def describe(self) -> tuple[Architecture, Layout]:
        """Return architecture and layout; raise ``CheckpointError`` if they are not built, or do not fit."""
        try:
            architecture, layout = describe(self.config)
        except CheckpointError as error:
            if not classifies_tokens(self.config):
                raise
            raise CheckpointError(_OTHER_ROUTE.sub(_NO_ROUTE, str(error))) from None
        modules = self.modules
        if modules is None or modules.pooling is None:
            return architecture, layout
        if modules.width != architecture.hidden_size:
            raise CheckpointError(
                f"{self.folder / CONFIG} has a hidden size of {architecture.hidden_size}, and the head takes vectors of "
                f"{modules.width}: {_AGAIN}"
            )
        steps = tuple(
            HeadStep(name=our_name(i, step), activation=step.activation)
            if isinstance(step, Dense)
            else HeadStep(name=our_name(i, step), activation=None, eps=step.eps)
            for i, step in enumerate(modules.head[:-1])
        )
        headless = dataclasses.replace(layout, head={}, ignored=(*layout.ignored, POOLER))
        return dataclasses.replace(architecture, head=steps, pooling=modules.pooling), headless

    def weights(self, architecture: Architecture, layout: Layout) -> Weights:
        """Return the weights; raise ``CheckpointError`` as ``Weights``."""
        if self.modules is None or self.modules.pooling is None:
            return Weights(self.folder, architecture, layout)
        return ModuleWeights(self.folder, architecture, layout, self.modules)

    def write_config(self, path: Path) -> None:
        """Write an artifact's config.json."""
        if self.modules is None:
            shutil.copyfile(self.folder / CONFIG, path)
        else:
            path.write_text(json.dumps(self.config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class ModuleWeights(Weights):
    """The tensors of an encoder and of its head, whose last module is the classifier."""

    def __init__(self, folder: Path, architecture: Architecture, layout: Layout, modules: Modules) -> None:
        super().__init__(folder, architecture, layout)
        self._head: dict[str, tuple[Path, str]] = {}
        last = len(modules.head) - 1
        for i, step in enumerate(modules.head):
            name = "classifier" if i == last else our_name(i, step)
            self._head[f"{name}.weight"] = step.file, step.weight
            if step.bias is not None:
                self._head[f"{name}.bias"] = step.file, step.bias
        self.files = (*self.files, *dict.fromkeys(file for file, _ in self._head.values()))
        self.labels = outputs(modules)

    def find(self, name: str) -> tuple[Path, str] | None:
        """Return the file and the name there of one of our names."""
        return self._head.get(name) or super().find(name)


def our_name(i: int, step: Dense | LayerNorm) -> str:
    """Name the weights of step ``i`` of a head."""
    return f"head_{i}_{'dense' if isinstance(step, Dense) else 'norm'}"


def outputs(modules: Modules) -> int:
    """Return the number of logits of a head."""
    last = modules.head[-1]
    assert isinstance(last, Dense)  # ``read_modules`` takes no other
    return last.outputs


def read_parts(folder: Path) -> Parts:
    """Read a checkpoint's config and modules; raise ``CheckpointError`` if it is something else, or damaged."""
    modules = None
    if is_reranker(folder):
        refuse(folder)
        modules = read_modules(folder)
    if modules is None:
        return Parts(folder=folder, config=read_config(folder), modules=None)
    if modules.max_length is not None and modules.max_length < LEAST:
        raise CheckpointError(
            f"{folder} has max_seq_length = {modules.max_length}, expected {LEAST} tokens or more, or null: mend it"
        )
    config = read_config(modules.transformer)
    if modules.pooling is not None:
        _check_classifier(modules)
        config = _with_labels(config, outputs(modules))
    return Parts(folder=modules.transformer, config=_with_activation(folder, config, modules), modules=modules)


def _check_classifier(modules: Modules) -> None:
    """Refuse a function between the last dense layer and the logits."""
    last = modules.head[-1]
    if isinstance(last, Dense) and last.activation != IDENTITY:
        raise CheckpointError(
            f"{last.file.with_name(CONFIG)} has {last.activation} as activation_function of the last Dense, expected "
            "torch.nn.Identity, because the last Dense gives the logits: train one without, and set activation_fn in "
            "config_sentence_transformers.json for the function of the scores"
        )


def _with_labels(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return a config that names ``count`` labels, its own if they are as many."""
    names = config.get("id2label")
    if not isinstance(names, Mapping) or len(names) != count:
        names = {str(i): f"LABEL_{i}" for i in range(count)}
    others = {key: value for key, value in config.items() if key not in ("num_labels", "label2id")}
    return {**others, "id2label": dict(names), "label2id": {name: int(i) for i, name in names.items()}}


def _with_activation(folder: Path, config: Mapping[str, Any], modules: Modules) -> dict[str, Any]:
    """Return a config that names ``CrossEncoder.predict``'s function of one logit."""
    names, several = config.get("id2label"), config.get("num_labels", 2) != 1
    several = len(names) != 1 if isinstance(names, Mapping) else several
    kind = config.get("problem_type")
    if several:
        if modules.activation == "sigmoid" and kind != MULTI_LABEL:
            raise CheckpointError(
                f"{folder} has a sigmoid as activation_fn, and several labels, of which fusedbert then takes each by itself: "
                f"set problem_type to {MULTI_LABEL} in config.json if that is meant, or activation_fn to torch.nn.Identity"
            )
        return dict(config)
    kept = {key: value for key, value in config.items() if key != "sbert_ce_default_activation_function"}
    if modules.activation == "sigmoid" and kind == "regression":  # whose scores would be the logits
        del kept["problem_type"]
    nested = config.get("sentence_transformers") or {}
    return {**kept, "sentence_transformers": {**nested, "activation_fn": _ACTIVATIONS[modules.activation]}}
