from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fusedbert.bench.run.setup import Shared, open_lineup
from fusedbert.engine.errors import OptionError


@pytest.fixture
def reranker(checkpoint: Path, tmp_path: Path) -> Path:
    """A BERT whose head, one dense layer on [CLS], is a module of sentence-transformers."""
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(checkpoint, tmp_path / "reranker"))
    weights = load_file(folder / "model.safetensors")
    head = {f"linear.{name}": weights.pop(f"classifier.{name}")[:1] for name in ("weight", "bias")}
    width = head["linear.weight"].shape[1]
    identity = "torch.nn.modules.linear.Identity"
    save_file({name.removeprefix("bert."): tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense"}
    files = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(kinds.items())
        ],
        "config_sentence_transformers.json": {"model_type": "CrossEncoder", "activation_fn": identity},
        "1_Pooling/config.json": {"word_embedding_dimension": width, "pooling_mode_cls_token": True},
        "2_Dense/config.json": {
            "in_features": width,
            "out_features": 1,
            "bias": True,
            "activation_function": identity,
            "module_output_name": "scores",
        },
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    save_file(head, folder / "2_Dense" / "model.safetensors")
    return folder


def test_a_peer_is_not_compared_with_a_reranker_whose_head_it_would_draw_at_random(reranker: Path) -> None:
    def lineup(*against: str) -> tuple[str, ...]:
        shared = Shared(
            model=str(reranker),
            checkpoint=None,
            against=against,
            threads=1,
            device="cpu",
            precision="fp32",
            rounds=2,
            as_json=True,
            report=None,
        )
        return tuple(spec.name for spec in open_lineup(shared).peers)

    with pytest.raises(OptionError, match=r"transformers-fp32 reads what .*modules\.json.*random"):
        lineup("transformers-fp32")
    assert lineup("fusedbert-fp32") == ("fusedbert-fp32-again",)
