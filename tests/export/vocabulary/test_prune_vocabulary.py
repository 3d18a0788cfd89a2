from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models as tinymodels
from support import tokenizer_kinds as tokenizerkinds
from support.tiny_models import HIDDEN, LAYERS, MAX_LENGTH, POSITIONS
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    BertModel,
    DebertaV2Config,
    ElectraConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
)

from reaugkd.errors import ModelError, QualityError
from reaugkd.export.modeling.checkpoint import load_encoder
from reaugkd.export.modeling.encoder import EncoderClassifier, HeadConfig
from reaugkd.export.onnx.quality import Floors
from reaugkd.export.vocabulary.embedding_tables import positions_needed, prune_tables, require_unchanged_answers
from reaugkd.export.vocabulary.prune import Pruned, Vocabulary
from reaugkd.export.vocabulary.prune_vocabulary import UnseenEffect, require_unchanged_tokens
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer

WRITERS: dict[str, Callable[[Path], Path]] = {
    "bert": tinymodels.write_bert,
    "distilbert": tinymodels.write_distilbert,
    "roberta": tinymodels.write_roberta,
}


@pytest.fixture(params=WRITERS)
def student(request: pytest.FixtureRequest, tmp_path: Path) -> EncoderClassifier:
    return tinymodels.student_of(load_encoder(str(WRITERS[request.param](tmp_path / "start"))))


def kept(old_ids: list[int]) -> Pruned:
    return Pruned("", tuple(old_ids))


def words_of(student: EncoderClassifier) -> torch.Tensor:
    return student.encoder.get_input_embeddings().weight.detach()


@torch.inference_mode()
def answers(student: EncoderClassifier, ids: list[int]) -> Any:
    return student(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))


def test_kept_pieces_have_their_rows_and_their_answers(student: EncoderClassifier) -> None:
    old = [0, 1, 2, 3, 9, 17, 30, 31]
    before, rows = tinymodels.state_of(student), len(words_of(student))
    smaller = prune_tables(student, kept(old))
    assert smaller.encoder.config.vocab_size == len(words_of(smaller)) == len(old)
    assert torch.equal(words_of(smaller), words_of(student)[old])
    new = [4, 7, 5, 6, 4, 2, 1]
    for here, there in zip(answers(smaller, new), answers(student, [old[one] for one in new]), strict=True):
        assert torch.equal(here, there)
    assert tinymodels.same_states(before, student.state_dict())
    assert student.encoder.config.vocab_size == rows
    require_unchanged_answers(student, smaller, old, MAX_LENGTH)


def test_a_pruned_student_keeps_its_query_by_layers(tmp_path: Path) -> None:
    student = tinymodels.tiny_student(embedding_dim=8, all_layers=True, projection_bias=True)
    assert student.projection is not None and student.projection.in_features == HIDDEN * LAYERS
    smaller = prune_tables(student, kept([0, 5, 6, 7]), positions_needed(student, MAX_LENGTH))
    assert smaller.head == student.head
    for here, there in zip(answers(smaller, [1, 2, 3]), answers(student, [5, 6, 7]), strict=True):
        assert torch.equal(here, there)


def test_special_ids_of_the_configuration_are_renumbered() -> None:
    torch.manual_seed(0)
    config = tinymodels.bert_config(pad_token_id=7, bos_token_id=60, cls_token_id=61, eos_token_id=[60, 8], foo_id=9)
    student = tinymodels.student_of(BertModel(config, add_pooling_layer=False))
    made = prune_tables(student, kept([3, 7, 60, 65])).encoder.config
    assert made.pad_token_id == 1 and made.bos_token_id == 2 and made.eos_token_id == [2]
    assert made.cls_token_id is None and made.foo_id == 9
    assert student.encoder.config.pad_token_id == 7


def test_a_piece_without_a_row_is_refused(student: EncoderClassifier) -> None:
    with pytest.raises(ModelError, match="tokens that the model does not know"):
        prune_tables(student, kept([0, 1, len(words_of(student))]))


def positions_of(student: EncoderClassifier) -> int:
    return int(student.encoder.embeddings.position_embeddings.num_embeddings)


def test_positions_behind_the_longest_text_are_cut(student: EncoderClassifier) -> None:
    shorter = prune_tables(student, None, positions_needed(student, MAX_LENGTH))
    # RoBERTa's begin after the row of its padding, id 0 here.
    first = 1 if student.encoder.config.model_type == "roberta" else 0
    assert positions_of(shorter) == shorter.encoder.config.max_position_embeddings == first + MAX_LENGTH
    ids = [2, *range(5, 5 + MAX_LENGTH - 2), 3]
    for here, there in zip(answers(shorter, ids), answers(student, ids), strict=True):
        assert torch.equal(here, there)
    with pytest.raises((IndexError, RuntimeError)):
        answers(shorter, [*ids, 4])
    assert student.encoder.config.max_position_embeddings > first + MAX_LENGTH


