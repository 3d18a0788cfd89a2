from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from reaugkd.export.onnx.token_table import pack, pack_token_table


def unpacked(packed: NDArray[np.uint8], scales: NDArray[np.float32]) -> NDArray[np.float64]:
    """As the docstring of `pack` says, in float64."""
    whole = packed.astype(np.float64)
    halves = np.concatenate([whole, 16 * (whole % 16)], axis=2)
    return ((halves - 128) * scales.astype(np.float64)).reshape(len(packed), -1)


def model_of(*tables: NDArray[np.float32], axis: int = 0) -> onnx.ModelProto:
    """Each table is looked up at its own input."""
    nodes = [
        helper.make_node("Gather", [f"table{number}", f"ids{number}"], [f"rows{number}"], axis=axis)
        for number in range(len(tables))
    ]
    graph = helper.make_graph(
        nodes,
        "tables",
        [helper.make_tensor_value_info(node.input[1], TensorProto.INT64, ["batch", "tokens"]) for node in nodes],
        [
            helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, ["batch", "tokens", "width"])
            for node in nodes
        ],
        [numpy_helper.from_array(table, f"table{number}") for number, table in enumerate(tables)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def rows_of(model: onnx.ModelProto, *ids: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {f"ids{number}": one for number, one in enumerate(ids)})


def random_table(rows: int, width: int) -> NDArray[np.float32]:
    table = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    table[0] = 0  # as the row of the padding
    return table


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.sampled_from([32, 64])),
        elements=st.floats(-100, 100, width=32).filter(lambda value: value == 0 or abs(value) > 1e-20),
    )
)
def test_every_component_is_within_half_a_step(table: NDArray[np.float32]) -> None:
    """A step is an eighth of the block's largest magnitude; a value beyond seven of them is within a whole one."""
    found = unpacked(*pack(table, 32)).reshape(len(table), -1, 32)
    blocks = table.astype(np.float64).reshape(found.shape)
    step = np.abs(blocks).max(axis=2, keepdims=True) / 8
    allowed = np.where(np.abs(blocks) > 7 * step, 1, 0.5001) * step
    assert (np.abs(found - blocks) <= allowed + 1e-12).all()


def test_the_graph_looks_up_what_was_packed() -> None:
    table, small = random_table(50, 96), random_table(5, 96)
    model = model_of(small, table)
    before = model.ByteSize()
    assert pack_token_table(model) == ["tokens/bytes", "tokens/scale"]
    onnx.checker.check_model(model)
    assert model.ByteSize() < 0.35 * before
    ids = np.array([[0, 7, 49], [7, 7, 1]])
    first, second = rows_of(model, ids[:, :1] % 5, ids)
    np.testing.assert_array_equal(first, small[ids[:, :1] % 5])
    packed, scales = pack(table, 32)
    np.testing.assert_allclose(second, unpacked(packed, scales)[ids], rtol=1e-6)
    assert not second[0, 0].any()


def test_blocks_have_64_components_where_they_fit() -> None:
    for width, blocks in ((384, 6), (80, 5), (48, 3)):
        model = model_of(random_table(4, width))
        pack_token_table(model)
        (packed,) = (item for item in model.graph.initializer if item.name == "tokens/packed")
        assert list(packed.dims) == [4, blocks, width // blocks // 2]


def shared() -> onnx.ModelProto:
    model = model_of(random_table(9, 64))
    model.graph.node.append(helper.make_node("MatMul", ["rows0", "table0"], ["logits"]))
    return model


@pytest.mark.parametrize(
    "model",
    [
        model_of(random_table(9, 40)),  # not a multiple of 16
        model_of(random_table(64, 64), axis=1),
        model_of(random_table(9, 64).astype(np.float16)),  # type: ignore[arg-type]
        shared(),
        model_of(),
    ],
    ids=["width", "axis", "type", "shared", "none"],
)
def test_other_tables_are_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString(deterministic=True)
    assert pack_token_table(model) == []
    assert model.SerializeToString(deterministic=True) == before
