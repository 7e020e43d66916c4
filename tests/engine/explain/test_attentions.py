"""``Classifier.attentions`` on the embedded model: weights, tokens, effects, rollout, and the formats to save them in."""

import json

import numpy as np
import pytest

from fusedbert.engine import Classifier, ClosedError, InputError, StorageError, TextTooLongError

PAIR = ("Is it good?", "It is the worst film.")


@pytest.mark.parametrize("text", ["Action gets results", PAIR, "", "🙂 naïve cafe\u0301 这部电影"])
def test_weights_equal_those_of_transformers(clf, checkpoint, text):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = (text,) if isinstance(text, str) else text
    shown = clf.attentions(*texts, occlusion=False)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with torch.no_grad():
        theirs = model.eval()(**tokenizer(*texts, return_tensors="pt"), output_attentions=True)
    expected = torch.cat(theirs.attentions).numpy()  # [layers, heads, query, key]
    assert shown.weights.shape == expected.shape
    assert np.abs(shown.weights - expected).max() < 1e-5
    assert np.abs(shown.weights.sum(axis=-1) - 1).max() < 1e-5
    assert list(shown.tokens) == tokenizer.convert_ids_to_tokens(tokenizer(*texts)["input_ids"])
    scores = torch.softmax(theirs.logits[0], dim=0).numpy()
    assert list(shown.probabilities.values()) == pytest.approx(scores.tolist(), abs=1e-5)


def test_offsets_and_segments_point_into_the_texts(pair):
    assert pair.segments == (None, 0, 0, 0, 0, None, 1, 1, 1, 1, 1, 1, None)
    for token, (start, end), segment in zip(pair.tokens, pair.offsets, pair.segments, strict=True):
        assert (start, end) == (0, 0) if segment is None else PAIR[segment][start:end].lower() == token


def test_the_softmax_of_the_scores_equals_the_weights(shown):
    for layer, head in ((0, 0), (2, 11)):
        powers = np.exp(shown.scores(layer, head).astype(np.float64) / np.sqrt(32))
        assert np.abs(powers / powers.sum(axis=1, keepdims=True) - shown.weights[layer, head]).max() < 1e-5


def test_effects_are_differences_of_predictions(clf, shown):
    def p(text):
        return float(clf.predict_proba([text])[0, 1])

    without = {
        "didn't": "I really loved this movie. It was fantastic!",
        "fantastic": "I didn't really loved this movie. It was !",
        "I": "didn't really loved this movie. It was fantastic!",
    }
    found = {effect.word: effect for effect in shown.effects}
    for word, rest in without.items():
        assert found[word].change == pytest.approx(p(shown.text) - p(rest), abs=1e-5)
        assert shown.text[found[word].start : found[word].end] == word
    assert found["fantastic"].change > 0.5 > 0 > found["didn't"].change


def test_effects_of_a_pair_name_their_text(clf, pair):
    (worst,) = [effect for effect in pair.effects if effect.word == "worst"]
    assert (worst.segment, PAIR[1][worst.start : worst.end]) == (1, "worst")
    full, without = clf.predict_proba([PAIR, ("Is it good?", "It is the film.")])[:, 0]
    assert worst.change == pytest.approx(float(full - without), abs=1e-5)


def test_words_of_a_long_text_are_left_out_in_groups(clf):
    shown = clf.attentions("word " * 600 + "end")
    assert shown.truncated and len(shown.tokens) == 512
    assert 100 < len(shown.effects) <= 128
    assert shown.effects[0].word == "word word word word"
    assert shown.effects[-1].end == max(end for _, end in shown.offsets) == 510 * 5 - 1


def test_a_text_without_words_has_no_effects(clf):
    assert clf.attentions(" \n ").effects == ()


def test_rollout_follows_every_path(shown):
    """Abnar and Zuidema's product, written out as the sum over all paths from the output back to the input."""
    n = len(shown.tokens)
    step = [0.5 * layer.mean(axis=0) + 0.5 * np.eye(n) for layer in shown.weights.astype(np.float64)]
    expected = np.einsum("ab,bc,cd->ad", step[2], step[1], step[0])
    assert np.abs(shown.rollout() - expected).max() < 1e-6
    assert np.abs(shown.rollout().sum(axis=1) - 1).max() < 1e-6


def test_json_and_npz_give_the_same_back(shown, tmp_path):
    document = json.loads(shown.to_json())
    assert document["tokens"] == list(shown.tokens)
    assert document["prediction"] == dict(shown.prediction)
    assert len(document["effects"]) == len(shown.effects)
    assert np.abs(np.array(document["weights"]) - shown.weights).max() <= 5.1e-7
    shown.save_npz(tmp_path / "shown.npz")
    with np.load(tmp_path / "shown.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["weights"], shown.weights)
        assert np.array_equal(arrays["keys"], shown.keys)
        assert tuple(arrays["tokens"].tolist()) == shown.tokens
        assert arrays["segments"].tolist() == [-1 if segment is None else segment for segment in shown.segments]
    with pytest.raises(StorageError, match="cannot be written"):
        shown.save_npz(tmp_path / "none" / "shown.npz")


def test_inputs_that_are_not_texts_are_refused(clf):
    with pytest.raises(InputError, match="text 0 is None"):
        clf.attentions(None)
    with pytest.raises(InputError, match="a list is a batch"):
        clf.attentions(["a"])


def test_with_long_text_error_a_long_text_is_an_error(attentive):
    with (
        Classifier.from_pretrained(attentive, max_length=16, long_text="error") as clf,
        pytest.raises(TextTooLongError, match="max_length is 16"),
    ):
        clf.attentions("word " * 20)


def test_a_closed_classifier_refuses_attentions(attentive):
    clf = Classifier.from_pretrained(attentive)
    clf.close()
    with pytest.raises(ClosedError, match="was closed"):
        clf.attentions("a")
