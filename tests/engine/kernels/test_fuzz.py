"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, on random operations at every level: fuzz.c."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusedbert.engine import kernels

HERE = Path(__file__).parent
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
PLAIN = ("-O3",)
Program = Callable[[str, tuple[str, ...]], list[str]]


@pytest.fixture(scope="module")
def lines(build: Any, sources: list[Path], repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Return a function that gives the program's lines, with kernels by a compiler; the rest is always by gcc."""

    @functools.cache
    def run(compiler: str, options: tuple[str, ...]) -> list[str]:
        folder = tmp_path_factory.mktemp("fuzz")
        (folder / "empty.c").write_text("int main(void) { return 0; }\n")
        try:  # the sanitizers need their runtimes, which a compiler may lack
            build(folder / "empty", [folder / "empty.c"], compiler, options)
        except AssertionError as error:
            pytest.skip(f"{compiler} has no runtime for the sanitizers here: {str(error).splitlines()[0]}")
        own = [source for source in sources if source.parent.name != "ort"]
        kernels = build(folder / "kernels.so", own, compiler, (*options, "-shared", "-fPIC"))
        rest = [HERE / "fuzz.c", HERE / "reference.c", kernels]
        program = build(folder / "fuzz", rest, options=options)
        done = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout[-500:] + done.stderr[:2000]
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize("options", [SANITIZED, PLAIN], ids=["sanitized", "plain"])
def test_random_operations_agree_with_the_reference_and_touch_nothing_else(lines: Program, options: tuple[str, ...]) -> None:
    seen = {line.rpartition(" ")[0] for line in lines("gcc", options)}
    found = kernels.loaded()
    if found is not None:
        levels = [level for level in found.levels if not level.lacking]
        assert seen == {f"{level.name}: {operation}" for level in levels for operation in level.operations}


def test_the_kernels_of_each_compiler_give_the_same_bits(lines: Program) -> None:
    assert lines("gcc", PLAIN) == lines("clang", PLAIN) == lines("gcc", ("-O1",))
