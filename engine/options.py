"""What a caller may choose when a classifier is loaded, checked once and then carried as one frozen object."""

from __future__ import annotations

import dataclasses
import enum
import os
import re
from typing import Any, TypeVar

from .errors import OptionError

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
    """What happens to a text of more tokens than ``max_length``.

    It is cut, counted and warned of once; or it is an error; or it is read whole, window after window.
    """

    TRUNCATE = "truncate"
    ERROR = "error"
    WINDOW = "window"


class Aggregate(enum.StrEnum):
    """What becomes of the logits of a text's windows: their mean, or each label's largest."""

    MEAN = "mean"
    MAX = "max"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """How a text of more tokens than ``max_length`` is read whole: in windows of ``max_length`` that overlap.

    Give it as ``long_text=Window(...)``; ``long_text="window"`` is ``Window()``. The windows are those of transformers'
    tokenizers with ``return_overflowing_tokens`` and the same ``stride``. Of a pair the longer text is read in windows and
    the other one is repeated in each; where the other one would take more than half of the room, it is cut to that half
    and counted as truncated, and the overlap is at most half of what is left.

    Attributes:
        stride: Tokens that two neighbouring windows share; None for a quarter of a window. Fewer than fit in one.
        aggregate: ``mean`` of the windows' logits, or ``max``: each label's largest, which suits labels that one passage
            decides, as in multi-label models.

    Example:
        >>> Window(stride=64, aggregate="max")
        Window(stride=64, aggregate='max')
    """

    stride: int | None = None
    aggregate: str = "mean"

    def __post_init__(self) -> None:
        """Check both."""
        if self.stride is not None and (isinstance(self.stride, bool) or not isinstance(self.stride, int) or self.stride < 0):
            raise OptionError(f"stride is {self.stride!r}: give a number of tokens from 0 up, or None")
        _member(Aggregate, "aggregate", self.aggregate)


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
        window: How texts are read in windows, where they are.
        revision: Branch, tag or commit of a hub id.
        token: Access token of a private hub id. Never shown.
        cache_dir: Folder to use in place of ``FUSEDBERT_CACHE`` and of the hub's own cache.
        local_files_only: Whether the hub must not be asked.
        session_options: An ``onnxruntime.SessionOptions`` to use as it is, or a mapping laid over ours:
            attribute names (``intra_op_num_threads``), configuration entries (``session.intra_op.allow_spinning``), options of
            the CUDA provider (``cuda.gpu_mem_limit``), and ``fusedbert.kernels``, "0" for ONNX Runtime's kernels alone.
    """

    device: Device = dataclasses.field(default_factory=lambda: Device(kind=DeviceKind.AUTO))
    precision: Precision = Precision.AUTO
    threads: int | None = None
    max_length: int | None = None
    long_text: LongText = LongText.TRUNCATE
    window: Window = dataclasses.field(default_factory=Window)
    revision: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    session_options: Any = None

    @classmethod
    def parse(
        cls, *, device: object = "auto", precision: object = "auto", long_text: object = "truncate", **rest: Any
    ) -> Options:
        """Check what a caller gave as plain strings and numbers; ``long_text`` may be a ``Window``.

        Raises:
            OptionError: A value is not one of its option's values; the message lists them.
        """
        if isinstance(long_text, Window):
            rest |= {"window": long_text}
            long_text = LongText.WINDOW
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
