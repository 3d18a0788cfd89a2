"""A builder of ONNX graphs that names nodes in order."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[np.generic]


class Graph:
    """Nodes and constants under construction.

    Args:
        prefix: of every name that is not given with ``out``.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, op: str, *inputs: str, out: str | None = None, **attributes: object) -> str:
        """Add a node with one output; returns the output's name."""
        name = f"{self._prefix}{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out or name], name=name, **attributes))
        return out or name

    def constant(self, name: str, value: Array) -> str:
        """A constant; one of the same name is taken to be the same."""
        return self.tensor(numpy_helper.from_array(value, f"{self._prefix}{name}"))

    def tensor(self, value: onnx.TensorProto) -> str:
        """A constant that is a tensor already, under the tensor's name."""
        self.constants.setdefault(value.name, value)
        return str(value.name)

    def number(self, name: str, value: float) -> str:
        """A float32 constant without dimensions."""
        return self.constant(name, np.array(value, np.float32))

    def cast(self, value: str, kind: int) -> str:
        """A value in another type."""
        return self.add("Cast", value, to=kind)

    def sum(self, value: str) -> str:
        """The sum over the second axis, which stays with length 1."""
        return self.add("ReduceSum", value, self.constant("axis", np.array([1])), keepdims=1)
