"""The header of an ONNX file, read without onnx: its data files, operators, inputs and outputs.

Data files are checked before ONNX Runtime opens them: up to 1.26 it follows any path of a sparse initializer (absolute,
``..``, links), and no version knows the manifest's files. Weights are skipped.
Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from ..errors import ArtifactError, StorageError

_Span: TypeAlias = tuple[int, int]  # start and end of a field's content
_Message: TypeAlias = dict[int, list[Any]]  # by field number: texts, numbers or messages, in their order
_VARINT, _BYTES = 0, 2
_WIDTH = {1: 8, 5: 4}  # fixed64, fixed32
_FLOAT, _FLOAT16 = 1, 10  # TensorProto.DataType
_DEEPEST = 100  # messages within each other, as in protobuf itself
_TEXT, _NUMBERS = "text", "numbers"
# The fields that are read, by message; all others are skipped.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 8: "OperatorSet", 25: "Function"},
    "OperatorSet": {1: _TEXT, 2: _NUMBERS},
    "Graph": {1: "Node", 5: "Tensor", 11: "Value", 12: "Value", 15: "SparseTensor"},
    "Function": {7: "Node"},
    "Node": {4: _TEXT, 5: "Attribute", 7: _TEXT},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "Tensor": {1: _NUMBERS, 2: _NUMBERS, 8: _TEXT, 13: "StringStringEntry"},
    "StringStringEntry": {1: _TEXT, 2: _TEXT},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Value": {1: _TEXT, 2: "Type"},
    "Type": {1: "TensorType"},
    "TensorType": {2: "Shape"},
    "Shape": {1: "Dimension"},
    "Dimension": {1: _NUMBERS},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output; dynamic sizes are None."""

    name: str
    shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
    """The header of a graph."""

    data_files: tuple[str, ...]  # locations as written
    nodes: Mapping[str, int]  # number by op type, ``domain:Type`` outside ONNX's domain
    opset: int  # of the default domain
    inputs: tuple[Tensor, ...]  # without weights
    outputs: tuple[Tensor, ...]
    half: bool  # most weights are float16


def read_header(path: Path) -> Graph:
    """Read a graph's header.

    Raises:
        ArtifactError: The file is not an ONNX model, or damaged.
        StorageError: It cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Parser(content).graph()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, IndexError) as error:  # UnicodeDecodeError and the mapping of an empty file among them
        raise ArtifactError(f"{path} is not an ONNX graph, or damaged ({error}): copy or export it again") from None


def data_files(folder: Path, file: str, locations: tuple[str, ...]) -> tuple[str, ...]:
    """Turn locations relative to a graph into paths relative to the model's folder.

    Raises:
        ArtifactError: One is absolute or has ``..``; links are refused by ``inside``.
    """
    names = []
    for location in locations:
        pure = PurePosixPath(location)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts or any(c in location for c in "\\:*\0"):
            raise ArtifactError(
                f"{folder / file} keeps weights in {location!r}, which is not a path inside its folder: do not use this model"
            )
        names.append((PurePosixPath(file).parent / pure).as_posix())
    return tuple(names)


class _Parser:
    """One pass over a model's bytes; every tensor is noted, however deep."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._locations: dict[str, None] = {}  # in the order of their first appearance
        self._sizes = {_FLOAT: 0, _FLOAT16: 0}  # number of weights of these types

    def graph(self) -> Graph:
        model = self._message("Model", (0, len(self._content)))
        graphs: list[_Message] = model.get(7, [])
        nodes: dict[str, int] = {}
        for node in _all(graphs, 1):
            domain, kind = _last(node, 7, ""), _last(node, 4, "")
            name = kind if domain in ("", "ai.onnx") else f"{domain}:{kind}"
            nodes[name] = nodes.get(name, 0) + 1
        if not nodes:
            raise ValueError("it has no nodes")
        versions = [_last(each, 2, 0) for each in model.get(8, []) if _last(each, 1, "") in ("", "ai.onnx")]
        weights = {_last(tensor, 8, "") for tensor in _all(graphs, 5)}
        inputs, outputs = ([_value(value) for value in _all(graphs, field)] for field in (11, 12))
        return Graph(
            data_files=tuple(self._locations),
            nodes=nodes,
            opset=versions[-1] if versions else 0,
            inputs=tuple(tensor for tensor in inputs if tensor.name not in weights),
            outputs=tuple(outputs),
            half=self._sizes[_FLOAT16] > self._sizes[_FLOAT],
        )

    def _message(self, kind: str, span: _Span, depth: int = 0) -> _Message:
        if depth > _DEEPEST:
            raise ValueError("messages within messages without end")
        known, found = _FIELDS[kind], _Message()
        for number, inner in self._fields(span):
            child = known.get(number)
            if child is None:
                continue
            values = found.setdefault(number, [])
            if child == _TEXT:
                values.append(self._content[inner[0] : inner[1]].decode())
            elif child == _NUMBERS:
                values += self._numbers(inner)
            else:
                values.append(self._message(child, inner, depth + 1))
        if kind == "Tensor":
            self._note(found)
        return found

    def _note(self, tensor: _Message) -> None:
        """Note size and data files, whatever ``data_location`` says; all of several locations."""
        for entry in tensor.get(13, []):
            if "location" in entry.get(1, []):
                self._locations |= dict.fromkeys(entry.get(2, []))
        kind = _last(tensor, 2, 0)
        if kind in self._sizes:
            self._sizes[kind] += math.prod(tensor.get(1, []))

    def _fields(self, span: _Span) -> Iterator[tuple[int, _Span]]:
        """Yield (field number, span of its content) of a message."""
        at, end = span
        while at < end:
            key, at = self._varint(at)
            number, wire = key >> 3, key & 7
            if wire == _BYTES:
                size, start = self._varint(at)
                at = start + size
            elif wire == _VARINT:
                start, (_, at) = at, self._varint(at)
            elif wire in _WIDTH:
                start, at = at, at + _WIDTH[wire]
            else:
                raise ValueError(f"wire type {wire}")
            if at > end or not number:
                raise ValueError("it ends too early")
            yield number, (start, at)

    def _numbers(self, span: _Span) -> Iterator[int]:  # several in a packed field
        at, end = span
        while at < end:
            value, at = self._varint(at)
            yield value

    def _varint(self, at: int) -> tuple[int, int]:
        """Return the number at a position, and the position after it."""
        value = shift = 0
        while True:
            byte = self._content[at]
            value |= (byte & 0x7F) << shift
            at += 1
            if byte < 0x80:
                return value, at
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")


def _all(messages: list[_Message], field: int) -> list[Any]:
    return [value for message in messages for value in message.get(field, [])]


def _last(message: _Message, field: int, default: Any) -> Any:
    """Return a field's last value, as protobuf does."""
    return (message.get(field) or [default])[-1]


def _value(value: _Message) -> Tensor:
    """Read a ValueInfoProto: name, and type.tensor_type.shape.dim with dim_value."""
    types = _all(_all([value], 2), 1)
    dimensions = _all(_all(types, 2), 1)
    return Tensor(name=_last(value, 1, ""), shape=tuple(_last(dimension, 1, None) for dimension in dimensions))
