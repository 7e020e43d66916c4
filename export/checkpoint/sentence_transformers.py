"""Folders of sentence-transformers: an encoder, a pooling and a head, listed in ``modules.json``.

A ``CrossEncoder`` (Reimers and Gurevych 2019; version 5.4 and later) runs the listed modules one after the other: the encoder,
one vector for a text or a pair, dense layers and layer normalizations, of which the last gives the logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fusedbert.engine.artifact import inside
from fusedbert.engine.errors import ArtifactError, CheckpointError, shown
from fusedbert.engine.load.reranker import LIST, SETTINGS, read_list

from .architecture import read_json
from .tensors import FLOATS, headers

Config = Mapping[str, Any]
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# PyTorch's modules, built without arguments, under the names of transformers' ``ACT2FN``.
_ACTIVATIONS = {"Identity": "identity", "GELU": "gelu", "Tanh": "tanh", "ReLU": "relu", "SiLU": "silu"}
_LAST = {"Identity": "identity", "Sigmoid": "sigmoid"}
_TORCH = ("torch.nn", "torch.nn.modules.activation", "torch.nn.modules.linear")
_VECTOR, _SCORES = "sentence_embedding", "scores"  # the results of the modules before the last one, and of the last one
_READ = "read here are Transformer, Pooling, Dense, LayerNorm and Dropout"
_AGAIN = "save the model again"
# The settings of a Transformer: its own file, or that of a version before 2021.
_TRANSFORMER = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
_OUTPUTS = {"feature-extraction": ("last_hidden_state", "token_embeddings"), "sequence-classification": ("logits", _SCORES)}
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dense:
    """A dense layer of the head, ``activation(x W' + b)``, with W ``[outputs, inputs]`` as PyTorch has it."""

    name: str  # of its folder
    file: Path  # safetensors
    inputs: int
    outputs: int
    weight: str  # the tensor's name
    bias: str | None  # the tensor's name, or None without bias
    activation: str  # identity, gelu (by erf), tanh, relu or silu


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """A layer normalization of the head."""

    name: str  # of its folder
    file: Path  # safetensors
    size: int
    weight: str  # the tensor's name
    bias: str  # the tensor's name
    eps: float = 1e-5  # PyTorch's, which no file changes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Modules:
    """A reranker or classifier of sentence-transformers.

    Attributes:
        transformer: Folder of the encoder's config.json, weights and tokenizer.
        max_length: Longest text in tokens, over the tokenizer's; None for the tokenizer's.
        lower_case: Whether texts are lowercased before the tokenizer's normalizer, if that does not.
        pooling: ``cls`` or ``mean`` over the tokens; None if the encoder has its own classifier, and ``head`` is empty.
        width: Size of the pooled vector; 0 without pooling.
        head: The steps from the pooled vector to the logits, of which the last is dense.
        activation: Function of a logit that ``CrossEncoder.predict`` returns: ``identity`` or ``sigmoid``.
    """

    transformer: Path
    max_length: int | None
    lower_case: bool
    pooling: str | None
    width: int
    head: tuple[Dense | LayerNorm, ...]
    activation: str


def read_modules(folder: Path) -> Modules | None:
    """Read the modules of a folder of sentence-transformers; None if it has no modules.json.

    Raises:
        CheckpointError: A file is damaged, or a module, an option or an activation is not one of those that are read here.
    """
    modules = _listed(folder)
    if modules is None:
        return None
    settings = _settings(folder)
    kinds = [kind for kind, _ in modules]
    if kinds[:1] != ["Transformer"] or "Transformer" in kinds[1:]:
        raise CheckpointError(f"{folder / LIST} lists {' -> '.join(kinds)}, expected one Transformer, at the start: {_AGAIN}")
    place, task, max_length, lower_case = _transformer(folder, modules[0][1])
    config = _config(folder, modules[0][1], CONFIG)
    pooling, width, head, labels = (
        _pooled(folder, modules) if task == "feature-extraction" else _classified(folder, kinds, config)
    )
    return Modules(
        transformer=place,
        max_length=max_length,
        lower_case=lower_case,
        pooling=pooling,
        width=width,
        head=head,
        activation=_last_activation(folder / SETTINGS, settings, place / CONFIG, config, labels),
    )


def _pooled(folder: Path, modules: list[tuple[str, str]]) -> tuple[str, int, tuple[Dense | LayerNorm, ...], int]:
    """Return pooling, its size, the head and the number of labels of a model with a head."""
    kinds = [kind for kind, _ in modules]
    if kinds[1:2] != ["Pooling"] or "Pooling" in kinds[2:]:
        raise CheckpointError(f"{folder / LIST} lists {' -> '.join(kinds)}, expected one Pooling, in second place: {_AGAIN}")
    pooling, width = _pooling(folder, modules[1][1])
    *steps, last = _head(folder, modules[2:], width)
    return pooling, width, (*steps, last), last.outputs if isinstance(last, Dense) else 0


def _classified(folder: Path, kinds: list[str], config: Config) -> tuple[None, int, tuple[()], int]:
    """Return the same of a model whose encoder has the classifier."""
    if len(kinds) > 1:
        raise CheckpointError(f"{folder / LIST} has {kinds[1]} after a classifier, which is not read here: leave it out")
    names = config.get("id2label")
    count = len(names) if isinstance(names, Mapping) else config.get("num_labels", 2)
    return None, 0, (), count if isinstance(count, int) else 2


def _listed(folder: Path) -> list[tuple[str, str]] | None:
    """Return the class and the path of each module."""
    path = folder / LIST
    try:
        entries = read_list(folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} cannot be read as a list of modules ({reason}): {_AGAIN}") from None
    if not entries:
        raise CheckpointError(f"{path} lists no modules: {_AGAIN}")
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "path", "type")):
            raise CheckpointError(f"{path} has the module {shown(entry)}, expected name, path and type: {_AGAIN}")
        if entry["path"]:
            _inside(folder, entry["path"])
    if len({entry["name"] for entry in entries}) < len(entries):
        raise CheckpointError(f"{path} gives one name to two modules: {_AGAIN}")
    return [(_class(path, entry["type"]), entry["path"]) for entry in entries]


