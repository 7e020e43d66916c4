"""Rerankers in folders of sentence-transformers, end to end: their scores are those of their modules, run by torch."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusedbert.engine import CheckpointError, Classifier, ExportError
from fusedbert.engine.artifact import read_manifest
from fusedbert.engine.load.resolve import checkpoint_key
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint import IgnoredWarning, LeftOutWarning

PAIRS = [
    ("the movie", "was really good"),
    ("a film", "i hated it , but we loved it ! 1 2 3"),
    ("is it bland ?", "so boring"),
    ("not bad", "a b c d e f g h j k l m"),
    ("we", "it was not good and not bad . " * 9),
    ("The FILM is great", "BORING"),
]
PREFIX = "sentence_transformers.models"
IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"


@dataclasses.dataclass(frozen=True)
class Reranker:
    """A folder, and the same model in torch."""

    folder: Path
    encoder: Path
    pooling: str
    head: Sequence[Any]  # torch modules
    score: Callable[[Any], Any]

    def predict(self, pairs: Sequence[tuple[str, str]] = PAIRS, max_length: int | None = None) -> np.ndarray:
        """Run each pair by itself: scores ``[pairs]``, or ``[pairs, labels]``."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        model = AutoModel.from_pretrained(self.encoder, attn_implementation="eager").eval()
        tokenizer = AutoTokenizer.from_pretrained(self.encoder)
        positions = model.config.max_position_embeddings - (2 if model.config.model_type == "roberta" else 0)
        limit = max_length or min(tokenizer.model_max_length, positions)
        rows = []
        with torch.no_grad():
            for first, second in pairs:
                batch = tokenizer([first], [second], return_tensors="pt", truncation=True, max_length=limit)
                tokens = model(**batch).last_hidden_state[0]
                x = tokens[0] if self.pooling == "cls" else tokens.mean(dim=0)
                for module in self.head:
                    x = module(x)
                rows.append(self.score(x).squeeze(-1).numpy())
        return np.stack(rows)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def module_of(folder: Path, module: Any, activation: Any, *, last: bool) -> None:
    """Write a module of torch as sentence-transformers writes it."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    if isinstance(module, torch.nn.LayerNorm):
        write_json(folder / "config.json", {"dimension": module.normalized_shape[0]})
        save_file({f"norm.{name}": tensor for name, tensor in module.state_dict().items()}, folder / "model.safetensors")
        return
    kind = type(activation)
    config = {
        "in_features": module.in_features,
        "out_features": module.out_features,
        "bias": module.bias is not None,
        "activation_function": f"{kind.__module__}.{kind.__name__}",
        "module_output_name": "scores" if last else "sentence_embedding",
    }
    write_json(folder / "config.json", config)
    save_file({f"linear.{name}": tensor for name, tensor in module.state_dict().items()}, folder / "model.safetensors")


Build = Callable[..., Reranker]


@pytest.fixture
def build(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Build:
    """Return a function that writes a reranker: family, pooling, its head as modules of torch or pairs with an activation."""

    def make(
        family: str,
        pooling: str,
        head: Sequence[Any],
        *,
        activation: str = IDENTITY,
        place: str = "",
        settings: dict[str, Any] | None = None,
        **config: Any,
    ) -> Reranker:
        import torch
        from transformers import AutoModel

        source, folder = make_checkpoint(family, **config), tmp_path / "reranker"
        AutoModel.from_pretrained(source).save_pretrained(folder / place)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(source / name, folder / place / name)
        size = json.loads((folder / place / "config.json").read_text()).get("hidden_size", 48)
        modules = [("Transformer", place), ("Pooling", "1_Pooling")]
        write_json(
            folder / "1_Pooling" / "config.json", {"word_embedding_dimension": size, f"pooling_mode_{POOLINGS[pooling]}": True}
        )
        torch.manual_seed(1)
        steps = []
        for i, each in enumerate(head):
            module, function = each if isinstance(each, tuple) else (each, torch.nn.Identity())
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.3)
            kind = "LayerNorm" if isinstance(module, torch.nn.LayerNorm) else "Dense"
            modules.append((kind, f"{i + 2}_{kind}"))
            module_of(folder / modules[-1][1], module, function, last=i + 1 == len(head))
            steps += [module, function]
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": f"{PREFIX}.{kind}"} for i, (kind, path) in enumerate(modules)
        ]
        write_json(folder / "modules.json", listed)
        write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder", "activation_fn": activation})
        write_json(folder / place / "sentence_bert_config.json", settings or {})
        score = torch.sigmoid if activation == SIGMOID else torch.nn.Identity()
        return Reranker(folder, folder / place, pooling, steps, score)

    return make


POOLINGS = {"cls": "cls_token", "mean": "mean_tokens"}


def ettin(hidden: int = 48) -> list[Any]:
    """The head of Ettin's rerankers: dense without bias, GELU, normalization, dense."""
    from torch import nn

    return [(nn.Linear(hidden, hidden, bias=False), nn.GELU()), nn.LayerNorm(hidden), nn.Linear(hidden, 1)]


