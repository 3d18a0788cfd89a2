from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support import tiny_models as tinymodels
from transformers import BertModel, DistilBertModel, T5Config, T5Model

from reaugkd.errors import ModelError
from reaugkd.export.modeling.checkpoint import load_config, load_encoder
from reaugkd.export.modeling.encoder import EncoderClassifier, HeadConfig, pool
from reaugkd.export.modeling.layers import copy_layers, keep_layers, layer_stack


def inputs_of(*rows: list[int]) -> dict[str, torch.Tensor]:
    longest = max(len(row) for row in rows)
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
    }


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_mean_pooling_is_the_mean_over_the_mask(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((len(lengths), 6, 3))
    mask = np.array([[1] * length + [0] * (6 - length) for length in lengths])
    expected = np.array(
        [row[:length].mean(axis=0) if length else np.zeros(3) for row, length in zip(states, lengths, strict=True)]
    )
    states[mask == 0] = 1e6  # independent of padding
    pooled = pool(torch.from_numpy(states), torch.from_numpy(mask), "mean")
    np.testing.assert_allclose(pooled.numpy(), expected, atol=1e-9)


def test_cls_pooling_is_the_first_token() -> None:
    states = torch.randn(3, 5, 4)
    assert torch.equal(pool(states, torch.ones(3, 5, dtype=torch.int64), "cls"), states[:, 0])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_beside_a_row_does_not_count(pooling: str) -> None:
    model = tinymodels.tiny_student(pooling=pooling)
    alone = model(**inputs_of([2, 5, 6, 3]))
    beside = model(**inputs_of([2, 5, 6, 3], [2, *range(4, 20), 3]))
    torch.testing.assert_close(beside.logits[:1], alone.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(beside.embedding[:1], alone.embedding, atol=1e-5, rtol=0)


def test_the_outputs_of_the_heads() -> None:
    """The forward pass after the encoder, recomputed in float64 numpy."""
    model = tinymodels.tiny_student(num_labels=3, embedding_dim=16)
    inputs = inputs_of([2, 8, 9, 10, 3], [2, 11, 3])
    states = model.encoder(**inputs).last_hidden_state.detach().double().numpy()
    mask = inputs["attention_mask"].numpy()[:, :, None]
    pooled = (states * mask).sum(axis=1) / mask.sum(axis=1)
    weight, bias = (value.detach().double().numpy() for value in (model.classifier.weight, model.classifier.bias))
    assert model.projection is not None and model.projection.bias is None
    projected = pooled @ model.projection.weight.detach().double().numpy().T
    outputs = model(**inputs)
    np.testing.assert_allclose(outputs.logits.detach().numpy(), pooled @ weight.T + bias, atol=1e-5)
    np.testing.assert_allclose(
        outputs.embedding.detach().numpy(), projected / np.linalg.norm(projected, axis=1, keepdims=True), atol=1e-5
    )
    teacher = EncoderClassifier(model.encoder, HeadConfig(3)).eval()
    assert teacher.projection is None
    np.testing.assert_allclose(teacher(**inputs).embedding.detach().numpy(), pooled, atol=1e-5)


def test_dropout_is_on_the_classifier_alone_and_only_while_training() -> None:
    model = tinymodels.tiny_student(dropout=0.5)
    inputs = inputs_of([2, 8, 9, 10, 3])
    assert torch.equal(model(**inputs).logits, model(**inputs).logits)
    model.dropout.train()
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)
    assert torch.equal(model(**inputs).embedding, model(**inputs).embedding)


WRITERS: dict[str, Callable[[Path], Path]] = {
    "bert": tinymodels.write_bert,
    "distilbert": tinymodels.write_distilbert,
    "roberta": tinymodels.write_roberta,
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("embedding_dim", [None, 16])
def test_save_and_load_are_exact(tmp_path: Path, kind: str, embedding_dim: int | None) -> None:
    encoder = load_encoder(str(WRITERS[kind](tmp_path / "start")))
    torch.manual_seed(0)
    model = EncoderClassifier(encoder, HeadConfig(3, "cls", embedding_dim, 0.3)).eval()
    model.save(tmp_path / "saved")
    again = EncoderClassifier.load(tmp_path / "saved")
    assert tinymodels.same_states(model.state_dict(), again.state_dict())
    assert again.head == model.head and not again.training
    inputs = inputs_of([2, 8, 9, 3], [2, 7, 3])
    assert torch.equal(model(**inputs).logits, again(**inputs).logits)
    assert torch.equal(model(**inputs).embedding, again(**inputs).embedding)


def test_loading_draws_nothing_at_random(tmp_path: Path) -> None:
    """A pooler that the checkpoint lacks would have random weights."""
    folder = tinymodels.write_bert(tmp_path / "bert")
    first = load_encoder(str(folder)).state_dict()
    torch.manual_seed(1234)
    assert tinymodels.same_states(first, load_encoder(str(folder)).state_dict())
    assert not any("pooler" in name for name in first)


def test_a_checkpoints_own_pooler_is_left_out_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    BertModel(tinymodels.bert_config()).save_pretrained(tmp_path / "bert")
    encoder = load_encoder(str(tmp_path / "bert"))
    assert encoder.pooler is None
    assert "pooler" not in caplog.text + "".join(capfd.readouterr())


def test_weights_in_half_precision_are_read_in_full(tmp_path: Path) -> None:
    BertModel(tinymodels.bert_config(), add_pooling_layer=False).half().save_pretrained(tmp_path / "bert")
    assert {value.dtype for value in load_encoder(str(tmp_path / "bert")).parameters()} == {torch.float32}


def test_heads_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = tinymodels.tiny_student()
    for number, heads in enumerate(({"classifier.weight": model.classifier.weight}, {"other.weight": torch.ones(1)})):
        folder = tmp_path / str(number)
        model.save(folder)
        save_file({name: value.detach().contiguous() for name, value in heads.items()}, folder / "heads.safetensors")
        with pytest.raises(ModelError, match="the heads do not fit"):
            EncoderClassifier.load(folder)


@pytest.mark.parametrize("layers", [(0,), (3,), (0, 2), (1, 2, 3), (0, 1, 2, 3)])
def test_exactly_the_chosen_layers_are_kept(tiny_bert: Path, layers: tuple[int, ...]) -> None:
    whole = load_encoder(str(tiny_bert)).eval()
    originals = [tinymodels.state_of(layer) for layer in whole.encoder.layer]
    embeddings = tinymodels.state_of(whole.embeddings)
    cut = copy_layers(whole, layers).eval()
    assert all(map(tinymodels.same_states, [layer.state_dict() for layer in whole.encoder.layer], originals))
    assert not {part.data_ptr() for part in whole.parameters()} & {part.data_ptr() for part in cut.parameters()}
    assert cut.config.num_hidden_layers == len(layers)
    assert len(cut.encoder.layer) == len(layers)
    for kept, layer in zip(cut.encoder.layer, layers, strict=True):
        assert tinymodels.same_states(kept.state_dict(), originals[layer])
    assert tinymodels.same_states(cut.embeddings.state_dict(), embeddings)
    # The same as running the whole model's chosen layers one after the other.
    inputs = inputs_of([2, 8, 9, 10, 3], [2, 5, 3])
    whole.config._attn_implementation = "eager"
    mask = torch.where(inputs["attention_mask"][:, None, None, :] == 1, 0.0, torch.finfo(torch.float32).min)
    states = whole.embeddings(input_ids=inputs["input_ids"])
    for layer in layers:
        found = whole.encoder.layer[layer](states, attention_mask=mask)
        states = found[0] if isinstance(found, tuple) else found  # transformers 4 returns a tuple
    torch.testing.assert_close(cut(**inputs).last_hidden_state, states, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_cut_encoder_survives_saving(tmp_path: Path, kind: str) -> None:
    encoder = keep_layers(load_encoder(str(WRITERS[kind](tmp_path / "start"))), [1]).eval()
    encoder.save_pretrained(tmp_path / "cut")
    again = load_encoder(str(tmp_path / "cut")).eval()
    assert tinymodels.same_states(encoder.state_dict(), again.state_dict())
    inputs = inputs_of([2, 8, 9, 3])
    assert torch.equal(encoder(**inputs).last_hidden_state, again(**inputs).last_hidden_state)


@pytest.mark.parametrize("layers", [(0, 4), (12,), ()])
def test_layers_that_do_not_exist_are_refused(tiny_bert: Path, layers: tuple[int, ...]) -> None:
    encoder = load_encoder(str(tiny_bert))
    with pytest.raises(ModelError, match="no such layer") as caught:
        keep_layers(encoder, layers)
    assert caught.value.expected == "numbers from 0 to 3"
    assert len(encoder.encoder.layer) == 4


def test_the_layer_stack_is_found_under_any_name(tmp_path: Path) -> None:
    distilbert = load_encoder(str(tinymodels.write_distilbert(tmp_path)))
    assert isinstance(distilbert, DistilBertModel)
    assert layer_stack(distilbert, 2) is distilbert.transformer.layer
    with pytest.raises(ModelError, match="layers were not found"):
        layer_stack(distilbert, 7)


def test_a_model_that_is_not_an_encoder_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=20, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(tmp_path / "t5")
    with pytest.raises(ModelError, match="not an encoder; found t5"):
        load_encoder(str(tmp_path / "t5"))


def test_an_unreadable_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    config_alone = tmp_path / "config"
    tinymodels.bert_config().save_pretrained(config_alone)
    truncated = tinymodels.write_bert(tmp_path / "truncated")
    weights = truncated / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "config.json").write_text(json.dumps({"model_type": "no-such-type"}))
    for folder in (tmp_path / "empty", tmp_path / "broken", config_alone, truncated, unknown):
        with pytest.raises(ModelError, match="cannot be loaded") as caught:
            load_encoder(str(folder))
        assert caught.value.path == str(folder)
        assert caught.value.found and caught.value.expected
    for folder in (tmp_path / "broken", unknown):
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_config(str(folder))
