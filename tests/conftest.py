"""Fixtures for every test: the repository, the command line in a fresh process, the embedded checkpoint as an artifact."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from commands import FUSEDBERT


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def checkpoint(repository) -> Path:
    """The embedded checkpoint."""
    return repository / "models" / "sst2-mini"


@pytest.fixture(scope="session")
def fusedbert(tmp_path_factory):
    """Run the command line in a fresh process, away from the user's cache; returns the CompletedProcess, with text."""
    cache = tmp_path_factory.mktemp("cache")

    def run(*args: object, check: bool = False, env: Mapping[str, str] = {}, **keywords: Any):
        environment = {**os.environ, "FUSEDBERT_CACHE": str(cache), **env}
        command = [*FUSEDBERT, *map(str, args)]
        if "input" not in keywords:
            keywords.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False, **keywords)
        if check and done.returncode:
            pytest.fail(f"fusedbert {' '.join(map(str, args))} left with {done.returncode}: {done.stderr}")
        return done

    return run


@pytest.fixture(scope="session")
def embedded(fusedbert, checkpoint, tmp_path_factory) -> Path:
    """The embedded checkpoint, exported once for all tests; not to be written to."""
    folder = tmp_path_factory.mktemp("artifacts") / "sst2-mini"
    fusedbert("export", checkpoint, folder, check=True)
    return folder


@pytest.fixture(scope="session")
def artifact(embedded) -> Path:
    """The same; tests of the engine put a tiny artifact in its place."""
    return embedded


CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium without a window, driven by playwright; skipped with the reason where one is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-browser installs it")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"no Chromium here ({', '.join(names)}): on Debian, apt-get install chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "movie", "was", "the", "not", "very", "##s", ".", "!"]


def write_checkpoint(
    folder: Path, *, family: str = "bert", heads: int = 2, hidden: int = 32, layers: int = 2, positions: int = 40
) -> Path:
    """Write a random BERT or RoBERTa with a WordPiece tokenizer, without torch; padding has the id 0 in both."""
    import numpy as np
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True)
    config = {
        "model_type": family,
        "pad_token_id": 0,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "vocab_size": len(WORDS),
        "max_position_embeddings": positions,
        "type_vocab_size": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> "np.ndarray":
        return rng.normal(scale=0.4, size=shape).astype(np.float32)

    sizes = {"word": len(WORDS), "position": positions, "token_type": 2}
    tensors = {f"{family}.embeddings.{name}_embeddings.weight": draw(rows, hidden) for name, rows in sizes.items()}
    head = ("bert.pooler.dense", "classifier") if family == "bert" else ("classifier.dense", "classifier.out_proj")
    dense = {head[0]: (hidden, hidden), head[1]: (2, hidden)}
    norms = [f"{family}.embeddings.LayerNorm"]
    for i in range(layers):
        at = f"{family}.encoder.layer.{i}."
        dense |= {f"{at}attention.{n}": (hidden, hidden) for n in ("self.query", "self.key", "self.value", "output.dense")}
        dense |= {f"{at}intermediate.dense": (2 * hidden, hidden), f"{at}output.dense": (hidden, 2 * hidden)}
        norms += [f"{at}attention.output.LayerNorm", f"{at}output.LayerNorm"]
    for name, shape in dense.items():
        tensors |= {f"{name}.weight": draw(*shape), f"{name}.bias": draw(shape[0])}
    for name in norms:
        tensors |= {f"{name}.weight": 1 + draw(hidden) / 4, f"{name}.bias": draw(hidden)}
    save_file(tensors, folder / "model.safetensors")
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(WORDS[:5])
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]", "tokenizer_class": "BertTokenizer"}))
    return folder


@pytest.fixture(scope="session")
def checkpoint_at():
    """Return a function that writes a tiny random checkpoint: ``write_checkpoint``."""
    return write_checkpoint