def test_positions_cover_the_text_that_the_exporter_traces(student: EncoderClassifier) -> None:
    assert answers(prune_tables(student, None, positions_needed(student, 4)), list(range(1, 17))).logits.shape == (1, 3)


def test_nothing_to_cut_is_nothing_changed(student: EncoderClassifier) -> None:
    assert prune_tables(student, None, positions_needed(student, POSITIONS + 1)) is student


SMALL = {
    "vocab_size": 50,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def student_from(config: PretrainedConfig) -> EncoderClassifier:
    torch.manual_seed(0)
    return EncoderClassifier(AutoModel.from_config(config), HeadConfig(3)).eval()


@pytest.mark.parametrize(
    ("config", "rows"),
    [
        (AlbertConfig(**SMALL, embedding_size=8), MAX_LENGTH),
        (ElectraConfig(**SMALL, embedding_size=8), MAX_LENGTH),
        (MPNetConfig(**SMALL), MAX_LENGTH + 2),
        (RobertaConfig(**SMALL), MAX_LENGTH + 2),
        # Relative positions, and a model type that uses positions in other ways too.
        (BertConfig(**SMALL, position_embedding_type="relative_key"), 64),
        (DebertaV2Config(**SMALL, position_biased_input=True, pos_att_type=["p2c"], relative_attention=True), 64),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_positions_of_other_kinds(config: PretrainedConfig, rows: int) -> None:
    student = student_from(config)
    shorter = prune_tables(student, None, positions_needed(student, MAX_LENGTH))
    assert positions_of(shorter) == rows
    smaller = prune_tables(shorter, kept([0, 1, 2, 3, *range(10, 40)]))
    require_unchanged_answers(student, smaller, [0, 1, 2, 3, *range(10, 40)], MAX_LENGTH)


def test_another_output_is_refused(student: EncoderClassifier) -> None:
    smaller = prune_tables(student, kept([0, 1, 2, 3, 4, 5]))
    with pytest.raises(ModelError, match=r"gives other outputs .*: --student MODEL"):
        require_unchanged_answers(student, smaller, [0, 1, 2, 3, 4, 6], MAX_LENGTH)
    table = smaller.encoder.embeddings.position_embeddings
    with torch.no_grad():  # the last position that a text can have
        table.weight[MAX_LENGTH - (student.encoder.config.model_type != "roberta")] += torch.linspace(-1, 1, HIDDEN)
    with pytest.raises(ModelError, match="gives other outputs"):
        require_unchanged_answers(student, smaller, [0, 1, 2, 3, 4, 5], MAX_LENGTH)


def test_positions_that_begin_after_another_padding_id_are_refused() -> None:
    """Where padding gets a new id, RoBERTa's first position would move with it."""
    student = student_from(RobertaConfig(**SMALL, pad_token_id=7))
    smaller = prune_tables(student, kept([3, 7, *range(8, 40)]))
    with pytest.raises(ModelError, match="gives other outputs"):
        require_unchanged_answers(student, smaller, [3, 7, *range(8, 40)], MAX_LENGTH)


def test_another_tokenization_is_refused(tmp_path: Path) -> None:
    full = tokenizerkinds.write(tokenizerkinds.word_pieces(), tmp_path / "full")
    made = Vocabulary(full).pruned([])
    (tmp_path / "tokenizer.json").write_text(made.tokenizer)
    tokenizers = [TextTokenizer(path, MAX_LENGTH) for path in (full, tmp_path / "tokenizer.json")]
    require_unchanged_tokens(["q", ("a b", "!")], made.old_ids, *tokenizers)
    with pytest.raises(ModelError, match=r"tokenizes a text differently; found \[CLS\] w ##a"):
        require_unchanged_tokens(["a", "wake"], made.old_ids, *tokenizers)


def test_the_floors_limit_the_texts_that_are_split_otherwise() -> None:
    floors = Floors(split_otherwise=0.02)
    UnseenEffect(0.02, 0.5, 100, 50).require(floors)  # one bad draw, or other labels, do not decide
    with pytest.raises(QualityError, match=r"found 2\.1% on average over 10 draws; expected at most 2%.*--vocabulary"):
        UnseenEffect(0.021, 0.021, 100, 0).require(floors)
