"""Candidate labels as hypotheses: the logits of an NLI model become logits of the labels (Yin et al. 2019).

A model of natural language inference says whether a first text, the premise, entails a second one, the hypothesis. A text is
the premise, and "This example is politics." the hypothesis of the label "politics". With ``LabelModel`` the rest of the engine
sees a model of the candidate labels, with one logit for each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import InputError, OptionError, TextTooLongError, shown
from ..model import Model, caller_level
from ..run.prefetch import prefetch
from ..text.inputs import AS_LOADED, Cut, LongText, Text, Truncation, check_flag, collection
from ..text.outputs import Floats, Function
from ..text.thresholds import MULTI_LABEL
from ..text.tokenizer import TextTokenizer, Tokens

SINGLE_LABEL = "single_label_classification"
TEMPLATE = "This example is {}."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hypotheses:
    """Candidate labels, and the hypothesis of each. Picklable."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]  # the hypothesis of each label
    template: str
    multi_label: bool = False  # whether several labels can be true of a text

    @classmethod
    def of(cls, labels: str | Iterable[str], template: str = TEMPLATE, multi_label: bool = False) -> Hypotheses:
        """Check candidate labels, a list or names between commas, and a template.

        Raises:
            OptionError: No label is given, or the template has no ``{}`` for it.
        """
        names = _names(labels)
        check_flag("multi_label", multi_label)
        if not isinstance(template, str) or _filled(template, "\0") == _filled(template, "\1"):
            raise OptionError(
                f"hypothesis_template is {shown(template)}, without a place for the label: write {{}} there, as in {TEMPLATE!r}"
            )
        texts = tuple(_filled(template, name) for name in names)
        return cls(labels=names, texts=texts, template=template, multi_label=bool(multi_label))

    @classmethod
    def option(cls, labels: str | Iterable[str] | None, template: str | None, multi_label: bool) -> Hypotheses | None:
        """Return the hypotheses of options that may be left out; None without labels.

        Raises:
            OptionError: As ``of``, or the other options are given without labels.
        """
        if labels is not None:
            return cls.of(labels, TEMPLATE if template is None else template, multi_label)
        if template is not None or multi_label:
            raise OptionError("hypothesis_template and multi_label belong to candidate_labels (--labels): give them too")
        return None

    @property
    def independent(self) -> bool:
        """True if a label's score does not depend on the other labels, as in transformers also that of a single one."""
        return self.multi_label or len(self.labels) == 1

    @property
    def problem_type(self) -> str:
        """The problem type of a model of these labels."""
        return MULTI_LABEL if self.multi_label else SINGLE_LABEL

    @property
    def function(self) -> Function:
        """The function from the labels' logits to scores."""
        return Function.SIGMOID if self.independent else Function.SOFTMAX


def _names(labels: str | Iterable[str]) -> tuple[str, ...]:
    names = [name.strip() for name in labels.split(",") if name.strip()] if isinstance(labels, str) else collection(labels)
    if names is None:
        raise OptionError(f"candidate_labels is {shown(labels)}: give a list of labels, or one text with commas between them")
    found = list(names)
    for name in found:
        if not isinstance(name, str):
            raise OptionError(f"candidate_labels has {shown(name)}, expected texts: convert it with str(label)")
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise OptionError(f"candidate_labels has {ascii(name)[:80]} with a lone surrogate, which is not Unicode text")
    if not found:
        raise OptionError("candidate_labels is empty: give at least one label")
    return tuple(map(str, found))


def _filled(template: str, label: str) -> str:
    try:
        return template.format(label)
    except (LookupError, ValueError, AttributeError) as error:
        raise OptionError(
            f"hypothesis_template is {shown(template)}, which str.format cannot fill ({error}): write {{}} for the label once, "
            "and {{ for a brace"
        ) from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entailment:
    """The places of two answers among an NLI model's logits, chosen as in transformers."""

    labels: tuple[str, ...]  # of the model
    entailment: int
    contradiction: int
    named: bool  # whether a label is called entailment

    @classmethod
    def of(cls, labels: Sequence[str], problem_type: str) -> Entailment:
        """Find the first label that begins with "entail" in any case, else take the last one.

        Raises:
            OptionError: The model is no NLI model: a regression, a multi-label one, or of one label.
        """
        if problem_type != SINGLE_LABEL or len(labels) < 2:
            kind = f"a {problem_type}" if problem_type != SINGLE_LABEL else "a model of one label"
            raise OptionError(
                f"this model is {kind}, with {', '.join(labels[:10])}: zero-shot needs a model trained on natural language "
                "inference, with the labels contradiction, neutral and entailment, or two of them"
            )
        found = next((i for i, label in enumerate(labels) if label.lower().startswith("entail")), None)
        last = len(labels) - 1
        entailment = last if found is None else found
        return cls(
            labels=tuple(labels), entailment=entailment, contradiction=last if found == 0 else 0, named=found is not None
        )

    def warn(self) -> None:
        """Warn if no label is called entailment."""
        if not self.named:
            message = (
                f"none of the model's labels, {', '.join(self.labels[:10])}, begins with 'entail': the last one is taken for "
                "entailment and the first for contradiction, as in transformers; name them in config.json's id2label"
            )
            warnings.warn(message, UserWarning, stacklevel=caller_level())

    def logits(self, logits: Floats, hypotheses: Hypotheses) -> Floats:
        """Return the labels' logits ``[texts, labels]`` from the pairs' ``[texts x labels, classes]``.

        Softmax over the labels, or a sigmoid of each, then gives the scores of transformers' pipeline.
        """
        chosen = logits[:, self.entailment]  # [texts x labels]
        if hypotheses.independent:  # exp(e) / (exp(e) + exp(c)) = sigmoid(e - c)
            chosen = chosen - logits[:, self.contradiction]
        return chosen.reshape(-1, len(hypotheses.labels))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PairTokens(Tokens):
    """Texts as pairs with each hypothesis, those of a text one after the other."""

    pairs: list[Text]
    labels: int

    def truncated(self) -> list[bool]:
        """Return for each text whether it lost tokens in one of its pairs."""
        flags = Tokens.truncated(self)
        return [any(flags[start : start + self.labels]) for start in range(0, len(flags), self.labels)]


