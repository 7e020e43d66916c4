"""The artifact's README.md: what it holds, how it was checked, how to load it."""

from __future__ import annotations

from pathlib import Path

from fusedbert.engine.artifact import Manifest, Parity


def write_card(folder: Path, manifest: Manifest) -> None:
    """Write the model card of an artifact whose graphs lie in ``folder``."""
    (folder / "README.md").write_text(card(folder, manifest), encoding="utf-8")


def card(folder: Path, manifest: Manifest) -> str:
    """Return the model card in Markdown, with the YAML header that the hub reads."""
    judged = [_figures(v.parity) for v in manifest.variants]
    head = " | ".join(judged[0] if judged else ())
    rows = [
        f"| `{v.file}` | {v.target} | {v.precision} | {_megabytes(folder, v.file)} | {v.fused_attention} "
        f"| {_runtime(manifest, v.file)} | {' | '.join(found.values())} |"
        for v, found in zip(manifest.variants, judged, strict=True)
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

| graph | for | precision | MB | fused attention | ONNX Runtime from | {head} |
|---|---|---|---|---|---|---|---|---|
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
    kind = f"has ONNX Runtime's own operators ({', '.join(own)})" if own else f"is standard ONNX (opset {graph.opset})"
    return f"""
The fp32 graph for the CPU {kind} and loads with optimum too, from ONNX Runtime {_runtime(manifest, graph.file)} on:

```python
from optimum.onnxruntime import ORTModelForSequenceClassification

model = ORTModelForSequenceClassification.from_pretrained("path/to/this/folder", subfolder="onnx", file_name="model.onnx")
```
"""


def _figures(parity: Parity) -> dict[str, str]:
    """Return three figures of a graph by the heads of their columns; without labels, it is the order that is kept or not."""
    moved = {"max logit change": f"{parity.max_abs_logit:.1e}"}
    if parity.rank_correlation is None or parity.max_of_spread is None:
        kept = f"{100 * parity.label_agreement:.1f} %"
        return moved | {"max probability change": f"{parity.max_abs_probability:.1e}", "labels kept": kept}
    share = {"max change of the spread": f"{100 * parity.max_of_spread:.2g} %"}
    return moved | share | {"rank correlation": f"{parity.rank_correlation:.4f}"}


def _runtime(manifest: Manifest, name: str) -> str:
    """Return the first ONNX Runtime that runs a graph."""
    return str(manifest.requires[name]["onnxruntime"])


def _megabytes(folder: Path, name: str) -> str:
    path = folder / name
    return f"{sum(file.stat().st_size for file in path.parent.glob(path.name + '*')) / 1e6:.1f}"
