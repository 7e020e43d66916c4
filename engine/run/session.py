"""A session of ONNX Runtime, with its errors turned into fusedbert's."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..artifact import WINDOW_BLOCKS, WINDOW_TEXTS
from ..errors import ArtifactError, DeviceError, InferenceError, OptionError
from ..hardware.cuda_errors import explain
from ..hardware.device import CPU, CUDA, Choice
from ..kernels import Kernels, register

_DTYPES: Mapping[str, type[np.generic]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_PLAN = ("position_ids", "token_offset", "cumulative_lengths", WINDOW_BLOCKS, WINDOW_TEXTS)  # of a packed graph
_CAUSE = re.compile(r"(CUDA|CUDNN|CUBLAS) failure \w+|(Unknown|Failed to parse) provider option")
NOT_ENGAGED = "did not engage"  # in the message, where there is a session, but without CUDA
_QUIET = 4  # ONNX Runtime's severity "fatal": errors arrive as exceptions, and stderr belongs to the application


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """A loaded graph."""

    raw: Any  # the ``InferenceSession``
    inputs: Mapping[str, type[np.generic]]  # dtypes of those that the graph declares
    file: Path
    threads: int  # of one run on the CPU

    @property
    def block(self) -> int:
        """Tokens of a block of a packed graph's windows, else 1."""
        sizes = {node.name: node.shape for node in self.raw.get_inputs()}
        return sizes[WINDOW_TEXTS][1] // 2 if WINDOW_TEXTS in self.inputs else 1

    def run(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return the float32 logits ``[batch, labels]`` of arrays ``[batch, seq]``; see ``fetch``.

        Raises:
            InferenceError: The graph failed.
        """
        return self.fetch(("logits",), feeds)[0]

    def fetch(self, names: Sequence[str], feeds: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Run the graph on a batch and return these outputs; arrays that it does not declare are left out.

        Raises:
            InferenceError: The graph failed, e.g. for lack of memory.
        """
        wanted = {name: feeds[name].astype(dtype, copy=False) for name, dtype in self.inputs.items()}
        try:
            outputs = self.raw.run(list(names), wanted)
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            shape = next(iter(wanted.values())).shape
            raise InferenceError(f"{self.file} failed on a batch of shape {shape}: {first_line(error)}") from error
        return [np.asarray(output, dtype=np.float32) for output in outputs]


def open_session(
    runtime: ModuleType,
    file: Path,
    choice: Choice,
    *,
    threads: int,  # of one run on the CPU
    session_options: Any = None,  # the user's: ``SessionOptions``, or a mapping that overrides fusedbert's
    provider_options: Mapping[str, str] | None = None,  # of the CUDA provider
    kernels: Kernels | None = None,  # used if they are built
    minimum: str | None = None,  # the first ONNX Runtime that runs the graph
) -> Session:
    """Load a graph.

    Raises:
        ArtifactError: The file is missing, damaged, or not the graph of a text classifier.
        DeviceError: CUDA was chosen and does not engage; the message gives the reason.
        OptionError: ``session_options`` has an option that ONNX Runtime does not know.
    """
    if not file.is_file():
        raise ArtifactError(f"{file} is missing: export the checkpoint again")
    options = _session_options(runtime, threads, session_options)
    if kernels is not None:
        register(options, session_options, kernels)
    numbered = {"device_id": str(choice.index)} if choice.index else {}
    providers = [(CUDA, dict(provider_options or numbered)), CPU] if choice.provider == CUDA else [CPU]
    try:
        raw = runtime.InferenceSession(
            str(file),
            sess_options=options,
            providers=providers,
            # CPU graphs need no fusion, and SkipLayerNormalization costs five times as much as Add + LayerNormalization.
            disabled_optimizers=["SkipLayerNormFusion"] if choice.provider == CPU else [],
            enable_fallback=0,
        )
    except Exception as error:  # as above
        detail = first_line(error)
        cause = explain(str(error)) if choice.provider == CUDA else None
        if cause is None and "provider option" in detail:
            raise OptionError(f"session_options has a cuda.* option that ONNX Runtime does not take: {detail}") from None
        if choice.provider == CUDA and (cause or re.search("CUDA|CUDNN|CUBLAS", str(error))):
            raise DeviceError(f"{choice.device} refused the session: {cause or detail}") from error
        version, way_out = runtime.__version__, "export the checkpoint again"
        if minimum is not None and release(version) < release(minimum):
            way_out = f"it needs {minimum} or newer, pip install --upgrade onnxruntime"
        raise ArtifactError(f"{file} cannot be loaded by ONNX Runtime {version} ({detail}): {way_out}") from error
    if choice.provider not in raw.get_providers():
        raise DeviceError(
            f"{choice.device} {NOT_ENGAGED}: ONNX Runtime could not load its CUDA libraries; fusedbert doctor shows the reason"
        )
    return Session(raw=raw, inputs=_inputs(raw, file), file=file, threads=options.intra_op_num_threads)


def release(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, as in ``(1, 32)``, for comparisons."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _inputs(raw: Any, file: Path) -> dict[str, type[np.generic]]:
    """Return the graph's inputs, which must be those of a text classifier."""
    known = ("input_ids", "attention_mask", "token_type_ids", *_PLAN)
    inputs = {node.name: _DTYPES.get(node.type) for node in raw.get_inputs()}
    checked = {name: dtype for name, dtype in inputs.items() if name in known and dtype is not None}
    outputs = [node.name for node in raw.get_outputs()]
    if "input_ids" not in checked or len(checked) != len(inputs) or "logits" not in outputs:
        raise ArtifactError(
            f"{file} has inputs {', '.join(inputs)} and outputs {', '.join(outputs)}; expected integers "
            f"{', '.join(known[:3])} and logits: give a sequence classifier's graph"
        )
    return checked


def _session_options(runtime: ModuleType, threads: int, user: Any) -> Any:
    if isinstance(user, runtime.SessionOptions):
        return user
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _QUIET
    if user is None:
        return options
    if not isinstance(user, Mapping):
        raise OptionError(f"session_options is a {type(user).__name__}: give an onnxruntime.SessionOptions or a mapping")
    for name, value in user.items():
        if "." in str(name):
            options.add_session_config_entry(str(name), str(value))
            continue
        if not isinstance(getattr(type(options), str(name), None), property):
            raise OptionError(f"session_options has {name!r}, which is not an attribute of onnxruntime.SessionOptions")
        try:
            setattr(options, name, value)
        except TypeError as error:
            raise OptionError(f"session_options[{name!r}] is {value!r}: {first_line(error)}") from None
    return options


def first_line(error: BaseException) -> str:
    """Return the first line of an error of ONNX Runtime, without the C++ signature before its cause."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    cause = _CAUSE.search(text)
    return text[cause.start() if cause else 0 :][:300]
