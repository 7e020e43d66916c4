"""``fusedbert doctor``: checks of the machine, the installation, and a model on them; printed as a list of findings."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import tokenizers

from .. import kernels
from ..artifact import Manifest
from ..artifact.foreign import manifest_of
from ..artifact.verify import FileCheck, verdict_root
from ..errors import FusedBertError
from ..hardware.cpu import Int8, Machine, inspect_machine
from ..hardware.cuda_errors import CUDA_PACKAGES, diagnose, explain, loadable_cuda
from ..hardware.cuda_libraries import load_cuda_libraries
from ..hardware.device import CUDA, Choice, DeviceKind, choose, import_onnxruntime, inspect_offer
from ..hardware.packages import installed, version
from ..hardware.storage import cache_root, why_not_writable
from ..load import Options
from ..load.golden import WrongResultError, replay_worst
from ..load.select import as_computed_on
from .options import device_option, messages_on_stderr, precision_option


class Status(enum.StrEnum):
    """Importance of a finding."""

    OK = "ok"
    NOTE = "note"  # worth knowing, nothing is broken
    FAIL = "fail"  # the advice is the way out


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str  # the same in every version, for scripts
    value: Any  # a string, a number, a list or a mapping of these
    status: Status = Status.OK
    advice: str | None = None  # what to do about it


def examine(model: str | os.PathLike[str] | None = None, options: Options | None = None) -> Iterator[Finding]:
    """Check versions, CPU, GPU, cache, ONNX Runtime, the engine's choice, and a model if one is given."""
    options = options or Options()
    versions = {"fusedbert": version(), "python": platform.python_version(), "platform": platform.platform()}
    yield Finding("versions", versions | {"numpy": np.__version__, "tokenizers": tokenizers.__version__})
    machine = inspect_machine()
    yield from _machine(machine)
    yield _cache(options)
    try:
        runtime = import_onnxruntime()
    except FusedBertError as error:
        yield _failure("onnxruntime", error)
        return
    yield from _runtime(runtime, machine, options)
    if model is not None:
        yield from _model(model, options, machine)


def _failure(name: str, error: FusedBertError, value: Any = None) -> Finding:
    return Finding(name, value, Status.FAIL, advice=str(error))


def _machine(machine: Machine) -> Iterator[Finding]:
    yield Finding("cpu", machine.cpu)
    advice = _INT8[machine.int8]
    yield Finding("cpu_features", list(machine.features), Status.OK if advice is None else Status.NOTE, advice)
    cores = {"usable": machine.cores, "physical_in_affinity": machine.physical, "logical_in_affinity": machine.logical}
    yield Finding("cores", cores | {"logical_in_machine": os.cpu_count(), "cgroup_quota": machine.quota})


_INT8: Mapping[Int8, str | None] = {
    Int8.EXACT: None,
    Int8.SATURATING: "8-bit products saturate here: precision='auto' takes int8 if the export measured that the model is right "
    "in spite of that (parity_avx2 in fusedbert.json), else fp32",
    Int8.SLOW: "this CPU is not known to have 8-bit dot products: precision='auto' stays with fp32 here",
}


def _cache(options: Options) -> Finding:
    try:
        root = cache_root(options.cache_dir)
    except FusedBertError as error:
        return _failure("cache", error)
    if (reason := why_not_writable(root)) is None:
        return Finding("cache", str(root))
    advice = f"cannot be written ({reason}): set FUSEDBERT_CACHE to a folder that can; artifacts work without"
    return Finding("cache", str(root), Status.FAIL, advice)


def _runtime(runtime: ModuleType, machine: Machine, options: Options) -> Iterator[Finding]:
    offer = inspect_offer(runtime)
    obstacle = offer.obstacle()
    yield _kernels(options, machine)
    yield Finding("onnxruntime", runtime.__version__)
    status, advice = (Status.FAIL, obstacle) if offer.both_wheels else (Status.OK, None)
    yield Finding("onnxruntime_wheels", dict(offer.wheels), status, advice)
    yield Finding("providers", list(offer.providers))
    expected = obstacle is not None and offer.expected
    yield Finding("gpu", offer.gpu, Status.NOTE if expected else Status.OK, advice=obstacle)
    try:
        choice = choose(options.device, offer)
    except FusedBertError as error:
        yield _failure("choice", error)
        return
    yield Finding("choice", {"device": choice.device, "threads": options.threads or machine.cores, "why": choice.why})
    if choice.provider == CUDA:
        yield _cuda(runtime, choice, options)


def _kernels(options: Options, machine: Machine) -> Finding:
    try:
        sets = {str(each): kernels.describe(each, options.session_options, machine.features) for each in kernels.Kernels}
        library = kernels.loaded()
    except FusedBertError as error:
        return _failure("kernels", error)
    if library is not None:
        return Finding("kernels", sets | {"levels": [level.name for level in library.levels if not level.lacking]})
    if not kernels.absence(machine.features).curable:
        return Finding("kernels", sets)
    advice = f"without fusedbert's a text takes up to twice as long; to get them: {kernels.way_out(version())}"
    return Finding("kernels", sets, Status.NOTE, advice)


