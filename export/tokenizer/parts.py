"""Parts of a tokenizer.json: normalized, compared by their effect, and a post-processor without segments."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

Spec = dict[str, Any]


def normal_form(content: str) -> Spec:
    """Return a tokenizer.json as the installed ``tokenizers`` writes it; older files spell some parts differently.

    The vocabulary skips that: ``tokenizers`` prints to stdout when it writes one whose ids have holes.
    """
    spec: Spec = json.loads(content)
    model = spec["model"]
    if not isinstance(model.get("vocab"), dict) or "type" not in model:
        return dict(json.loads(to_json(Tokenizer.from_str(content))))
    vocabulary = {name: model[name] for name in ("vocab", "merges") if name in model}
    empty = {name: type(value)() for name, value in vocabulary.items()}
    form: Spec = json.loads(Tokenizer.from_str(json.dumps({**spec, "added_tokens": [], "model": {**model, **empty}})).to_str())
    return {**form, "added_tokens": spec.get("added_tokens", []), "model": {**form["model"], **vocabulary}}


def form_of(tokenizer: Tokenizer, model: Spec) -> Spec:
    """Return a tokenizer as in tokenizer.json, with a given ``model``."""
    names = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    parts = {name: getattr(tokenizer, name) for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **{name: getattr(token, name) for name in names}} for i, token in added],
        **{name: None if part is None else json.loads(part.__getstate__()) for name, part in parts.items()},
        "model": model,
    }


def to_json(tokenizer: Tokenizer) -> str:
    """Return a tokenizer as ``tokenizers`` writes it, with stdout suppressed."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            return str(tokenizer.to_str())
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def differing(built: Spec, stored: Spec, *, segmented: bool = True) -> list[str]:
    """Name the parts in which two tokenizers differ; segments count if ``segmented``."""
    parts = [name for name, form in _FORMS.items() if form(built.get(name)) != form(stored.get(name))]
    if not segmented:
        one, other = (_one_segment(templates(spec.get("post_processor"))) for spec in (built, stored))
        parts = [name for name in parts if name != "post_processor" or one != other]
    return parts


def same_decoder(built: Spec, stored: Spec | None) -> bool:
    """Return whether two tokenizers write tokens as the same text; those of bytes do, whatever their other switches say."""
    one, other = ((spec or {}).get("decoder") or {} for spec in (built, stored))
    return bool(one == other or one.get("type") == other.get("type") == "ByteLevel")


def _one_segment(form: Any) -> Any:
    if not isinstance(form, tuple):
        return form
    single, pair, tokens = form
    return [piece[:2] for piece in single], [piece[:2] for piece in pair], tokens


def templates(part: Spec | None) -> Any:
    """Return a post-processor's templates for one text and for a pair, and the ids of its tokens."""
    if part is None or part["type"] == "ByteLevel":
        return None
    if part["type"] in ("BertProcessing", "RobertaProcessing"):
        sep, cls = ((token, i) for token, i in (part["sep"], part["cls"]))
        roberta = part["type"] == "RobertaProcessing"
        second = 0 if roberta else 1
        single = [("token", cls[0], 0), ("text", "A", 0), ("token", sep[0], 0)]
        between = [("token", sep[0], 0)] if roberta else []
        return single, [*single, *between, ("text", "B", second), ("token", sep[0], second)], sorted({sep, cls})
    if part["type"] == "TemplateProcessing":
        both = [[_piece(piece) for piece in part[name]] for name in ("single", "pair")]
        tokens = part["special_tokens"].values()
        return *both, sorted((token, i) for each in tokens for token, i in zip(each["tokens"], each["ids"], strict=True))
    if part["type"] == "Sequence":
        forms = [form for form in map(templates, part["processors"]) if form is not None]
        return forms[0] if len(forms) == 1 else forms or None
    return part


def without_segments(tokenizer: Tokenizer) -> bool:
    """Put all tokens of a pair into segment 0; return whether some were not."""
    if not any(tokenizer.encode("a", "b").type_ids):
        return False
    part = tokenizer.post_processor
    spec = None if part is None else json.loads(part.__getstate__())
    form = templates(spec)
    if isinstance(form, tuple):
        single, pair, tokens = form
        texts = [[f"{'$' if kind == 'text' else ''}{name}:0" for kind, name, _ in each] for each in (single, pair)]
        plain: Any = processors.TemplateProcessing(single=texts[0], pair=texts[1], special_tokens=tokens)
    else:
        plain = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:0", special_tokens=[])
    if spec is not None and spec["type"] == "Sequence":  # processors before a template only move offsets
        plain = processors.Sequence([processors.ByteLevel(), plain])
    tokenizer.post_processor = plain
    return True


def _piece(piece: Spec) -> tuple[str, str, int]:
    ((kind, value),) = piece.items()
    return ("text" if kind == "Sequence" else "token"), str(value["id"]), int(value["type_id"])


def _model(part: Spec | None) -> Any:
    """Return a model in which empty affixes are null."""
    return {name: (value or None) if name.endswith(("prefix", "suffix")) else value for name, value in (part or {}).items()}


_FORMS: Mapping[str, Callable[[Any], Any]] = {
    "normalizer": lambda part: part,
    "pre_tokenizer": lambda part: part,
    "model": _model,
    "post_processor": templates,
    "added_tokens": lambda part: part,
}
