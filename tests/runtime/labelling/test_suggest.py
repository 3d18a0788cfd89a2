"""The texts to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_bundle import WORDS, Text, build_tiny_bundle, tiny_texts

from reaugkd import KnowledgeBase, Row, Runtime, TextError, UsageError
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.runtime.labelling.review import review
from reaugkd.runtime.labelling.suggest import Suggestion, suggest

TEXTS = [text for text in dict.fromkeys(tiny_texts(150, seed=5)) if len(str(text).split()) > 2]


def reference(runtime: Runtime, texts: list[Any], count: int) -> list[int]:
    """The choice in float64, with the sum of the objective itself."""
    kb: Any = runtime.knowledge_base
    answers = [runtime.predict(text) for text in texts]
    ordered = np.sort([answer.probabilities for answer in answers], axis=1)
    keys = np.asarray(kb.keys(), np.float64)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    among = keys @ keys.T
    np.fill_diagonal(among, -1)
    nearest = [answer.neighbours[0].similarity for answer in answers]
    novelty = np.array([(among.max(axis=1) > cosine).mean() for cosine in nearest])
    weights = 1 - (ordered[:, -1] - ordered[:, -2]) + 0.25 * novelty
    queries = np.array([runtime.student.run(runtime.tokenizer.encode(text))[1] for text in texts], np.float64)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    likeness = np.maximum(queries @ queries.T, 0) ** 4
    chosen: list[int] = []
    for _ in range(count):
        free = [row for row in range(len(texts)) if not any((queries @ queries.T)[row, s] >= 0.99 for s in chosen)]
        free = [row for row in free if nearest[row] < 0.99]
        if free:
            chosen.append(max(free, key=lambda row: (weights * likeness[:, [*chosen, row]].max(axis=1)).sum()))
    return chosen


def test_the_choice_maximises_the_objective(tmp_path: Path) -> None:
    with Runtime.open(build_tiny_bundle(tmp_path / "bundle", dtype="f32")) as runtime:
        texts = [text for text in TEXTS if runtime.predict(text).neighbours[0].similarity < 0.99]
        found = suggest(runtime, texts, 12)
        assert [one.place for one in found] == reference(runtime, texts, 12)
        assert suggest(runtime, iter(texts), 12) == found
        for one in found:
            answer = runtime.predict(one.text)
            best = np.argsort(-answer.probabilities)
            assert (one.label, one.second) == tuple(answer.labels[place] for place in best[:2])
            assert one.probability == pytest.approx(answer.probability, abs=1e-5)
            assert one.similarity == pytest.approx(answer.neighbours[0].similarity, abs=1e-5)
            assert one.text == texts[one.place]


@pytest.mark.parametrize("keep", [True, "hash", False])
def test_stored_and_repeated_texts_are_left_out(tmp_path: Path, keep: Any) -> None:
    with Runtime.open(build_tiny_bundle(tmp_path / "bundle", texts=keep)) as runtime:
        stored = tiny_texts(64, seed=1)  # those of the bundle
        runtime.kb.add("jazz at noon", label="a")
        new = ["late light", "cheap bread and milk"]
        given: list[Text] = [new[0], "jazz at noon", *stored, new[1], new[0], new[0].upper()]
        found = suggest(runtime, given if keep else [new[0], "jazz at noon", new[1], new[0], new[0].upper()], 50)
        assert {one.text for one in found} == set(new)
        assert suggest(runtime, ["jazz at noon"]) == suggest(runtime, []) == ()


def test_one_of_many_alike_is_chosen_and_a_removed_row_may_be(tmp_path: Path) -> None:
    with Runtime.open(build_tiny_bundle(tmp_path / "bundle")) as runtime:
        row = runtime.kb.add("jazz at noon", label="a").ids[0]
        runtime.kb.remove([row])
        assert [one.text for one in suggest(runtime, ["jazz at noon", "JAZZ at noon"])] == ["jazz at noon"]


def test_edits_meanwhile_change_nothing(tmp_path: Path) -> None:
    """A new label, its classifier, a removed row and a compaction: the choice is of the state at the beginning."""
    with Runtime.open(build_tiny_bundle(tmp_path / "bundle")) as runtime:
        runtime.kb.add([Row(text, "new") for text in tiny_texts(5, seed=91)], new_labels=True)
        runtime.kb.wait()
        expected = suggest(runtime, TEXTS, 20)

        def edit(read: int) -> None:
            if read == 30:
                runtime.kb.add([Row(text, "newer") for text in TEXTS[30:60]], new_labels=True)
                runtime.kb.remove([1000, 1001, 1002])
                runtime.kb.wait()
            if read == 60:
                runtime.kb.compact()

        assert suggest(runtime, TEXTS, 20, edit) == expected != suggest(runtime, TEXTS, 20)


def test_only_keys_that_are_needed_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys of ten million rows in float32 take 5 GB."""
    with Runtime.open(build_tiny_bundle(tmp_path / "bundle")) as runtime:
        runtime.kb.add("jazz at noon", label="a")
        expected = suggest(runtime, TEXTS, 9), review(runtime, below=1.0)
        monkeypatch.delattr(VectorIndex, "vectors")
        monkeypatch.delattr(KnowledgeBase, "keys")
        assert (suggest(runtime, TEXTS, 9), review(runtime, below=1.0)) == expected


def test_the_reason_names_what_is_new() -> None:
    known = Suggestion(0, "text", "a", 0.414, "b", 0.38, 0.83, 0.5)
    assert known.reason == "a (41%) or b (38%)"
    novel = Suggestion(0, "text", "a", 0.414, "b", 0.38, 0.521, 0.99)
    assert novel.reason == "a (41%) or b (38%); unlike the stored rows: the nearest has a cosine of 0.52"


def test_an_empty_knowledge_base_and_pairs(tmp_path: Path) -> None:
    with Runtime.open(build_tiny_bundle(tmp_path / "pairs", pairs=True)) as runtime:
        runtime.kb.remove(range(1000, 1064))
        found = suggest(runtime, [("jazz at noon", word) for word in WORDS], 3)
        assert len(found) == 3 and all(one.similarity is None and one.novelty == 1 for one in found)


def test_what_cannot_be_used_is_refused(edge_bundle: Path) -> None:
    with Runtime.open(edge_bundle) as runtime:
        with pytest.raises(TextError, match="row 2"):
            suggest(runtime, ["jazz", " "])
        for count in (0, 2001, True, 1.5):
            with pytest.raises(UsageError, match="count is unusable"):
                suggest(runtime, ["jazz"], count)  # type: ignore[arg-type]


def test_a_bundle_with_one_label_is_refused_until_it_has_another(tmp_path: Path) -> None:
    with Runtime.open(build_tiny_bundle(tmp_path / "one", labels=("a",))) as runtime:
        for ask in (lambda: suggest(runtime, TEXTS), lambda: review(runtime)):
            with pytest.raises(UsageError, match=r"one label.*found a;.*kb add .* --new-labels"):
                ask()
        runtime.kb.add("jazz at noon", "b", new_labels=True)
        assert len(suggest(runtime, TEXTS, 3)) == 3 and review(runtime).checked