def _cuda(runtime: ModuleType, choice: Choice, options: Options) -> Finding:
    """Run a graph of one node on CUDA; find the cause of a failure in the printed, logged and raised messages."""
    from ..hardware.cuda_probe import try_cuda, without_cudnn

    printed = load_cuda_libraries(runtime)
    found = try_cuda(runtime, choice.index)
    if found is None:
        lacking = without_cudnn()
        if lacking is None:
            return Finding("cuda", {"works": True, "cause": None})
        advice = explain(f"{printed} {lacking}") or lacking  # printed of a file that is there, but damaged
        return Finding("cuda", {"works": True, "cause": "cudnn_missing"}, Status.NOTE, advice)
    text = " ".join(filter(None, (printed, found)))
    cause = diagnose(text, (*installed(CUDA_PACKAGES), *loadable_cuda()))
    value = {"works": False, "cause": cause.name if cause else "unknown", "found": _ends(text)}
    status = Status.FAIL if options.device.kind is DeviceKind.CUDA else Status.NOTE
    advice = f"{cause.says}: {cause.way_out}" if cause else "the cause is unknown here: search for the message in 'found'"
    return Finding("cuda", value, status, advice)


def _ends(text: str, most: int = 600) -> str:
    """Cut the middle out of a long text: the loader's words come first, what was raised comes last."""
    return text if len(text) <= 2 * most else f"{text[:most]} ... {text[-most:]}"


def _model(model: str | os.PathLike[str], options: Options, machine: Machine) -> Iterator[Finding]:
    """Verify a model's files, load it, and replay its golden texts."""
    from ..load.resolve import resolve_model  # after the findings that do not need a session

    try:
        folder = resolve_model(model, options)
        manifest = manifest_of(folder)
        yield Finding("model", str(folder))
        yield _files(folder, manifest, options)
        yield from _load(folder, manifest, options, machine)
    except FusedBertError as error:
        yield _failure("model_works", error, False)


def _load(folder: Path, manifest: Manifest, options: Options, machine: Machine) -> Iterator[Finding]:
    from ..load.open import load

    golden: dict[str, Any] = {"texts": len(manifest.golden)}
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            loaded = load(folder, options, ignore_verdicts=True)
    except WrongResultError as error:
        yield _failure("model_golden", error, golden | {"max_abs_logit": error.difference, "allowed": error.allowed})
        return
    yield Finding("model_runtime", {key: str(value) for key, value in dataclasses.asdict(loaded.runtime).items()})
    if warned:
        messages = "; ".join(str(warning.message) for warning in warned)
        yield Finding("model_warnings", len(warned), Status.NOTE, advice=messages)
    if not manifest.golden:
        advice = "the model has no golden texts: nothing was replayed"
        yield Finding("model_golden", None, Status.NOTE, advice)
        return
    file = loaded.runtime.file.relative_to(folder).as_posix()
    ran = next(variant for variant in manifest.variants if variant.file == file)
    judged = as_computed_on(machine, ran)
    difference, limit = replay_worst(
        manifest, judged, loaded.tokenizer, loaded.runner
    )  # within the limit, or loading would have failed
    yield Finding("model_golden", golden | {"max_abs_logit": difference, "allowed": limit})


def _files(folder: Path, manifest: Manifest, options: Options) -> Finding:
    with FileCheck(folder, manifest, verdict_root(options.cache_dir), ignore_verdicts=True) as check:
        for variant in manifest.variants:
            check.graph(variant)
        check.finish()
    if manifest.verifiable:
        return Finding("model_files", len(manifest.files))
    advice = "another tool's export, without fusedbert.json: there is nothing to compare its files with"
    return Finding("model_files", None, Status.NOTE, advice)


@click.command()
@click.option("-m", "--model", metavar="MODEL", help="Also verify this model's files and replay its golden texts.")
@device_option
@precision_option
@click.option("--json", "as_json", is_flag=True, help="Write the findings to stdout as one JSON document.")
def doctor(model: str | None, device: str, precision: str, as_json: bool) -> int:
    """Check this machine and installation, and show what the engine would choose; exit status 1 if a check fails."""
    from ..load import Options
    from .doctor import Status, examine

    failed = False
    findings = []
    with messages_on_stderr():
        for finding in examine(model, Options.parse(device=device, precision=precision)):
            failed |= finding.status is Status.FAIL
            findings.append(dataclasses.asdict(finding))
            if not as_json:
                for line in lines(finding.name, finding.value, finding.status, finding.advice):
                    click.echo(line)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "python": sys.executable, "findings": findings}, indent=2, ensure_ascii=False))
    return int(failed)


def lines(name: str, value: Any, status: str, advice: str | None) -> list[str]:
    """Render a finding: status, name and value, and the advice below."""
    head = f"{status:<4}  {name.replace('_', ' ')}"
    if isinstance(value, dict):
        rendered = [f"{head}:", *(f"        {key.replace('_', ' ')}: {_plain(each)}" for key, each in value.items())]
    else:
        rendered = [f"{head}: {_plain(value)}"]
    return [*rendered, f"      > {advice}"] if advice else rendered


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
