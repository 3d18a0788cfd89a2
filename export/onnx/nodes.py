"""Builder of ONNX graphs that numbers the nodes, and the order of nodes."""

from __future__ import annotations

from graphlib import TopologicalSorter

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


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Move each node behind the nodes that it reads from, also those that only its branches read from (If, Loop).

    ONNX demands this order. ONNX Runtime's quantizer leaves another where a branch reads a value made outside of it.
    """
    maker = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    needs = {n: {maker[name] for name in _read(node) if name in maker} for n, node in enumerate(graph.node)}
    nodes = [graph.node[number] for number in TopologicalSorter(needs).static_order()]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _read(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node and its branches read; a branch's own names do no harm: names are unique."""
    inner = (part for attribute in node.attribute for part in attribute.g.node)
    return set(node.input).union(*map(_read, inner))
