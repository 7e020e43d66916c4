"""Which tensor of a checkpoint is which of ours: found by name and shape, and all that does not fit told at once.

A tensor that the model does not use is ignored, as transformers ignores it: a loss's weights, another head, a layer beyond
those that the config counts. Which they are is told, so that one that should have been used does not go unseen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fusedbert.engine.errors import CheckpointError
from fusedbert.engine.load.kinds import MOST_NAMES, listed

from .architecture import Architecture
from .layouts import Layout

FLOATS = ("F64", "F32", "F16", "BF16")
# What training by DataParallel, torch.compile, and Lightning or another wrapper puts before every name, also one by another.
_WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|model)\.)+")


class Found(NamedTuple):
    """Where a tensor of a checkpoint lies, its shape, and its type as safetensors calls it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


class Matched(NamedTuple):
    """What came of the names: our name to theirs, the classifier's labels, and the tensors that nothing uses."""

    names: dict[str, str]
    labels: int
    ignored: tuple[str, ...]


def match(found: Mapping[str, Found], a: Architecture, layout: Layout, folder: Path) -> Matched:
    """Find the checkpoint's name of each tensor of ours.

    Raises:
        CheckpointError: Tensors are missing, misshapen, no floating point, or there under two names; five are listed.
    """
    _refuse_wrapper(found, a, layout, folder)
    layers = min(a.layers, _count_layers(found, layout))
    names: dict[str, str] = {}
    faults = [f"config.json has num_hidden_layers = {a.layers}, and the tensors are those of {layers}"] * (layers < a.layers)
    labels = 0
    for ours, (pattern, shape) in expected_tensors(a, layout, layers).items():
        candidates = _spellings(pattern, layout.prefix)
        present = [name for name in candidates if name in found]
        if not present:
            faults.append(f"missing {candidates[0]} {list(shape)}".replace("-1", "labels"))
            continue
        names[ours] = theirs = present[0]
        actual = found[theirs]
        if ours == "classifier.weight" and len(actual.shape) == 2 and actual.shape[0] >= 1:
            labels = actual.shape[0]
        if -1 in shape and not labels:
            faults += [f"{theirs} is {list(actual.shape)}, expected [labels, {a.hidden_size}]"] * (ours == "classifier.weight")
            continue
        shape = tuple(labels if size == -1 else size for size in shape)
        if len(present) > 1:
            faults.append(f"{present[0]} and {present[1]} are two names of one tensor")
        elif actual.shape != shape:
            faults.append(f"{theirs} is {list(actual.shape)}, expected {list(shape)}")
        elif actual.dtype not in FLOATS:
            faults.append(f"{theirs} is {actual.dtype}, expected one of {', '.join(FLOATS)}")
    unused = sorted(_unused(found, names.values(), layout), key=lambda name: not name.startswith(layout.prefix))
    if faults:
        raise CheckpointError(mismatch(folder, a.family, faults, unused))
    return Matched(names, labels, tuple(unused))


def mismatch(folder: Path, family: str, faults: Sequence[str], unused: Sequence[str]) -> str:
    """Say what does not fit, of faults and of names that are not used five each at most."""
    more = f"; and {len(faults) - MOST_NAMES} more" if len(faults) > MOST_NAMES else ""
    unknown = f"; unknown {listed(unused)}" if unused else ""
    told = "; ".join(faults[:MOST_NAMES])
    return (
        f"{folder} does not hold a {family} classifier as its config.json says: {told}{more}{unknown}; "
        "was it fine-tuned for sequence classification, and is config.json the one saved with it?"
    )


def ignored(folder: Path, family: str, names: Sequence[str]) -> str:
    """Say which tensors are ignored."""
    count = "a tensor" if len(names) == 1 else f"{len(names)} tensors"
    return (
        f"{folder} holds {count} that a {family} classifier of its config.json does not use, ignored here as by transformers: "
        f"{listed(names)}"
    )


