"""Metadata of an artifact, whichever route made its graphs: config, tokenizer, manifest, and README.md (the model card)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusedbert.engine.artifact import (
    FORMAT,
    NEWEST,
    TEXTS,
    TOKENS,
    Evaluation,
    Head,
    Manifest,
    Parity,
    Source,
    Variant,
    sha256_of,
    write_manifest,
)
from fusedbert.engine.text.outputs import ACTIVATION_KEYS

from .checkpoint import Checkpoint
from .parity.baseline import Baseline
from .parity.tokenizer import check_written

PACKAGES = ("fusedbert", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers")


def graph_metadata(checkpoint: Checkpoint, created_with: Mapping[str, str]) -> dict[str, str]:
    """Return the ``metadata_props`` of each graph."""
    return {"source": checkpoint.id, "revision": checkpoint.revision or "", "created_with": json.dumps(dict(created_with))}


def write_metadata(
    stage: Path,
    baseline: Baseline,
    variants: tuple[Variant, ...],
    created_with: Mapping[str, str],
    runtimes: Mapping[str, str],
    heads: Sequence[Head],
) -> Manifest:
    """Write the files next to the graphs, and return the manifest; ``runtimes`` has the first ONNX Runtime for each graph.

    ``heads`` have their sources.

    Raise ``ExportError`` if the engine would read a different tokenizer than the graphs were checked with.
    """
    shape, only = baseline.architecture, heads[0] if len(heads) == 1 else None
    assert heads[0].source is not None
    manifest = Manifest(
        source=heads[0].source,
        created_with=dict(created_with),
        architecture=shape.family,
        problem_type=heads[0].problem_type,
        labels=sum((head.labels for head in heads), ()),
        max_length=baseline.tokens.max_length,
        variants=variants,
        golden=baseline.golden,
        function_to_apply=None if only is None else only.function_to_apply,
        thresholds=None if only is None else only.thresholds,
        task=TOKENS if shape.by_token else TEXTS,
        heads=() if only else tuple(heads),
        format=NEWEST if shape.by_token or not only else FORMAT,
        longest=shape.max_tokens if 0 < shape.usual_tokens < shape.max_tokens else None,
        requires={v.file: {"opset": v.opset, "onnxruntime": runtimes[v.file]} for v in variants},
    )
    baseline.parts.write_config(stage / "config.json")
    if manifest.heads:
        name_all_labels(stage / "config.json", manifest)
    baseline.tokens.save(stage)
    check_written(stage, baseline.tokens)
    return rewrite(stage, manifest)


def source_of(checkpoint: Checkpoint, files: Sequence[Path]) -> Source:
    """Return where weights come from, with their hashes."""
    hashes = {path.relative_to(checkpoint.folder).as_posix(): sha256_of(path) for path in files}
    return Source(id=checkpoint.id, revision=checkpoint.revision, sha256=hashes)


def name_all_labels(path: Path, manifest: Manifest) -> None:
    """Name the labels of all heads in a config.json, which are the graph's outputs; leave out what is the first head's."""
    config = json.loads(path.read_text(encoding="utf-8"))
    names = [f"{head.name}/{label}" for head in manifest.heads for label in head.labels]
    kept = {key: value for key, value in config.items() if key not in ("num_labels", "problem_type", *ACTIVATION_KEYS)}
    kept |= {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {name: i for i, name in enumerate(names)}}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def rewrite(stage: Path, manifest: Manifest) -> Manifest:
    """Write the model card and the manifest, in place of earlier ones; return the manifest with the files' hashes."""
    (stage / "README.md").write_text(model_card(stage, manifest), encoding="utf-8")
    return write_manifest(stage, manifest)


def model_card(folder: Path, manifest: Manifest) -> str:
    """Return the model card in Markdown, with the YAML header that the hub reads."""
    measured = measurements(manifest)
    head = " | ".join(_figures(measured[0][2]) if measured else ())
    rows = [
        f"| `{v.file}` | {target} | {v.precision} | {_megabytes(folder / v.file)} | {v.fused_attention} "
        f"| {manifest.requires[v.file]['onnxruntime']} | {' | '.join(_figures(parity).values())} |"
        for v, target, parity in measured
    ]
    labels = "\n".join(map(_labels, manifest.outputs))
    packages = ", ".join(f"{name} {version}" for name, version in manifest.created_with.items())
    one = "MultiHeadClassifier" if manifest.heads else "Classifier"
    kind, variable = ("TokenClassifier", "tagger") if manifest.by_token else (one, "clf")
    what = "token classifier" if manifest.by_token else "classifier"
    others = "".join(f" and `{head.source.id}`" for head in manifest.heads[1:] if head.source)
    revision = f" at {manifest.source.revision}" if manifest.source.revision else ""
    return f"""---
library_name: onnx
pipeline_tag: {manifest.task}
---

# {manifest.source.id}, as ONNX

Exported by fusedbert from `{manifest.source.id}`{revision}{others}: a {manifest.architecture} {what}
({manifest.problem_type}), texts of up to {manifest.max_length} tokens. The checkpoint's own card and licence apply.

{labels}

| graph | for | precision | MB | fused attention | ONNX Runtime from | {head} |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

The changes are against a {manifest.variants[0].parity.reference} forward pass, over {_checked(manifest)}.
`fusedbert.json` holds the sha256 of every file. Made with {packages}.
{_evaluations(manifest)}
```python
from fusedbert.engine import {kind}

{variable} = {kind}.from_pretrained("path/to/this/folder")
{variable}("a text")
```
{_with_optimum(manifest)}"""


