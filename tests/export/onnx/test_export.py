from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType
from support import tiny_models as tinymodels
from support.tiny_models import LABELS, MAX_LENGTH
from transformers import AutoConfig

from reaugkd.errors import ModelError, QualityError
from reaugkd.export.modeling.checkpoint import load_encoder
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.onnx import quantization as quantizing
from reaugkd.export.onnx.export import export_float32, require_same_answers
from reaugkd.export.onnx.exporters import OPSET
from reaugkd.export.onnx.quantization import (
    TARGETS,
    WEIGHT_TYPES,
    QuantizedNodes,
    Target,
    count_nodes,
    detect_target,
    quantize,
)
from reaugkd.runtime.inference.session.student import StudentSession
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer

Arrays = dict[str, NDArray[np.int64]]
OUTPUTS = ["logits", "embedding"]
LAYERS = {"bert": 2, "distilbert": 2, "roberta": 2}
# A layer has six weighted products; the heads are two more.
WEIGHTED = {kind: 6 * layers + 2 for kind, layers in LAYERS.items()}
WRITERS: dict[str, Callable[[Path], Path]] = {
    "bert": lambda folder: tinymodels.write_bert(folder, num_hidden_layers=2),
    "distilbert": tinymodels.write_distilbert,
    "roberta": tinymodels.write_roberta,
}


@dataclasses.dataclass(frozen=True)
class Exported:
    kind: str
    student: EncoderClassifier
    path: Path
    tokenizer: TextTokenizer


@pytest.fixture(scope="module")
def make_exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    made: dict[str, Exported] = {}

    def make(kind: str) -> Exported:
        if kind not in made:
            start = WRITERS[kind](tmp_path_factory.mktemp("start") / kind)
            student = tinymodels.student_of(load_encoder(str(start)))
            folder = tmp_path_factory.mktemp("float32")
            path = export_float32(student, LABELS, MAX_LENGTH, folder)
            made[kind] = Exported(kind, student, path, TextTokenizer(start / "tokenizer.json", MAX_LENGTH))
        return made[kind]

    return make


@pytest.fixture(scope="module")
def bert(make_exported: Callable[[str], Exported]) -> Exported:
    return make_exported("bert")


@pytest.fixture(params=list(WRITERS))
def exported(request: pytest.FixtureRequest, make_exported: Callable[[str], Exported]) -> Exported:
    return make_exported(request.param)


