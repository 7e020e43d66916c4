"""The options of ``Classifier.from_pretrained``, checked once."""

from __future__ import annotations

import dataclasses
import enum
import os
from typing import Any

from ..errors import check_integer, check_member
from ..hardware.device import Device, DeviceKind
from ..text.inputs import LongText, Window


class Precision(enum.StrEnum):
    """The number format of a graph; ``auto`` takes the fastest one within the artifact's gates."""

    AUTO = "auto"
    FP32 = "fp32"
    INT8 = "int8"
    FP16 = "fp16"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The valid options of ``Classifier.from_pretrained``, which describes them.

    ``max_length`` includes special tokens. A mapping of ``session_options`` overrides attributes (``intra_op_num_threads``),
    configuration entries (``session.intra_op.allow_spinning``), options of the CUDA provider (``cuda.gpu_mem_limit``), and
    ``fusedbert.kernels``: "0" leaves everything to ONNX Runtime.
    """

    device: Device = dataclasses.field(default_factory=lambda: Device(kind=DeviceKind.AUTO))
    precision: Precision = Precision.AUTO
    threads: int | None = None
    max_length: int | None = None
    long_text: LongText = LongText.TRUNCATE
    window: Window = dataclasses.field(default_factory=Window)
    revision: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)  # never shown
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    session_options: Any = None

    @classmethod
    def parse(
        cls, *, device: object = "auto", precision: object = "auto", long_text: object = "truncate", **rest: Any
    ) -> Options:
        """Check a caller's strings and numbers; ``long_text`` may be a ``Window``.

        Raises:
            OptionError: A value is not valid; the message lists the valid ones.
        """
        if isinstance(long_text, Window):
            rest |= {"window": long_text}
            long_text = LongText.WINDOW
        return cls(
            device=Device.parse(device),
            precision=check_member(Precision, "precision", precision),
            long_text=check_member(LongText, "long_text", long_text),
            **rest,
        )

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_integer("threads", self.threads, 1, optional=True)
        check_integer("max_length", self.max_length, 3, optional=True)