def widths() -> list[Any]:
    from torch import nn

    return [(nn.Linear(48, 70), nn.Tanh()), nn.Linear(70, 20), nn.LayerNorm(20), (nn.Linear(20, 6), nn.SiLU()), nn.Linear(6, 1)]


def single(labels: int = 1) -> list[Any]:
    from torch import nn

    return [nn.Linear(48, labels)]


def scores(folder: Path, cache: Path, precision: str = "fp32", pairs: Sequence[tuple[str, str]] = PAIRS) -> np.ndarray:
    """Return the scores of a checkpoint or an artifact as the engine gives them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", IgnoredWarning)
        warnings.filterwarnings("ignore", message=".*was cut")
        with Classifier.from_pretrained(folder, precision=precision, cache_dir=cache) as clf:
            return np.array([each["score"] for each in clf([{"text": a, "text_pair": b} for a, b in pairs])])


def name_of(value: Any) -> str:
    return str(getattr(value, "__name__", value)).rpartition(".")[2]


FORMS = [
    ("modernbert", "cls", ettin, IDENTITY),
    ("modernbert", "mean", single, SIGMOID),
    ("bert", "mean", single, SIGMOID),
    ("bert", "cls", widths, IDENTITY),
    ("roberta", "mean", ettin, IDENTITY),
    ("distilbert", "cls", ettin, SIGMOID),
    ("electra", "mean", widths, IDENTITY),
]


@pytest.mark.parametrize(
    ("family", "pooling", "head", "activation"), FORMS, ids=lambda value: getattr(value, "__name__", value)
)
def test_scores_are_those_of_the_modules(
    build: Build, tmp_path: Path, family: str, pooling: str, head: Callable[[], list[Any]], activation: str
) -> None:
    model = build(family, pooling, head(), activation=activation)
    found = scores(model.folder, tmp_path / "cache")
    np.testing.assert_allclose(found, model.predict(), atol=2e-5)
    assert np.ptp(found) > 0.01


@pytest.mark.parametrize(
    ("family", "pooling", "head", "config"),
    [
        ("modernbert", "cls", lambda: ettin(64), {"hidden_size": 64}),
        ("bert", "mean", single, {"spread": 0.1}),
    ],
    ids=["ettin", "mean"],
)
def test_int8_and_bfloat16_keep_the_order(
    build: Build, tmp_path: Path, family: str, pooling: str, head: Callable[[], list[Any]], config: dict[str, Any]
) -> None:
    """They pass their gates, whose limits are shares of the spread, and so they are near the modules' scores too."""
    model = build(family, pooling, head(), **config)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeftOutWarning)
        manifest = export_checkpoint(model.folder, tmp_path / "artifact", target="cpu", required=False)
    assert [variant.precision for variant in manifest.variants] == ["fp32", "int8", "bf16"]
    expected = model.predict()
    for precision in ("int8", "bf16"):
        changes = np.abs(scores(tmp_path / "artifact", tmp_path / "cache", precision) - expected)
        assert 0 < changes.mean() < 0.1 * np.ptp(expected)


def test_the_encoder_may_lie_in_a_folder_below(build: Build, tmp_path: Path) -> None:
    model = build("bert", "cls", ettin(), place="0_Transformer")
    assert not (model.folder / "config.json").exists()
    np.testing.assert_allclose(scores(model.folder, tmp_path / "cache"), model.predict(), atol=2e-5)


