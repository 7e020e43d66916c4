"""Texts to logits, compared with transformers on torch: an independent judge of tokenizer, graph and engine."""

import numpy as np
import pytest

from fusedbert.engine import Classifier

TEXTS = [
    "I didn't really loved this movie. It was fantastic!",
    "I really loved this movie. It was fantastic!",
    "The spaghetti was bland.",
    "",
    " ",
    "\t\n ",
    "a",
    "!",
    "?!?!...",
    "GREAT",
    "great",
    "Not bad at all.",
    "not  bad   at\tall .",
    "It is 90 minutes long.",
    "café crème brûlée",
    "cafe\u0301",
    "naïve façade, señor",
    "Ünïcödé everywhere",
    "“Quoted” – with dashes — and an ellipsis…",
    "price: €20, £15 or ¥3000",
    "emoji 😀🎬👍🏽 and a flag 🇫🇷",
    "完全に素晴らしい映画",
    "фильм был скучным",
    "كان الفيلم رائعا",
    "a\u0000b",
    "zero\u200bwidth and soft\u00adhyphen",
    "\ufeffbyte order mark",
    "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "[sep] in lower case",
    "<b>markup</b> & entities &amp;",
    "https://example.org/a?b=c#d",
    "user@example.org",
    "don't can't won't it's",
    "antidisestablishmentarianism",
    "x" * 250,
    "0123456789 " * 20,
    "one of the year 's best films , a warm and funny story told with restraint",
    "I expected more from this director, and so will you, though the lighting is lovely.",
    "good " * 100,
    "bad " * 509,
    "good " * 510,
    "the end of this is cut off " * 200,
]


@pytest.fixture(scope="module")
def expected(checkpoint):
    """Logits of transformers' BertForSequenceClassification in float32, float32 [texts, labels]; one text at a time."""
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with torch.inference_mode():
        rows = [
            model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=512)).logits[0].numpy() for text in TEXTS
        ]
    return np.stack(rows)  # [texts, labels]


@pytest.fixture(scope="module")
def classifier(artifact):
    with Classifier.from_pretrained(artifact, device="cpu", precision="fp32") as loaded:
        yield loaded


def test_labels_and_logits_equal_those_of_transformers(classifier, expected):
    logits = classifier.decision_function(TEXTS)
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= 1e-4
    labels = [("NEGATIVE", "POSITIVE")[index] for index in expected.argmax(axis=1)]
    assert list(classifier.predict(TEXTS)) == labels
    assert {"NEGATIVE", "POSITIVE"} == set(labels)


def test_one_text_at_a_time_gives_what_the_batch_gives(classifier, expected):
    alone = np.concatenate([classifier.decision_function([text]) for text in TEXTS])
    assert np.abs(alone - expected).max() <= 1e-4


def test_scores_equal_those_of_the_pipeline_of_transformers(classifier, checkpoint):
    from transformers import pipeline

    texts = TEXTS[:8]
    judge = pipeline("text-classification", model=str(checkpoint), dtype="float32", device="cpu")
    for text, ours, theirs in zip(texts, classifier(texts), judge(texts), strict=True):
        assert ours["label"] == theirs["label"], text
        assert ours["score"] == pytest.approx(theirs["score"], abs=2e-5), text
