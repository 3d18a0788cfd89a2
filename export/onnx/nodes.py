"""Builder of ONNX graphs that numbers the nodes."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[np.generic]


class Graph:
    """Nodes and constants of a graph that is being built.

    Args:
        prefix: prefix of all names that are not given with ``out``.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, op: str, *inputs: str, out: str | None = None, **attributes: object) -> str:
        """Add a node with one output.

        Args:
            op: the operator.
            *inputs: names of the inputs.
            out: name of the output; by default prefix, operator and number.
            **attributes: the operator's attributes.

        Returns:
            The name of the output.
        """
        name = f"{self._prefix}{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out or name], name=name, **attributes))
        return out or name

    def constant(self, name: str, value: Array) -> str:
        """Add a constant and return its name; a constant of the same name is not added again."""
        return self.tensor(numpy_helper.from_array(value, f"{self._prefix}{name}"))

    def tensor(self, value: onnx.TensorProto) -> str:
        """Add a tensor as a constant and return its name."""
        self.constants.setdefault(value.name, value)
        return str(value.name)

    def number(self, name: str, value: float) -> str:
        """Add a float32 scalar constant and return its name."""
        return self.constant(name, np.array(value, np.float32))

    def cast(self, value: str, kind: int) -> str:
        """Add a conversion of a value to another type."""
        return self.add("Cast", value, to=kind)

    def sum(self, value: str) -> str:
        """Add a sum over the second axis, which keeps length 1."""
        return self.add("ReduceSum", value, self.constant("axis", np.array([1])), keepdims=1)
