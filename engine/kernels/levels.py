"""The library of kernels as Python sees it, by ctypes: its file, its levels, and the processor's instruction sets."""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import functools
import hashlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from ..errors import DeviceError

# The dot in front of the suffix keeps code that imports every module of a package from taking the library for one.
_FILE = "fusedbert_kernels.x86_64" + {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
# In the order of levels.h.
_OPERATIONS = (
    "dense_int8",
    "dense_bf16",
    "dense_fp32",
    "attention",
    "norm",
    "gelu",
    "embed_int8",
    "embed_bf16",
    "disentangled",
)


class Kernels(enum.StrEnum):
    """The sets of operators, in the order of levels.h: a session gets the one of its graph."""

    INT8 = "int8"
    BF16 = "bf16"
    FP32 = "fp32"
    INT8_POSITIONS = "int8 with disentangled attention"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Level:
    """A level: the kernels that a processor with certain instruction sets runs."""

    name: str
    lacking: tuple[str, ...] = ()  # instruction sets that it needs and this processor does not have
    operations: frozenset[str] = frozenset()  # those with a kernel, as _OPERATIONS names them


ONNXRUNTIME = Level(name="onnxruntime")  # everywhere the last level, and the only one without a library


class _Entry(ctypes.Structure):
    _fields_: ClassVar = [("name", ctypes.c_char_p), ("needs", ctypes.c_uint), ("kernels", ctypes.c_void_p * len(_OPERATIONS))]


class Library:
    """A library that is loaded; get it from ``loaded``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw = raw = ctypes.CDLL(str(path))
        raw.fusedbert_levels.restype = ctypes.POINTER(_Entry)
        raw.fusedbert_feature_names.restype = ctypes.POINTER(ctypes.c_char_p)
        raw.fusedbert_features.restype = ctypes.c_uint
        raw.fusedbert_choose.argtypes, raw.fusedbert_choose.restype = (ctypes.c_int, ctypes.c_uint), ctypes.c_size_t
        raw.fusedbert_use.argtypes, raw.fusedbert_use.restype = (ctypes.c_int, ctypes.c_size_t), None
        self._bits = int(raw.fusedbert_features())
        self._names = tuple(name.decode() for name in _array(raw.fusedbert_feature_names()))
        self.features = self._sets(self._bits)  # of this processor
        self.levels = tuple(map(self._level, _array(raw.fusedbert_levels())))  # best first

    def default(self, kernels: Kernels) -> Level:
        """Return the level that this processor runs unless another one is forced."""
        return self.levels[int(self._raw.fusedbert_choose(list(Kernels).index(kernels), self._bits))]

    def sha256(self) -> str:
        """Return the file's SHA-256, for the key of a verdict."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def use(self, kernels: Kernels, level: Level) -> None:
        """Say what the next registration of the library by this thread is for."""
        self._raw.fusedbert_use(list(Kernels).index(kernels), self.levels.index(level))

    def _sets(self, bits: int) -> tuple[str, ...]:
        return tuple(name for i, name in enumerate(self._names) if bits >> i & 1)

    def _level(self, entry: _Entry) -> Level:
        found = frozenset(name for name, kernel in zip(_OPERATIONS, entry.kernels, strict=True) if kernel)
        return Level(name=entry.name.decode(), lacking=self._sets(entry.needs & ~self._bits), operations=found)


def _array(pointer: Any) -> Iterator[Any]:
    """Yield the items of a C array up to NULL, or to an entry without a name."""
    items = map(pointer.__getitem__, itertools.count())
    return itertools.takewhile(lambda item: getattr(item, "name", item) is not None, items)


def library() -> Path | None:
    """Return the library's file, or None if it was not built."""
    path = Path(__file__).with_name(_FILE)
    return path if path.is_file() else None


def loaded() -> Library | None:
    """Return the library, loaded into this process, or None if it was not built.

    Raises:
        DeviceError: It cannot be loaded.
    """
    path = library()
    if path is None:
        return None
    try:
        return _load(path)
    except (OSError, AttributeError) as error:
        raise unusable(path, error) from None


_load = functools.cache(Library)


def unusable(path: Path, error: Exception) -> DeviceError:
    """Return the error for a library that cannot be loaded."""
    return DeviceError(f"{path} cannot be loaded ({' '.join(str(error).split())}): install fusedbert again")


def cpu_features() -> tuple[str, ...] | None:
    """Return the processor's instruction sets as the library's cpuid sees them, by the names of ``hardware.cpu.FEATURES``.

    None without a library, and with one that cannot be loaded: ``loaded`` then says why when a session is opened.
    """
    try:
        found = loaded()
    except DeviceError:
        return None
    return None if found is None else found.features
