"""Retrieval and blend as ONNX nodes after a student, with a search over all keys or in inverted lists (`list_search`).

    similarity [b, n]  q . key_j / |key_j|, of the embedding q, which has length 1; with int8 keys the query is rounded
                       to 8 bits too, over the range from its least to its largest component
    neighbours         TopK of the similarities; of equal ones, the lower row comes first (without lists)
    blend              same as `runtime.decision.blending` and `runtime.decision.mixture_weight`

After the student's nodes each node here costs 1 to 3 us, because its data is not in the caches. Everything that does
not depend on the text is therefore a constant: either computed here, or by nodes whose inputs are all constants, which
ONNX Runtime computes once when it opens the model. The temperature tau is such a constant: it is part of the keys'
scale, and the similarities leave the graph divided by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...kb.index.lists import Lists
from ..decision.blend_config import BlendConfig
from .builder import FLOAT, INT64, MICROSOFT, Array, Graph
from .list_search import add_list_search, inverse_lengths
from .weight_nodes import add_weight

PREFIX = "reaugkd/"
OLDEST_OPSET = 13
"""The oldest version of ONNX's operators that the nodes work with."""
BEST, STUDENT_BEST = f"{PREFIX}best", f"{PREFIX}student_best"
"""The most probable class, int64 [b], of the blend, and of the student alone (`student_graph`)."""
BLEND = f"{PREFIX}probabilities"
"""Probabilities of the blend [b, c]."""
RETRIEVED = f"{PREFIX}retrieval_probabilities"
"""The neighbours' probabilities [b, c]."""
WEIGHT = f"{PREFIX}student_weight"
"""The student's weight [b, 1]; not an output if it is the same for all texts."""
SCALED, ROWS = f"{PREFIX}scaled_similarities", f"{PREFIX}rows"
"""The neighbours' similarities, divided by tau, and their rows, int64; both [b, min(k, n)], nearest first."""
SHARES = f"{PREFIX}neighbour_weights"
"""The neighbours' weights [b, min(k, n)], which are no output."""
STUDENT = f"{PREFIX}student_probabilities"
"""The student's probabilities [b, c]; an output only of a model without an output of its own."""
SEARCH_NODES = f"{PREFIX}search/"
"""The beginning of the names of the nodes that search."""

_BATCH = "batch"


@dataclass(frozen=True)
class Tables:
    """The keys of a knowledge base and their soft labels.

    Attributes:
        keys: [n, d], as stored: int8, float16 or float32.
        soft_labels: as stored: float16 [n, c], or the m likeliest classes of each row as uint8 or uint16 [n, 2 m]
            (`kb.soft_labels`).
        num_labels: c.
        lists: the lists to search in, for int8 keys and one text at a time; None to compare a text with every key.
    """

    keys: Array
    soft_labels: Array
    num_labels: int
    lists: Lists | None = None


def retrieval_graph(
    tables: Tables,
    config: BlendConfig,
    own: str | None,
    classes: int,
    integer: bool = True,
    saturates: bool = False,
    single: bool = False,
) -> Graph:
    """The nodes after a student of opset 13 or later with the outputs ``logits`` [b, c] and ``embedding`` [b, d].

    Args:
        tables: n rows, at least one.
        config: k, tau, the weight and the student's temperature.
        own: name of the student's probabilities [b, c]; None to compute them from the logits.
        classes: the classes that the student was trained on. If the soft labels have more, only search is added.
        integer: whether int8 keys are multiplied as integers. It is three times as fast as in float32, and exact only
            if the processor has VNNI, or the session has ``session.x64quantprecision``.
        saturates: same as `list_search.add_list_search`.
        single: whether b is 1, which saves a node; with lists it always is.
    """
    graph, k = Graph(PREFIX), min(config.k, len(tables.keys))
    graph.part = SEARCH_NODES.removeprefix(PREFIX)
    if tables.lists is not None:
        add_list_search(graph, tables.keys, tables.lists, k, config.tau, saturates)
    else:
        scaled, number = _similarities(graph, tables.keys, config.tau, integer), graph.constant("k", np.array([k]))
        graph.add_several("TopK", scaled, number, out=["scaled_similarities", "rows"], axis=-1)
    graph.part = ""
    graph.output(SCALED, FLOAT, [_BATCH, k])
    graph.output(ROWS, INT64, [_BATCH, k])
    if own is None:
        own = add_probabilities(graph, config.student_temperature, classes)
    if tables.num_labels == classes:
        _blend(graph, tables, config, own, k, single or tables.lists is not None)
    return graph


def add_probabilities(graph: Graph, temperature: float, classes: int | str) -> str:
    """Add the student's probabilities, softmax(logits / temperature) [b, c], as an output, and return its name."""
    scaled = graph.add("Mul", "logits", graph.number("inverse_temperature", 1 / temperature))
    own = graph.add("Softmax", scaled, out="student_probabilities", axis=-1)
    graph.output(own, FLOAT, [_BATCH, classes])
    return own