def _class(path: Path, kind: str) -> str:
    """Return the class of a module that is read here, without its path, which moved from version to version."""
    package, _, name = kind.rpartition(".")
    if package.split(".")[0] != "sentence_transformers":
        raise CheckpointError(
            f"{path} has a module of the class {shown(kind)}, the checkpoint's own code, which is not run ({_READ}): train a "
            "model of those"
        )
    if name not in ("Transformer", "Pooling", "Dense", "LayerNorm", "Dropout"):
        raise CheckpointError(f"{path} has a module of the class {shown(kind)}, {_READ}: train a model of those")
    return name


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file or a folder inside ``folder``."""
    try:
        return inside(folder, name, named_by=LIST)
    except ArtifactError as error:
        raise CheckpointError(str(error).replace("do not use this artifact", "do not use this checkpoint")) from None


def _config(folder: Path, place: str, name: str) -> Config:
    """Return the settings of a module; none if the file is missing."""
    return read_json(_inside(folder, f"{place}/{name}" if place else name)) or {}


def _settings(folder: Path) -> Config:
    """Return the settings of the whole model, if they are a classifier's that reads texts as they are."""
    path = folder / SETTINGS
    settings = read_json(path) or {}
    if (kind := settings.get("model_type", "SentenceTransformer")) != "CrossEncoder":
        raise CheckpointError(
            f"{folder} is a {shown(kind)} of sentence-transformers (model_type in {SETTINGS}), which embeds texts and is not a "
            "classifier, expected a CrossEncoder: fine-tune one"
        )
    prompts, name = settings.get("prompts"), settings.get("default_prompt_name")
    if name is not None and not (isinstance(prompts, Mapping) and isinstance(name, str) and prompts.get(name) == ""):
        raise CheckpointError(
            f"{path} has default_prompt_name = {shown(name)}, a text that is put before each text and is not read here: put it "
            "there yourself, and set default_prompt_name to null"
        )
    return settings


