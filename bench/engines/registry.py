"""The engines that can be measured, as data: name, environment, precision, devices."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import cast

from fusedbert.engine.errors import MissingDependencyError, OptionError

from .base import Engine, EngineSpec, Job
from .environments import OURS

BOTH, CPU, CUDA = ("cpu", "cuda"), ("cpu",), ("cuda",)
RANKERS = ("crossencoder-fp32", "crossencoder-openvino-int8")  # of texts they make what other engines make: `bench rank`
AGAIN = "-again"  # ends the name of an engine that runs a second time, to see how far two equal runs differ


def make_spec(
    name: str,
    title: str,
    implementation: str,
    devices: tuple[str, ...] = CPU,
    *,
    environment: str = "",
    precision: str = "",
    per_shape: bool = False,
) -> EngineSpec:
    """Make an entry; the name begins with the engine, which is also its environment, and the title ends in the precision."""
    engine = name.partition("-")[0]
    return EngineSpec(
        name=name,
        title=title,
        engine=engine,
        precision=precision or title.rpartition(" ")[2],
        environment=environment or engine,
        implementation=implementation,
        devices=devices,
        per_shape=per_shape,
    )


_FUSEDBERT, _TORCH, _OPTIMUM = "fusedbert:FusedBert", "transformers:Transformers", "optimum:Optimum"
_OPENVINO, _CTRANSLATE2 = "openvino:OpenVino", "ctranslate2:CTranslate2"
SPECS: tuple[EngineSpec, ...] = (  # every engine, fusedbert first
    make_spec("fusedbert-fp32", "fusedbert fp32", _FUSEDBERT, environment=OURS),
    make_spec("fusedbert-int8", "fusedbert int8", _FUSEDBERT, environment=OURS),
    make_spec("fusedbert-bf16", "fusedbert bf16", _FUSEDBERT, environment=OURS),
    make_spec("fusedbert-fp16", "fusedbert fp16", _FUSEDBERT, CUDA, environment=OURS),
    make_spec("transformers-fp32", "transformers fp32", _TORCH, BOTH),
    make_spec("transformers-bf16", "transformers bf16", _TORCH, BOTH),
    make_spec("transformers-fp16", "transformers fp16", _TORCH, CUDA),
    make_spec("transformers-compile-fp32", "torch.compile fp32", _TORCH, BOTH, per_shape=True),
    make_spec("transformers-compile-bf16", "torch.compile bf16", _TORCH, BOTH, per_shape=True),
    make_spec("transformers-compile-fp16", "torch.compile fp16", _TORCH, CUDA, per_shape=True),
    make_spec("transformers-pipeline", "transformers pipeline", "transformers:Pipeline", BOTH, precision="fp32"),
    make_spec("optimum-fp32", "optimum fp32", _OPTIMUM),
    make_spec("optimum-int8", "optimum int8", _OPTIMUM),
    make_spec("optimum-o4", "optimum O4", _OPTIMUM, CUDA, environment="optimum-cuda", precision="fp16"),
    make_spec("onnxruntime-optimized", "ONNX Runtime optimizer fp32", "optimum:OptimizedSession", environment="optimum"),
    make_spec("onnxruntime-optimum-int8", "ONNX Runtime on optimum int8", "optimum:OptimumSession", environment="optimum"),
    make_spec("openvino-fp32", "OpenVINO fp32", _OPENVINO),
    make_spec("openvino-bf16", "OpenVINO bf16", _OPENVINO),
    make_spec("openvino-int8", "OpenVINO int8", _OPENVINO),
    make_spec("openvino-int8-bf16", "OpenVINO int8 + bf16", _OPENVINO, precision="int8+bf16"),
    make_spec("ctranslate2-fp32", "CTranslate2 fp32", _CTRANSLATE2),
    make_spec("ctranslate2-int8", "CTranslate2 int8", _CTRANSLATE2),
    make_spec("crossencoder-fp32", "CrossEncoder fp32", "cross_encoder:CrossEncoder"),
    make_spec("crossencoder-openvino-int8", "CrossEncoder OpenVINO int8", "cross_encoder:CrossEncoder"),
)


def names(specs: Sequence[EngineSpec] = SPECS) -> tuple[str, ...]:
    """Return the names of all engines, fusedbert's first."""
    return tuple(spec.name for spec in specs)


def groups(specs: Sequence[EngineSpec] = SPECS) -> tuple[str, ...]:
    """Return the names that stand for several entries: ``all``, and each engine."""
    return ("all", *dict.fromkeys(spec.engine for spec in specs))


def spec_of(name: str, specs: Sequence[EngineSpec] = SPECS) -> EngineSpec:
    """Return an engine's entry.

    Raises:
        OptionError: The name is unknown; the message lists all names.
    """
    for spec in specs:
        if spec.name == name:
            return spec
    raise OptionError(f"unknown engine {name!r}: give names or groups of {', '.join((*groups(specs), *names(specs)))}")


def select(wanted: Iterable[str], *, device: str, specs: Sequence[EngineSpec] = SPECS) -> tuple[EngineSpec, ...]:
    """Resolve names and groups, each engine once, in the order of the request; empty names are skipped.

    A group stands for its members that run on the device; an engine that is named and does not run there is an error.

    Raises:
        OptionError: A name is unknown, or does not run on the device.

    Example:
        >>> [spec.name for spec in select(["ctranslate2", "openvino-bf16"], device="cpu")]
        ['ctranslate2-fp32', 'ctranslate2-int8', 'openvino-bf16']
    """
    selected: dict[str, EngineSpec] = {}
    for name in filter(None, (part.strip() for part in wanted)):
        if name in groups(specs):
            members = [spec for spec in specs if name in ("all", spec.engine) and device in spec.devices]
            if not members:
                raise OptionError(f"no engine of {name} runs on {device}")
        else:
            members = [spec_of(name, specs)]
            if device not in members[0].devices:
                raise OptionError(f"{name} does not run on {device}: it runs on {' and '.join(members[0].devices)}")
        selected.update((spec.name, spec) for spec in members)
    return tuple(selected.values())


def registered(name: str) -> str:
    """Return the registry's name of an engine that may run a second time: without ``-again``."""
    return name.removesuffix(AGAIN)


def make_engine(name: str, job: Job) -> Engine:
    """Import and make an engine, in a process of its environment; nothing is converted or loaded yet.

    Raises:
        OptionError: The name is unknown.
        MissingDependencyError: It is not installed in this interpreter.
    """
    spec = spec_of(name)
    file, _, implementation = spec.implementation.partition(":")
    try:
        module = importlib.import_module(f"fusedbert.bench.engines.{file}")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is needed for {name} and is not installed: run fusedbert bench setup {spec.environment}"
        ) from None
    return cast(Engine, getattr(module, implementation)(spec, job))
