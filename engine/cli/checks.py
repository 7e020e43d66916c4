"""What this machine and this installation offer, and whether a model works on them: findings as data.

The command prints them. A finding that ``fails`` names the way out; a ``note`` is worth knowing, and nothing is broken.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tokenizers

from .. import kernels as native
from ..artifact import Manifest
from ..artifact.foreign import read_manifest
from ..artifact.verify import FileCheck, verdict_root
from ..errors import FusedBertError
from ..hardware.cpu import Machine, inspect_machine
from ..hardware.cuda_errors import CUDA_PACKAGES, diagnose, explain, loadable_cuda
from ..hardware.device import CUDA, Choice, choose, import_onnxruntime, inspect_offer, load_cuda_libraries
from ..hardware.packages import installed, version
from ..load.cache import cache_root, writable
from ..load.golden import WrongResultError, allowed
from ..options import DeviceKind, Options


class Status(enum.StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    FAIL = "fail"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What, the same in every version: scripts read it.
        value: What was found: a string, a number, a list or a mapping of these.
        status: Whether that is as it should be.
        advice: What to do about it.
    """

    name: str
    value: Any
    status: Status = Status.OK
    advice: str | None = None


def examine(model: str | os.PathLike[str] | None = None, options: Options | None = None) -> Iterator[Finding]:
    """Look at versions, ONNX Runtime, CPU, GPU, cache and the engine's choice, and at a model where one is given.

    Args:
        model: What ``Classifier.from_pretrained`` would be given, or None to look at no model.
        options: The options that it would be loaded with.
    """
    options = options or Options()
    yield Finding(
        name="versions",
        value={
            "fusedbert": version(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "numpy": np.__version__,
            "tokenizers": tokenizers.__version__,
        },
    )
    machine = inspect_machine()
    yield from _machine(machine)
    yield _cache(options)
    try:
        runtime = import_onnxruntime()
    except FusedBertError as error:
        yield Finding(name="onnxruntime", value=None, status=Status.FAIL, advice=str(error))
        return
    yield from _runtime(runtime, machine, options)
    if model is not None:
        yield from _model(model, options)


def _machine(machine: Machine) -> Iterator[Finding]:
    yield Finding(name="cpu", value=machine.cpu)
    status, advice = Status.OK, None
    if not machine.int8:
        status, advice = Status.NOTE, "no 8-bit dot products: precision='auto' stays with fp32 here"
    yield Finding(name="cpu_features", value=list(machine.features), status=status, advice=advice)
    yield Finding(
        name="cores",
        value={
            "usable": machine.cores,
            "physical_in_affinity": machine.physical,
            "logical_in_affinity": machine.logical,
            "logical_in_machine": os.cpu_count(),
            "cgroup_quota": machine.quota,
        },
    )


def _cache(options: Options) -> Finding:
    try:
        root = cache_root(options.cache_dir)
    except FusedBertError as error:
        return Finding(name="cache", value=None, status=Status.FAIL, advice=str(error))
    reason = writable(root)
    if reason is None:
        return Finding(name="cache", value=str(root))
    advice = f"cannot be written ({reason}): set FUSEDBERT_CACHE to a folder that can; artifacts work without"
    return Finding(name="cache", value=str(root), status=Status.FAIL, advice=advice)


def _runtime(runtime: ModuleType, machine: Machine, options: Options) -> Iterator[Finding]:
    """Look at ONNX Runtime, the GPU, and which of them the engine would take."""
    offer = inspect_offer(runtime)
    yield _kernels(options)
    yield Finding(name="onnxruntime", value=runtime.__version__)
    status, advice = (Status.FAIL, offer.obstacle()) if offer.both_wheels else (Status.OK, None)
    yield Finding(name="onnxruntime_wheels", value=dict(offer.wheels), status=status, advice=advice)
    yield Finding(name="providers", value=list(offer.providers))
    obstacle = offer.obstacle()
    worth_a_note = obstacle is not None and offer.expected
    yield Finding(name="gpu", value=offer.gpu, status=Status.NOTE if worth_a_note else Status.OK, advice=obstacle)
    try:
        choice = choose(options.device, offer)
    except FusedBertError as error:
        yield Finding(name="choice", value=None, status=Status.FAIL, advice=str(error))
        return
    yield Finding(
        name="choice",
        value={"device": choice.device, "threads": options.threads or machine.cores, "why": choice.why},
    )
    if choice.provider == CUDA:
        yield _cuda(runtime, choice, options)


def _kernels(options: Options) -> Finding:
    """Look at the kernels that a graph for the CPU runs on."""
    try:
        value = {str(each.name).lower(): native.describe(each, options.session_options) for each in native.Kernels}
    except FusedBertError as error:
        return Finding(name="kernels", value=None, status=Status.FAIL, advice=str(error))
    return Finding(name="kernels", value=value)


def _cuda(runtime: ModuleType, choice: Choice, options: Options) -> Finding:
    """Try CUDA on a graph of one node; where that fails, tell the cause by what was printed, logged and raised."""
    from ..hardware.cuda_probe import try_cuda, without_cudnn

    printed = load_cuda_libraries(runtime)
    found = try_cuda(runtime, choice.index)
    if found is None:
        lacking = without_cudnn()
        if lacking is None:
            return Finding(name="cuda", value={"works": True, "cause": None})
        advice = explain(lacking) or lacking
        return Finding(name="cuda", value={"works": True, "cause": "cudnn_missing"}, status=Status.NOTE, advice=advice)
    text = " ".join(filter(None, (printed, found)))
    cause = diagnose(text, (*installed(CUDA_PACKAGES), *loadable_cuda()))
    return Finding(
        name="cuda",
        value={"works": False, "cause": cause.name if cause else "unknown", "found": text[-500:]},
        status=Status.FAIL if options.device.kind is DeviceKind.CUDA else Status.NOTE,
        advice=f"{cause.says}: {cause.way_out}" if cause else "not a cause that is known here: search for what was found",
    )


def _model(model: str | os.PathLike[str], options: Options) -> Iterator[Finding]:
    """Verify a model's files, load it, and hold its answers to the golden texts against the reference's."""
    from ..classifier import Classifier  # after the findings that do not need a session
    from ..load.open import load
    from ..load.resolve import resolve_model

    try:
        folder = resolve_model(model, options)
        manifest = read_manifest(folder)
        yield Finding(name="model", value=str(folder))
        yield _files(folder, manifest, options)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            loaded = load(folder, options, anew=True)
        runtime = {key: str(value) for key, value in dataclasses.asdict(loaded.runtime).items()}
        yield Finding(name="model_runtime", value=runtime)
        if warned:
            said = "; ".join(str(warning.message) for warning in warned)
            yield Finding(name="model_warnings", value=len(warned), status=Status.NOTE, advice=said)
        with Classifier(loaded, options) as classifier:
            yield _golden(classifier, manifest, folder)
    except WrongResultError as error:
        value = {"texts": len(manifest.golden), "max_abs_logit": error.difference, "allowed": error.allowed}
        yield Finding(name="model_golden", value=value, status=Status.FAIL, advice=str(error))
    except FusedBertError as error:
        yield Finding(name="model_works", value=False, status=Status.FAIL, advice=str(error))


def _files(folder: Path, manifest: Manifest, options: Options) -> Finding:
    """Read every file anew, whatever earlier loads found."""
    with FileCheck(folder, manifest, verdict_root(options.cache_dir), anew=True) as check:
        for variant in manifest.variants:
            check.graph(variant)
        check.finish()
    if manifest.verifiable:
        return Finding(name="model_files", value=len(manifest.files))
    advice = "another tool's export, without fusedbert.json: there is nothing to hold its files against"
    return Finding(name="model_files", value=None, status=Status.NOTE, advice=advice)


def _golden(classifier: Any, manifest: Manifest, folder: Path) -> Finding:
    if not manifest.golden:
        advice = "the model has no golden texts: nothing was replayed"
        return Finding(name="model_golden", value=None, status=Status.NOTE, advice=advice)
    file = classifier.runtime.file.relative_to(folder).as_posix()
    limit = allowed(next(variant for variant in manifest.variants if variant.file == file))
    items = [(golden.text, golden.text_pair) if golden.text_pair is not None else golden.text for golden in manifest.golden]
    expected = np.array([golden.logits for golden in manifest.golden])  # [texts, labels]
    difference = float(np.abs(classifier.decision_function(items) - expected).max())
    value = {"texts": len(items), "max_abs_logit": difference, "allowed": limit}
    if difference <= limit:
        return Finding(name="model_golden", value=value)
    advice = f"{file} does not compute here what it should: use another precision, and report this CPU or driver"
    return Finding(name="model_golden", value=value, status=Status.FAIL, advice=advice)
