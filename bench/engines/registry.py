"""Which contenders there are, as data: their names, the environment that each needs, and how exact it has to be.

A benchmark makes a ``Job`` with ``Job.make``, sends it over JSON to a process of the contender's environment, and there
calls ``make_contender``. Nothing of an engine is imported before that.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from fusedbert.engine.errors import MissingDependencyError, OptionError

from . import Contender
from .environments import OURS, conversions_folder

BOTH, CPU, CUDA = ("cpu", "cuda"), ("cpu",), ("cuda",)


class Tolerance(enum.StrEnum):
    """How close to the reference a contender's logits have to be: exact, rounded to 16 bits, or quantized."""

    FP32 = "fp32"
    REDUCED = "reduced"
    INT8 = "int8"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A contender that there is.

    Attributes:
        name: What the command line and documents call it.
        title: What tables and pages call it.
        engine: The name of its engine; the contenders of one engine are a group.
        precision: fp32, bf16, fp16 or int8, or int8+bf16; what it mainly computes in.
        environment: The environment that it runs in.
        module: The file in ``fusedbert.bench.engines`` whose ``make`` makes it.
        devices: ``cpu``, ``cuda``, or both.
        tolerance: How exact it has to be.
        needs_checkpoint: Whether it is converted from the checkpoint, and cannot run where there is only an artifact.
    """

    name: str
    title: str
    engine: str
    precision: str
    environment: str
    module: str
    devices: tuple[str, ...]
    tolerance: Tolerance
    needs_checkpoint: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a contender is to run: plain values, which go to another process as JSON.

    Attributes:
        checkpoint: The checkpoint's folder, or None where there is only an artifact.
        artifact: Our export of it; its ``tokenizer.json`` is the one that every contender tokenizes with.
        work: Folder for what contenders convert the checkpoint into; kept between runs.
        device: ``cpu`` or ``cuda``.
        threads: Threads of one run on the CPU.
        max_length: Tokens of a text at most, special tokens included.
        calibration: A file of texts, one a line, for engines that calibrate; None where there is none.
    """

    checkpoint: Path | None
    artifact: Path
    work: Path
    device: str
    threads: int
    max_length: int
    calibration: Path | None = None

    @classmethod
    def make(
        cls,
        *,
        checkpoint: Path | None,
        artifact: Path,
        device: str,
        threads: int,
        max_length: int,
        calibration: Path | None = None,
    ) -> Job:
        """Make a job: the folder for conversions is found, and the calibration texts are ours unless others are given.

        Raises:
            StorageError: The cache cannot be written.
        """
        from .conversion import checkpoint_key, write_calibration

        work = conversions_folder() / checkpoint_key(checkpoint or artifact)
        return cls(
            checkpoint=checkpoint and checkpoint.absolute(),
            artifact=artifact.absolute(),
            work=work,
            device=device,
            threads=threads,
            max_length=max_length,
            calibration=calibration.absolute() if calibration else write_calibration(work),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """Read what ``to_json`` wrote."""
        paths = {key: None if values[key] is None else Path(values[key]) for key in _PATHS}
        return cls(**{**values, **paths})


_PATHS = ("checkpoint", "artifact", "work", "calibration")


def _ours(precision: str, devices: tuple[str, ...], tolerance: Tolerance) -> Kind:
    return Kind(
        name=f"fusedbert-{precision}",
        title=f"fusedbert {precision}",
        engine="fusedbert",
        precision=precision,
        environment=OURS,
        module="fusedbert",
        devices=devices,
        tolerance=tolerance,
        needs_checkpoint=False,
    )


def _peer(
    name: str, title: str, precision: str, environment: str, module: str, tolerance: Tolerance, devices: tuple[str, ...] = CPU
) -> Kind:
    return Kind(
        name=name,
        title=title,
        engine=module,
        precision=precision,
        environment=environment,
        module=module,
        devices=devices,
        tolerance=tolerance,
    )


_EXACT, _ROUNDED, _QUANTIZED = Tolerance.FP32, Tolerance.REDUCED, Tolerance.INT8

KINDS: tuple[Kind, ...] = (
    _ours("fp32", CPU, _EXACT),
    _ours("int8", CPU, _QUANTIZED),
    _ours("fp16", CUDA, _ROUNDED),
    _peer("transformers-fp32", "transformers fp32", "fp32", "transformers", "transformers", _EXACT, BOTH),
    _peer("transformers-bf16", "transformers bf16", "bf16", "transformers", "transformers", _ROUNDED, BOTH),
    _peer("transformers-fp16", "transformers fp16", "fp16", "transformers", "transformers", _ROUNDED, CUDA),
    _peer("transformers-compile-fp32", "torch.compile fp32", "fp32", "transformers", "transformers", _EXACT, BOTH),
    _peer("transformers-compile-bf16", "torch.compile bf16", "bf16", "transformers", "transformers", _ROUNDED, BOTH),
    _peer("transformers-pipeline", "transformers pipeline", "fp32", "transformers", "transformers", _EXACT, BOTH),
    _peer("optimum-fp32", "optimum fp32", "fp32", "optimum", "optimum", _EXACT),
    _peer("optimum-int8", "optimum int8", "int8", "optimum", "optimum", _QUANTIZED),
    _peer("optimum-o4", "optimum O4", "fp16", "optimum-cuda", "optimum", _ROUNDED, CUDA),
    _peer("onnxruntime-optimized", "ONNX Runtime optimizer fp32", "fp32", "optimum", "onnxruntime", _EXACT),
    _peer("openvino-fp32", "OpenVINO fp32", "fp32", "openvino", "openvino", _EXACT),
    _peer("openvino-bf16", "OpenVINO bf16", "bf16", "openvino", "openvino", _ROUNDED),
    _peer("openvino-int8", "OpenVINO int8", "int8", "openvino", "openvino", _QUANTIZED),
    _peer("openvino-int8-bf16", "OpenVINO int8 + bf16", "int8+bf16", "openvino", "openvino", _QUANTIZED),
    _peer("ctranslate2-fp32", "CTranslate2 fp32", "fp32", "ctranslate2", "ctranslate2", _EXACT),
    _peer("ctranslate2-int8", "CTranslate2 int8", "int8", "ctranslate2", "ctranslate2", _QUANTIZED),
)
"""Every contender, ours first."""


def names() -> tuple[str, ...]:
    """Return the names of all contenders, ours first."""
    return tuple(kind.name for kind in KINDS)


def groups() -> tuple[str, ...]:
    """Return the names that stand for several: ``all``, and each engine."""
    return ("all", *dict.fromkeys(kind.engine for kind in KINDS))


def kind_of(name: str) -> Kind:
    """Return a contender's entry.

    Raises:
        OptionError: There is no contender of that name; the message lists those that there are.
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise OptionError(f"there is no contender {name!r}: give names or groups of {', '.join((*groups(), *names()))}")


def select(wanted: Iterable[str], *, device: str) -> tuple[Kind, ...]:
    """Resolve names and groups, each contender once, in the order in which they are asked for.

    A group stands for those of it that run on the device; a contender that is named and does not run there is an error.

    Args:
        wanted: Names, engines, or ``all``; empty ones are passed over.
        device: ``cpu`` or ``cuda``.

    Raises:
        OptionError: A name is unknown, or does not run on the device.

    Example:
        >>> [kind.name for kind in select(["ctranslate2", "openvino-bf16"], device="cpu")]
        ['ctranslate2-fp32', 'ctranslate2-int8', 'openvino-bf16']
    """
    found: dict[str, Kind] = {}
    for name in filter(None, (part.strip() for part in wanted)):
        if name in groups():
            members = [kind for kind in KINDS if name in ("all", kind.engine) and device in kind.devices]
            if not members:
                raise OptionError(f"no contender of {name} runs on {device}")
        else:
            members = [kind_of(name)]
            if device not in members[0].devices:
                raise OptionError(f"{name} does not run on {device}: it runs on {' and '.join(members[0].devices)}")
        found.update((kind.name, kind) for kind in members)
    return tuple(found.values())


def make_contender(name: str, job: Job) -> Contender:
    """Make a contender, in a process of its environment; nothing is converted or loaded yet.

    Raises:
        OptionError: There is no contender of that name.
        MissingDependencyError: Its engine is not installed in this interpreter.
    """
    kind = kind_of(name)
    try:
        module = importlib.import_module(f"fusedbert.bench.engines.{kind.module}")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is needed for {name} and is not installed: run fusedbert bench setup {kind.environment}"
        ) from None
    return cast(Contender, module.make(kind, job))