def test_the_artifact_names_every_file_of_weights_and_one_label(build: Build, tmp_path: Path) -> None:
    model = build("bert", "cls", ettin(), place="0_Transformer", num_labels=3)
    manifest = export_checkpoint(model.folder, tmp_path / "artifact", target="fp32")
    assert sorted(manifest.source.sha256) == [
        f"{name}/model.safetensors" for name in ("0_Transformer", "2_Dense", "3_LayerNorm", "4_Dense")
    ]
    assert (manifest.labels, manifest.function_to_apply) == (("LABEL_0",), "none")
    config = json.loads((tmp_path / "artifact" / "config.json").read_text())
    assert config["id2label"] == {"0": "LABEL_0"} and config["sentence_transformers"] == {"activation_fn": IDENTITY}


def test_the_cache_key_covers_the_modules(build: Build, tmp_path: Path) -> None:
    model = build("bert", "mean", ettin(), place="0_Transformer")
    keys = {checkpoint_key(model.folder, tmp_path, "cpu")}
    for name in (
        "0_Transformer/model.safetensors",
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
        "3_LayerNorm/config.json",
    ):
        (model.folder / name).write_text("other")
        keys.add(checkpoint_key(model.folder, tmp_path, "cpu"))
    (model.folder / "README.md").write_text("other")
    keys.add(checkpoint_key(model.folder, tmp_path, "cpu"))
    assert len(keys) == 5


def test_a_longest_text_of_the_settings_wins_over_the_tokenizers(build: Build, tmp_path: Path) -> None:
    model = build("modernbert", "mean", single(), settings={"max_seq_length": 12})
    path = model.folder / "tokenizer_config.json"
    write_json(path, {**json.loads(path.read_text()), "model_max_length": 20})
    manifest = export_checkpoint(model.folder, tmp_path / "artifact", target="fp32")
    written = json.loads((tmp_path / "artifact" / "tokenizer_config.json").read_text())
    assert manifest.max_length == written["model_max_length"] == 12
    np.testing.assert_allclose(scores(tmp_path / "artifact", tmp_path / "cache"), model.predict(max_length=12), atol=2e-5)


@pytest.mark.parametrize("activation", [SIGMOID, IDENTITY, None])
def test_an_encoder_with_its_own_classifier_is_read_with_the_settings(
    make_checkpoint: Callable[..., Path], judge: Callable[..., np.ndarray], tmp_path: Path, activation: str | None
) -> None:
    folder = Path(shutil.copytree(make_checkpoint("bert", num_labels=1), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "problem_type": "regression"})  # CrossEncoder.predict does not read it
    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": f"{PREFIX}.Transformer"}])
    write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder", "activation_fn": activation})
    logits = {"text": {"method": "forward", "method_output_name": "logits"}}
    settings = {"transformer_task": "sequence-classification", "modality_config": logits, "module_output_name": "scores"}
    write_json(folder / "sentence_bert_config.json", {**settings, "max_seq_length": 10})
    manifest = export_checkpoint(folder, tmp_path / "artifact", target="fp32")
    assert manifest.max_length == 10
    assert sorted(manifest.source.sha256) == ["model.safetensors"]
    found = scores(tmp_path / "artifact", tmp_path / "cache", pairs=PAIRS[:1])
    from transformers import AutoTokenizer

    ((first, second),) = PAIRS[:1]
    batch = AutoTokenizer.from_pretrained(folder)([first], [second], return_tensors="np", truncation=True, max_length=10)
    logit = judge(folder, dict(batch))[0, 0]
    np.testing.assert_allclose(found, [logit if activation == IDENTITY else 1 / (1 + np.exp(-logit))], atol=2e-5)


def test_several_labels_have_the_softmax_of_the_pipeline(build: Build, tmp_path: Path) -> None:
    model = build("bert", "cls", single(3))
    expected = np.exp(model.predict())
    np.testing.assert_allclose(
        scores(model.folder, tmp_path / "cache"), (expected / expected.sum(axis=1, keepdims=True)).max(axis=1), atol=2e-5
    )


def test_a_model_without_a_graph_for_the_target_is_refused_with_the_reason(build: Build, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"heads of width 12 .* multiples of 8.*; use --for all"):
        export_checkpoint(build("modernbert", "cls", ettin()).folder, tmp_path / "artifact", target="cuda")
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize(("family", "pooling"), [("bert", "mean"), ("modernbert", "mean"), ("modernbert", "cls")])
def test_the_graphs_for_cuda_have_poolings_and_heads_too(build: Build, tmp_path: Path, family: str, pooling: str) -> None:
    """Both are checked by the export, the packed one by its stand-in."""
    model = build(family, pooling, ettin(64), hidden_size=64)  # heads of 16
    manifest = export_checkpoint(model.folder, tmp_path / "artifact", target="cuda")
    assert [variant.layout for variant in manifest.variants] == ["padded", "packed"]


