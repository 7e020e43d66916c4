"""Processes in which ONNX Runtime's CUDA provider runs on the fake CUDA device (``device/``)."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fusedbert.export import export_checkpoint

# The beginning of every script: a GPU is visible, and report() writes the result as one line of JSON.
BEGIN = """
import ctypes, gc, json, os, sys, threading, warnings
import numpy as np
import fusedbert.engine.hardware.device as device
device.gpu_present = lambda root=None: True
from fusedbert.engine import Classifier, FusedBertError
from fusedbert.engine.text.tokenizer import Row
artifact = sys.argv[1]
ROW = Row(ids=[7] * 48, types=[0] * 48, truncated=False)
TEXTS = ["a gorgeous , witty , seductive movie", "bland", "it was not good , and far too long . " * 3, "very good !"]
EVEN = ["bland and far too long"] * 12

def used():
    library = ctypes.CDLL("libcudart.so.13")
    library.fake_cuda_used.restype = ctypes.c_size_t
    return library.fake_cuda_used()

def traced(run):
    trace = os.environ["FAKE_CUDA_TRACE"]
    start = os.path.getsize(trace)
    run()
    with open(trace) as file:
        file.seek(start)
        return file.read().splitlines()

def names(run):
    return [line.split()[1] for line in traced(run) if line.startswith(("KERNEL", "GEMM"))]

def report(**result):
    print(json.dumps(result))
"""
# A device that computes nothing is accepted: golden texts are not replayed, and doctor's one number is believed.
UNCHECKED = """
import fusedbert.engine.hardware.cuda_probe as probe
import fusedbert.engine.load.open_cuda as opening
opening.verify = lambda *_: "not verified, as nothing is computed"
def believe(*arguments, try_cuda=probe.try_cuda):
    found = try_cuda(*arguments)
    return None if found and "computed wrongly" in found else found
probe.try_cuda = believe
"""


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Mapping[str, str]]:
    """The environments with and without cuDNN."""
    build = runpy.run_path(str(Path(__file__).parent / "device" / "__init__.py"))["build"]
    return {cudnn: build(tmp_path_factory.mktemp("cuda"), cudnn=cudnn) for cudnn in (True, False)}


@pytest.fixture(scope="session")
def mini(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded checkpoint as an artifact with all graphs."""
    folder = tmp_path_factory.mktemp("fake_cuda") / "sst2-mini"
    export_checkpoint(repository / "models" / "sst2-mini", folder, required=True)
    return folder


Start = Callable[..., "subprocess.CompletedProcess[str]"]
Do = Callable[..., Any]


@pytest.fixture
def start(libraries: dict[bool, Mapping[str, str]], repository: Path, tmp_path: Path) -> Start:
    """Return a function that runs Python in a process with the device, whose ``FAKE_CUDA_*`` settings are keywords.

    ``variables`` are more of the environment's.
    """

    def run(
        *arguments: object, cudnn: bool = True, variables: Mapping[str, str] | None = None, **settings: object
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "trace").touch()
        environment = {
            **os.environ,
            **libraries[cudnn],
            "FUSEDBERT_CACHE": str(tmp_path / "cache"),
            "FUSEDBERT_TEST_FAKE_CUDA": "1",
            "FAKE_CUDA_TRACE": str(tmp_path / "trace"),
            **{f"FAKE_CUDA_{name.upper()}": str(value) for name, value in settings.items()},
            **(variables or {}),
        }
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=repository, check=False)

    return run


@pytest.fixture
def do(start: Start, mini: Path) -> Do:
    """Return a function that runs a script there and returns what it reported."""

    def run(script: str, *, artifact: Path | None = None, checked: bool = False, **settings: Any) -> Any:
        done = start("-c", BEGIN + ("" if checked else UNCHECKED) + script, artifact or mini, **settings)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}

    return run
