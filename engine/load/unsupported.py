"""Folders that are not checkpoints (``config.json`` and safetensors), recognized by their files, and the way to one.

Users also pass an adapter, a SetFit model, another framework's weights, or the folder above.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, FusedBertError
from ..hardware.json_file import read_json_file, read_regular
from .reranker import LIST, is_reranker, module_folders

MOST_NAMES = 5  # in a message
POINTER = b"version https://git-lfs.github.com/spec/v1"
_POINTER_SIZE = 1024  # bytes; a pointer has about 130
_READ = (".safetensors", ".json", ".txt", ".model")  # the files of a checkpoint
# Files that Trainer and accelerate save next to the weights, to resume a training.
_TRAINER = re.compile(r"(optimizer|scheduler|scaler|training_args|rng_state|random_states|sampler)(_?\d+)*\.(pt|pth|bin|pkl)")
_TEXTS, _TOKENS = "ForSequenceClassification", "ForTokenClassification"  # endings of transformers' classes
_TRAIN = f"AutoModel{_TEXTS} of transformers"


def refuse(folder: Path, name: str | None = None) -> None:
    """Refuse a folder that is recognized as something other than a checkpoint; ``name``: the user's name for it.

    Raises:
        CheckpointError: It is; the message names it and the way out.
    """
    if sentence := explain(folder, name):
        raise CheckpointError(sentence)


def explain(folder: Path, name: str | None = None) -> str | None:
    """Return the message of ``refuse``, or None if it may be a checkpoint or is not recognized."""
    names, shown = _names(folder), name or str(folder)
    if is_reranker(folder):
        below = [f"{place}/{file}" for place in module_folders(folder) for file in _names(folder / place)]
        return (
            _of_pointers(folder, [*names, *below], shown)
            or _of_adapter(folder, names, shown)
            or _of_setfit(folder, names, shown)
            or _of_pickled_modules([*names, *below], shown)
        )
    return (
        _of_pointers(folder, names, shown)
        or _of_adapter(folder, names, shown)
        or _of_setfit(folder, names, shown)
        or _of_sentence_transformers(folder, names, shown)
        or (None if weights(names) else _without_weights(folder, names, shown))
    )


def refuse_pointers(folder: Path) -> None:
    """Refuse a folder with Git LFS pointers in place of config or tokenizer.

    Raises:
        CheckpointError: Some are; the message lists them.
    """
    names = [name for name in _names(folder) if not name.endswith(".safetensors")]
    if sentence := _of_pointers(folder, names, str(folder)):
        raise CheckpointError(sentence)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def weights(names: Iterable[str]) -> list[str]:
    """Return the files with a model's weights as safetensors, without an adapter's."""
    return [name for name in names if name.endswith(".safetensors") and not name.startswith("adapter_")]


def listed(names: Sequence[str]) -> str:
    """Join the first five names for a message, and count the others."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(name if name.isprintable() else ascii(name) for name in names[:MOST_NAMES]) + more


def _of_pointers(folder: Path, names: Sequence[str], shown: str) -> str | None:
    found = [name for name in names if name.endswith(_READ) and _is_pointer(folder / name)]
    if not found:
        return None
    one = len(found) == 1
    return (
        f"{shown} holds {'a Git LFS pointer' if one else 'Git LFS pointers'} in place of {listed(found)}: "
        f"fetch the {'file itself' if one else 'files themselves'}, with git lfs pull in that folder"
    )


def _is_pointer(path: Path) -> bool:
    try:
        return read_regular(path, _POINTER_SIZE).startswith(POINTER)
    except (OSError, ValueError):  # larger, or not a file
        return False


def _of_adapter(folder: Path, names: Sequence[str], shown: str) -> str | None:
    """An adapter (LoRA, for example) changes another model's weights, and is useless without them."""
    if not any(name == "adapter_config.json" or name.startswith("adapter_model.") for name in names):
        return None
    config = _json(folder / "adapter_config.json")
    kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    if weights(names):
        return (
            f"{shown} holds an adapter (adapter_config.json) next to a model's weights, and transformers would apply it: "
            "if it is merged into them already, move the adapter_* files out of the folder"
        )
    task = _TOKENS if config.get("task_type") == "TOKEN_CLS" else _task(folder)
    merge = f"AutoPeftModel{task}.from_pretrained('{shown}').merge_and_unload().save_pretrained('MERGED')"
    return (
        f"{shown} is an adapter{f' ({kind})' if kind else ''}, not a model, and its base model is {base or 'not named'}: "
        f"merge the two with peft, {merge}, save the tokenizer there too, and give MERGED"
    )


def _of_setfit(folder: Path, names: Sequence[str], shown: str) -> str | None:
    """SetFit saves an encoder that embeds texts, and a head separately."""
    heads = [name for name in names if name in ("model_head.pkl", "config_setfit.json")]
    if not heads or _classifies(folder):
        return None
    return (
        f"{shown} is a SetFit model: an encoder of sentence-transformers, and a head that is not read, usually a pickle of "
        f"scikit-learn ({heads[-1]}): fine-tune {_TRAIN} on the same texts"
    )


