"""Builder of ONNX graphs; nodes are named by their place in the model."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import MissingDependencyError

try:
    from onnx import GraphProto, ModelProto, StringStringEntryProto, TensorProto, helper
except ImportError:
    raise MissingDependencyError.of("onnx", "export", "build a graph") from None

MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators
IR_VERSION = 10  # of the file format: read by ONNX Runtime from 1.18 on
PROTOBUF_LIMIT = 1_900_000_000  # bytes of weights in one file; protobuf ends at 2 GiB, nodes and names included
FLOAT16_MAX = 65504.0
ALIGNMENT = 4096  # of external weights, so that a page of the file is a page of memory
_TYPES: Mapping[str, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "uint16": TensorProto.BFLOAT16,  # NumPy has no bfloat16: its bits
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


Shape = Sequence[int | str]


class Part(NamedTuple):
    """A value that ``Graph.scan`` slices along an axis, and the shape of a slice."""

    value: str
    shape: Shape
    axis: int = 1


class Graph:
    """An ONNX graph under construction; values are names of tensors, such as ``layer.3/attention/Softmax``.

    Example:
        >>> graph = Graph()
        >>> x = graph.input("x", "float32", ["batch"])
        >>> graph.output("y", graph.op("Neg", x), "float32", ["batch"])
        >>> graph.count_nodes()
        {'Identity': 1, 'Neg': 1}
    """

    def __init__(self, *, shared: bool = False) -> None:
        """Begin a graph; ``shared``: equal weights are stored once, under the name of the first."""
        self._shared = shared
        self._by_content: dict[Any, str] = {}  # names of the weights, if they are shared
        self._nodes: list[Any] = []
        self._weights: dict[str, NDArray[Any]] = {}
        self._declared: list[Any] = []
        self._functions: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._scope: tuple[str, ...] = ()
        self._names: Counter[str] = Counter()

    @contextlib.contextmanager
    def scope(self, *names: str) -> Iterator[None]:
        """Put the block's nodes and weights under ``names``."""
        outer = self._scope
        self._scope = (*outer, *names)
        try:
            yield
        finally:
            self._scope = outer

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input; a string in ``shape`` is a dynamic dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))
        return name

    def output(self, name: str, value: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Declare ``value`` as the output ``name``."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Add a weight under the current scope."""
        values = np.asarray(array, order="C")
        content = _content(values) if self._shared else None
        if content in self._by_content:
            return self._by_content[content]
        path = self._unique("/".join((*self._scope, name)))
        self._weights[path] = values
        if content is not None:
            self._by_content[content] = path
        return path

    def constant(self, value: int | float | Sequence[int | float], dtype: str) -> str:
        """Add a small constant, once for each value and type."""
        array = np.asarray(value, dtype=dtype)
        name = f"constant/{dtype}/{'_'.join(map(str, array.ravel().tolist()))}/{array.ndim}"
        self._weights.setdefault(name, array)
        return name

    def op(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node and return its output; ``""`` leaves an optional input out."""
        return self.ops(op_type, 1, *inputs, domain=domain, **attributes)[0]

    def ops(self, op_type: str, outputs: int, /, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs and return them."""
        path = self._unique("/".join((*self._scope, op_type)))
        while inputs and not inputs[-1]:  # what is left out at the end is not there at all
            inputs = inputs[:-1]
        names = [path] if outputs == 1 else [f"{path}:{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(op_type, list(inputs), names, name=path, domain=domain, **attributes))
        return names

    def scan(self, *parts: Part, shape: Shape, body: Callable[..., str]) -> str:
        """Put slices of parts through ``body``, one after the other (``Scan``), and stack the results along the second axis.

        ``body`` adds the nodes for a slice of each, and returns their result, of ``shape``; it may use all other values.
        """
        slices = [(self._unique("/".join((*self._scope, "part"))), part.shape) for part in parts]
        inner = self._inner(shape, lambda: body(*(name for name, _ in slices)), *slices)
        axes = [part.axis for part in parts]
        values = (part.value for part in parts)
        return self.op("Scan", *values, body=inner, num_scan_inputs=len(parts), scan_input_axes=axes, scan_output_axes=[1])

    def either(self, condition: str, then: Callable[[], str], otherwise: Callable[[], str], shape: Shape) -> str:
        """Compute only one of two values, both of ``shape`` (``If``); their functions may use all other values."""
        return self.op("If", condition, then_branch=self._inner(shape, then), else_branch=self._inner(shape, otherwise))

    def _inner(self, shape: Shape, body: Callable[[], str], *inputs: tuple[str, Shape]) -> GraphProto:
        """Put the nodes that ``body`` adds into a graph inside this one; its output is of ``shape``."""
        outer, self._nodes = self._nodes, []
        result = body()
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(size)) for name, size in (*inputs, (result, shape))]
        inner, self._nodes = helper.make_graph(self._nodes, result, ends[:-1], ends[-1:]), outer
        return inner

    def cast(self, x: str, dtype: str) -> str:
        """Convert ``x`` to another type."""
        return self.op("Cast", x, to=_TYPES[dtype])

    def declare(self, value: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Declare a value's type and shape if they cannot be inferred."""
        self._declared.append(helper.make_tensor_value_info(value, _TYPES[dtype], list(shape)))

    def define(self, function: Any) -> None:
        """Add a function that defines one of our operators."""
        self._functions[function.name] = function

    def _unique(self, path: str) -> str:
        self._names[path] += 1
        return path if self._names[path] == 1 else f"{path}.{self._names[path]}"

    def count_nodes(self) -> dict[str, int]:
        """Count the nodes of each type, with those inside a ``Scan``, and in the second of the two graphs of an ``If``."""
        return count_nodes(_all_nodes(self._nodes))

    def write(self, path: Path, name: str, *, opset: int, metadata: Mapping[str, str], ir_version: int = IR_VERSION) -> None:
        """Write the graph, named ``name``, as an ONNX file whose ``metadata_props`` are ``metadata``.

        Serialized at once, every weight would be in memory twice. Protobuf is a sequence of fields, so the weights follow one
        by one after the rest. Beyond protobuf's limit they go into ``NAME.onnx_data`` next to the file.
        """
        graph = GraphProto(name=name, node=self._nodes, input=self._inputs, output=self._outputs, value_info=self._declared)
        functions = list(self._functions.values())
        nodes = [*self._nodes, *(node for function in functions for node in function.node)]
        opsets = [helper.make_opsetid("", opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted({node.domain for node in nodes} - {""})]
        model = ModelProto(ir_version=ir_version, producer_name="fusedbert", opset_import=opsets, functions=functions)
        model.metadata_props.extend(StringStringEntryProto(key=key, value=value) for key, value in sorted(metadata.items()))
        external = sum(array.nbytes for array in self._weights.values()) > PROTOBUF_LIMIT
        data_file = path.with_name(f"{path.name}_data").open("wb") if external else contextlib.nullcontext()
        with path.open("wb") as file, data_file as data:
            heads = [_initializer(name, array, data) for name, array in self._weights.items()]
            body = graph.SerializeToString(deterministic=True)
            size = len(body) + sum(len(head) + (0 if data and _is_large(array) else array.nbytes) for head, array in heads)
            file.write(model.SerializeToString(deterministic=True) + _key(ModelProto, "graph") + varint(size) + body)
            for head, array in heads:
                file.write(head)
                if not (data and _is_large(array)):
                    file.write(_little_endian(array))


def count_nodes(nodes: Iterable[Any]) -> dict[str, int]:
    """Count the nodes of each type, sorted; types of other domains as ``domain:Type``."""
    names = (n.op_type if n.domain in ("", "ai.onnx") else f"{n.domain}:{n.op_type}" for n in nodes)
    return dict(sorted(Counter(names).items()))


def _all_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.name != "then_branch":
                yield from _all_nodes(attribute.g.node)


def _content(array: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.name, array.shape, hashlib.sha256(array.reshape(-1).view(np.uint8).data).digest()


def _is_large(array: NDArray[Any]) -> bool:
    return array.nbytes > 1024


def _initializer(name: str, array: NDArray[Any], data: BinaryIO | None) -> tuple[bytes, NDArray[Any]]:
    """Return a weight's bytes up to its values; those of external weights are written to ``data``."""
    tensor = TensorProto(name=name, data_type=_TYPES[array.dtype.name], dims=array.shape)
    values, size = b"", 0
    if data is not None and _is_large(array):
        data.write(b"\0" * (-data.tell() % ALIGNMENT))
        place = {"location": Path(data.name).name, "offset": str(data.tell()), "length": str(array.nbytes)}
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.extend(StringStringEntryProto(key=key, value=value) for key, value in place.items())
        data.write(_little_endian(array))
    else:
        values, size = _key(TensorProto, "raw_data") + varint(array.nbytes), array.nbytes
    head = tensor.SerializeToString(deterministic=True) + values
    return _key(GraphProto, "initializer") + varint(len(head) + size) + head, array


def _little_endian(array: NDArray[Any]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _key(message: Any, field: str) -> bytes:
    """Return the protobuf key of a length-delimited field: number << 3 | 2."""
    return varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | 2)


def varint(value: int) -> bytes:
    """Encode a number for protobuf: groups of seven bits, lowest first."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
