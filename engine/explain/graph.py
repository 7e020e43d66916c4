"""The graph that also outputs attention weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tokenizers import Tokenizer

from ..artifact import Manifest, Variant, read_manifest
from ..artifact.verify import FileCheck, verdict_root
from ..errors import ArtifactError, InferenceError
from ..hardware.cpu import inspect_machine
from ..hardware.device import Device, DeviceKind, choose, import_onnxruntime, inspect_offer
from ..load import Options
from ..load.open import Source
from ..load.resolve import resolve_model
from ..run.session import Session, open_session
from ..text.inputs import Text
from ..text.outputs import Floats, Function, apply, distinct
from ..text.tokenizer import TextTokenizer, pad
from .attentions import Attentions

OUTPUTS = ("logits", "attentions", "queries", "keys")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionGraph:
    """An open ``onnx/model_attentions.onnx``. Thread-safe."""

    session: Session
    tokenizer: TextTokenizer
    manifest: Manifest

    @classmethod
    def open(cls, loaded: Source, options: Options) -> AttentionGraph:
        """Open the graph of a loaded model; that of a checkpoint is exported into the cache if needed.

        Raises:
            ArtifactError: The artifact has no such graph, or it is damaged.
            MissingDependencyError: The exporter is needed, and not installed.
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
        with FileCheck(folder, manifest, verdict_root(options.cache_dir)) as check:
            check.small_files()
            file = check.graph(variant)
        session = open_session(runtime, file, choice, threads=options.threads or inspect_machine().cores)
        return cls(session=session, tokenizer=loaded.tokenizer, manifest=manifest)

    def show(self, text: Text, *, truncate: bool) -> Attentions:
        """Run one checked text or pair, cut to the model's length if ``truncate``.

        Raises:
            TextTooLongError: It is too long, and ``truncate`` is false.
            InferenceError: The graph failed.
        """
        encoding, kept = self.tokenizer.trace(text, truncate=truncate)
        ids, types, owners = encoding.ids, encoding.type_ids, encoding.sequence_ids
        row = self.tokenizer.row([ids[i] for i in kept], [types[i] for i in kept], text, truncated=len(kept) < len(ids))
        logits, weights, queries, keys = self.session.fetch(OUTPUTS, pad([row], self.tokenizer.pad_id))
        n, heads = len(kept), weights.shape[2]
        if weights.shape[1:] != (1, heads, n, n) or queries.shape != keys.shape:
            raise InferenceError(f"{self.session.file} gave weights of shape {weights.shape}: export the checkpoint again")
        manifest = self.manifest
        labels = distinct(manifest.labels)  # each is a key of ``probabilities``
        function = Function.choose(None, manifest.problem_type, len(labels), manifest.function_to_apply)
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
            problem_type=manifest.problem_type,
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
    """Return each token as plain letters; one with only a part of a character's bytes keeps the tokenizer's name."""
    decoded = (tokenizer.decode([index], skip_special_tokens=False).strip() for index in ids)
    return [
        text if text and "\N{REPLACEMENT CHARACTER}" not in text else token for text, token in zip(decoded, tokens, strict=True)
    ]
