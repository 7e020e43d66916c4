"""The options of ``Classifier.from_pretrained``, checked once."""

from __future__ import annotations

import dataclasses
import enum
import os
from typing import Any, TypedDict

from ..errors import OptionError, check_integer, check_member
from ..hardware.device import Device, DeviceKind
from ..text.inputs import LongText, Window, check_flag

_MOST_THREADS = 4096  # ONNX Runtime starts each of them at the load


class _OfACall(TypedDict, total=False):
    top_k: object
    function_to_apply: object
    truncation: object
    truncation_side: object
    padding: object
    batch_size: object
    num_workers: object
    return_all_scores: object


class PipelineArguments(_OfACall, total=False):
    """Keywords that transformers' pipeline takes when it is made; ``from_pretrained`` refuses them with the way out."""

    task: object
    tokenizer: object
    config: object
    framework: object
    use_fast: object
    trust_remote_code: object
    model_kwargs: object
    dtype: object
    torch_dtype: object
    device_map: object
    use_auth_token: object


_INSTEAD = {"dtype": "precision", "torch_dtype": "precision", "device_map": "device", "use_auth_token": "token"}


class Precision(enum.StrEnum):
    """The number format of a graph; ``auto`` takes the fastest one within the artifact's gates."""

    AUTO = "auto"
    FP32 = "fp32"
    INT8 = "int8"
    BF16 = "bf16"
    FP16 = "fp16"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The valid options of ``Classifier.from_pretrained``, which describes them.

    ``max_length`` includes special tokens. A mapping of ``session_options`` overrides attributes (``intra_op_num_threads``),
    configuration entries (``session.intra_op.allow_spinning``), options of the CUDA provider (``cuda.gpu_mem_limit``), and
    ``fusedbert.kernels``: a level of fusedbert's kernels, "onnxruntime" for none of them.
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
    split_special_tokens: bool | None = None

    @classmethod
    def parse(
        cls, *, device: object = "auto", precision: object = "auto", long_text: object = "truncate", **rest: Any
    ) -> Options:
        """Check a caller's strings and numbers; ``long_text`` may be a ``Window``.

        Raises:
            OptionError: A value is not valid, and the message lists the valid ones; or a keyword is only the pipeline's.
            TypeError: A keyword is unknown to the pipeline too.
        """
        for name in rest.keys() & PipelineArguments.__annotations__.keys():
            way_out = f"give {_INSTEAD[name]}" if name in _INSTEAD else "leave it out: a folder or hub id says all of it"
            if name in _OfACall.__annotations__:
                way_out = f"give it to the call, clf(texts, {name}=...)"
            raise OptionError(f"{name} is an argument of transformers' pipeline that from_pretrained lacks: {way_out}")
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
        check_integer("threads", self.threads, 1, _MOST_THREADS, optional=True)
        check_integer("max_length", self.max_length, 3, optional=True)
        check_flag("split_special_tokens", self.split_special_tokens)
