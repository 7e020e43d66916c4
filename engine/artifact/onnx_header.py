"""The header of an ONNX file, read without onnx: its data files, operators, inputs and outputs.

Data files are checked before ONNX Runtime opens them: up to 1.26 it follows any path of a sparse initializer (absolute,
``..``, links), and no version knows the manifest's files. Weights are skipped.
Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from ..errors import ArtifactError, StorageError
from ..kernels import DOMAIN

_Span: TypeAlias = tuple[int, int]  # start and end of a field's content
_Message: TypeAlias = dict[int, list[Any]]  # by field number: texts, numbers or messages, in their order
_VARINT, _BYTES = 0, 2
_WIDTH = {1: 8, 5: 4}  # fixed64, fixed32
_FLOAT, _INT64, _FLOAT16 = 1, 7, 10  # TensorProto.DataType
_DEEPEST = 100  # messages within each other, as in protobuf itself
_MOST_FIELDS = 500_000  # DeBERTa's largest graph has about 150,000
_PER_BYTE, _SPARSE_PER_BYTE = 16, 256  # elements that a tensor may have for each byte of it in the file
_MOST_DIMENSIONS = 64
_LARGEST_SHAPE = 1 << 31  # elements that a constant shape may ask for
# The input of an operator that gives the shape of its result; a constant one is looked at.
_SHAPE_INPUT = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "OneHot": 1, "Range": 1, "Pad": 1, "Resize": 3}
_SMALL_TENSOR = 512  # bytes
_TEXT, _NUMBERS, _SPAN = "text", "numbers", "span"
# The fields that are read, by message; all others are skipped.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 8: "OperatorSet", 14: "StringStringEntry", 25: "Function"},
    "OperatorSet": {1: _TEXT, 2: _NUMBERS},
    "Graph": {1: "Node", 5: "Tensor", 11: "Value", 12: "Value", 15: "SparseTensor"},
    "Function": {7: "Node"},
    "Node": {1: _TEXT, 2: _TEXT, 4: _TEXT, 5: "Attribute", 7: _TEXT},
    "Attribute": {5: "Tensor", 6: "Graph", 8: _NUMBERS, 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "Tensor": {1: _NUMBERS, 2: _NUMBERS, 7: _SPAN, 8: _TEXT, 9: _SPAN, 13: "StringStringEntry"},
    "StringStringEntry": {1: _TEXT, 2: _TEXT},
    "SparseTensor": {1: "Tensor", 2: "Tensor", 3: _NUMBERS},
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
    by_fusedbert: bool  # its metadata or operators are fusedbert's


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
        self._constants: dict[str, tuple[int, ...]] = {}  # small integer tensors by name
        self._shapes: list[tuple[str, str]] = []  # operators whose result has the shape in a named tensor, and that name
        self._left = _MOST_FIELDS

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
        self._check_shapes()
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
            by_fusedbert=any(name.startswith(f"{DOMAIN}:") for name in nodes)
            or any("created_with" in entry.get(1, []) and DOMAIN in "".join(entry.get(2, [])) for entry in model.get(14, [])),
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
            elif child == _SPAN:
                values.append(inner)
            else:
                values.append(self._message(child, inner, depth + 1))
        if kind == "Tensor":
            self._note(found, span[1] - span[0])
        elif kind == "SparseTensor":
            _check_size(found.get(3, []), _SPARSE_PER_BYTE * (span[1] - span[0]))
        elif kind == "Node":
            self._note_node(found)
        return found

    def _note(self, tensor: _Message, size: int) -> None:
        """Note size and data files, whatever ``data_location`` says; all of several locations."""
        for entry in tensor.get(13, []):
            if "location" in entry.get(1, []):
                self._locations |= dict.fromkeys(entry.get(2, []))
        kind, dims = _last(tensor, 2, 0), tensor.get(1, [])
        # ONNX Runtime checks the size of a data file.
        _check_size(dims, math.inf if 13 in tensor else _PER_BYTE * size)
        if kind in self._sizes:
            self._sizes[kind] += math.prod(dims)
        if kind == _INT64 and size <= _SMALL_TENSOR:
            self._constants[_last(tensor, 8, "")] = self._integers(tensor)

    def _integers(self, tensor: _Message) -> tuple[int, ...]:
        values = [_signed(value) for span in tensor.get(7, []) for value in self._numbers(span)]
        for start, end in tensor.get(9, []):
            raw = self._content[start : end - (end - start) % 8]
            values += struct.unpack(f"<{len(raw) // 8}q", raw)
        return tuple(values)

    def _note_node(self, node: _Message) -> None:
        kind, inputs, outputs = _last(node, 4, ""), node.get(1, []), node.get(2, [])
        if kind == "Constant" and outputs:
            for attribute in node.get(5, []):
                for tensor in attribute.get(5, []):
                    if _last(tensor, 2, 0) == _INT64 and (9 in tensor or 7 in tensor):
                        self._constants[outputs[0]] = self._integers(tensor)
                if 8 in attribute:
                    self._constants[outputs[0]] = tuple(map(_signed, attribute[8]))
        elif len(inputs) > _SHAPE_INPUT.get(kind, math.inf):
            self._shapes.append((kind, inputs[_SHAPE_INPUT[kind]]))

    def _check_shapes(self) -> None:
        """Refuse an operator that would make a tensor beyond any memory."""
        for kind, name in self._shapes:
            elements = math.prod(abs(float(size)) for size in self._constants.get(name, ()) if size)
            if elements > _LARGEST_SHAPE:
                raise ValueError(f"{kind} makes a tensor of {elements:.3g} elements")

    def _fields(self, span: _Span) -> Iterator[tuple[int, _Span]]:
        """Yield (field number, span of its content) of a message."""
        at, end = span
        while at < end:
            self._count()
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
            self._count()
            value, at = self._varint(at)
            yield value

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"more than {_MOST_FIELDS:,} fields")

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


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _check_size(dims: list[int], most: float) -> None:
    elements = math.prod(map(float, dims))  # of integers without end it would take long
    if elements > most or len(dims) > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor of {len(dims)} dimensions and {elements:.3g} elements, more than its bytes are")


def _last(message: _Message, field: int, default: Any) -> Any:
    """Return a field's last value, as protobuf does."""
    return (message.get(field) or [default])[-1]


def _value(value: _Message) -> Tensor:
    """Read a ValueInfoProto: name, and type.tensor_type.shape.dim with dim_value."""
    types = _all(_all([value], 2), 1)
    dimensions = _all(_all(types, 2), 1)
    return Tensor(name=_last(value, 1, ""), shape=tuple(_last(dimension, 1, None) for dimension in dimensions))
