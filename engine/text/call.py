"""The arguments of a call, which are those of transformers' text classification pipeline and its tokenizer, checked once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Mapping
from typing import Any, TypedDict, cast

import numpy as np

from ..artifact import Manifest
from ..errors import OptionError, check_integer, check_member, shown
from .inputs import AS_LOADED, Cut, LongText, Side, Truncation, check_flag
from .outputs import UNSET, CallOptions, Default, Function, check_top_k
from .thresholds import Threshold, parse_thresholds


class CallArguments(TypedDict, total=False):
    """The keywords of a call, which ``Classifier.__call__`` describes."""

    top_k: int | Default | None
    function_to_apply: str | None
    threshold: Threshold | None
    truncation: bool | str | None
    max_length: int | None
    truncation_side: str | None
    split_special_tokens: bool | None
    return_all_scores: bool | None
    padding: bool | str | None
    batch_size: int | None
    num_workers: int | None


_KNOWN = frozenset(CallArguments.__annotations__)
_READING = {"truncation", "max_length", "truncation_side", "split_special_tokens", "padding"}
_PADDING = (True, False, "longest", "max_length", "do_not_pad", None)
_RESULT = "a call returns labels and scores, not tokens: leave it out"
_SAME = "padding does not change a score: leave it out"
# Keywords of the pipeline or of a tokenizer that a call does not have, and the way out.
_ELSEWHERE = {
    "text": 'give the text first, clf(text), or {"text": ..., "text_pair": ...}',
    "text_pair": 'give a pair as {"text": ..., "text_pair": ...} or (text, text_pair)',
    "text_target": "a classifier has no target texts: leave it out",
    "text_pair_target": "a classifier has no target texts: leave it out",
    "max_target_length": "a classifier has no target texts: leave it out",
    "tokenizer_kwargs": "give its entries as keywords of the call",
    "truncation_strategy": "give truncation",
    "pad_to_max_length": _SAME,
    "pad_to_multiple_of": _SAME,
    "padding_side": _SAME,
    "stride": "give long_text=Window(stride=...) to from_pretrained",
    "return_overflowing_tokens": "give long_text='window' to from_pretrained",
    "is_split_into_words": "join the words with spaces",
    "add_special_tokens": "texts are always read with the special tokens that the model was trained with: leave it out",
    "device": "give it to from_pretrained",
    "verbose": "leave it out",
    **dict.fromkeys(("return_tensors", "return_token_type_ids", "return_attention_mask", "return_length"), _RESULT),
    **dict.fromkeys(("return_special_tokens_mask", "return_offsets_mapping", "return_dict"), _RESULT),
}


def call_parser(manifest: Manifest, function: Function) -> Callable[[CallArguments], CallOptions]:
    """Return ``parse_call`` for a model, which keeps the last results: a service's calls have few combinations of arguments."""

    @functools.lru_cache(maxsize=64, typed=True)
    def known(**arguments: Any) -> CallOptions:
        return parse_call(cast(CallArguments, arguments), manifest, function)

    def parse(arguments: CallArguments) -> CallOptions:
        try:
            return known(**cast(dict[str, Any], arguments))
        except TypeError:  # a value without a hash, such as a list of thresholds
            return parse_call(arguments, manifest, function)

    return parse


def pipeline_keywords(arguments: Mapping[str, Any], known: Container[str], elsewhere: Mapping[str, str]) -> dict[str, Any]:
    """Return the keywords of a call, those of NumPy's types as Python's; ``elsewhere`` has the way out for others.

    Raises:
        OptionError: A call lacks that keyword of transformers' pipeline, or ``batch_size`` or ``num_workers`` is not valid.
        TypeError: A keyword is unknown to the pipeline too.
    """
    given = {name: value.item() if isinstance(value, np.generic) else value for name, value in arguments.items()}
    for unknown in (name for name in given if name not in known):
        if unknown not in elsewhere:
            raise TypeError(f"a call got an unexpected keyword argument {unknown!r}")
        raise OptionError(f"{unknown} is an argument of transformers' pipeline that a call lacks: {elsewhere[unknown]}")
    check_integer("batch_size", given.get("batch_size"), optional=True)  # a score does not depend on these two
    check_integer("num_workers", given.get("num_workers"), 0, optional=True)
    return given


def parse_call(arguments: CallArguments, manifest: Manifest, function: Function) -> CallOptions:
    """Check the arguments of a call against the model; ``function`` is the default one for its scores.

    Raises:
        OptionError: A value is not valid, or a call lacks that keyword of the pipeline; the message has the way out.
        TypeError: A keyword is unknown to the pipeline too.
    """
    given = pipeline_keywords(arguments, _KNOWN, _ELSEWHERE)
    check_flag("return_all_scores", given.get("return_all_scores"))
    if given.get("return_all_scores") and "top_k" not in given:
        raise OptionError("return_all_scores=True is ignored by transformers 5: give top_k=None for all labels, the best first")
    labels, problem_type = manifest.labels, manifest.problem_type
    name, thresholds = given.get("function_to_apply"), given.get("threshold")
    if name is not None:
        function = Function.choose(name, problem_type, len(labels))
    if thresholds is not None:
        thresholds = parse_thresholds(thresholds, labels, problem_type, manifest.thresholds)
    return CallOptions(
        function=function,
        top_k=check_top_k(given.get("top_k", UNSET)),
        thresholds=thresholds,
        cut=AS_LOADED if given.keys().isdisjoint(_READING) else _cut(given, manifest.most_tokens),
    )


def _cut(given: dict[str, Any], limit: int) -> Cut:
    long_text, strategy = _truncation(given.get("truncation"))
    padding, side, max_length = given.get("padding"), given.get("truncation_side"), given.get("max_length")
    if not isinstance(padding, (bool, str, type(None))) or padding not in _PADDING:
        raise OptionError(f"padding is {shown(padding)}: give True, False, longest, max_length or do_not_pad")
    check_integer("max_length", max_length, 3, optional=True)
    if max_length is not None and max_length > limit:
        raise OptionError(f"max_length is {shown(max_length)}: the model takes up to {limit} tokens")
    check_flag("split_special_tokens", given.get("split_special_tokens"))
    # As in transformers: max_length cuts texts, with padding it only pads them, with truncation=False it does nothing.
    cuts = long_text is LongText.TRUNCATE or (long_text is None and not padding)
    return Cut(
        long_text=long_text,
        strategy=strategy,
        max_length=max_length if cuts else None,
        side=None if side is None else check_member(Side, "truncation_side", side),
        split_special_tokens=given.get("split_special_tokens"),
    )


def _truncation(value: Any) -> tuple[LongText | None, Truncation]:
    """Return the treatment of long texts for an argument ``truncation``, None for the loaded one, and the strategy."""
    if value is None:
        return None, Truncation.LONGEST_FIRST
    if isinstance(value, bool):
        return LongText.TRUNCATE if value else LongText.ERROR, Truncation.LONGEST_FIRST
    try:
        strategy = Truncation(getattr(value, "value", value))  # transformers' enumeration has the same values
    except ValueError:
        raise OptionError(f"truncation is {shown(value)}: give True, False, or one of {', '.join(Truncation)}") from None
    return LongText.ERROR if strategy is Truncation.DO_NOT_TRUNCATE else LongText.TRUNCATE, strategy