def session_of(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds_of(kind: str, rows: int, tokens: int, padded: bool = False) -> Arrays:
    rng = np.random.default_rng(rows * 100 + tokens)
    feeds = {
        "input_ids": rng.integers(4, 80, size=(rows, tokens)),
        "attention_mask": np.ones((rows, tokens), np.int64),
    }
    if padded:
        for row in range(1, rows):
            feeds["input_ids"][row, tokens - row :] = 0
            feeds["attention_mask"][row, tokens - row :] = 0
    if kind == "bert":
        feeds["token_type_ids"] = rng.integers(0, 2, size=(rows, tokens))
    return feeds


def torch_outputs(student: EncoderClassifier, feeds: Arrays) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        outputs = student(**{name: torch.from_numpy(value) for name, value in feeds.items()})
    return [outputs.logits.numpy(), outputs.embedding.numpy()]


@pytest.mark.parametrize(
    ("rows", "tokens", "padded"), [(1, 1, False), (1, MAX_LENGTH, False), (3, 7, False), (3, 7, True), (2, 40, False)]
)
def test_float32_answers_as_torch_at_any_shape(exported: Exported, rows: int, tokens: int, padded: bool) -> None:
    session = session_of(exported.path)
    feeds = feeds_of(exported.kind, rows, tokens, padded)
    assert {node.name for node in session.get_inputs()} == set(feeds)
    assert [node.name for node in session.get_outputs()] == OUTPUTS
    found = session.run(OUTPUTS, feeds)
    assert found[0].shape == (rows, 3) and found[1].shape == (rows, 16)
    for ours, theirs in zip(found, torch_outputs(exported.student, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found[1], axis=1), 1.0, atol=1e-5)


def test_the_folder_is_complete(exported: Exported) -> None:
    folder = exported.path.parent
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.onnx", "tokenizer_config.json"]
    config = AutoConfig.from_pretrained(folder)
    assert config.id2label == dict(enumerate(LABELS))
    assert config.label2id == {name: number for number, name in enumerate(LABELS)}
    assert config.num_labels == 3
    model = onnx.load(str(exported.path))
    onnx.checker.check_model(model)
    assert next(item.version for item in model.opset_import if item.domain == "") == OPSET
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == MAX_LENGTH


def test_the_runtimes_session_runs_it(exported: Exported) -> None:
    """With the inputs that the model has, for a text and for a pair."""
    session = StudentSession(exported.path)
    for texts in (("the song",), ("the song", "rain tomorrow")):
        encoding = exported.tokenizer.encode(*texts)
        feeds = {"input_ids": np.array([encoding.ids]), "attention_mask": np.ones((1, len(encoding.ids)), np.int64)}
        if exported.kind == "bert":
            feeds["token_type_ids"] = np.array([encoding.type_ids])
        for ours, theirs in zip(session.run(encoding), torch_outputs(exported.student, feeds), strict=True):
            np.testing.assert_allclose(ours, theirs[0], atol=1e-4)


def test_a_model_with_one_token_type_exports_and_answers_pairs(tmp_path: Path) -> None:
    """The model was trained without token types; the export must still answer pairs."""
    start = tinymodels.write_bert(tmp_path / "start", num_hidden_layers=1, type_vocab_size=1)
    student = tinymodels.student_of(load_encoder(str(start)))
    session = StudentSession(export_float32(student, LABELS, MAX_LENGTH, tmp_path))
    encoding = TextTokenizer(start / "tokenizer.json", MAX_LENGTH).encode("the song", "rain tomorrow")
    ids = torch.tensor([encoding.ids])
    with torch.inference_mode():
        expected = student(input_ids=ids, attention_mask=torch.ones_like(ids))
    np.testing.assert_allclose(session.run(encoding)[0], expected.logits[0].numpy(), atol=1e-4)


def weight_bytes(path: Path) -> int:
    """Of the weights alone: of a model this small the graph itself is the larger part."""
    return sum(numpy_helper.to_array(item).nbytes for item in onnx.load(str(path)).graph.initializer)


def test_quantized_models_load_and_answer_nearly_the_same(exported: Exported, tmp_path: Path) -> None:
    counted = quantize(exported.path, "avx2", "dynamic", tmp_path)
    # Products of activations stay as they are: attention's are small, and their ranges would have to be found.
    assert counted.int8 == WEIGHTED[exported.kind]
    assert counted.float32 == 0
    assert counted.bytes_float32 == exported.path.stat().st_size
    assert counted.bytes_int8 == (tmp_path / "model.onnx").stat().st_size
    assert counted.int8_gathers >= 1
    assert weight_bytes(tmp_path / "model.onnx") < 0.32 * weight_bytes(exported.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.onnx"]
    session = session_of(tmp_path / "model.onnx")
    assert [node.name for node in session.get_outputs()] == OUTPUTS
    student = StudentSession(exported.path)
    spread = []
    for text in tinymodels.make_split(12, 4).texts:
        feeds = student.feeds(exported.tokenizer.encode(text))
        logits, embedding = session.run(OUTPUTS, feeds)
        expected = torch_outputs(exported.student, feeds)
        assert float((embedding * expected[1]).sum()) > 0.95
        spread.append(np.abs(logits - expected[0]).max() / np.ptp(expected[0]))
    assert np.median(spread) < 0.15


def test_quantization_none_copies_the_model(bert: Exported, tmp_path: Path) -> None:
    counted = quantize(bert.path, "avx2", "none", tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == bert.path.read_bytes()
    assert counted == QuantizedNodes(0, WEIGHTED["bert"], 0, bert.path.stat().st_size, bert.path.stat().st_size)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_gives_a_model(bert: Exported, target: Target, tmp_path: Path) -> None:
    counted = quantize(bert.path, target, "dynamic", tmp_path)
    assert counted.int8 == WEIGHTED["bert"] and counted.int8_gathers >= 1
    logits, embedding = session_of(tmp_path / "model.onnx").run(OUTPUTS, feeds_of("bert", 1, 5))
    assert np.isfinite(logits).all() and np.isfinite(embedding).all()


def test_the_targets_have_different_weight_types() -> None:
    """u8u8 where u8s8 would saturate (AVX2 without VNNI), u8s8 elsewhere."""
    assert {"avx2": QuantType.QUInt8, "avx512_vnni": QuantType.QInt8, "arm64": QuantType.QInt8} == WEIGHT_TYPES


def test_dynamic_quantization_repeats(bert: Exported, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        quantize(bert.path, "avx2", "dynamic", tmp_path / name)
    assert (tmp_path / "first" / "model.onnx").read_bytes() == (tmp_path / "second" / "model.onnx").read_bytes()


@pytest.mark.parametrize(("int8", "left", "refused"), [(0, 14, True), (0, 0, True), (6, 8, True), (7, 7, False)])
def test_a_student_that_was_not_quantized_is_refused(
    bert: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8: int, left: int, refused: bool
) -> None:
    monkeypatch.setattr(quantizing, "count_nodes", lambda before, after: QuantizedNodes(int8, left, 0, 1, 1))
    if refused:
        with pytest.raises(QualityError, match="skipped most") as caught:
            quantize(bert.path, "avx2", "dynamic", tmp_path)
        assert caught.value.found == f"{int8} int8 and {left} float32"
    else:
        quantize(bert.path, "avx2", "dynamic", tmp_path)


def test_quantization_without_effect_is_refused(
    bert: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a newer exporter names its nodes so that the quantizer knows none of them."""

    def nothing(model: onnx.ModelProto, out: str, **settings: object) -> None:
        onnx.save(model, out)

    monkeypatch.setattr(quantizing, "quantize_dynamic", nothing)
    with pytest.raises(QualityError, match="skipped most"):
        quantize(bert.path, "avx2", "dynamic", tmp_path)


def small_graph(path: Path, *nodes: onnx.NodeProto) -> Path:
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, [2, 2], [0.0] * 4),
        helper.make_tensor("w8", TensorProto.INT8, [2, 2], [0] * 4),
    ]
    made = {name for node in nodes for name in node.output}
    inputs = {name for node in nodes for name in node.input} - made - {"w", "w8"}
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sorted(inputs)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sorted(made)],
        weights,
    )
    onnx.save(helper.make_model(graph), str(path))
    return path


def test_nodes_are_counted_by_their_inputs(tmp_path: Path) -> None:
    node = helper.make_node
    path = small_graph(
        tmp_path / "model.onnx",
        node("MatMulInteger", ["a", "b"], ["1"]),
        node("QLinearMatMul", ["a", "b"], ["2"]),
        node("DequantizeLinear", ["q", "s"], ["d"]),
        node("DequantizeLinear", ["w8", "s"], ["dw"]),
        node("MatMul", ["a", "d"], ["3"]),  # QDQ
        node("Gemm", ["dw", "a"], ["4"]),  # QDQ
        node("MatMul", ["a", "w"], ["5"]),  # left in float32
        node("MatMul", ["a", "b"], ["6"]),  # product of attention without weights, which does not count
        node("Gather", ["w8", "i"], ["7"]),  # an int8 look-up
        node("Gather", ["dw", "i"], ["8"]),  # and one in QDQ form
        node("Gather", ["w", "i"], ["9"]),
        node("Gather", ["d", "i"], ["10"]),  # of activations
        node("Add", ["a", "w"], ["11"]),
    )
    other = tmp_path / "other.onnx"
    other.write_bytes(b"x" * 10)
    assert count_nodes(other, path) == QuantizedNodes(4, 1, 2, 10, path.stat().st_size)


@pytest.mark.parametrize(
    ("capabilities", "target"),
    [
        ({"architecture": "aarch64"}, "arm64"),
        ({"architecture": "arm64"}, "arm64"),
        ({"architecture": "x86_64", "avx512_vnni": True}, "avx512_vnni"),
        ({"architecture": "x86_64", "avx512_vnni": False, "avx2": True}, "avx2"),
        ({"architecture": "x86_64"}, "avx2"),
    ],
)
def test_the_target_follows_the_processor(
    capabilities: dict[str, object], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert detect_target() == target


def test_an_export_with_other_outputs_is_refused(bert: Exported) -> None:
    batch = {name: torch.from_numpy(value) for name, value in feeds_of(bert.kind, 3, 7, padded=True).items()}
    require_same_answers(bert.student, bert.path, batch)
    other = copy.deepcopy(bert.student)
    with torch.no_grad():
        other.classifier.bias += 0.5
    with pytest.raises(ModelError, match=r"a difference of 0\.5 in logits"):
        require_same_answers(other, bert.path, batch)
