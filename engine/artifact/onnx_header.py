"""What a ``.onnx`` file says of itself, read without onnx: its data files, operators, inputs and outputs.

ONNX Runtime reads the data files that a graph names, and up to 1.23 follows any path there: absolute ones, ``..``, links
(from 1.26 on it refuses them). So the names are looked at before it is given the file. Only the protobuf's headers are
read and the weights are skipped, which takes a few milliseconds, whatever the file's size. The message numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from ..errors import ArtifactError, StorageError

_Span: TypeAlias = tuple[int, int]  # where a field's content begins and ends
_VARINT, _BYTES = 0, 2
_WIDTH = {1: 8, 5: 4}  # fixed64, fixed32
_FLOAT, _FLOAT16 = 1, 10  # TensorProto.DataType
_DEEPEST = 64  # graphs within graphs; protobuf itself refuses 100 messages within each other


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output: its sizes, None where they are left open."""

    name: str
    shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
    """What a file says of itself.

    Attributes:
        data_files: Locations of external data, as they are written.
        nodes: Number of nodes of each op type, ``domain:Type`` for those that are not ONNX's own.
        opset: Version of the default operator set.
        inputs: Inputs that are no weights.
        outputs: Outputs.
        half: Whether most of its weights are float16.
    """

    data_files: tuple[str, ...]
    nodes: Mapping[str, int]
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    half: bool


def scan(path: Path) -> Graph:
    """Read a graph's headers.

    Raises:
        ArtifactError: The file is no ONNX model, or damaged.
        StorageError: It cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Scan(content).model()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, IndexError) as error:  # UnicodeDecodeError and the mapping of an empty file among them
        raise ArtifactError(f"{path} is no ONNX graph, or damaged ({error}): copy or export it again") from None


def data_files(folder: Path, file: str, locations: tuple[str, ...]) -> tuple[str, ...]:
    """Turn the locations that a graph names into paths inside its folder.

    Args:
        folder: The model's folder.
        file: The graph in it.
        locations: As the graph has them: relative to its own folder.

    Raises:
        ArtifactError: One leads out, by an absolute path or ``..``. Links are for ``artifact.inside`` to refuse.
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


class _Scan:
    """One pass over a model's bytes."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._locations: dict[str, None] = {}  # in the order of their first appearance
        self._sizes = {_FLOAT: 0, _FLOAT16: 0}  # weights of these types

    def model(self) -> Graph:
        nodes: dict[str, int] = {}
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        weights: set[str] = set()
        opset = 0
        for number, span in self._fields((0, len(self._content))):
            if number == 7:  # ModelProto.graph
                for part, inner in self._fields(span):
                    if part == 1:  # GraphProto.node
                        name = self._node(inner, 0)
                        nodes[name] = nodes.get(name, 0) + 1
                    elif part == 5:  # initializer
                        weights.add(self._tensor(inner))
                    elif part == 11:  # input
                        inputs.append(self._value(inner))
                    elif part == 12:  # output
                        outputs.append(self._value(inner))
                    else:
                        self._sparse(part, inner)
            elif number == 8:  # opset_import
                domain, version = self._opset(span)
                opset = version if domain in ("", "ai.onnx") else opset
            elif number == 25:  # functions
                for part, inner in self._fields(span):
                    if part == 7:
                        self._node(inner, 0)
        if not nodes:
            raise ValueError("it has no nodes")
        given = tuple(tensor for tensor in inputs if tensor.name not in weights)
        return Graph(
            data_files=tuple(self._locations),
            nodes=nodes,
            opset=opset,
            inputs=given,
            outputs=tuple(outputs),
            half=self._sizes[_FLOAT16] > self._sizes[_FLOAT],
        )

    def _graph(self, span: _Span, depth: int) -> None:
        """Look for data files in a graph that is an attribute of a node."""
        if depth > _DEEPEST:
            raise ValueError("graphs within graphs without end")
        for number, inner in self._fields(span):
            if number == 1:
                self._node(inner, depth)
            elif number == 5:
                self._tensor(inner)
            else:
                self._sparse(number, inner)

    def _sparse(self, number: int, span: _Span) -> None:
        if number == 15:  # GraphProto.sparse_initializer: its values and indices are tensors
            self._sparse_tensor(span)

    def _sparse_tensor(self, span: _Span) -> None:
        for number, inner in self._fields(span):
            if number in (1, 2):
                self._tensor(inner)

    def _node(self, span: _Span, depth: int) -> str:
        """Return a node's op type, after a look into its attributes."""
        kind = domain = ""
        for number, inner in self._fields(span):
            if number == 4:
                kind = self._text(inner)
            elif number == 7:
                domain = self._text(inner)
            elif number == 5:
                self._attribute(inner, depth)
        return f"{domain}:{kind}" if domain not in ("", "ai.onnx") else kind

    def _attribute(self, span: _Span, depth: int) -> None:
        for number, inner in self._fields(span):
            if number in (5, 10):  # t, tensors
                self._tensor(inner)
            elif number in (6, 11):  # g, graphs
                self._graph(inner, depth + 1)
            elif number in (22, 23):  # sparse_tensor, sparse_tensors
                self._sparse_tensor(inner)

    def _tensor(self, span: _Span) -> str:
        """Return a tensor's name, and note where its data is."""
        name, kind, size = "", 0, 1
        for number, inner in self._fields(span):
            if number == 1:  # dims, one by one or packed
                size *= self._product(inner)
            elif number == 2:
                kind = self._varint(inner[0])[0]
            elif number == 8:
                name = self._text(inner)
            elif number == 13:  # external_data, whatever data_location says
                pairs = [(part, self._text(each)) for part, each in self._fields(inner)]
                if (1, "location") in pairs:
                    self._locations |= dict.fromkeys(text for part, text in pairs if part == 2)
        if kind in self._sizes:
            self._sizes[kind] += size
        return name

    def _product(self, span: _Span) -> int:
        """Return the product of the numbers of a repeated field."""
        product, (at, end) = 1, span
        while at < end:
            value, at = self._varint(at)
            product *= value
        return product

    def _value(self, span: _Span) -> Tensor:
        """Read a ValueInfoProto: name, and type.tensor_type.shape."""
        name, shape = "", []
        for number, inner in self._fields(span):
            if number == 1:
                name = self._text(inner)
            elif number == 2:
                for dimension in self._inner(inner, (1, 2, 1)):
                    sizes = [at for part, (at, end) in self._fields(dimension) if part == 1]  # dim_value; a dim_param is 2
                    shape.append(self._varint(sizes[-1])[0] if sizes else None)
        return Tensor(name=name, shape=tuple(shape))

    def _inner(self, span: _Span, path: tuple[int, ...]) -> Iterator[_Span]:
        """Yield the fields at the end of a path of field numbers."""
        for number, inner in self._fields(span):
            if number == path[0]:
                if len(path) == 1:
                    yield inner
                else:
                    yield from self._inner(inner, path[1:])

    def _opset(self, span: _Span) -> tuple[str, int]:
        domain, version = "", 0
        for number, inner in self._fields(span):
            if number == 1:
                domain = self._text(inner)
            elif number == 2:
                version = self._varint(inner[0])[0]
        return domain, version

    def _text(self, span: _Span) -> str:
        return self._content[span[0] : span[1]].decode()

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
