from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_models as tinymodels
from tokenizers import Tokenizer

from reaugkd.errors import ModelError
from reaugkd.export.modeling.execution.seeds import mix_seed
from reaugkd.export.modeling.execution.tokens import epoch_batches, save_tokenizer, sorted_batches, token_rows

TEXTS = ["the song", "rain", "wake me at seven please", "a b", "jazz jazz jazz jazz jazz jazz"]

lengths_lists = st.lists(st.integers(1, 60), min_size=1, max_size=150)


@given(lengths_lists, st.integers(2, 20), st.integers(-5, 10**12), st.integers(0, 50))
@settings(max_examples=100, deadline=None)
def test_an_epoch_has_every_row_once(lengths: list[int], batch_size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, batch_size, seed, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) <= batch_size + 1 for batch in batches)
    # The relational and contrastive losses compare rows.
    assert all(len(batch) >= 2 for batch in batches) or len(lengths) == 1
    assert epoch_batches(lengths, batch_size, seed, epoch) == batches


def test_seed_and_epoch_decide_the_order_and_nothing_else() -> None:
    lengths = [5 + row % 7 for row in range(200)]
    orders = {
        (seed, epoch): json.dumps(epoch_batches(lengths, 8, seed, epoch)) for seed in range(4) for epoch in range(4)
    }
    assert len(set(orders.values())) == len(orders)
    torch.manual_seed(99)
    torch.rand(3)
    assert json.dumps(epoch_batches(lengths, 8, 2, 3)) == orders[2, 3]


def test_batches_hold_rows_of_similar_length() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 60, (2000,), generator=generator).tolist()

    def padding(batches: list[list[int]]) -> float:
        padded = sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)
        return 1 - sum(lengths) / padded

    plain = torch.randperm(2000, generator=generator).split(16)
    assert padding(epoch_batches(lengths, 16, 0, 0)) < 0.1 < 0.3 < padding([batch.tolist() for batch in plain])


