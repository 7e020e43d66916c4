"""Descriptions of the models: ``/info`` as text-embeddings-inference, ``/v1/models`` as OpenAI's API."""

from __future__ import annotations

from typing import Any

from ..hardware.packages import version
from ..tasks.heads import MultiHeadClassifier
from ..text.inputs import LongText
from .models import Ability, Models, ServedModel
from .options import ServerOptions


def info(models: Models, options: ServerOptions, name: str | None = None) -> dict[str, Any]:
    """Describe the model of a name, without one the first, and all of them under ``models``."""
    first = models.named(name) or next(iter(models.served.values()))
    runner = first.model.open()
    return {
        "model_id": first.source,
        "model_sha": first.model.source.manifest.source.revision,
        "model_dtype": first.clf.runtime.precision,
        "served_model_name": first.name,
        "model_type": _type_of(first),
        "max_concurrent_requests": options.max_queue,
        "max_input_length": first.clf.max_length,
        "max_batch_tokens": min(options.max_tokens or runner.budget.tokens, runner.budget.tokens),
        "max_batch_requests": None,
        "max_client_batch_size": options.max_batch,
        "auto_truncate": first.model.options.long_text is LongText.TRUNCATE,
        "tokenization_workers": 1,
        "version": version(),
        "sha": None,
        "docker_label": None,
        "models": [_described(each) for each in models.served.values()],
    }


def _type_of(served: ServedModel) -> dict[str, Any]:
    labels = dict(enumerate(served.model.labels))
    names = {"id2label": labels, "label2id": {name: index for index, name in labels.items()}}
    return {"reranker" if len(labels) == 1 and Ability.RANK in served.abilities else "classifier": names}


def _described(served: ServedModel) -> dict[str, Any]:
    runtime = served.clf.runtime
    clf = served.clf
    labels = {name: head.classes_ for name, head in clf.heads.items()} if isinstance(clf, MultiHeadClassifier) else None
    return {
        "name": served.name,
        "source": served.source,
        "labels": labels or list(served.model.labels),
        "can": sorted(ability.name.lower() for ability in served.abilities),
        "max_length": served.clf.max_length,
        "device": runtime.device,
        "precision": runtime.precision,
        "why": runtime.why,
    }


def model_list(models: Models) -> dict[str, Any]:
    """List the models."""
    data: list[dict[str, Any]] = [
        {
            "id": each.name,
            "object": "model",
            "created": each.created,
            "owned_by": "fusedbert",
            "root": each.source,
            "parent": None,
            "max_model_len": each.clf.max_length,
            "permission": [],
        }
        for each in models.served.values()
    ]
    return {"object": "list", "data": data}
