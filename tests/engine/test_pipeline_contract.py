"""The same model as transformers' pipeline and as ours: the same shapes, labels, order and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import Classifier

LABELS = ("joy", "anger", "fear")
CASES = {
    "softmax": (LABELS, "single_label_classification"),
    "multi": (LABELS, "multi_label_classification"),
    "regression": (("value",), "regression"),
    "one": (("yes",), "single_label_classification"),
}
INPUTS: list[Any] = [
    "good movie",
    "",
    ["good movie", "the plot was dull"],
    ["good"],
    {"text": "good movie", "text_pair": "not dull"},
    [{"text": "good movie", "text_pair": "not dull"}, {"text": "bad"}],
    "very " * 100,
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"top_k": None},
    {"top_k": 1},
    {"top_k": 2},
    {"function_to_apply": "sigmoid"},
    {"function_to_apply": "none", "top_k": None},
    {"function_to_apply": "softmax", "top_k": None},
]


@pytest.fixture(params=CASES)
def both(
    request: pytest.FixtureRequest, make_artifact: Callable[..., Path], tokenizer: Any, weights: Any
) -> tuple[Any, Classifier]:
    labels, problem_type = CASES[request.param]
    ours = Classifier.from_pretrained(make_artifact(labels, problem_type), threads=1)
    return _theirs(labels, problem_type, tokenizer, weights(len(labels))), ours


def _theirs(labels: tuple[str, ...], problem_type: str, tokenizer: Any, weights: Any) -> Any:
    """The mock's equations in a class that transformers' pipeline takes for a BERT."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, TextClassificationPipeline
    from transformers.modeling_outputs import SequenceClassifierOutput

    class Mock(BertForSequenceClassification):
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            embedding, types, weight, bias = (torch.from_numpy(array) for array in vars(weights).values())
            mask = attention_mask[..., None].float()
            mean = ((embedding[input_ids] + types[token_type_ids]) * mask).sum(1) / mask.sum(1)
            return SequenceClassifierOutput(logits=mean.tanh() @ weight + bias)

    Mock.__name__ = BertForSequenceClassification.__name__  # the pipeline looks at it
    config = BertConfig(
        vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=8, problem_type=problem_type if len(labels) > 1 or problem_type == "regression" else None,
        id2label=dict(enumerate(labels)), label2id={label: index for index, label in enumerate(labels)},
    )  # fmt: skip
    judge = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", model_max_length=32,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    return TextClassificationPipeline(model=Mock(config), tokenizer=judge, device="cpu")


def test_same_results(both: tuple[Any, Classifier]) -> None:
    theirs, ours = both
    for inputs in INPUTS:
        for options in OPTIONS:
            expected = theirs(inputs, truncation=True, **options)
            _same(ours(inputs, **options), expected)
    assert ours([]) == ours([], top_k=None) == []  # where transformers raises IndexError


def _same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _same(one, other)
    else:
        assert found == {"label": expected["label"], "score": pytest.approx(expected["score"], abs=1e-5)}
        assert type(found["score"]) is float


def test_tuples_are_pairs_and_nested_lists_are_refused(artifact: Path) -> None:
    from fusedbert.engine import InputError

    with Classifier.from_pretrained(artifact) as ours:
        pair = ours({"text": "good", "text_pair": "bad"})
        assert ours(("good", "bad")) == pair
        assert ours([("good", "bad")]) == [pair]
        assert ours([("good", "bad")], top_k=None)[0][0] == pair
        for nested in ([["good", "bad"]], [["good"]]):
            with pytest.raises(InputError, match="text 0"):
                ours(nested)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="unknown_word"):
            ours("good", unknown_word=1)  # type: ignore[call-arg]
        with pytest.raises(InputError, match="stream"):
            ours(text for text in ["a"])  # type: ignore[arg-type]
