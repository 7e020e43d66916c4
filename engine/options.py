"""What a caller may choose when a classifier is loaded, checked once and then carried as one frozen object."""

from __future__ import annotations

import dataclasses
import enum
import os
import re
from typing import Any, TypeVar

from fusedbert.engine.errors import OptionError

E = TypeVar("E", bound=enum.StrEnum)


class DeviceKind(enum.StrEnum):
    """Where a graph runs: ``auto`` takes CUDA where it engages and the CPU where not."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(enum.StrEnum):
    """The numbers that a graph computes with: ``auto`` takes what is fastest within the artifact's gates."""

    AUTO = "auto"
    FP32 = "fp32"
    INT8 = "int8"
    FP16 = "fp16"


class LongText(enum.StrEnum):
    """What happens to a text of more tokens than ``max_length``: it is cut and counted, or it is an error."""

    TRUNCATE = "truncate"
    ERROR = "error"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """A parsed device: its kind, and the number of the CUDA device."""

    kind: DeviceKind
    index: int = 0

    @classmethod
    def parse(cls, text: object) -> Device:
        """Read ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

        Raises:
            OptionError: It is none of them.

        Example:
            >>> Device.parse("cuda:1")
            Device(kind=<DeviceKind.CUDA: 'cuda'>, index=1)
        """
        match = re.fullmatch(r"(auto|cpu|cuda)|cuda:([0-9]{1,4})", text) if isinstance(text, str) else None
        if match is None:
            raise OptionError(f"device is {text!r}: give one of auto, cpu, cuda, cuda:N")
        return cls(kind=DeviceKind(match[1] or "cuda"), index=int(match[2] or 0))

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.kind is DeviceKind.CUDA else str(self.kind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of ``Classifier.from_pretrained``, all valid.

    Attributes:
        device: Where the graph runs.
        precision: Which of the artifact's graphs runs.
        threads: Threads of one run on the CPU; None for the cores that the process may really use.
        max_length: Tokens of a text at most, special tokens included; None for what the artifact allows.
        long_text: What happens beyond ``max_length``.
        revision: Branch, tag or commit of a hub id.
        token: Access token of a private hub id. Never shown.
        cache_dir: Folder to use in place of ``FUSEDBERT_CACHE`` and of the hub's own cache.
        local_files_only: Whether the hub must not be asked.
        session_options: An ``onnxruntime.SessionOptions`` to use as it is, or a mapping laid over ours:
            attribute names (``intra_op_num_threads``), configuration entries (``session.intra_op.allow_spinning``), and
            options of the CUDA provider (``cuda.gpu_mem_limit``).
    """

    device: Device = dataclasses.field(default_factory=lambda: Device(kind=DeviceKind.AUTO))
    precision: Precision = Precision.AUTO
    threads: int | None = None
    max_length: int | None = None
    long_text: LongText = LongText.TRUNCATE
    revision: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    session_options: Any = None

    @classmethod
    def parse(
        cls, *, device: object = "auto", precision: object = "auto", long_text: object = "truncate", **rest: Any
    ) -> Options:
        """Check what a caller gave as plain strings and numbers.

        Raises:
            OptionError: A value is not one of its option's values; the message lists them.
        """
        if long_text == "window":
            raise OptionError("long_text='window' is not there yet in this version: use truncate or error")
        return cls(
            device=Device.parse(device),
            precision=_member(Precision, "precision", precision),
            long_text=_member(LongText, "long_text", long_text),
            **rest,
        )

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("threads", 1), ("max_length", 3)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise OptionError(f"{name} is {value!r}: give an integer from {least} up, or None")


def _member(kind: type[E], name: str, value: Any) -> E:
    try:
        return kind(value)
    except ValueError:
        raise OptionError(f"{name} is {value!r}: give one of {', '.join(kind)}") from None
