from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.tiny_bundle import MAX_LENGTH, NDIM, build_tiny_bundle

from reaugkd import BundleError, BundleIntegrityError
from reaugkd.runtime.bundle.onnx_safety import _CHILDREN, read_onnx_file
from reaugkd.runtime.inference.session.student import StudentSession
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer


@pytest.fixture(scope="module", params=[False, True], ids=["single", "pair"])
def parts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudentSession, TextTokenizer]:
    path = build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", pairs=request.param, rows=0)
    return StudentSession(path / "student/model.onnx"), TextTokenizer(path / "student/tokenizer.json", MAX_LENGTH)


def test_the_model_gets_just_the_inputs_that_it_asks_for(parts: tuple[StudentSession, TextTokenizer]) -> None:
    student, tokenizer = parts
    asked = {node.name for node in student.session.get_inputs()}
    encoding = tokenizer.encode("alarm noon", "call" if "token_type_ids" in asked else None)
    feeds = student.feeds(encoding)
    assert set(feeds) == asked
    for name, of_encoding in (
        ("input_ids", "ids"),
        ("attention_mask", "attention_mask"),
        ("token_type_ids", "type_ids"),
    ):
        if name in feeds:
            assert feeds[name].dtype == np.int64
            assert feeds[name].tolist() == [getattr(encoding, of_encoding)]
    logits, embedding = student.run(encoding)
    assert logits.shape == (3,) and embedding.shape == (NDIM,)
    assert logits.dtype == embedding.dtype == np.float32
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)


def test_a_batch_would_change_the_answers_so_there_is_none(parts: tuple[StudentSession, TextTokenizer]) -> None:
    """What the runtime avoids is real in this model: dynamic int8 takes its range from the whole batch."""
    student, tokenizer = parts
    pair = "call" if "token_type_ids" in student.feeds(tokenizer.encode("a")) else None
    alone = [student.feeds(tokenizer.encode(text, pair)) for text in ("alarm noon call", "jazz jazz milk")]
    batch = {name: np.concatenate([feeds[name] for feeds in alone]) for name in alone[0]}
    together = student.session.run(["logits"], batch)[0]
    apart = [student.session.run(["logits"], feeds)[0][0] for feeds in alone]
    assert any((row != one).any() for row, one in zip(together, apart, strict=True))


def test_the_session_has_the_threads_it_was_given_and_does_not_spin(
    parts: tuple[StudentSession, TextTokenizer],
) -> None:
    for threads in (1, 3):
        options = StudentSession(parts[0].path, threads).session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def identity(path: Path, inputs: list[str], outputs: list[str]) -> Path:
    nodes = [helper.make_node("Cast", [inputs[0]], [name], to=TensorProto.FLOAT) for name in outputs]
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in inputs]
    values += [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "t"]) for name in outputs]
    graph = helper.make_graph(nodes, "g", values[: len(inputs)], values[len(inputs) :])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["ids"], ["logits", "embedding"]),
        (["input_ids", "position_ids"], ["logits", "embedding"]),
        (["input_ids"], ["logits"]),
        (["input_ids"], ["last_hidden_state"]),
    ],
)
def test_other_inputs_or_outputs_are_refused(tmp_path: Path, inputs: list[str], outputs: list[str]) -> None:
    with pytest.raises(BundleError, match="inputs or outputs"):
        StudentSession(identity(tmp_path / "model.onnx", inputs, outputs))


@pytest.mark.parametrize("content", [b"", b"\x00", b"no model at all", b"\xff" * 200, b"\x0a\x05abc"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError) as caught:
        StudentSession(tmp_path / "model.onnx")
    assert caught.value.path == str(tmp_path / "model.onnx")


def test_a_model_of_the_future_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(identity(tmp_path / "model.onnx", ["input_ids"], ["logits", "embedding"])))
    model.opset_import[0].version = 999
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(BundleError, match="Upgrade onnxruntime"):
        StudentSession(tmp_path / "model.onnx")


def external(name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def inner(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.zeros(300, np.float32), name)


def model_with(tensor: TensorProto, place: str) -> onnx.ModelProto:
    graph = helper.make_graph([], "g", [], [])
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    model = helper.make_model(graph)
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif place == "constant":
        model.graph.node.append(constant)
    elif place == "list":
        model.graph.node.add(op_type="X").attribute.add(name="ts").tensors.append(tensor)
    elif place == "subgraph":
        branch = helper.make_graph([constant], "then", [], [])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    elif place == "function":
        model.functions.add(name="f").node.append(constant)
    elif place == "training":
        model.training_info.add().algorithm.initializer.append(tensor)
    return model


NAMES = {"Operators", "Output"}  # messages without tensors, walked for their names


def test_every_way_to_a_tensor_in_the_format_is_walked() -> None:
    names = {"Function": "FunctionProto", "Sparse": "SparseTensorProto", "Training": "TrainingInfoProto"}
    messages = {names.get(name, f"{name}Proto"): fields for name, fields in _CHILDREN.items()}
    for message, fields in messages.items():
        children = {
            field.number: field.message_type.name
            for field in getattr(onnx, message).DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.name in {*messages, "TensorProto"}
        }
        walked = {number: names.get(child, f"{child}Proto") for number, child in fields.items() if child not in NAMES}
        assert walked == children


@pytest.mark.parametrize("place", ["initializer", "sparse", "constant", "list", "subgraph", "function", "training"])
def test_tensors_in_other_files_are_found_wherever_they_hide(tmp_path: Path, place: str) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(model_with(inner(), place).SerializeToString())
    if place != "function":  # which is refused anyhow
        read_onnx_file(file)
    file.write_bytes(model_with(external(), place).SerializeToString())
    for entry in (read_onnx_file, StudentSession):
        with pytest.raises(BundleError, match="external data"):
            entry(file)


def test_a_cut_model_is_broken_not_clean(tmp_path: Path) -> None:
    content = model_with(inner(), "initializer").SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content[:-200])
    with pytest.raises(BundleIntegrityError):
        read_onnx_file(tmp_path / "model.onnx")
