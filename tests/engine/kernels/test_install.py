"""An installation without kernels: what the doctor and ``runtime.why`` say on each machine, and the command that helps."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import Classifier
from fusedbert.engine.cli import doctor as doctor_module
from fusedbert.engine.cli.doctor import Finding, Status, examine
from fusedbert.engine.hardware.cpu import inspect_machine
from fusedbert.engine.hardware.packages import version
from fusedbert.engine.kernels import VARIABLE, Kernels, levels, way_out

GENOA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16")
AGAIN = "pip install --force-reinstall --no-deps"


@pytest.fixture
def finding(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finding]:
    """Return a function that gives the doctor's finding on a machine without the library."""

    def examined(machine: str, features: tuple[str, ...], system: str = "linux") -> Finding:
        monkeypatch.setattr(levels, "library", lambda: None)
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(doctor_module, "inspect_machine", lambda: here)
        here = dataclasses.replace(inspect_machine(), features=features)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "platform", system)
            return next(each for each in examine() if each.name == "kernels")

    return examined


@pytest.mark.parametrize(
    ("machine", "features", "system", "says"),
    [
        ("aarch64", ("neon", "dotprod"), "linux", "fusedbert has none for aarch64 processors, nothing is missing"),
        ("arm64", ("neon", "dotprod"), "darwin", "fusedbert has none for arm64 processors, nothing is missing"),
        ("x86_64", (), "darwin", "fusedbert has none for macOS, nothing is missing"),
        ("x86_64", ("avx2",), "linux", "fusedbert's need AVX-512 or AVX-VNNI, which this CPU lacks"),
    ],
)
def test_nothing_is_wrong_where_there_are_no_kernels_to_be_had(
    finding: Any, machine: str, features: tuple[str, ...], system: str, says: str
) -> None:
    found = finding(machine, features, system)
    assert (found.status, found.advice) == (Status.OK, None)
    assert found.value == {str(kind): f"ONNX Runtime kernels ({says})" for kind in Kernels}


@pytest.mark.parametrize(("machine", "features"), [("x86_64", GENOA), ("x86_64", ("avx2", "avx_vnni")), ("AMD64", ())])
def test_kernels_that_could_be_had_are_a_note_with_the_command(finding: Any, machine: str, features: tuple[str, ...]) -> None:
    found = finding(machine, features)
    assert found.status is Status.NOTE and found.advice.endswith(way_out(version())) and "pip install" in found.advice
    assert found.value["int8"] == "ONNX Runtime kernels (fusedbert's are not installed, see fusedbert doctor)"


def test_the_runtime_says_the_same(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "library", lambda: None)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with Classifier.from_pretrained(artifact, precision="int8") as clf:
        assert "ONNX Runtime kernels (fusedbert has none for aarch64 processors, nothing is missing)" in clf.runtime.why


def test_a_wrong_level_in_the_environment_fails_the_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "fastest")
    found = next(each for each in examine() if each.name == "kernels")
    assert found.status is Status.FAIL and str(found.advice).startswith("FUSEDBERT_KERNELS is 'fastest'")


@pytest.mark.parametrize(
    ("direct_url", "command"),
    [
        (None, f"{AGAIN} --only-binary=fusedbert fusedbert==9.1"),
        ("{ broken", f"{AGAIN} --only-binary=fusedbert fusedbert==9.1"),
        ([], f"{AGAIN} --only-binary=fusedbert fusedbert==9.1"),
        ({"url": "file:///src/x", "dir_info": None}, f"{AGAIN} --only-binary=fusedbert fusedbert==9.1"),
        ({"url": "https://host/x.git", "vcs_info": {"vcs": "git"}}, f"{AGAIN} --only-binary=fusedbert fusedbert==9.1"),
        ({"url": "file:///src/fused%20bert", "dir_info": {}}, f"{AGAIN} --no-cache-dir '/src/fused bert'"),
        ({"url": "file:///src/x", "dir_info": {"editable": True}}, f"{AGAIN} --no-cache-dir -e /src/x"),
        (
            {"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc", "requested_revision": "v1"}},
            f"{AGAIN} --no-cache-dir git+https://host/x.git@v1",
        ),
        (
            {"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}, "subdirectory": "a"},
            f"{AGAIN} --no-cache-dir 'git+https://host/x.git@abc#subdirectory=a'",
        ),
        (
            {"url": "https://host/fusedbert-9.1.tar.gz", "archive_info": {}},
            f"{AGAIN} --no-cache-dir https://host/fusedbert-9.1.tar.gz",
        ),
    ],
)
def test_the_command_installs_from_where_it_came(monkeypatch: pytest.MonkeyPatch, direct_url: Any, command: str) -> None:
    installed_from(monkeypatch, direct_url)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    assert way_out("9.1") == command


def test_a_wheel_without_kernels_is_not_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(monkeypatch, {"url": "file:///w/fusedbert-9.1-py3-none-any.whl", "archive_info": {}})
    assert way_out("9.1").startswith("install the wheel for this platform in place of /w/fusedbert-9.1-py3-none-any.whl")


@pytest.mark.parametrize(
    ("there", "before"), [({"apt-get"}, "apt-get update && apt-get install -y gcc && "), (set(), "install gcc or clang, then ")]
)
def test_a_compiler_comes_first_where_there_is_none(monkeypatch: pytest.MonkeyPatch, there: set[str], before: str) -> None:
    installed_from(monkeypatch, {"url": "file:///src/x", "dir_info": {}})
    monkeypatch.setattr(shutil, "which", lambda name: name if name in there else None)
    assert way_out("9.1") == f"{before}{AGAIN} --no-cache-dir /src/x"


def test_musl_has_no_wheel_with_kernels_and_builds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(monkeypatch, None)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert way_out("9.1") == f"install gcc or clang, then {AGAIN} --no-cache-dir --no-binary=fusedbert fusedbert==9.1"


def test_windows_quotes_a_folder_as_its_shells_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(monkeypatch, {"url": "file:///src/fused%20bert", "dir_info": {}})
    monkeypatch.setattr(shutil, "which", lambda name: "gcc.exe" if name == "gcc" else None)
    monkeypatch.setattr(sys, "platform", "win32")
    assert way_out("9.1") == f'{AGAIN} --no-cache-dir "/src/fused bert"'


def installed_from(monkeypatch: pytest.MonkeyPatch, direct_url: Any) -> None:
    """Let the installation say where pip took it from."""

    class Installed(importlib.metadata.Distribution):
        def read_text(self, filename: str) -> str | None:
            text = direct_url if isinstance(direct_url, str | None) else json.dumps(direct_url)
            return text if filename == "direct_url.json" else None

        def locate_file(self, path: Any) -> Any:
            return path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed())
