"""The parts of a tokenizer.json, compared by what they do, and a post-processor without segments."""

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
    """Return a tokenizer.json with its parts as the installed ``tokenizers`` writes them; older files spell some otherwise.

    The vocabulary stays out of that round trip: ``tokenizers`` prints to stdout where it writes one whose ids have holes.
    """
    spec: Spec = json.loads(content)
    model = spec["model"]
    if not isinstance(model.get("vocab"), dict) or "type" not in model:
        return dict(json.loads(written(Tokenizer.from_str(content))))
    vocabulary = {name: model[name] for name in ("vocab", "merges") if name in model}
    empty = {name: type(value)() for name, value in vocabulary.items()}
    form: Spec = json.loads(Tokenizer.from_str(json.dumps({**spec, "added_tokens": [], "model": {**model, **empty}})).to_str())
    return {**form, "added_tokens": spec.get("added_tokens", []), "model": {**form["model"], **vocabulary}}


def form_of(tokenizer: Tokenizer, model: Spec) -> Spec:
    """Return a tokenizer as tokenizer.json holds it, without padding and truncation.

    Args:
        tokenizer: The tokenizer.
        model: What it has for a model, with the vocabulary.
    """
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


def written(tokenizer: Tokenizer) -> str:
    """Return a tokenizer as ``tokenizers`` writes it, and keep off stdout what that prints of a vocabulary with holes."""
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
    """Name the parts in which two tokenizers differ, both as ``tokenizers`` writes them.

    Args:
        built: One of them.
        stored: The other.
        segmented: Whether it matters which segment a token is of.
    """
    parts = [name for name, form in _FORMS.items() if form(built.get(name)) != form(stored.get(name))]
    alike = not segmented and _one_segment(ends(built.get("post_processor"))) == _one_segment(
        ends(stored.get("post_processor"))
    )
    return [name for name in parts if name != "post_processor"] if alike else parts


def _one_segment(found: Any) -> Any:
    if not isinstance(found, tuple):
        return found
    single, pair, tokens = found
    return [piece[:2] for piece in single], [piece[:2] for piece in pair], tokens


def ends(part: Spec | None) -> Any:
    """Return a post-processor as what it sets: a template for one text, one for a pair, and the ids of its tokens."""
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
        templates = [[_piece(piece) for piece in part[name]] for name in ("single", "pair")]
        tokens = part["special_tokens"].values()
        return *templates, sorted((token, i) for each in tokens for token, i in zip(each["tokens"], each["ids"], strict=True))
    if part["type"] == "Sequence":
        told = [found for found in map(ends, part["processors"]) if found is not None]
        return told[0] if len(told) == 1 else told or None
    return part


def without_segments(tokenizer: Tokenizer) -> bool:
    """Put both texts of a pair, and what is set around them, into segment 0; return whether that changes anything."""
    if not any(tokenizer.encode("a", "b").type_ids):
        return False
    part = tokenizer.post_processor
    spec = None if part is None else json.loads(part.__getstate__())
    found = ends(spec)
    if isinstance(found, tuple):
        single, pair, tokens = found
        texts = [[f"{'$' if kind == 'text' else ''}{name}:0" for kind, name, _ in each] for each in (single, pair)]
        plain: Any = processors.TemplateProcessing(single=texts[0], pair=texts[1], special_tokens=tokens)
    else:
        plain = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:0", special_tokens=[])
    if spec is not None and spec["type"] == "Sequence":  # what goes before a template moves offsets alone
        plain = processors.Sequence([processors.ByteLevel(), plain])
    tokenizer.post_processor = plain
    return True


def _piece(piece: Spec) -> tuple[str, str, int]:
    ((kind, value),) = piece.items()
    return ("text" if kind == "Sequence" else "token"), str(value["id"]), int(value["type_id"])


def _model(part: Spec | None) -> Any:
    """Return a model without what makes no difference: whether an affix is none or empty."""
    return {name: (value or None) if name.endswith(("prefix", "suffix")) else value for name, value in (part or {}).items()}


_FORMS: Mapping[str, Callable[[Any], Any]] = {
    "normalizer": lambda part: part,
    "pre_tokenizer": lambda part: part,
    "model": _model,
    "post_processor": ends,
    "added_tokens": lambda part: part,
}