def _transformer(folder: Path, place: str) -> tuple[Path, str, int | None, bool]:
    """Return the encoder's folder, its task, its longest text in tokens if it names one, and whether texts are lowercased."""
    found = ((name, _config(folder, place, f"sentence_{name}_config.json")) for name in _TRANSFORMER)
    name, config = next(((name, each) for name, each in found if each), ("bert", {}))
    path = folder / place / f"sentence_{name}_config.json"
    task = config.get("transformer_task", "feature-extraction")
    if not isinstance(task, str) or task not in _OUTPUTS:
        raise _refused(path, "transformer_task", task, "feature-extraction or sequence-classification")
    result, output = _OUTPUTS[task]
    texts = {"text": {"method": "forward", "method_output_name": result}}
    allowed = {"modality_config": texts, "module_output_name": output}
    for key, value in config.items():
        if key in ("transformer_task", "unpad_inputs", "max_seq_length", "do_lower_case"):
            continue
        if value is not None and value != {} and value != allowed.get(key):
            expected = allowed.get(key, "nothing")
            raise _refused(path, key, value, shown(expected) if key in allowed else "no such entry")
    length, lower = config.get("max_seq_length"), config.get("do_lower_case", False)
    if length is not None and (type(length) is not int or length < 1):
        raise _refused(path, "max_seq_length", length, "a number of tokens or null")
    if not isinstance(lower, bool):
        raise _refused(path, "do_lower_case", lower, "true or false")
    return (folder / place if place else folder), task, length, lower


def _pooling(folder: Path, place: str) -> tuple[str, int]:
    """Return the pooling of tokens to one vector, and the size of that."""
    path, config = folder / place / CONFIG, _config(folder, place, CONFIG)
    legacy = [mode for key, mode in _POOLINGS.items() if config.get(key)] or ["mean"]
    modes = config.get("pooling_mode", legacy if config.keys() & _POOLINGS.keys() else "mean")
    mode = modes[0] if isinstance(modes, list) and len(modes) == 1 else modes
    if mode not in ("cls", "mean"):
        raise _refused(path, "pooling_mode", mode, "cls or mean")
    known = {*_POOLINGS, "pooling_mode", "include_prompt", "embedding_dimension", "word_embedding_dimension"}
    if other := sorted(config.keys() - known):
        raise _refused(path, other[0], config[other[0]], "no such entry")
    size = "embedding_dimension" if "embedding_dimension" in config else "word_embedding_dimension"
    return str(mode), _size(path, config, size)


def _head(folder: Path, modules: list[tuple[str, str]], width: int) -> Iterator[Dense | LayerNorm]:
    """Yield the steps from a vector of ``width`` to the logits; each must take what the one before gives."""
    steps = [(kind, place) for kind, place in modules if kind != "Dropout"]  # which does nothing outside of training
    if not steps or steps[-1][0] != "Dense":
        raise CheckpointError(
            f"{folder / LIST} has no Dense at the end, which gives a CrossEncoder's logits, so the model only embeds texts: "
            "fine-tune one with a Dense"
        )
    for i, (kind, place) in enumerate(steps):
        step = _dense(folder, place, last=i + 1 == len(steps)) if kind == "Dense" else _layer_norm(folder, place)
        taken = step.inputs if isinstance(step, Dense) else step.size
        if taken != width:
            raise CheckpointError(f"{folder / place} takes vectors of {taken}, and the module before gives {width}: {_AGAIN}")
        width = step.outputs if isinstance(step, Dense) else width
        yield step


