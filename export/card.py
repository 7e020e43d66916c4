"""The artifact's README.md: what it holds, how it was checked, how to load it."""

from __future__ import annotations

from pathlib import Path

from fusedbert.engine.artifact import Manifest


def write_card(folder: Path, manifest: Manifest) -> None:
    """Write the model card of an artifact whose graphs lie in ``folder``."""
    (folder / "README.md").write_text(card(folder, manifest), encoding="utf-8")


def card(folder: Path, manifest: Manifest) -> str:
    """Return the model card in Markdown, with the YAML header that the hub reads."""
    rows = [
        f"| `{v.file}` | {v.target} | {v.precision} | {_megabytes(folder, v.file)} | {v.fused_attention} "
        f"| {v.parity.max_abs_logit:.1e} | {v.parity.max_abs_probability:.1e} | {100 * v.parity.label_agreement:.1f} % |"
        for v in manifest.variants
    ]
    labels = ", ".join(f"{i} {label}" for i, label in enumerate(manifest.labels))
    made = ", ".join(f"{name} {version}" for name, version in manifest.created_with.items())
    revision = f" at {manifest.source.revision}" if manifest.source.revision else ""
    return f"""---
library_name: onnx
pipeline_tag: text-classification
---

# {manifest.source.id}, as ONNX

Exported by fusedbert from `{manifest.source.id}`{revision}: a {manifest.architecture} classifier
({manifest.problem_type}), texts of up to {manifest.max_length} tokens. The checkpoint's own card and licence apply.

Labels: {labels}.

| graph | for | precision | MB | fused attention | max logit change | max probability change | labels kept |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

The changes are against a {manifest.variants[0].parity.reference} forward pass, over {manifest.variants[0].parity.texts} texts
of one token to {manifest.max_length}. `fusedbert.json` holds the sha256 of every file. Made with {made}.

```python
from fusedbert.engine import Classifier

clf = Classifier.from_pretrained("path/to/this/folder")
clf("a text")
```
{_with_optimum(manifest)}"""


def _with_optimum(manifest: Manifest) -> str:
    """Say how to load the fp32 graph without fusedbert, where there is one, and what it takes to run it."""
    graph = manifest.variant(target="cpu", precision="fp32")
    if graph is None:
        return ""
    own = sorted({op.split(":")[0] for op in graph.nodes if ":" in op})
    kind = f"has ONNX Runtime's own operators ({', '.join(own)})" if own else "is standard ONNX"
    return f"""
The fp32 graph for the CPU {kind} and loads with optimum too:

```python
from optimum.onnxruntime import ORTModelForSequenceClassification

model = ORTModelForSequenceClassification.from_pretrained("path/to/this/folder", subfolder="onnx", file_name="model.onnx")
```
"""


def _megabytes(folder: Path, name: str) -> str:
    path = folder / name
    return f"{sum(file.stat().st_size for file in path.parent.glob(path.name + '*')) / 1e6:.1f}"
