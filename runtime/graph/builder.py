"""Builder of ONNX nodes in the form of a protocol buffer, without the onnx library.

A protocol buffer that is the concatenation of two has the repeated fields of both, in all nested messages too. So
nodes, constants and outputs are appended to a model by appending bytes to its file. The numbers below are the field
numbers of onnx.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..bundle.onnx_safety import operator_sets

Array = NDArray[np.generic]
Attribute = int | float | str | list[int]

FLOAT, INT64, DOUBLE = 1, 7, 11
_TYPES = {"float32": FLOAT, "uint8": 2, "int8": 3, "uint16": 4, "int64": INT64, "float16": 10, "float64": DOUBLE}
_MODEL_GRAPH, _MODEL_OPSET = 7, 8
_NODE, _INITIALIZER, _OUTPUT = 1, 5, 12
_EXTERNAL_DATA, _DATA_LOCATION, _ELSEWHERE = 13, 14, 1
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_STRING, _ATTRIBUTE_INTS = 1, 2, 3, 7
_VARINT, _BYTES, _FIXED32 = 0, 2, 5
MICROSOFT = "com.microsoft"


class Graph:
    """Nodes, constants and outputs that are appended to a model.

    Args:
        prefix: prefix of all names, so that they differ from the model's own.

    Attributes:
        part: prefix of the names of the nodes that are added next.
        arrays: the constants that are not in the model, by name: a session gets them beside it, without a copy.
    """

    def __init__(self, prefix: str) -> None:
        self.part = ""
        self.arrays: dict[str, Array] = {}
        self._prefix = prefix
        self._parts: list[bytes] = []
        self._constants: set[str] = set()
        self._domains: set[str] = set()  # beside the default one
        self._nodes = 0

    def name(self, name: str) -> str:
        """A name with the prefix."""
        return self._prefix + name

    def add(self, op: str, *inputs: str, out: str = "", domain: str = "", **attributes: Attribute) -> str:
        """Add a node with one output.

        Args:
            op: the operator.
            *inputs: names of the inputs.
            out: name of the output, which gets the prefix; by default operator and number.
            domain: the operator's domain.
            **attributes: the operator's attributes.

        Returns:
            The name of the output.
        """
        return self.add_several(op, *inputs, out=[out or f"{op}_{self._nodes}"], domain=domain, **attributes)[0]

    def add_several(
        self, op: str, *inputs: str, out: Sequence[str], domain: str = "", **attributes: Attribute
    ) -> list[str]:
        """Add a node with the outputs ``out``; returns their names with the prefix."""
        outputs = [self.name(name) for name in out]
        node = b"".join(_text(1, value) for value in inputs) + b"".join(_text(2, value) for value in outputs)
        node += _text(3, self.name(f"{self.part}{op}_{self._nodes}")) + _text(4, op)
        node += b"".join(_message(5, _attribute(name, value)) for name, value in attributes.items())
        if domain:
            node += _text(7, domain)
            self._domains.add(domain)
        self._parts.append(_message(_NODE, node))
        self._nodes += 1
        return outputs

    def constant(self, name: str, value: Array) -> str:
        """Add a constant and return its name; a constant of the same name is not added again."""
        name = self.name(name)
        if name not in self._constants:
            self._constants.add(name)
            raw = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
            self._parts.append(_message(_INITIALIZER, _described(name, value) + _message(9, raw.tobytes())))
        return name

    def array(self, name: str, value: Array) -> str:
        """Add a constant that is not part of the model (`arrays`), and return its name."""
        name = self.name(name)
        self.arrays[name] = value
        return name

    def number(self, name: str, value: float) -> str:
        """Add a float32 scalar and return its name."""
        return self.constant(name, np.array(value, np.float32))

    def cast(self, value: str, kind: int = FLOAT) -> str:
        """Add a conversion of a value to another type."""
        return self.add("Cast", value, to=kind)

    def output(self, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """Make a value an output of the model; a size is a number or a name."""
        sizes = b"".join(_message(1, _text(2, size) if isinstance(size, str) else _number(1, size)) for size in shape)
        tensor = _number(1, kind) + _message(2, sizes)
        self._parts.append(_message(_OUTPUT, _text(1, name) + _message(2, _message(1, tensor))))

    def appended_to(self, model: bytes, file: str = "") -> bytes:
        """A model with these nodes.

        Args:
            model: the model.
            file: the name of any file in the folder of the session's external data, if there are `arrays`: ONNX Runtime
                checks that it exists, and does not read it.
        """
        arrays = [_message(_INITIALIZER, _elsewhere(name, value, file)) for name, value in self.arrays.items()]
        new = sorted(self._domains - operator_sets(model).keys())
        opsets = [_message(_MODEL_OPSET, _text(1, domain) + _number(2, 1)) for domain in new]
        return b"".join([model, _message(_MODEL_GRAPH, b"".join([*self._parts, *arrays])), *opsets])


def _described(name: str, value: Array) -> bytes:
    """Shape, type and name of a constant."""
    sizes = b"".join(_number(1, size) for size in value.shape)
    return sizes + _number(2, _TYPES[value.dtype.name]) + _text(8, name)


def _elsewhere(name: str, value: Array, file: str) -> bytes:
    """A constant whose value is not in the model."""
    entries = {"location": file, "offset": "0", "length": str(value.nbytes)}
    data = b"".join(_message(_EXTERNAL_DATA, _text(1, key) + _text(2, text)) for key, text in entries.items())
    return _described(name, value) + data + _number(_DATA_LOCATION, _ELSEWHERE)


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers have 64 bits
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return b"".join([_varint(field << 3 | _BYTES), _varint(len(content)), content])


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, str):
        content, kind = _text(4, value), _ATTRIBUTE_STRING
    elif isinstance(value, list):
        content, kind = b"".join(_number(8, one) for one in value), _ATTRIBUTE_INTS
    elif isinstance(value, int):
        content, kind = _number(3, value), _ATTRIBUTE_INT
    else:
        content, kind = _varint(2 << 3 | _FIXED32) + struct.pack("<f", value), _ATTRIBUTE_FLOAT
    return _text(1, name) + content + _number(20, kind)
