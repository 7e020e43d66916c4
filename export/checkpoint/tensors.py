"""Tensors of a checkpoint: files in safetensors, and the names and shapes that a family's classifier has.

A pickle (``pytorch_model.bin``) can run code when it is opened, so it is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fusedbert.engine.artifact import read_json_file
from fusedbert.engine.errors import CheckpointError, MissingDependencyError
from fusedbert.engine.load.unsupported import MOST_NAMES, listed, refuse

from .architecture import Architecture
from .layouts import Layout

FLOATS = ("F64", "F32", "F16", "BF16")
MOST_LAYERS = 1000  # that share their weights: no tensor says how many there are
# Prefixes that DataParallel, torch.compile, and Lightning or another wrapper put before every name; they may be nested.
_WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|model)\.)+")


class Tensor(NamedTuple):
    """The header of a tensor; ``dtype`` is safetensors' name."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Find the weight file, or the shards of an index; raise ``CheckpointError`` if there are none, or some are missing."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return (single,)
    if index.is_file():
        document = read_json_file(index, error=CheckpointError, way_out="save the checkpoint again") or {}
        table = document.get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
            raise CheckpointError(f"{index} cannot be read as an index of shards: save the checkpoint again")
        names = sorted(set(table.values()))
        present = {path.name for path in folder.iterdir() if path.is_file()}
        bad = [name for name in names if name not in present]
        if bad or not names:
            raise CheckpointError(f"{index} names shards that are not in the folder: {listed(bad) or 'none at all'}")
        return tuple(folder / name for name in names)
    refuse(folder)
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others:
        raise CheckpointError(
            f"{folder} holds {listed(others)}, and transformers reads model.safetensors, or shards that "
            "model.safetensors.index.json lists: rename the file, or save the checkpoint again"
        )
    raise CheckpointError(f"{folder} has no weights (*.safetensors): point to a folder that save_pretrained wrote")


def open_tensors(path: Path) -> Any:
    """Open a safetensors file; raise ``CheckpointError`` if it is something else."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise MissingDependencyError.of("safetensors", "export", "read a checkpoint") from None
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}): download or save it again") from None


def headers(files: tuple[Path, ...]) -> dict[str, Tensor]:
    """List the tensors of safetensors files without reading their data; raise ``CheckpointError`` for other files."""
    tensors: dict[str, Tensor] = {}
    for path in files:
        with open_tensors(path) as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                part = file.get_slice(name)
                tensors[name] = Tensor(path, tuple(part.get_shape()), str(part.get_dtype()))
    return tensors


def match(
    tensors: Mapping[str, Tensor], a: Architecture, layout: Layout, folder: Path
) -> tuple[dict[str, str], int, tuple[str, ...]]:
    """Return our names to the checkpoint's, the number of labels, and the tensors that are not used.

    Raises:
        CheckpointError: Tensors are missing, misshapen, not floating point, or present under two names; five are listed.
    """
    outer = [name for pattern, _ in expected_tensors(a, layout, 0).values() for name in _spellings(pattern, layout.prefix)]
    refuse_wrapper(folder, tensors, outer, layout.prefix)
    layers = min(a.layers, MOST_LAYERS if layout.grouped else _count_layers(tensors, layout))
    names: dict[str, str] = {}
    found = f"{layers} at most are built" if layout.grouped else f"the tensors are those of {layers}"
    faults = [f"config.json has num_hidden_layers = {a.layers}, and {found}"] * (layers < a.layers)
    labels = 0
    for name, (pattern, shape) in expected_tensors(a, layout, layers).items():
        candidates = _spellings(pattern, layout.prefix)
        present = [each for each in candidates if each in tensors]
        if not present:
            faults.append(f"missing {candidates[0]} {list(shape)}".replace("-1", "labels"))
            continue
        names[name] = key = present[0]
        actual = tensors[key]
        if name == "classifier.weight" and len(actual.shape) == 2 and actual.shape[0] >= 1:
            labels = actual.shape[0]
        if -1 in shape and not labels:
            faults += [f"{key} is {list(actual.shape)}, expected [labels, {a.hidden_size}]"] * (name == "classifier.weight")
            continue
        shape = tuple(labels if size == -1 else size for size in shape)
        if len(present) > 1:
            faults.append(f"{present[0]} and {present[1]} are two names of one tensor")
        elif actual.shape != shape:
            faults.append(f"{key} is {list(actual.shape)}, expected {list(shape)}")
        elif actual.dtype not in FLOATS:
            faults.append(f"{key} is {actual.dtype}, expected one of {', '.join(FLOATS)}")
    used = set(names.values())
    unused = [name for name in tensors if name not in used and not any(re.search(each, name) for each in layout.ignored)]
    unused.sort(key=lambda name: not name.startswith(layout.prefix))
    if faults:
        kind = "encoder" if not layout.head else "token classifier" if a.by_token else "classifier"
        raise CheckpointError(mismatch(folder, a.family, list(dict.fromkeys(faults)), unused, kind))
    return names, labels, tuple(unused)


def mismatch(folder: Path, family: str, faults: Sequence[str], unused: Sequence[str], kind: str = "classifier") -> str:
    """Return the message for tensors that do not fit a ``kind`` of model; it lists five."""
    more = f"; and {len(faults) - MOST_NAMES} more" if len(faults) > MOST_NAMES else ""
    unknown = f"; unknown {listed(unused)}" if unused else ""
    shown = "; ".join(faults[:MOST_NAMES])
    trained = _TRAINED.get(kind, "")
    return (
        f"{folder} does not hold a {family} {kind} as its config.json says: "
        f"{shown}{more}{unknown}; {trained}is config.json the one saved with it?"
    )


_TRAINED = {
    "classifier": "was it fine-tuned for sequence classification, and ",
    "token classifier": "was it fine-tuned for token classification, and ",
}


def ignored(folder: Path, family: str, names: Sequence[str]) -> str:
    """Return the message for tensors that are ignored."""
    count = "a tensor" if len(names) == 1 else f"{len(names)} tensors"
    return (
        f"{folder} holds {count} that a {family} classifier of its config.json does not use, ignored here as by transformers: "
        f"{listed(names)}"
    )


def expected_tensors(a: Architecture, layout: Layout, layers: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Map our names to the checkpoint's, after ``^`` if inside the prefix, and shapes; -1 is the number of labels."""
    hidden, inner, width = a.hidden_size, a.intermediate_size, a.embedding_size
    shapes = {
        "word": (a.vocab_size, width),
        "position": (a.positions, width),
        "token_type": (a.token_types, width),
        "embedding_norm": (hidden if layout.projection_first else width,),
        "embedding_projection": (hidden, width),
        "attention_norm": (hidden,),
        "intermediate": (inner, hidden),
        "gate": (inner, hidden),
        "output": (hidden, inner),
        "output_norm": (hidden,),
        "head_norm": (hidden,),
        "classifier": (-1, hidden),
        "relative": (a.relative.rows if a.relative else 0, a.heads if layout.positions == "biased" else hidden),
        "relative_norm": (hidden,),
    }
    parts = {name: (f"^{key}", shapes[name]) for name, key in layout.embeddings.items()}
    if width == hidden and not layout.grouped:  # ALBERT has it always
        parts.pop("embedding_projection", None)
    parts |= {name: (f"^{key}", shapes[name]) for name, key in layout.relative.items()}
    square = (hidden, hidden)  # all other layers
    for whole, names in layout.joined.items():
        rows = sum(shapes.get(name, square)[0] for name in names)
        shapes[whole] = rows, hidden
    for i in range(layers):
        for name, key in (layout.layer if i + 1 < a.layers else {**layout.layer, **layout.last}).items():
            place = key.format(i=i, next=i + 1, group=a.group(i))
            parts[f"layer.{i}.{name}"] = f"^{place}", shapes.get(name, square)
    parts |= {name: (key, shapes.get(name, square)) for name, key in layout.head.items()}
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (key, shape) in parts.items():
        expected[f"{name}.weight"] = (f"{key}.weight", shape)
        if name not in ("word", "position", "token_type") and name.rpartition(".")[2] not in a.unbiased:
            expected[f"{name}.bias"] = (f"{key}.bias", shape[:1])
    return expected


