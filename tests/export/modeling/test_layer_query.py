"""Query by layers, compared with principal components from numpy's SVD, one text at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import tiny_models as tinymodels
from support.tiny_models import LABELS, MAX_LENGTH

from reaugkd.export.modeling.checkpoint import load_encoder
from reaugkd.export.modeling.encoder import EncoderClassifier, HeadConfig
from reaugkd.export.modeling.execution.inference import outputs_of
from reaugkd.export.modeling.execution.tokens import TokenRows
from reaugkd.export.modeling.layer_query import WHITENING, fit_layer_query, with_layer_query
from reaugkd.export.onnx.export import export_float32, require_same_answers
from reaugkd.export.onnx.quantization import quantize
from reaugkd.runtime.inference.session.student import StudentSession
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer

DIM = 8
TEXTS = tinymodels.make_split(60, 5).texts
OTHERS = tinymodels.make_split(20, 6).texts


def tokens(folder: Path, texts: list[str] = TEXTS) -> TokenRows:
    return tinymodels.tokens_of(texts, folder)


def pooled_layers(student: EncoderClassifier, rows: TokenRows) -> np.ndarray:
    """[rows, layers, hidden], float64: the mean token state of each layer, of each text alone, so without padding."""
    found = []
    for row in range(len(rows)):
        with torch.inference_mode():
            states = student.encoder(**rows.batch([row]), output_hidden_states=True).hidden_states[1:]
        found.append([layer[0].double().numpy().mean(axis=0) for layer in states])
    return np.array(found)


def queries_by_hand(known: np.ndarray, asked: np.ndarray, dim: int) -> np.ndarray:
    """[asked rows, dim]: each layer centred and divided by its root mean square length, then components of all.

    A component's share is its score over the square root of its standard deviation: half whitened.
    """
    mean = known.mean(axis=0)
    lengths = np.sqrt(((known - mean) ** 2).sum(axis=2).mean(axis=0))[:, None]
    flat, other = (((states - mean) / lengths).reshape(len(states), -1) for states in (known, asked))
    _, singular, directions = np.linalg.svd(flat, full_matrices=False)
    scores = other @ directions[:dim].T / (singular[:dim] / np.sqrt(len(known))) ** 0.5
    return scores / np.linalg.norm(scores, axis=1, keepdims=True)


def test_half_whitened() -> None:
    assert WHITENING == 0.5


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_it_is_the_principal_components_of_all_layers_alike(tiny_bert: Path, pooling: str) -> None:
    """The query uses mean pooling, independent of the classifier's pooling."""
    student = tinymodels.tiny_student(pooling=pooling)
    with torch.no_grad():  # a layer with larger states must have the same weight
        student.encoder.encoder.layer[1].output.LayerNorm.weight.mul_(20.0)
    reader = with_layer_query(student, fit_layer_query(student, tokens(tiny_bert), DIM))
    found = outputs_of(reader, tokens(tiny_bert, OTHERS), "").embedding.double().numpy()
    known, asked = (pooled_layers(student, tokens(tiny_bert, texts)) for texts in (TEXTS, OTHERS))
    expected = queries_by_hand(known, asked, DIM)
    assert found.shape == (len(OTHERS), DIM)
    signs = np.sign((found * expected).sum(axis=0))  # the sign of a component is arbitrary
    np.testing.assert_allclose(found, expected * signs, atol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


def test_padding_beside_a_text_does_not_count(tiny_bert: Path) -> None:
    student = tinymodels.tiny_student()
    reader = with_layer_query(student, fit_layer_query(student, tokens(tiny_bert), DIM))
    rows = tokens(tiny_bert, ["rain", " ".join(["the song of the evening"] * 4)])
    with torch.inference_mode():
        together, alone = reader(**rows.batch([0, 1])).embedding[0], reader(**rows.batch([0])).embedding[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_student_and_its_classifier_are_untouched(tiny_bert: Path, pooling: str) -> None:
    student, rows = tinymodels.tiny_student(pooling=pooling), tokens(tiny_bert)
    before, answers = tinymodels.state_of(student), outputs_of(student, rows, "")
    head = fit_layer_query(student, rows, DIM)
    reader = with_layer_query(student, head)
    found = outputs_of(reader, rows, "")
    assert tinymodels.same_states(student.state_dict(), before)
    assert student.head == HeadConfig(3, pooling, 16)
    assert torch.equal(found.logits, answers.logits)
    assert torch.equal(outputs_of(student, rows, "").embedding, answers.embedding)
    assert found.embedding.shape == (60, DIM) and answers.embedding.shape == (60, 16)
    assert reader.encoder is student.encoder and reader.classifier is student.classifier
    assert not reader.training


def test_the_same_rows_give_the_same_head(tiny_bert: Path) -> None:
    student = tinymodels.tiny_student()
    first = fit_layer_query(student, tokens(tiny_bert), DIM)
    torch.rand(5)  # whatever was drawn before
    second = fit_layer_query(student, tokens(tiny_bert), DIM)
    assert first.bias is not None and second.bias is not None
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


def test_the_number_of_components_is_limited_by_layers_and_rows(tiny_bert: Path) -> None:
    student = tinymodels.tiny_student()
    wide = tinymodels.LAYERS * tinymodels.HIDDEN
    head = fit_layer_query(student, tokens(tiny_bert, TEXTS[:5]), 1000)
    assert head.weight.shape == (wide, wide)
    assert head.weight.any(dim=1).tolist() == [number < 4 for number in range(wide)]
    found = outputs_of(with_layer_query(student, head), tokens(tiny_bert, OTHERS), "").embedding
    assert torch.isfinite(found).all() and not found[:, 4:].any()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_it_is_saved_with_the_model(tiny_bert: Path, tmp_path: Path, pooling: str) -> None:
    student = tinymodels.tiny_student(pooling=pooling)
    reader = with_layer_query(student, fit_layer_query(student, tokens(tiny_bert), DIM))
    reader.save(tmp_path)
    again = EncoderClassifier.load(tmp_path)
    assert again.head == reader.head == HeadConfig(3, pooling, DIM, projection_bias=True, all_layers=True)
    assert tinymodels.same_states(again.state_dict(), reader.state_dict())
    expected, found = (outputs_of(model, tokens(tiny_bert, OTHERS), "") for model in (reader, again))
    assert torch.equal(found.embedding, expected.embedding) and torch.equal(found.logits, expected.logits)


def test_older_models_read_the_last_layer(tmp_path: Path) -> None:
    student = tinymodels.tiny_student()
    student.save(tmp_path)
    heads = json.loads((tmp_path / "heads.json").read_text())
    assert heads.pop("all_layers") is False
    (tmp_path / "heads.json").write_text(json.dumps(heads))
    assert EncoderClassifier.load(tmp_path).head == student.head


WRITERS: dict[str, Callable[[Path], Path]] = {
    "bert": lambda folder: tinymodels.write_bert(folder, num_hidden_layers=2),
    "distilbert": tinymodels.write_distilbert,
    "roberta": tinymodels.write_roberta,
}


@pytest.mark.parametrize(
    ("kind", "pooling"), [("bert", "mean"), ("bert", "cls"), ("distilbert", "mean"), ("roberta", "mean")]
)
def test_the_exported_model_gives_the_same_queries(tmp_path: Path, kind: str, pooling: str) -> None:
    start = WRITERS[kind](tmp_path / "start")
    encoder = load_encoder(str(start))
    torch.manual_seed(1)
    student = EncoderClassifier(encoder, HeadConfig(3, pooling, 16)).eval()  # type: ignore[arg-type]

    def rows_of(texts: list[str]) -> TokenRows:
        return tinymodels.tokens_of(texts, start, encoder.config)

    reader = with_layer_query(student, fit_layer_query(student, rows_of(TEXTS), DIM))
    for name in ("float32", "int8"):
        (tmp_path / name).mkdir()
    model = export_float32(reader, LABELS, MAX_LENGTH, tmp_path / "float32")
    others = rows_of(OTHERS)
    require_same_answers(reader, model, others.batch(range(len(others))))
    quantize(model, "avx2", "dynamic", tmp_path / "int8")
    tokenizer = TextTokenizer(start / "tokenizer.json", MAX_LENGTH)
    wanted = outputs_of(reader, others, "")
    for path, closest, least in ((model, 1e-4, 0.99999), (tmp_path / "int8" / "model.onnx", 0.2, 0.98)):
        session = StudentSession(path)
        answers = [session.run(tokenizer.encode(text)) for text in OTHERS]
        queries = np.array([query for _, query in answers])
        np.testing.assert_allclose(queries, wanted.embedding.numpy(), atol=closest)
        assert ((queries * wanted.embedding.numpy()).sum(axis=1)).min() > least
        np.testing.assert_allclose(np.array([logits for logits, _ in answers]), wanted.logits.numpy(), atol=closest)