# Refused by name


def refused(folder: Path, tmp_path: Path, message: str) -> None:
    """Expect the same message from the export and from the engine."""
    said = []
    for call in (
        lambda: export_checkpoint(folder, tmp_path / "out"),
        lambda: Classifier.from_pretrained(folder, cache_dir=tmp_path / "cache"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            call()
        said.append(str(caught.value))
    assert said[0] == said[1] and "\n" not in said[0]


def test_an_activation_of_the_last_dense_is_refused(build: Build, tmp_path: Path) -> None:
    from torch import nn

    refused(
        build("bert", "cls", [(nn.Linear(48, 1), nn.Tanh())]).folder,
        tmp_path,
        "has tanh as activation_function of the last Dense",
    )


def test_several_labels_with_a_sigmoid_are_refused_unless_the_config_says_so(build: Build, tmp_path: Path) -> None:
    model = build("bert", "cls", single(3), activation=SIGMOID)
    refused(model.folder, tmp_path, "sigmoid as activation_fn, and several labels")
    config = json.loads((model.folder / "config.json").read_text())
    write_json(model.folder / "config.json", {**config, "problem_type": "multi_label_classification"})
    found = scores(model.folder, tmp_path / "cache")
    np.testing.assert_allclose(found, model.predict().max(axis=1), atol=2e-5)


def test_texts_to_be_lowercased_need_a_tokenizer_that_does(build: Build, tmp_path: Path) -> None:
    model = build("bert", "mean", single(), settings={"do_lower_case": True})
    np.testing.assert_allclose(scores(model.folder, tmp_path / "cache"), model.predict(), atol=2e-5)
    path = model.folder / "tokenizer.json"
    spec = json.loads(path.read_text())
    spec["normalizer"]["lowercase"] = False
    write_json(path, spec)
    refused(model.folder, tmp_path, r"do_lower_case = true, and its tokenizer\.json does not lowercase")


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 2}, "max_seq_length = 2, expected 3 tokens or more"),
        ("config.json", {"hidden_size": 64}, "hidden size of 64, and the head takes vectors of 48"),
        ("config.json", {"num_hidden_layers": 9}, "does not hold a bert encoder as its config.json says"),
        ("config.json", {"model_type": "longformer"}, "model_type is 'longformer', built directly are"),
        ("config_sentence_transformers.json", {"activation_fn": "torch.nn.Tanh"}, "activation_fn = 'torch.nn.Tanh', expected"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    build: Build, tmp_path: Path, name: str, entries: dict[str, Any], message: str
) -> None:
    model = build("bert", "mean", single())
    write_json(model.folder / name, {**json.loads((model.folder / name).read_text()), **entries})
    refused(model.folder, tmp_path, message)


def test_a_model_that_embeds_texts_is_refused_as_before(build: Build, tmp_path: Path) -> None:
    model = build("bert", "mean", single())
    write_json(model.folder / "config_sentence_transformers.json", {"model_type": "SentenceTransformer"})
    refused(model.folder, tmp_path, "a model of sentence-transformers that embeds texts")


@pytest.mark.parametrize("place", ["", "0_Transformer"])
def test_pickles_are_converted_by_sentence_transformers(build: Build, tmp_path: Path, place: str) -> None:
    """transformers would write the encoder as a classifier with a new head."""
    model = build("bert", "mean", single(), place=place)
    (model.encoder / "model.safetensors").rename(model.encoder / "pytorch_model.bin")
    refused(model.folder, tmp_path, r"as a pickle \(.*pytorch_model\.bin\).*CrossEncoder")


def test_a_pointer_in_place_of_a_heads_weights_is_named(build: Build, tmp_path: Path) -> None:
    model = build("bert", "mean", single())
    (model.folder / "2_Dense" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused(model.folder, tmp_path, r"a Git LFS pointer in place of 2_Dense/model\.safetensors")


def test_the_manifest_of_an_exported_reranker_is_read_back(build: Build, tmp_path: Path) -> None:
    model = build("modernbert", "cls", ettin())
    written = export_checkpoint(model.folder, tmp_path / "artifact", target="fp32")
    assert read_manifest(tmp_path / "artifact").source.sha256 == written.source.sha256