def refuse_wrapper(folder: Path, names: Iterable[str], expected: Iterable[str], own: str = "") -> None:
    """Raise ``CheckpointError`` if a wrapper put a prefix before most names, also before the family's ``own``.

    The message has a command that removes it.
    """
    present, wanted = set(names), set(expected)
    prefixes = Counter(start.group().removesuffix(own) for name in present if (start := _WRAPPERS.match(name)))
    prefix, count = max(prefixes.items(), key=lambda item: item[1], default=("", 0))
    bare = {name.removeprefix(prefix) for name in present}
    if 2 * count <= len(present) or len(bare & wanted) <= len(present & wanted):
        return
    tensors = headers(weight_files(folder)).values()
    files = [str(path) for path in sorted({tensor.file for tensor in tensors})]
    types = "import ml_dtypes; " if any(tensor.dtype == "BF16" for tensor in tensors) else ""  # NumPy has no bfloat16
    maker = {"module": "DataParallel", "_orig_mod": "torch.compile", "model": "Lightning or another wrapper"}
    makers = ", ".join(dict.fromkeys(maker[part] for part in prefix.split(".") if part))
    raise CheckpointError(
        f"{folder} has {prefix!r} before its tensors' names, which {makers} put there: take it off with "
        f'python -c "{types}from safetensors.numpy import load_file, save_file; '
        f"t = {{n.removeprefix('{prefix}'): v for f in {files} for n, v in load_file(f).items()}}; "
        f"save_file(t, '{folder}/model.safetensors', metadata={{'format': 'pt'}})\""
    )


def _count_layers(names: Mapping[str, Tensor], layout: Layout) -> int:
    """Count the layers that have tensors, never more than there are tensors."""
    stem = re.escape(next(iter(layout.layer.values())).partition("{i}")[0])
    pattern = re.compile(rf"(?:{re.escape(layout.prefix)})?{stem}(\d{{1,9}})\.")
    return 1 + max((i for name in map(pattern.match, names) if name and (i := int(name[1])) < len(names)), default=-1)


def _spellings(pattern: str, prefix: str) -> list[str]:
    """List a tensor's names in checkpoints: with the prefix or without, with new or old names of a norm."""
    bare = pattern.removeprefix("^")
    names = [prefix + bare, bare] if pattern.startswith("^") else [bare]
    old = [name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta") for name in names]
    return [*names, *(name for name in old if name not in names)]
