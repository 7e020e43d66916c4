"""One ONNX Runtime session: made from a file, run from many threads, its errors turned into ours.

The CPU graphs are built so that nothing needs to be fused at load. One fusion of ONNX Runtime's is switched off because it
makes them slower: SkipLayerNormalization costs five times what Add + LayerNormalization cost on the CPU.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArtifactError, DeviceError, InferenceError, OptionError
from ..hardware.cuda_errors import explain
from ..hardware.device import CPU, CUDA, Choice
from ..kernels import Kernels, register

_DTYPES: Mapping[str, type[np.generic]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_PLAN = ("position_ids", "token_offset", "cumulative_lengths")  # a packed graph's, see ``packing``
_CAUSE = re.compile(r"(CUDA|CUDNN|CUBLAS) failure \w+|(Unknown|Failed to parse) provider option")
_QUIET = 4  # ONNX Runtime's severity "fatal": what matters arrives as an exception, and stderr is the user's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """A loaded graph.

    Attributes:
        raw: The ``onnxruntime.InferenceSession``; its ``run`` is safe to call from many threads.
        inputs: Inputs that the graph declares, with their dtypes.
        file: Where it was loaded from.
        threads: Threads of one run, as ONNX Runtime was told.
    """

    raw: Any
    inputs: Mapping[str, type[np.generic]]
    file: Path
    threads: int

    def run(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Run the graph on one batch.

        Args:
            feeds: Arrays ``[batch, seq]`` by name; those that the graph does not declare are left out.

        Returns:
            Logits, float32 ``[batch, labels]``.

        Raises:
            InferenceError: The graph failed, for want of memory for example.
        """
        return self.fetch(("logits",), feeds)[0]  # [batch, labels]

    def fetch(self, names: Sequence[str], feeds: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Run the graph on one batch, and return the outputs of these names.

        Raises:
            InferenceError: As ``run``.
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
    threads: int,
    session_options: Any = None,
    provider_options: Mapping[str, str] | None = None,
    kernels: Kernels | None = None,
    least: str | None = None,
) -> Session:
    """Load a graph.

    Args:
        runtime: The onnxruntime module.
        file: The ``.onnx`` file.
        choice: Provider and device.
        threads: Threads of one run on the CPU.
        session_options: The user's own: ``SessionOptions``, or a mapping laid over ours.
        provider_options: Of the CUDA provider, where that was chosen.
        kernels: Kernels of our own to run on, where they are built.
        least: The first ONNX Runtime that runs the graph, where the manifest says so.

    Raises:
        ArtifactError: The file is missing, no ONNX model, damaged, or has inputs that a text classifier has not.
        DeviceError: CUDA was chosen and does not engage; the message says why.
        OptionError: ``session_options`` names what ONNX Runtime does not know.
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
        engine = f"ONNX Runtime {runtime.__version__}"
        way_out = "export the checkpoint again"
        if least is not None and release(runtime.__version__) < release(least):
            way_out = f"it needs {least} or newer, pip install --upgrade onnxruntime"
        raise ArtifactError(f"{file} cannot be loaded by {engine} ({detail}): {way_out}") from error
    if choice.provider not in raw.get_providers():
        raise DeviceError(
            f"{choice.device} did not engage: ONNX Runtime could not load its CUDA libraries; fusedbert doctor tells why"
        )
    return Session(raw=raw, inputs=_inputs(raw, file), file=file, threads=options.intra_op_num_threads)


def release(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, as ``(1, 32)``, to tell which of two is older."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _inputs(raw: Any, file: Path) -> dict[str, type[np.generic]]:
    """Read the graph's inputs and check that they are those of a text classifier."""
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


def _session_options(runtime: ModuleType, threads: int, given: Any) -> Any:
    if isinstance(given, runtime.SessionOptions):
        return given
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _QUIET
    if given is None:
        return options
    if not isinstance(given, Mapping):
        raise OptionError(f"session_options is a {type(given).__name__}: give an onnxruntime.SessionOptions or a mapping")
    for name, value in given.items():
        if "." in str(name):
            options.add_session_config_entry(str(name), str(value))
            continue
        if not isinstance(getattr(type(options), str(name), None), property):
            raise OptionError(f"session_options has {name!r}, which is no attribute of onnxruntime.SessionOptions")
        try:
            setattr(options, name, value)
        except TypeError as error:
            raise OptionError(f"session_options[{name!r}] is {value!r}: {first_line(error)}") from None
    return options


def first_line(error: BaseException) -> str:
    """Return what an error of ONNX Runtime says, without the lines that repeat it."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    cause = _CAUSE.search(text)  # what comes before it is a function's signature, hundreds of characters of C++
    return text[cause.start() if cause else 0 :][:300]