def add_best(graph: Graph, probabilities: str, name: str) -> None:
    """Add the most probable class, int64 [b], as an output of this name, without the prefix."""
    graph.output(graph.add("ArgMax", probabilities, out=name, axis=-1, keepdims=0), INT64, [_BATCH])


def student_graph(own: str | None, temperature: float) -> Graph:
    """The nodes that choose the label of a student alone.

    Args:
        own: name of the student's probabilities [b, c]; None to compute them from the logits.
        temperature: the temperature of the logits.
    """
    graph = Graph(PREFIX)
    own = add_probabilities(graph, temperature, "classes") if own is None else own
    add_best(graph, own, "student_best")
    return graph


def _similarities(graph: Graph, keys: Array, tau: float, integer: bool) -> str:
    """Add the similarities to all keys, divided by tau, [b, n]."""
    scales = inverse_lengths(keys) / np.float32(tau)
    if keys.dtype == np.int8 and integer:
        stored, scale = graph.constant("keys", keys.T), graph.constant("key_scales", scales)
        return graph.add("DynamicQuantizeMatMul", "embedding", stored, scale, domain=MICROSOFT)
    wide = graph.constant("keys", keys.T)
    wide = wide if keys.dtype == np.float32 else graph.cast(wide)
    wide = graph.add("Mul", wide, graph.constant("key_scales", scales[np.newaxis]))
    return graph.add("MatMul", "embedding", wide)


def _blend(graph: Graph, tables: Tables, config: BlendConfig, own: str, k: int, single: bool) -> None:
    classes = tables.num_labels
    weights = graph.add("Softmax", SCALED, out="neighbour_weights", axis=-1)
    axis = graph.constant("axis", np.array([1]))
    if tables.lists is None:
        theirs = graph.add("Gather", _soft_labels(graph, tables), ROWS, axis=0)
    else:
        weights, theirs = _labels_of_rows(graph, tables, weights, k)
    mixed = graph.add("MatMul", weights if single else graph.add("Unsqueeze", weights, axis), theirs)
    retrieved = graph.add("Squeeze", mixed, axis, out="retrieval_probabilities")
    graph.output(retrieved, FLOAT, [_BATCH, classes])
    if config.weight is None:
        share = float(np.float32(config.student_weight))
        mine = graph.add("Mul", own, graph.number("weight", share))
        parts = mine, graph.add("Mul", retrieved, graph.number("rest", 1.0 - share))
    else:
        weight = add_weight(graph, own, retrieved, SCALED, config, classes)
        graph.output(weight, FLOAT, [_BATCH, 1])
        parts = retrieved, graph.add("Mul", weight, graph.add("Sub", own, retrieved))
    blend = graph.add("Add", *parts, out="probabilities")
    graph.output(blend, FLOAT, [_BATCH, classes])
    add_best(graph, blend, "best")


def _soft_labels(graph: Graph, tables: Tables) -> str:
    """Add the soft labels, float32 [n, c], each divided by its sum: all nodes have constant inputs."""
    table, classes = tables.soft_labels, tables.num_labels
    if table.dtype.kind == "u":
        numbers, shares = np.split(table, 2, axis=1)
        where = graph.cast(graph.constant("label_classes", numbers), INT64)
        nothing = graph.add("ConstantOfShape", graph.constant("label_shape", np.array([len(table), classes])))
        wide = graph.add("ScatterElements", nothing, where, graph.cast(graph.constant("label_shares", shares)), axis=1)
    else:
        wide = graph.cast(graph.constant("soft_labels", table))
    axis = graph.constant("axis", np.array([1]))
    return graph.add("Div", wide, graph.add("ReduceSum", wide, axis, keepdims=1), out="normalized_labels")


def _labels_of_rows(graph: Graph, tables: Tables, weights: str, k: int) -> tuple[str, str]:
    """Add the soft labels of the neighbours of one text, float32 [1, k, c], and their weights divided by their sums.

    A float32 table of all rows would be twice as large or more.
    """
    table, classes = tables.soft_labels, tables.num_labels
    if table.dtype.kind == "u":
        numbers, shares = (
            graph.cast(graph.add("Gather", graph.array(name, np.ascontiguousarray(part)), ROWS, axis=0), kind)
            for name, part, kind in zip(
                ("label_classes", "label_shares"), np.split(table, 2, axis=1), (INT64, FLOAT), strict=True
            )
        )
        nothing = graph.constant("no_labels", np.zeros((1, k, classes), np.float32))
        unit = graph.number("label_unit", 1 / np.iinfo(table.dtype.name).max)  # what the shares of a row sum to
        return graph.add("Mul", weights, unit), graph.add("ScatterElements", nothing, numbers, shares, axis=2)
    sums = table.sum(axis=1, dtype=np.float32)
    inverse = graph.add("Gather", graph.array("inverse_label_sums", 1 / sums), ROWS, axis=0)
    labels = graph.cast(graph.add("Gather", graph.array("soft_labels", table), ROWS, axis=0))
    return graph.add("Mul", weights, inverse), labels