def _of_sentence_transformers(folder: Path, names: Sequence[str], shown: str) -> str | None:
    """A model of sentence-transformers that is no ``CrossEncoder`` embeds texts."""
    pooling = LIST in names and any(name.endswith("_Pooling") for name in names)
    if not (pooling or "1_Pooling" in names) or _classifies(folder):
        return None
    if weights(names) and not _classes(folder):  # it may have a head: its tensors decide
        return None
    return (
        f"{shown} is a model of sentence-transformers that embeds texts ({LIST if pooling else '1_Pooling'}), "
        f"and has no classifier: fine-tune {_TRAIN} first"
    )


def _classes(folder: Path) -> list[str]:
    """Return the classes of transformers that a config names."""
    architectures = _json(folder / "config.json").get("architectures")
    return [str(name) for name in architectures] if isinstance(architectures, list) else []


def _classifies(folder: Path) -> bool:
    return any(name.endswith((_TEXTS, _TOKENS)) for name in _classes(folder))


def _task(folder: Path) -> str:
    """Return the end of the name of the class that reads a folder's weights with their head."""
    return _TOKENS if any(name.endswith(_TOKENS) for name in _classes(folder)) else _TEXTS


def _import(folder: Path) -> str:
    return f"from transformers import AutoModel{_task(folder)} as M; "


def _of_pickled_modules(names: Sequence[str], shown: str) -> str | None:
    """A reranker's weights in pickles, of which transformers would convert only the encoder."""
    files = {name.rpartition("/")[0]: name for name in names if name.endswith("pytorch_model.bin")}
    whole = {name.rpartition("/")[0] for name in weights(names)}
    found = [name for place, name in files.items() if place not in whole]
    if not found:
        return None
    code = f"from sentence_transformers import CrossEncoder as M; M('{shown}').save_pretrained('{shown}')"
    return (
        f"{shown} holds weights as a pickle ({listed(found)}), which can run code when opened: if you trust it, "
        f'convert it with python -c "{code}"'
    )


def _without_weights(folder: Path, names: Sequence[str], shown: str) -> str | None:
    """Recognize another form of weights, the folder above them, or a training's state."""
    if sentence := _of_other_framework(folder, names, shown):
        return sentence
    pickles = [name for name in names if re.search(r"\.(bin|ckpt|pt\w*)$", name) and not _TRAINER.fullmatch(name)]
    pickles.sort(key=lambda name: not name.startswith("pytorch_model"))
    if pickles:
        code = f"{_import(folder)}M.from_pretrained('{shown}').save_pretrained('{shown}', safe_serialization=True)"
        convert = (
            f'convert it with python -c "{code}"'
            if pickles[0].startswith("pytorch_model")
            else "load it into a model of transformers, and write that with save_pretrained(folder, safe_serialization=True)"
        )
        return (
            f"{shown} holds its weights as a pickle ({pickles[0]}), which can run code when opened: if you trust it, {convert}"
        )
    if newest := _newest_step(folder, names):
        return f"{shown} has no weights (*.safetensors) itself, its folder {newest} has: give {shown}/{newest}"
    left = [name for name in names if _TRAINER.fullmatch(name) or name == "trainer_state.json"]
    if left:
        return (
            f"{shown} has no weights (*.safetensors), only what a training saves next to them ({listed(left)}): "
            "give a folder that save_pretrained wrote, or save the model once more"
        )
    return None


def _of_other_framework(folder: Path, names: Sequence[str], shown: str) -> str | None:
    for pattern, framework, option in _FRAMEWORKS:
        found = next((name for name in names if re.fullmatch(pattern, name)), None)
        if found is None:
            continue
        if framework == "GGUF":
            return f"{shown} holds a GGUF file ({found}), made for llama.cpp: give the checkpoint that it was made from"
        begin = f"{shown} holds weights of {framework} ({found}), not safetensors of PyTorch: transformers below 5 "
        if not re.match(r"(tf|flax)_model", found):
            return f"{begin}reads them with {option}=True, if it knows their form, and save_pretrained writes safetensors"
        return (
            f'{begin}converts them, with {framework} installed, python -c "{_import(folder)}'
            f"M.from_pretrained('{shown}', {option}=True).save_pretrained('{shown}')\""
        )
    return None


_FRAMEWORKS = (
    (r"tf_model.*\.h5", "TensorFlow", "from_tf"),
    (r"flax_model.*\.msgpack", "Flax", "from_flax"),
    (r".*\.(h5|keras)|.*\.ckpt(-\d+)?\.(index|meta)|saved_model\.pb", "TensorFlow", "from_tf"),
    (r".*\.msgpack", "Flax", "from_flax"),
    (r".*\.gguf", "GGUF", ""),
)


def _newest_step(folder: Path, names: Sequence[str]) -> str | None:
    """Return the last ``checkpoint-N`` folder that holds weights in any form."""
    steps = [name for name in names if re.fullmatch(r"checkpoint-\d{1,12}", name)]
    steps.sort(key=lambda name: int(name.rpartition("-")[2]), reverse=True)
    patterns = ("*.safetensors", "pytorch_model*.bin", "adapter_model.*")
    return next((name for name in steps if any(any((folder / name).glob(pattern)) for pattern in patterns)), None)


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json_file(path, way_out="") or {}
    except FusedBertError:  # whoever needs the file reports it
        return {}
