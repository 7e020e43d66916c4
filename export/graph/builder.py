"""A small builder of ONNX graphs: nodes named by where they stand, weights added once, shapes said beside each step."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.errors import MissingDependencyError

try:
    from onnx import GraphProto, ModelProto, StringStringEntryProto, TensorProto, helper
except ImportError:
    raise MissingDependencyError.of("onnx", "export", "build a graph") from None

MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators
IR_VERSION = 10  # of the file's own format: read by ONNX Runtime from 1.18 on
PROTOBUF_LIMIT = 1_900_000_000  # bytes of weights in one file; protobuf ends at 2 GiB, nodes and names included
ALIGNMENT = 4096  # of external weights, so that a page of the file is a page of memory
_TYPES: Mapping[str, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


class Graph:
    """An ONNX graph under construction.

    Values are the names of tensors. ``scope`` names the part being built, so that a viewer shows
    ``layer.3/attention/Softmax`` and not ``node_57``.

    Example:
        >>> graph = Graph()
        >>> x = graph.input("x", "float32", ["batch"])
        >>> graph.output("y", graph.op("Neg", x), "float32", ["batch"])
        >>> graph.count_nodes()
        {'Identity': 1, 'Neg': 1}
    """

    def __init__(self) -> None:
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
        """Build what follows under ``names``."""
        outer = self._scope
        self._scope = (*outer, *names)
        try:
            yield
        finally:
            self._scope = outer

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input; a string in ``shape`` is a dimension known at run time."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))
        return name

    def output(self, name: str, value: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Declare ``value`` an output of the graph under ``name``."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Add a weight under the current scope."""
        path = self._unique("/".join((*self._scope, name)))
        self._weights[path] = np.asarray(array, order="C")
        return path

    def constant(self, value: int | float | Sequence[int | float], dtype: str) -> str:
        """Add a small constant, one for each value and type."""
        array = np.asarray(value, dtype=dtype)
        name = f"constant/{dtype}/{'_'.join(map(str, array.ravel().tolist()))}/{array.ndim}"
        self._weights.setdefault(name, array)
        return name

    def op(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return it; ``""`` stands for an optional input that is left out."""
        return self.ops(op_type, 1, *inputs, domain=domain, **attributes)[0]

    def ops(self, op_type: str, outputs: int, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs and return them."""
        path = self._unique("/".join((*self._scope, op_type)))
        names = [path] if outputs == 1 else [f"{path}:{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(op_type, list(inputs), names, name=path, domain=domain, **attributes))
        return names

    def declare(self, value: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Say what a value's type and shape are, where they cannot be inferred."""
        self._declared.append(helper.make_tensor_value_info(value, _TYPES[dtype], list(shape)))

    def define(self, function: Any) -> None:
        """Bring a function along: the nodes that an operator of ours stands for."""
        self._functions[function.name] = function

    def _unique(self, path: str) -> str:
        self._names[path] += 1
        return path if self._names[path] == 1 else f"{path}.{self._names[path]}"

    def count_nodes(self) -> dict[str, int]:
        """Count the nodes of each op type, sorted by name; operators of other domains as ``domain:Type``."""
        names = (f"{node.domain}:{node.op_type}" if node.domain else node.op_type for node in self._nodes)
        return dict(sorted(Counter(names).items()))

    def write(self, path: Path, name: str, *, opset: int, metadata: Mapping[str, str], ir_version: int = IR_VERSION) -> None:
        """Write the graph as an ONNX file, one weight at a time.

        Serializing the whole model at once would hold every weight twice. Protobuf is a sequence of fields, so the
        model without its weights is written first and the weights follow as fields of its graph. Weights beyond
        protobuf's limit go into ``NAME.onnx_data`` beside the file.

        Args:
            path: The file; its folder must exist.
            name: Name of the graph inside the file.
            opset: Version of the default operator set.
            metadata: ``metadata_props`` of the model.
            ir_version: Version of the file's own format; a runtime for an older operator set may not read a newer one.
        """
        graph = GraphProto(name=name, node=self._nodes, input=self._inputs, output=self._outputs, value_info=self._declared)
        functions = list(self._functions.values())
        nodes = [*self._nodes, *(node for function in functions for node in function.node)]
        opsets = [helper.make_opsetid("", opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted({node.domain for node in nodes} - {""})]
        model = ModelProto(ir_version=ir_version, producer_name="fusedbert", opset_import=opsets, functions=functions)
        model.metadata_props.extend(StringStringEntryProto(key=key, value=value) for key, value in sorted(metadata.items()))
        external = sum(array.nbytes for array in self._weights.values()) > PROTOBUF_LIMIT
        with path.open("wb") as file, _data_file(path, external) as data:
            heads = [_initializer(name, array, data) for name, array in self._weights.items()]
            body = graph.SerializeToString(deterministic=True)
            size = len(body) + sum(len(head) + (0 if data and _is_large(array) else array.nbytes) for head, array in heads)
            file.write(model.SerializeToString(deterministic=True) + _key(ModelProto, "graph") + _varint(size) + body)
            for head, array in heads:
                file.write(head)
                if not (data and _is_large(array)):
                    file.write(_little_endian(array))


def _data_file(path: Path, external: bool) -> contextlib.AbstractContextManager[BinaryIO | None]:
    return path.with_name(f"{path.name}_data").open("wb") if external else contextlib.nullcontext()


def _is_large(array: NDArray[Any]) -> bool:
    """Tell whether a weight goes into the data file where there is one."""
    return array.nbytes > 1024


def _initializer(name: str, array: NDArray[Any], data: BinaryIO | None) -> tuple[bytes, NDArray[Any]]:
    """Return the bytes of a graph's weight up to its values; values for the data file are written there."""
    tensor = TensorProto(name=name, data_type=_TYPES[array.dtype.name], dims=array.shape)
    values = b""
    size = 0
    if data is not None and _is_large(array):
        data.write(b"\0" * (-data.tell() % ALIGNMENT))
        place = {"location": Path(data.name).name, "offset": str(data.tell()), "length": str(array.nbytes)}
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.extend(StringStringEntryProto(key=key, value=value) for key, value in place.items())
        data.write(_little_endian(array))
    else:
        values = _key(TensorProto, "raw_data") + _varint(array.nbytes)
        size = array.nbytes
    head = tensor.SerializeToString(deterministic=True) + values
    return _key(GraphProto, "initializer") + _varint(len(head) + size) + head, array


def _little_endian(array: NDArray[Any]) -> bytes:
    """Return the values as ONNX keeps them."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _key(message: Any, field: str) -> bytes:
    """Return the key of a length-delimited field (protobuf encoding: number << 3 | 2)."""
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | 2)


def _varint(value: int) -> bytes:
    """Encode a number in groups of seven bits, lowest first (protobuf encoding)."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