def test_long_batches_come_anywhere_in_the_epoch() -> None:
    """Sorted epochs would learn short texts first; batches are shuffled."""
    lengths = list(range(1, 401))
    means = [sum(lengths[row] for row in batch) / len(batch) for batch in epoch_batches(lengths, 8, 0, 0)]
    assert means != sorted(means) and means != sorted(means, reverse=True)
    assert max(means[: len(means) // 2]) > 200 and max(means[len(means) // 2 :]) > 200


@given(lengths_lists, st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_inference_goes_from_long_to_short(lengths: list[int], batch_size: int) -> None:
    batches = sorted_batches(lengths, batch_size)
    order = [row for batch in batches for row in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)


def test_seeds_are_spread() -> None:
    values = {mix_seed(seed, number) for seed in range(-20, 20) for number in range(40)}
    assert len(values) == 1600
    assert all(0 <= value < 2**63 for value in values)
    ones = [value.bit_count() for value in values]
    assert 28 < sum(ones) / len(ones) < 35


def test_a_batch_is_padded_to_its_longest_row(tiny_bert: Path) -> None:
    rows = tinymodels.tokens_of([*TEXTS, ("the song", "rain rain")], tiny_bert)
    assert rows.lengths() == [4, 3, 7, 4, 8, 7]
    batch = rows.batch([1, 0, 5])
    words = tinymodels.VOCABULARY
    assert [[words[number] for number in row] for row in batch["input_ids"].tolist()] == [
        ["[CLS]", "rain", "[SEP]", *["[PAD]"] * 4],
        ["[CLS]", "the", "song", "[SEP]", *["[PAD]"] * 3],
        ["[CLS]", "the", "song", "[SEP]", "rain", "rain", "[SEP]"],
    ]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0], [1] * 7]
    assert batch["token_type_ids"].tolist() == [[0] * 7, [0] * 7, [0, 0, 0, 0, 1, 1, 1]]
    assert {value.dtype for value in batch.values()} == {torch.int64}
    assert len(rows) == 6


def test_rows_are_cut_to_max_length(tiny_bert: Path) -> None:
    long = " ".join(["song"] * 100)
    rows = token_rows(tiny_bert, tinymodels.Split([long], None, None, "", [1]), tinymodels.bert_config(), 10)
    assert rows.lengths() == [10]
    assert rows.ids[0].tolist()[-1] == tinymodels.VOCABULARY.index("[SEP]")


@pytest.mark.parametrize(("types", "given_"), [(2, True), (1, False), (0, False), (None, False)])
def test_models_without_token_types_get_none(tiny_bert: Path, types: int | None, given_: bool) -> None:
    class Config:
        pad_token_id = None

    config = Config()
    if types is not None:
        config.type_vocab_size = types  # type: ignore[attr-defined]
    rows = token_rows(tiny_bert, tinymodels.make_split(3, 0, pairs=True), config, 24)
    assert ("token_type_ids" in rows.batch([0, 1])) is given_
    assert rows.pad == 0


@pytest.mark.parametrize(("own", "used"), [(3, 3), (None, 0), (-1, 0)])  # some decoders have -1 for none
def test_the_models_own_padding_id_is_used(tiny_bert: Path, own: int | None, used: int) -> None:
    config = tinymodels.bert_config(pad_token_id=own)
    rows = token_rows(tiny_bert, tinymodels.make_split(6, 0), config, 24)
    batch = rows.batch(range(6))
    assert (batch["input_ids"][batch["attention_mask"] == 0] == used).all()


def test_no_rows(tiny_bert: Path) -> None:
    empty = tinymodels.tokens_of([], tiny_bert)
    assert len(empty) == 0 and empty.lengths() == []
    assert sorted_batches(empty.lengths(), 4) == []


def test_tokenizer_json_is_copied_byte_for_byte(tiny_bert: Path, tmp_path: Path) -> None:
    assert save_tokenizer(str(tiny_bert), tmp_path / "new") == ()
    path = tmp_path / "new" / "tokenizer.json"
    assert path.read_bytes() == (tiny_bert / "tokenizer.json").read_bytes()


def test_a_vocabulary_without_tokenizer_json_is_converted(tmp_path: Path) -> None:
    """Older checkpoints have only vocab.txt."""
    source = tmp_path / "old"
    source.mkdir()
    (source / "vocab.txt").write_text("\n".join([*tinymodels.SPECIAL, "[MASK]", *tinymodels.WORDS]) + "\n")
    tinymodels.bert_config().save_pretrained(source)
    save_tokenizer(str(source), tmp_path / "new")
    rows = tinymodels.tokens_of(["The song"], tmp_path / "new")
    vocabulary = [*tinymodels.SPECIAL, "[MASK]", *tinymodels.WORDS]
    assert [vocabulary[number] for number in rows.ids[0].tolist()] == ["[CLS]", "the", "song", "[SEP]"]


def test_added_tokens_without_an_embedding_are_split_as_text(tiny_bert: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_bert, tmp_path / "source"))
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.add_tokens(["<user>"])
    tokenizer.add_special_tokens(["<url>"])
    tokenizer.save(str(source / "tokenizer.json"))
    assert save_tokenizer(str(source), tmp_path / "new") == ("<user>", "<url>")
    rows = tinymodels.tokens_of(["the <user> song <url>"], tmp_path / "new")
    assert max(rows.ids[0].tolist()) < len(tinymodels.VOCABULARY)
    larger = tinymodels.bert_config(vocab_size=len(tinymodels.VOCABULARY) - 1)
    larger.save_pretrained(source)
    with pytest.raises(ModelError, match="more tokens than the model has embeddings"):
        save_tokenizer(str(source), tmp_path / "new")


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    tinymodels.bert_config().save_pretrained(tmp_path / "bare")
    with pytest.raises(ModelError, match="tokenizer cannot be loaded") as caught:
        save_tokenizer(str(tmp_path / "bare"), tmp_path / "new")
    assert caught.value.path == str(tmp_path / "bare")
    assert not (tmp_path / "new" / "tokenizer.json").exists()