def _dense(folder: Path, place: str, *, last: bool) -> Dense:
    path, config = folder / place / CONFIG, _config(folder, place, CONFIG)
    bias, named = config.get("bias", True), config.get("activation_function", "torch.nn.Tanh")
    if not isinstance(bias, bool):
        raise _refused(path, "bias", bias, "true or false")
    if config.get("use_residual", False) is not False:
        raise _refused(path, "use_residual", config["use_residual"], "false")
    source = config.get("module_input_name", _VECTOR)
    target = config.get("module_output_name")
    target = source if target is None else target
    if source != _VECTOR:
        raise _refused(path, "module_input_name", source, _VECTOR)
    if target != (_SCORES if last else _VECTOR):
        raise _refused(path, "module_output_name", target, f"{_SCORES} of the last module" if last else _VECTOR)
    dense = Dense(
        name=place,
        file=_weights(folder, place),
        inputs=_size(path, config, "in_features"),
        outputs=_size(path, config, "out_features"),
        weight="linear.weight",
        bias="linear.bias" if bias else None,
        activation=_activation(path, "activation_function", named, _ACTIVATIONS),
    )
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (dense.outputs, dense.inputs)}
    _check(dense.file, shapes | ({"linear.bias": (dense.outputs,)} if bias else {}))
    return dense


def _layer_norm(folder: Path, place: str) -> LayerNorm:
    path, config = folder / place / CONFIG, _config(folder, place, CONFIG)
    file, size = _weights(folder, place), _size(path, config, "dimension")
    _check(file, {"norm.weight": (size,), "norm.bias": (size,)})
    return LayerNorm(name=place, file=file, size=size, weight="norm.weight", bias="norm.bias")


def _weights(folder: Path, place: str) -> Path:
    """Return the path of a module's safetensors."""
    path = _inside(folder, f"{place}/{WEIGHTS}" if place else WEIGHTS)
    if path.is_file():
        return path
    if path.with_name("pytorch_model.bin").exists():
        raise CheckpointError(
            f"{path.parent} holds its weights as a pickle (pytorch_model.bin), which can run code when opened: if you trust "
            f"it, convert it with CrossEncoder('{folder}').save_pretrained('{folder}') of sentence-transformers"
        )
    raise CheckpointError(f"{path.parent} has no weights ({WEIGHTS}): {_AGAIN}")


def _check(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ``CheckpointError`` if a file has other tensors than these."""
    tensors = headers((file,))
    for name, shape in shapes.items():
        if name not in tensors:
            raise CheckpointError(f"{file} lacks {name} {list(shape)}: {_AGAIN}")
        found = tensors[name]
        if found.shape != shape or found.dtype not in FLOATS:
            raise CheckpointError(f"{file} has {name} as {found.dtype} {list(found.shape)}, expected {list(shape)}: {_AGAIN}")
    if other := sorted(tensors.keys() - shapes.keys()):
        raise CheckpointError(f"{file} has {shown(other[0])}, which its config.json does not mention: {_AGAIN}")


def _last_activation(path: Path, settings: Config, config_path: Path, config: Config, labels: int) -> str:
    """Return the function of a logit, by the first entry that names one; without any, a single label has a sigmoid."""
    nested = config.get("sentence_transformers", {})
    if not isinstance(nested, Mapping):
        raise _refused(config_path, "sentence_transformers", nested, "an object")
    older = "activation_fn" if "activation_fn" in nested else "sbert_ce_default_activation_function"
    entries = [(path, "activation_fn", settings.get("activation_fn")), (config_path, older, {**config, **nested}.get(older))]
    for place, key, named in entries:
        if named is not None:
            return _activation(place, key, named, _LAST)
    return "sigmoid" if labels == 1 else "identity"


def _activation(path: Path, key: str, named: Any, known: Mapping[str, str]) -> str:
    package, _, name = named.rpartition(".") if isinstance(named, str) else ("", "", "")
    if package not in _TORCH or name not in known:
        raise _refused(path, key, named, "torch.nn." + ", torch.nn.".join(known))
    return known[name]


def _size(path: Path, config: Config, key: str) -> int:
    size = config.get(key)
    if type(size) is not int or size < 1:
        raise _refused(path, key, size, "a size")
    return size


def _refused(path: Path, key: str, value: object, expected: str) -> CheckpointError:
    return CheckpointError(f"{path} has {key} = {shown(value)}, expected {expected}: {_AGAIN}, if it can be without")
