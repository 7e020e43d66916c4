"""The graph that shows its attention: found or made, opened, and run on one text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tokenizers import Tokenizer

from ..artifact import Manifest, Variant, read_manifest
from ..artifact.verify import check_graph, verdict_root
from ..errors import ArtifactError, InferenceError
from ..hardware.cpu import inspect_machine
from ..hardware.device import choose, import_onnxruntime, inspect_offer
from ..load.open import Source
from ..load.resolve import resolve_model
from ..options import Device, DeviceKind, Options
from ..run.plan import pad
from ..run.session import Session, open_session
from ..text.inputs import Text
from ..text.labels import distinct
from ..text.outputs import Floats, Function, apply
from ..text.tokenizer import TextTokenizer
from .attentions import Attentions

OUTPUTS = ("logits", "attentions", "queries", "keys")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionGraph:
    """An open ``onnx/model_attentions.onnx``; safe to share between threads."""

    session: Session
    tokenizer: TextTokenizer
    manifest: Manifest

    @classmethod
    def open(cls, loaded: Source, options: Options) -> AttentionGraph:
        """Open the graph of a loaded classifier's model; for a checkpoint, export it into the cache where it is not there.

        Raises:
            ArtifactError: MODEL is an artifact without it, or the graph is damaged.
            MissingDependencyError: It must be exported, and the exporter is not installed.
        """
        folder, manifest = loaded.folder, loaded.manifest
        if _variant(manifest) is None:
            folder = resolve_model(loaded.model, options, "fp32", attentions=True)
            manifest = read_manifest(folder)
        variant = _variant(manifest)
        if variant is None:
            source = manifest.source.id
            raise ArtifactError(
                f"{folder} has no graph that gives its attention weights: make one with "
                f"fusedbert export {source} {folder} --attentions --force, where {source} is the checkpoint"
            )
        runtime = import_onnxruntime()
        choice = choose(Device(kind=DeviceKind.CPU), inspect_offer(runtime))
        threads = options.threads or inspect_machine().cores
        file = check_graph(folder, manifest, variant, verdict_root(options.cache_dir))
        session = open_session(runtime, file, choice, threads=threads)
        return cls(session=session, tokenizer=loaded.tokenizer, manifest=manifest)

    def show(self, text: Text, *, truncate: bool) -> Attentions:
        """Run one text.

        Args:
            text: A checked text or pair.
            truncate: Whether to cut a text that is too long, or raise.

        Raises:
            TextTooLongError: It is too long, and ``truncate`` is false.
            InferenceError: The graph failed, or gave what is no attention.
        """
        encoding, kept = self.tokenizer.trace(text, truncate=truncate)
        ids, owners = encoding.ids, encoding.sequence_ids
        types = encoding.type_ids
        row = self.tokenizer.row([ids[i] for i in kept], [types[i] for i in kept], text, truncated=len(kept) < len(ids))
        logits, weights, queries, keys = self.session.fetch(OUTPUTS, pad([row], self.tokenizer.pad_id))
        n, heads = len(kept), weights.shape[2]
        if weights.shape[1:] != (1, heads, n, n) or queries.shape != keys.shape:
            raise InferenceError(f"{self.session.file} gave weights of shape {weights.shape}: export the checkpoint again")
        labels = distinct(self.manifest.labels)  # each is a key of ``probabilities``
        function = Function.of(self.manifest)
        scores = apply(function, logits)[0]  # [labels]
        best = int(scores.argmax())
        tokens = [encoding.tokens[i] for i in kept]
        return Attentions(
            text=text.text,
            text_pair=text.pair,
            tokens=tuple(tokens),
            readable=tuple(readable(self.tokenizer.raw, row.ids, tokens)),
            offsets=tuple(encoding.offsets[i] for i in kept),
            segments=tuple(owners[i] for i in kept),
            weights=weights[:, 0],  # [layers, heads, tokens, tokens]
            queries=_by_head(queries, heads),
            keys=_by_head(keys, heads),
            prediction={"label": labels[best], "score": float(scores[best])},
            probabilities={label: float(score) for label, score in zip(labels, scores, strict=True)},
            problem_type=self.manifest.problem_type,
            truncated=row.truncated,
            function=str(function),
        )


def _variant(manifest: Manifest) -> Variant | None:
    return next((variant for variant in manifest.variants if set(OUTPUTS) <= set(variant.outputs)), None)


def _by_head(x: Floats, heads: int) -> Floats:
    """``[layers, 1, tokens, hidden]`` to ``[layers, heads, tokens, d]``."""
    layers, _, n, hidden = x.shape
    return x.reshape(layers, n, heads, hidden // heads).transpose(0, 2, 1, 3)


def readable(tokenizer: Tokenizer, ids: Sequence[int], tokens: Sequence[str]) -> list[str]:
    """Return each token as its letters, where the tokenizer writes spaces and bytes in letters of its own.

    A token that is only a part of a character's bytes has no letters, and keeps the tokenizer's name.
    """
    decoded = (tokenizer.decode([index], skip_special_tokens=False).strip() for index in ids)
    return [
        text if text and "\N{REPLACEMENT CHARACTER}" not in text else token for text, token in zip(decoded, tokens, strict=True)
    ]
