"""A knowledge base with edits on top, compared with a dict of rows and an exact search."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaugkd.errors import UsageError
from reaugkd.kb.edits import added_rows
from reaugkd.kb.edits.change import Change, Labelling, NewRow, Payload, Relabelling
from reaugkd.kb.edits.merge import merge_edits, tune_ef_search
from reaugkd.kb.edits.overlay import OverlayKnowledgeBase
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.stored_keys import checked_queries
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.kb.soft_labels import TopLabels
from reaugkd.kb.texts import TextDigests

LABELS = tuple(f"label {number}" for number in range(20))
NDIM = 8
BASE = 30


def base(dtype: str = "f32", texts: object = "plain", label_loss: float = 0.0) -> KnowledgeBase:
    rng = np.random.default_rng(5)
    keys = rng.standard_normal((BASE, NDIM)).astype(np.float32)
    soft = rng.dirichlet(np.full(len(LABELS), 0.05), BASE).astype(np.float32)
    named = [f"text {row}" for row in range(BASE)]
    kept = {"plain": named, "hash": TextDigests.of(named), "none": None}[str(texts)]
    config = IndexConfig(NDIM, dtype=dtype, expansion_search=64)
    gold = np.where(np.arange(BASE) % 7 == 0, -1, soft.argmax(axis=1))
    return KnowledgeBase.build(
        keys, soft, config=config, gold=gold, ids=np.arange(BASE) + 100, texts=kept, label_loss=label_loss
    )


def new_row(row_id: int, seed: int, labelling: Labelling, dtype: str = "f32") -> NewRow:
    key = np.random.default_rng(1000 + seed).standard_normal(NDIM).astype(np.float32)
    return NewRow.of(row_id, labelling, Payload.of(key, f"new {row_id}", dtype))


@dataclass(frozen=True)
class Known:
    """A row of the reference."""

    key: np.ndarray
    soft: dict[str, float]
    gold: str | None
    pin: bool
    alive: bool = True


def model_of(kb: KnowledgeBase) -> dict[int, Known]:
    keys, soft = kb.keys(), np.asarray(kb.soft_labels)
    return {
        kb.id(row): Known(
            keys[row],
            {LABELS[place]: float(share) for place, share in enumerate(soft[row]) if share},
            None if kb.label(row) < 0 else LABELS[kb.label(row)],
            False,
        )
        for row in range(len(kb))
    }


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    kinds = st.sampled_from(["add", "add soft", "add new", "remove", "restore", "relabel"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 60), st.integers(0, 19)), min_size=1, max_size=25))


def apply(kb: OverlayKnowledgeBase, model: dict[int, Known], kind: str, pick: int, label: int) -> OverlayKnowledgeBase:
    """Apply one edit to both, if there is a row for it."""
    name = LABELS[label]
    if kind.startswith("add"):
        row_id = kb.next_id(1000)
        labels: tuple[str, ...] = ()
        labelling = Labelling(name, None, True)
        if kind == "add soft":
            labelling = Labelling(None, {name: 0.25, LABELS[(label + 3) % 20]: 0.75})
        elif kind == "add new":
            labels = () if "new" in kb.labels else ("new",)
            labelling = Labelling("new", None, True)
        row = new_row(row_id, row_id, labelling)
        assert row.payload is not None
        model[row_id] = Known(row.payload.key, dict(labelling.shares), labelling.label, labelling.pin)
        return kb.apply(Change(labels=labels, add=(row,)))
    wanted = kind != "restore"
    candidates = sorted(row_id for row_id, row in model.items() if row.alive == wanted)
    if not candidates:
        return kb
    row_id = candidates[pick % len(candidates)]
    if kind == "relabel":
        number = kb.find(row_id)
        assert number is not None
        model[row_id] = replace(model[row_id], soft={name: 1.0}, gold=name, pin=True)
        return kb.apply(Change(relabel=(Relabelling(row_id, kb.labelling(number), Labelling(name, None, True)),)))
    model[row_id] = replace(model[row_id], alive=not wanted)
    return kb.apply(Change(remove=(row_id,)) if wanted else Change(restore=(row_id,)))


def compare(kb: KnowledgeBase, model: dict[int, Known], labels: tuple[str, ...], exact: bool = True) -> None:
    living = {row_id: row for row_id, row in model.items() if row.alive}
    assert len(kb) == len(living)
    if not living:
        return
    ids, keys = list(living), np.array([row.key for row in living.values()], np.float64)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    queries = np.random.default_rng(3).standard_normal((4, NDIM)).astype(np.float32)
    for k in (1, 5, len(living) + 3):
        many = kb.search_many(queries, k)
        for place, query in enumerate(queries):
            found = kb.search(query, k)
            np.testing.assert_array_equal(many[0][place], found.rows)
            np.testing.assert_array_equal(many[1][place], found.similarities)
            cosines = keys @ (query / np.linalg.norm(query))
            best = np.sort(cosines)[::-1][: min(k, len(living))]
            np.testing.assert_allclose(found.similarities, best, atol=1e-3)
            told = [kb.id(int(row)) for row in found.rows]
            assert len(set(told)) == len(told) and set(told) <= set(ids)
            soft = kb.soft_labels.take(found.rows)
            for place, row_id in enumerate(told):
                row = living[row_id]
                np.testing.assert_allclose(cosines[ids.index(row_id)], found.similarities[place], atol=1e-3)
                expected = np.array([row.soft.get(name, 0.0) for name in labels])
                np.testing.assert_allclose(soft[place], expected, atol=1e-3)
                gold = kb.label(int(found.rows[place]))
                assert (None if gold < 0 else labels[gold]) == row.gold
                assert kb.pins is not None and bool(kb.pins[found.rows[place]]) == row.pin
                if row_id >= 1000:
                    assert kb.text(int(found.rows[place])) == f"new {row_id}"


@settings(deadline=None, max_examples=60)
@given(edits())
@pytest.mark.slow
def test_any_edits_are_those_of_a_plain_table(steps: list[tuple[str, int, int]]) -> None:
    below = base()
    kb, model = OverlayKnowledgeBase(below, LABELS), model_of(below)
    states = [(kb, dict(model))]
    for step in steps:
        kb = apply(kb, model, *step)
        states.append((kb, dict(model)))
    compare(kb, model, kb.labels)
    # Older states still say what they said, though the rows added since are in the index that they share.
    for older, then in states[:: max(1, len(states) // 3)]:
        compare(older, then, older.labels)
    merged = merge_edits(kb)
    compare(merged, model, kb.labels)
    # Folded once or twice: the same bytes.
    again = merge_edits(OverlayKnowledgeBase(merged, kb.labels))
    assert merged.index._index.save_index_to_buffer() == again.index._index.save_index_to_buffer()
    assert np.asarray(merged.soft_labels).tobytes() == np.asarray(again.soft_labels).tobytes()


@pytest.mark.parametrize("dtype", ["f32", "f16", "i8"])
@pytest.mark.parametrize("label_loss", [0.0, 0.01])
def test_a_fold_in_goes_is_a_fold_at_once(dtype: str, label_loss: float) -> None:
    below = base(dtype, label_loss=label_loss)
    assert isinstance(below.soft_labels, TopLabels) == (label_loss > 0)
    first = Change(
        labels=("new",), add=tuple(new_row(200 + at, at, Labelling("new", None, True), dtype) for at in range(5))
    )
    second = Change(remove=(100, 203), relabel=(Relabelling(104, Labelling("a"), Labelling(LABELS[3], None, True)),))
    at_once = merge_edits(OverlayKnowledgeBase(below, LABELS).apply(first).apply(second))
    middle = merge_edits(OverlayKnowledgeBase(below, LABELS).apply(first))
    in_goes = merge_edits(OverlayKnowledgeBase(middle, (*LABELS, "new")).apply(second))
    assert at_once.index._index.save_index_to_buffer() == in_goes.index._index.save_index_to_buffer()
    assert at_once.soft_labels.stored.tobytes() == in_goes.soft_labels.stored.tobytes()
    assert at_once._rows.tobytes() == in_goes._rows.tobytes() and at_once._texts == in_goes._texts
    # Unedited rows stay unchanged, bit for bit.
    kept = np.array([row for row in range(BASE) if row not in (0, 4)])
    places = np.array([at_once.rows_with_id(100 + row)[0] for row in kept])
    was, now = np.asarray(below.soft_labels)[kept], at_once.soft_labels.take(places)
    np.testing.assert_array_equal(was, now[:, :20])
    assert type(at_once.soft_labels) is type(below.soft_labels) and not now[:, 20].any()


def test_more_labels_than_a_byte_counts() -> None:
    """From 256 to 257 labels, numbers take two bytes and the shares stay equal."""
    labels = tuple(f"l{number}" for number in range(256))
    rng = np.random.default_rng(0)
    soft = rng.dirichlet(np.full(256, 0.01), 40).astype(np.float32)
    keys = rng.standard_normal((40, NDIM)).astype(np.float32)
    below = KnowledgeBase.build(keys, soft, config=IndexConfig(NDIM), label_loss=0.01)
    assert below.soft_labels.stored.dtype == np.uint8
    kb = OverlayKnowledgeBase(below, labels)
    merged = merge_edits(kb.apply(Change(labels=("new",), add=(new_row(99, 1, Labelling("new", None, True), "f16"),))))
    assert merged.soft_labels.stored.dtype == np.uint16 and merged.num_labels == 257
    np.testing.assert_allclose(np.asarray(merged.soft_labels)[:40, :256], np.asarray(below.soft_labels), atol=1e-6)
    assert np.asarray(merged.soft_labels)[40, 256] == 1


def test_digests_take_the_place_of_texts() -> None:
    below = base(texts="hash")
    assert below.digests is not None
    digest = below.digests.of_text("secret")
    payload = Payload.of(np.ones(NDIM, np.float32), None, "f32", digest)
    kb = OverlayKnowledgeBase(below, LABELS).apply(Change(add=(NewRow.of(500, Labelling(LABELS[0]), payload),)))
    assert kb.text(BASE) is None and kb.text_digest(BASE) == digest
    assert kb.rows_of("secret") == [BASE] and kb.rows_of("text 4") == [4]
    merged = merge_edits(kb.apply(Change(remove=(104,))))
    assert merged.rows_of("secret") == [BASE - 1] and merged.rows_of("text 4") == [] and merged.rows_of("text 5") == [4]


class TestRefused:
    @pytest.mark.parametrize(
        "change",
        [
            Change(remove=(7,)),
            Change(restore=(101,)),
            Change(labels=(LABELS[0],)),
            Change(add=(new_row(100, 0, Labelling(LABELS[0])),)),
            Change(add=(new_row(1, 0, Labelling(LABELS[0])), new_row(1, 1, Labelling(LABELS[0])))),
            Change(add=(new_row(1, 0, Labelling("unknown")),)),
            Change(relabel=(Relabelling(3, Labelling("a"), Labelling("b")),)),
            Change(remove=(101, 101)),
        ],
    )
    def test_edits_of_missing_rows(self, change: Change) -> None:
        kb = OverlayKnowledgeBase(base(), LABELS)
        with pytest.raises(UsageError):
            kb.apply(change)
        compare(kb, model_of(kb.base), LABELS)
        assert kb.added == 0 and len(kb._added) == 0

    def test_an_edit_of_an_older_state(self) -> None:
        kb = OverlayKnowledgeBase(base(), LABELS)
        kb.apply(Change(add=(new_row(1, 0, Labelling(LABELS[0])),)))
        with pytest.raises(UsageError, match="only the newest state"):
            kb.apply(Change(add=(new_row(2, 0, Labelling(LABELS[0])),)))

    def test_supposing_leaves_the_newest_state_to_others(self) -> None:
        kb = OverlayKnowledgeBase(base(), LABELS)
        change = Change(add=(new_row(1, 0, Labelling(LABELS[0])),))
        assert len(kb.supposing(change)) == BASE + 1
        assert len(kb.apply(change)) == BASE + 1


def test_rows_that_are_added_during_a_search_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread edits while this one looks at many rows; here, whenever queries are checked."""
    rows_before = tuple(new_row(1000 + number, number, Labelling(LABELS[0])) for number in range(2))
    kb = latest = OverlayKnowledgeBase(base(), LABELS).apply(Change(add=rows_before)).apply(Change(remove=(1001,)))
    queries = np.random.default_rng(3).standard_normal((6, NDIM)).astype(np.float32)
    expected = [kb.search(query, 5) for query in queries]

    def adding(queries: np.ndarray) -> np.ndarray:
        nonlocal latest
        latest = latest.apply(Change(add=(new_row(1000 + latest.added, latest.added, Labelling(LABELS[0])),)))
        return checked_queries(queries)

    monkeypatch.setattr(added_rows, "checked_queries", adding)
    rows, similarities = kb.search_many(queries, 5)
    assert latest.added > kb.added
    np.testing.assert_array_equal(rows, [one.rows for one in expected])
    np.testing.assert_array_equal(similarities, [one.similarities for one in expected])


def test_an_empty_base_takes_rows_and_the_last_row_goes() -> None:
    none = KnowledgeBase.build(np.zeros((0, NDIM), np.float32), np.zeros((0, 20), np.float32), config=IndexConfig(NDIM))
    kb = OverlayKnowledgeBase(none, LABELS, keeps_texts=True).apply(
        Change(add=(new_row(0, 0, Labelling(LABELS[1]), "f16"),))
    )
    assert len(kb) == 1 and kb.search(np.ones(NDIM, np.float32), 3).rows.tolist() == [0]
    assert kb.keeps_texts and len(merge_edits(kb)) == 1
    gone = kb.apply(Change(remove=(0,)))
    assert len(gone) == 0 and gone.search(np.ones(NDIM, np.float32), 3).rows.tolist() == []
    assert len(merge_edits(gone)) == 0 and tune_ef_search(merge_edits(gone), None, 4).recall == 1.0


def test_the_recall_after_a_fold_is_measured() -> None:
    width = tune_ef_search(merge_edits(OverlayKnowledgeBase(base(), LABELS)), None, 5)
    assert width.recall > 0.99 and width.expansion_search >= 64
