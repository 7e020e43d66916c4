"""The table of levels: which one a processor gets, from what its cpuid says to the session."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fusedbert.engine import kernels
from fusedbert.engine.hardware.cpu import FEATURES, cpu_model
from fusedbert.engine.kernels import Kernels

LIBRARY = kernels.loaded()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no kernels here")
X86 = FEATURES[: FEATURES.index("neon")]
SAVED = 0x602E7  # XCR0 of a system that saves all registers


class Level(ctypes.Structure):
    """``struct level`` of levels.h."""

    _fields_: ClassVar = [("name", ctypes.c_char_p), ("needs", ctypes.c_uint), ("kernels", ctypes.c_void_p * 9)]


class Cpuid(ctypes.Structure):
    """``struct cpuid`` of levels.h."""

    _fields_: ClassVar = [
        *((name, ctypes.c_uint32) for name in ("leaf1_ecx", "leaf7_ebx", "leaf7_ecx", "leaf7_edx", "leaf7_1_eax")),
        ("xcr0", ctypes.c_uint64),
    ]


@pytest.fixture(scope="module")
def built(build: Any, sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The library with all of its symbols."""
    options = ("-O1", "-shared", "-fPIC")
    found = ctypes.CDLL(str(build(tmp_path_factory.mktemp("kernels") / "kernels.so", sources, options=options)))
    found.fusedbert_levels.restype = ctypes.POINTER(Level)
    return found


def chosen(kind: Kernels, *features: str) -> kernels.Level:
    """Return the level that a processor with these features would run."""
    assert LIBRARY is not None
    bits = sum(1 << X86.index(feature) for feature in features)
    return LIBRARY.levels[ctypes.CDLL(str(LIBRARY.path)).fusedbert_choose(list(Kernels).index(kind), bits)]


@pytest.mark.parametrize(
    ("features", "int8", "fp32"),
    [
        ((), "onnxruntime", "onnxruntime"),
        (("avx2",), "onnxruntime", "onnxruntime"),  # Haswell, EPYC Rome
        (("avx2", "avx_vnni"), "avxvnni", "onnxruntime"),  # Alder Lake, Sierra Forest
        (("avx2", "avx512f"), "onnxruntime", "avx512"),  # Skylake-X
        (("avx2", "avx512f", "avx_vnni"), "avxvnni", "avx512"),  # a hypervisor hides AVX-512 VNNI
        (("avx512f",), "onnxruntime", "avx512"),  # one that hides AVX2
        (("avx2", "avx512f", "avx512_vnni"), "avx512vnni", "avx512vnni"),  # Ice Lake
        (("avx2", "avx512f", "avx512_vnni", "avx512_bf16"), "avx512bf16", "avx512bf16"),  # Zen 4
        (("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16"), "avx512bf16", "avx512bf16"),  # Zen 5
        (("avx2", "avx512f", "avx512_vnni", "avx_vnni"), "avx512vnni", "avx512vnni"),
        (
            ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8"),
            "onnxruntime",
            "avx512bf16",
        ),  # Sapphire Rapids
    ],
)
def test_a_processor_gets_the_best_level_that_it_runs(features: tuple[str, ...], int8: str, fp32: str) -> None:
    assert (chosen(Kernels.INT8, *features).name, chosen(Kernels.FP32, *features).name) == (int8, fp32)


@pytest.mark.parametrize("kind", Kernels)
def test_no_processor_gets_a_level_that_needs_more_than_it_has(built: ctypes.CDLL, kind: Kernels) -> None:
    for features in range(1 << len(X86)):
        level = built.fusedbert_levels()[built.fusedbert_choose(list(Kernels).index(kind), features)]
        assert not level.needs & ~features


@pytest.mark.parametrize(
    ("lacking", "found"),
    [
        ({}, set(X86)),
        *(({"xcr0": bit}, {"amx_int8"}) for bit in (0x2, 0x4)),  # xmm or the upper half of ymm is not saved
        *(({"xcr0": bit}, {"avx2", "avx_vnni", "amx_int8"}) for bit in (0x20, 0x40, 0x80)),
        *(({"xcr0": bit}, set(X86) - {"amx_int8"}) for bit in (0x20000, 0x40000)),
        ({"xcr0": SAVED}, set()),
        ({"leaf1_ecx": 1 << 12}, set(X86) - {"avx2", "avx_vnni"}),  # no FMA
        ({"leaf7_ebx": 1 << 5}, set(X86) - {"avx2", "avx_vnni"}),
        # AVX-512 without F, DQ, BW or VL, and so without all that needs it: a hypervisor may hide one, and show VNNI
        *(({"leaf7_ebx": 1 << bit}, {"avx2", "avx_vnni", "amx_int8"}) for bit in (16, 17, 30, 31)),
        ({"leaf7_ecx": 1 << 11}, set(X86) - {"avx512_vnni"}),
        ({"leaf7_1_eax": 1 << 5}, set(X86) - {"avx512_bf16"}),
        ({"leaf7_1_eax": 1 << 4}, set(X86) - {"avx_vnni"}),
        *(({"leaf7_edx": 1 << bit}, set(X86) - {"amx_int8"}) for bit in (24, 25)),
    ],
)
def test_an_instruction_set_counts_only_with_its_parts_and_if_the_system_saves_its_registers(
    built: ctypes.CDLL, lacking: dict[str, int], found: set[str]
) -> None:
    ones = Cpuid(*[0xFFFFFFFF] * 5, SAVED)
    for register, bits in lacking.items():
        setattr(ones, register, getattr(ones, register) & ~bits)
    features = built.features_of(ctypes.byref(ones))
    assert {name for i, name in enumerate(X86) if features >> i & 1} == found


def test_256_bits_of_avx512_are_the_default_nowhere(built: ctypes.CDLL) -> None:
    names = [level.name for level in LIBRARY.levels] if LIBRARY else []
    for features in range(1 << len(X86)):
        for kind in range(len(Kernels)):
            assert names[built.fusedbert_choose(kind, features)] != "avx512vnni_256"


def test_cpuid_says_what_linux_says() -> None:
    _, features = cpu_model()
    assert kernels.cpu_features() == features  # names and order, too


def test_level_names_differ_and_the_last_runs_everywhere() -> None:
    assert LIBRARY is not None
    names = [level.name for level in LIBRARY.levels]
    assert len(set(names)) == len(names) and not {"", "0", "1", "auto"} & set(names)
    assert LIBRARY.levels[-1] == kernels.Level(name="onnxruntime")
    assert all(level.operations for level in itertools.islice(LIBRARY.levels, len(names) - 1))
