"""transformers' pipeline around the mock model, texts for it, and the comparison of answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

WORDS = [
    "good",
    "bad",
    "movie",
    "was",
    "very",
    "not",
    "the",
    "dull",
    "awful",
    "unknownword",
    "film!",
    "a.",
    "ﬁne",
    "É",
    "電影",
    "👍",
    "[SEP]",
    "[CLS]x",
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=45).map(" ".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),  # lone surrogates are not text
)
PAIRS = st.fixed_dictionaries({"text": TEXTS, "text_pair": TEXTS})
FULL_PAIRS = st.fixed_dictionaries({"text": TEXTS, "text_pair": TEXTS.filter(bool)})
PROPERTY = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def mock_pipeline(labels: tuple[str, ...], problem_type: str, tokenizer: Any, weights: Any, task: str | None = None) -> Any:
    """The mock's equations in a class that transformers' pipeline accepts as a BERT; ``task`` is text classification."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, pipeline
    from transformers.modeling_outputs import SequenceClassifierOutput

    class Mock(BertForSequenceClassification):
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:  # type: ignore[override]
            embedding, types, weight, bias = (torch.from_numpy(array) for array in vars(weights).values())
            mask = attention_mask[..., None].float()
            mean = ((embedding[input_ids] + types[token_type_ids]) * mask).sum(1) / mask.sum(1)
            return SequenceClassifierOutput(logits=mean.tanh() @ weight + bias)

    Mock.__name__ = BertForSequenceClassification.__name__  # the pipeline reads it
    about: Any = problem_type if len(labels) > 1 or problem_type == "regression" else None
    config = BertConfig(
        vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=8, problem_type=about,
        id2label=dict(enumerate(labels)), label2id={label: index for index, label in enumerate(labels)},
    )  # fmt: skip
    judge = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", model_max_length=32,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    kind: Any = task or "text-classification"
    return pipeline(kind, model=Mock(config), tokenizer=judge, device="cpu")


def assert_same(found: Any, expected: Any) -> None:
    """Compare answers; labels exactly, scores within float32's rounding."""
    assert type(found) is type(expected)
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == {"label": expected["label"], "score": pytest.approx(expected["score"], abs=1e-5)}
        assert type(found["score"]) is float