def expected_tensors(a: Architecture, layout: Layout, layers: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """List our names with the checkpoint's name, ``^`` before it where it lies inside the prefix, and the shape.

    The classifier's rows are its labels: ``-1`` stands for their number, which the tensor itself tells.
    """
    hidden, inner, width = a.hidden_size, a.intermediate_size, a.embedding_size
    table = {
        "word": (a.vocab_size, width),
        "position": (a.positions, width),
        "token_type": (a.token_types, width),
        "embedding_norm": (width,),
        "embedding_projection": (hidden, width),
        "query": (hidden, hidden),
        "key": (hidden, hidden),
        "value": (hidden, hidden),
        "attention_output": (hidden, hidden),
        "attention_norm": (hidden,),
        "intermediate": (inner, hidden),
        "output": (hidden, inner),
        "output_norm": (hidden,),
        "head_dense": (hidden, hidden),
        "classifier": (-1, hidden),
    }
    parts = {name: (f"^{theirs}", table[name]) for name, theirs in layout.embeddings.items()}
    if width == hidden:
        parts.pop("embedding_projection", None)
    for i in range(layers):
        parts |= {f"layer.{i}.{name}": (f"^{theirs.format(i=i)}", table[name]) for name, theirs in layout.layer.items()}
    parts |= {name: (theirs, table[name]) for name, theirs in layout.head.items()}
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (theirs, shape) in parts.items():
        expected[f"{name}.weight"] = (f"{theirs}.weight", shape)
        if name not in ("word", "position", "token_type"):
            expected[f"{name}.bias"] = (f"{theirs}.bias", shape[:1])
    return expected


def wrapper(found: Iterable[str], expected: Iterable[str]) -> str | None:
    """Return what a wrapper put before the names: most begin with it, and without it they are those that are expected."""
    names, wanted = set(found), set(expected)
    prefixes = Counter(start.group() for name in names if (start := _WRAPPERS.match(name)))
    for prefix, count in prefixes.most_common(1):
        bare = {name.removeprefix(prefix) for name in names}
        if 2 * count > len(names) and len(bare & wanted) > len(names & wanted):
            return prefix
    return None


def wrapped(folder: Path, prefix: str, found: Mapping[str, Found]) -> str:
    """Say which prefix the names have, and the command that writes them without it."""
    files = [str(path) for path in sorted({tensor.file for tensor in found.values()})]
    types = "import ml_dtypes; " if any(tensor.dtype == "BF16" for tensor in found.values()) else ""  # NumPy has no bfloat16
    maker = {"module": "DataParallel", "_orig_mod": "torch.compile", "model": "Lightning or another wrapper"}
    makers = ", ".join(dict.fromkeys(maker[part] for part in prefix.split(".") if part))
    return (
        f"{folder} has {prefix!r} before its tensors' names, which {makers} put there: take it off with "
        f'python -c "{types}from safetensors.numpy import load_file, save_file; '
        f"t = {{n.removeprefix('{prefix}'): v for f in {files} for n, v in load_file(f).items()}}; "
        f"save_file(t, '{folder}/model.safetensors', metadata={{'format': 'pt'}})\""
    )


def _refuse_wrapper(found: Mapping[str, Found], a: Architecture, layout: Layout, folder: Path) -> None:
    patterns = [pattern for pattern, _ in expected_tensors(a, layout, 0).values()]
    expected = [name for pattern in patterns for name in _spellings(pattern, layout.prefix)]
    if prefix := wrapper(found, expected):
        raise CheckpointError(wrapped(folder, prefix, found))


def _count_layers(found: Mapping[str, Found], layout: Layout) -> int:
    """Count the layers that there are tensors of: never more layers than tensors, whatever a config or a name says."""
    stem = re.escape(layout.layer["query"].partition("{i}")[0])
    pattern = re.compile(rf"(?:{re.escape(layout.prefix)})?{stem}(\d{{1,9}})\.")
    last = max((i for name in map(pattern.match, found) if name and (i := int(name[1])) < len(found)), default=-1)
    return last + 1


def _unused(found: Iterable[str], used: Iterable[str], layout: Layout) -> Iterator[str]:
    """Yield the tensors that nothing uses, but for buffers and heads of pre-training, which are no surprise."""
    known = set(used)
    return (name for name in found if name not in known and not any(re.search(pattern, name) for pattern in layout.ignored))


def _spellings(pattern: str, prefix: str) -> list[str]:
    """List the names under which checkpoints keep a tensor: with the prefix or without, new or old norm names."""
    bare = pattern.removeprefix("^")
    names = [prefix + bare, bare] if pattern.startswith("^") else [bare]
    old = [name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta") for name in names]
    return [*names, *(name for name in old if name not in names)]