def _checked(manifest: Manifest) -> str:
    count, most = manifest.variants[0].parity.texts, manifest.max_length
    return f"{count} tokens\nof texts of up to {most}" if manifest.by_token else f"{count} texts\nof one token to {most}"


def counted(manifest: Manifest, evaluation: Evaluation) -> str:
    """Say what a measurement on the user's texts counts: texts, or their tokens."""
    return f"{evaluation.parity.texts} {'tokens' if manifest.by_token else 'texts'}"


def _labels(head: Head) -> str:
    labels = ", ".join(f"{i} {label}" for i, label in enumerate(head.labels))
    stored = zip(head.labels, head.thresholds or (), strict=False)
    thresholds = ", ".join(f"{label} {threshold}" for label, threshold in stored)
    thresholds = f" Thresholds on their probabilities: {thresholds}." if thresholds else ""
    name = f"Head {head.name} ({head.problem_type}), labels" if head.name else "Labels"
    return f"{name}: {labels}.{thresholds}\n"[: None if head.name else -1]


def measurements(manifest: Manifest) -> list[tuple[Variant, str, Parity]]:
    """List each graph with the processor that it was measured for, and the figures; int8 is measured for two kinds."""
    return [
        (variant, target, parity)
        for variant in manifest.variants
        for target, parity in ((variant.target, variant.parity), (f"{variant.target} (AVX2)", variant.parity_avx2))
        if parity is not None
    ]


def evaluated(manifest: Manifest) -> list[tuple[str, Evaluation]]:
    """List the graphs that were measured on the user's texts, with their figures."""
    return [(variant.file, variant.evaluation) for variant in manifest.variants if variant.evaluation is not None]


def _evaluations(manifest: Manifest) -> str:
    found = evaluated(manifest)
    if not found:
        return ""
    rows = [
        f"| `{file}` | {' | '.join(_figures(each.parity).values())} | {each.parity.mean_abs_probability:.4f} "
        f"| {'' if each.accuracy is None else f'{each.accuracy:.2%}'} |"
        for file, each in found
    ]
    first = found[0][1]
    head = " | ".join(_figures(first.parity))
    return f"""
On {counted(manifest, first)} of `{first.texts}`, against the fp32 graph:

| graph | {head} | mean probability change | accuracy |
|---|{"---|" * (len(_figures(first.parity)) + 2)}
{chr(10).join(rows)}
"""


def _with_optimum(manifest: Manifest) -> str:
    graph = manifest.variant(target="cpu", precision="fp32")
    if graph is None or manifest.heads:  # a model of optimum has one head
        return ""
    own = sorted({op.split(":")[0] for op in graph.nodes if ":" in op})
    kind = f"has ONNX Runtime's own operators ({', '.join(own)})" if own else f"is standard ONNX (opset {graph.opset})"
    runtime = manifest.requires[graph.file]["onnxruntime"]
    loader = "ORTModelForTokenClassification" if manifest.by_token else "ORTModelForSequenceClassification"
    return f"""
The fp32 graph for the CPU {kind} and loads with optimum too, from ONNX Runtime {runtime} on:

```python
from optimum.onnxruntime import {loader}

model = {loader}.from_pretrained("path/to/this/folder", subfolder="onnx", file_name="model.onnx")
```
"""


def _figures(parity: Parity) -> dict[str, str]:
    moved = {"max logit change": f"{parity.max_abs_logit:.1e}"}
    if parity.rank_correlation is None or parity.max_of_spread is None:
        kept = f"{100 * parity.label_agreement:.1f} %"
        return moved | {"max probability change": f"{parity.max_abs_probability:.1e}", "labels kept": kept}
    share = {"max change of the spread": f"{100 * parity.max_of_spread:.2g} %"}
    return moved | share | {"rank correlation": f"{parity.rank_correlation:.4f}"}


def _megabytes(path: Path) -> str:
    return f"{sum(file.stat().st_size for file in path.parent.glob(path.name + '*')) / 1e6:.1f}"