class LabelModel:
    """An NLI model as a model of candidate labels. It is thread-safe."""

    def __init__(self, model: Model, hypotheses: Hypotheses) -> None:
        self.model = model
        self.hypotheses = hypotheses
        self.options = model.options
        self._entailment = Entailment.of(model.labels, model.problem_type)

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the model."""
        return self.model.tokenizer

    def logits(self, texts: Sequence[Text]) -> Floats:
        """Compute the labels' logits ``[texts, labels]`` of checked texts.

        Raises:
            InputError: A text is empty, is a pair, or too long and may not be cut.
            InferenceError: The graph failed, or returned invalid logits.
        """
        runner = self.model.open()
        step = max(1, runner.chunk // len(self.hypotheses.labels))
        parts = [texts[start : start + step] for start in range(0, len(texts), step)]
        chunks = ((part, self.tokenize(part)) for part in parts)
        if runner.prefetch and len(parts) > 1:
            chunks = prefetch(chunks)  # tokenize the next chunk while this one runs
        with contextlib.closing(chunks):
            found = [self.forward(part, tokens)[0] for part, tokens in chunks]
        return np.concatenate(found) if found else np.empty((0, len(self.hypotheses.labels)), dtype=np.float32)

    def tokenize(self, texts: Sequence[Text], cut: Cut = AS_LOADED) -> PairTokens:
        """Tokenize and count the pairs of checked texts; only the text of a pair is cut, never its hypothesis.

        Raises:
            InputError: A text is empty or a pair, or too long and may not be cut.
        """
        pairs = [Text(text=_premise(text), pair=each, index=text.index) for text in texts for each in self.hypotheses.texts]
        self.model.keep(self.hypotheses.texts)
        cut = dataclasses.replace(cut, strategy=Truncation.ONLY_FIRST)
        try:
            tokens = self.model.tokenize(pairs, cut)
        except TextTooLongError:
            if self.options.long_text is not LongText.TRUNCATE:
                raise
            tokens = Tokens(rows=[row for pair in pairs for row in self._one(pair, cut).rows])
        return PairTokens(rows=tokens.rows, starts=tokens.starts, pairs=pairs, labels=len(self.hypotheses.labels))

    def forward(self, texts: Sequence[Text], tokens: Tokens) -> tuple[Floats, int]:
        """Compute the labels' logits ``[texts, labels]`` of tokenized texts; also return the number of computed tokens."""
        assert isinstance(tokens, PairTokens) and len(tokens.pairs) == len(texts) * tokens.labels
        logits, padded = self.model.forward(tokens.pairs, tokens)  # [texts x labels, classes]
        return self._entailment.logits(logits, self.hypotheses), padded

    def _one(self, pair: Text, cut: Cut) -> Tokens:
        """Tokenize a pair; as transformers, uncut if its hypothesis leaves no room for a token of the text."""
        try:
            return self.model.tokenize([pair], cut)
        except TextTooLongError:
            most = self.model.source.manifest.most_tokens
            try:
                return self.model.tokenize([pair], Cut(long_text=LongText.ERROR, max_length=most, counted=cut.counted))
            except TextTooLongError:
                raise TextTooLongError(
                    f"text {pair.index} and the hypothesis {shown(pair.pair)} do not fit in {most} tokens, and only the text "
                    "may be cut: shorten the label or the template"
                ) from None


def _premise(text: Text) -> str:
    if text.pair is not None:
        raise InputError(f"text {text.index} is a pair: zero-shot makes the second texts from the labels; give one text")
    if not text.text:
        raise InputError(f"text {text.index} is empty: as in transformers, zero-shot needs a text; leave it out")
    return text.text
