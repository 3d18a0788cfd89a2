"""A bundle whose edits are all undone answers as exported, bit for bit, with its gate, and can be fused and so on."""

from __future__ import annotations

import json
import pickle
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command_line import ok, refused
from support.heldout_bundle import add_abstention, build_heldout_bundle
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts

from reaugkd import LabelError, Prediction, Row, Runtime, UsageError
from reaugkd.export.bundle.condense import Limit, condense
from reaugkd.export.onnx.fuse import fuse
from reaugkd.integrations.scikit_learn import ReaugkdClassifier
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.data import Split
from reaugkd.runtime.editing.store import KnowledgeStore
from reaugkd.runtime.evaluation.evaluate import predict_split
from reaugkd.runtime.hub.bundle_copy import copy_bundle
from reaugkd.runtime.output.bundle_summary import describe
from reaugkd.serve.protocols.open_inference import _output

GATE = {"threshold": 0.75, "epsilon": 0.1, "delta": 0.05, "rows": 10, "losses": 0, "retrieved": 0.5}
TEXTS = tiny_texts(25, seed=321)
MANY = tuple(f"intent {number}" for number in range(20))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a gate, abstention thresholds and prediction sets; read-only."""
    path = build_heldout_bundle(tmp_path_factory.mktemp("original") / "bundle", rows=120)
    reseal(add_abstention(path), gate=GATE)
    return path


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def seen(answer: Prediction) -> tuple[object, ...]:
    """Everything of an answer but its times."""
    arrays = (answer.probabilities, answer.student_probabilities, answer.retrieval_probabilities)
    near = [(one.id, one.similarity, one.label, one.text) for one in answer.neighbours]
    sets = answer.prediction_set
    return answer.label, answer.labels, answer.reason, near, sets, *(None if a is None else a.tobytes() for a in arrays)


def answers(runtime: Runtime) -> list[tuple[object, ...]]:
    return [(runtime.gate, runtime.labels), *(seen(answer) for answer in runtime.predict_many(TEXTS))]


def silent(_label: str, _unit: str) -> AbstractContextManager[Callable[[int, int | None], object]]:
    return nullcontext(lambda _done, _total: None)


def rows_of(bundle: Path) -> dict[int, tuple[object, ...]]:
    """The rows that are not removed: id to gold label, soft label, pin and text."""
    kb = KnowledgeStore(Bundle.open(bundle)).edited()
    gold, soft = kb.gold(), np.asarray(kb.soft_labels)
    names = np.array([*kb.labels, "none"])
    said = [{str(names[c]): float(soft[row, c]) for c in np.flatnonzero(soft[row])} for row in range(len(soft))]
    return {
        kb.id(row): (str(names[gold[row]]), tuple(said[row].items()), bool(kb.pins[row]), kb.text(row))
        for row in map(int, np.flatnonzero(kb.alive))
    }


@contextmanager
def opened(bundle: Path) -> Iterator[dict[str, Runtime]]:
    """Open a bundle in every mode of retrieval, to keep it open while it is edited."""
    with Runtime.open(bundle, retrieval="gated") as gated, Runtime.open(bundle, search="usearch") as always:
        yield {"gated": gated, "usearch": always, "graph": gated.with_retrieval("always", "auto")}


@pytest.mark.parametrize(
    "options",
    [{"dtype": "f16"}, {"dtype": "i8", "texts": "hash"}, {"labels": MANY, "label_loss": 0.05, "texts": False}],
    ids=["all classes", "digests", "likeliest classes"],
)
def test_edits_and_undos_in_any_order(tmp_path: Path, options: dict[str, Any]) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle", rows=60, **options)
    reseal(bundle, gate=GATE)
    exported, draw, names = rows_of(bundle), random.Random(0), options.get("labels", ("a", "b", "c"))
    with Runtime.open(bundle, retrieval="gated") as runtime, Runtime.open(bundle) as editor:
        expected, kb, undone = answers(runtime), editor.kb, 0

        def check() -> bool:
            same = rows_of(bundle) == exported
            assert (runtime.gate is not None) is same and (answers(runtime) == expected) is same
            return same

        for turn in range(2):  # the second time after a journal of undone edits
            for _ in range(6):
                some, label = draw.sample(sorted(rows_of(bundle)), 3), draw.choice([*names, "new"])
                edits: list[Callable[[], object]] = [
                    partial(kb.add, draw.sample(TEXTS, 2), label, new_labels=True),
                    partial(kb.add, [Row(draw.choice(TEXTS), soft={names[0]: 0.3, names[1]: 0.7})]),
                    partial(kb.remove, some),
                    partial(kb.relabel, dict.fromkeys(some, label), new_labels=True),
                ]
                draw.choice(edits)()
                kb.wait()  # the log then has the fit, so the draws from it are the same in every run
            for _ in range(8):  # any edit, so undos are undone too
                with suppress(UsageError):  # a later edit changed its rows, or it is undone already
                    kb.undo(draw.choice(kb.log()).seq)
                    kb.wait()
                    check()
            with suppress(UsageError):  # until there is none
                while True:
                    kb.undo()
                    undone += 1
            assert check() and undone > turn
        with Runtime.open(bundle, retrieval="gated") as later:
            assert answers(later) == expected


def test_every_reader_is_as_before_the_edit(original: Path, copy: Path, tmp_path: Path) -> None:
    with opened(original) as first, opened(copy) as second:
        before = {name: answers(runtime) for name, runtime in first.items()}
        assert {answer[2] for answer in before["gated"][1:]} == {None, "sure"}
        assert all(answer[4] is not None for answer in before["graph"][1:])
        kb = second["graph"].kb
        edit = kb.add([Row(text, "car_loan") for text in tiny_texts(20, seed=9)], new_labels=True)
        assert kb.wait() is not None and second["graph"].predict(TEXTS[0]).classified
        for runtime in second.values():
            assert runtime.gate is None and runtime.labels == ("a", "b", "c", "car_loan")
        assert edit.entry is not None
        back = kb.undo(edit.entry.seq)
        assert {name: answers(runtime) for name, runtime in second.items()} == before
        with pytest.raises(LabelError, match="the label is unknown"):
            kb.add("noon", "car_loan")
        with pytest.raises(LabelError, match="the label is unknown"):
            kb.relabel({second["graph"].knowledge_base.id(5): "car_loan"})
        assert answers(pickle.loads(pickle.dumps(second["gated"]))) == before["gated"]
        store = copy_bundle(copy, tmp_path / "pulled")
        with Runtime.open(tmp_path / "pulled", retrieval="gated") as pulled:
            assert answers(pulled) == before["gated"] and pulled.kb.verify().edits == pulled.kb.seq == 3  # with the fit
        assert back.entry is not None
        assert "all are undone: the bundle answers as exported" in describe(store.bundle)
        assert "labels     3: a, b, c\n" in describe(store.bundle) and "\ngate  " in describe(store.bundle)

        kb.undo(back.entry.seq)
        assert second["gated"].gate is None and second["graph"].labels[-1] == "car_loan"
        assert "the gate is off" in describe(store.bundle) and "all are undone" not in describe(store.bundle)


def test_a_label_given_again_is_an_edit(copy: Path) -> None:
    """It is right only by chance, and the row is pinned: an undo is no relabelling."""
    with Runtime.open(copy, retrieval="gated") as runtime:
        row = int(np.flatnonzero(np.asarray(runtime.knowledge_base.gold()) >= 0)[0])
        row_id, label = runtime.knowledge_base.id(row), "abc"[runtime.knowledge_base.label(row)]
        runtime.kb.relabel({row_id: "abc".replace(label, "")[0]})
        runtime.kb.relabel({row_id: label})
        assert runtime.gate is None
        runtime.kb.undo()
        runtime.kb.undo()
        assert runtime.gate is not None


def test_a_compaction_ends_the_gate_and_does_not_come_by_itself(copy: Path) -> None:
    with Runtime.open(copy, retrieval="gated") as runtime:
        expected = answers(runtime)
        runtime.kb.add([f"jazz {number}" for number in range(300)], "b", auto_compact=False)
        assert runtime.kb.undo().compacted is None and answers(runtime) == expected
        for number in range(11):  # the edits that a compaction waits for
            runtime.kb.add(f"late {number}", "a", auto_compact=False)
            assert runtime.kb.undo().compacted is None
        assert answers(runtime) == expected
        runtime.kb.compact()
        assert runtime.gate is None and len(runtime.knowledge_base) == 120
        runtime.kb.add("jazz", "b")
        runtime.kb.undo()
        assert runtime.gate is None
    with Runtime.open(copy, retrieval="gated") as later:
        assert later.gate is None
    with pytest.raises(UsageError, match=r"needs a bundle without edits.* Use a copy from before the first edit\.$"):
        KnowledgeStore(Bundle.open(copy)).refuse_edits("fuse")


def test_an_undo_between_two_texts_of_a_call(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers before it have one more label than the others."""
    served = ReaugkdClassifier.from_bundle(copy)
    undone = served.predict_proba(TEXTS)
    with Runtime.open(copy) as editor, Runtime.open(copy) as reader:
        edit = editor.kb.add(TEXTS[:2], "new", new_labels=True)
        assert edit.entry is not None
        seq = edit.entry.seq

        def undo_after(row: int, _answer: Prediction) -> None:
            if row == 4:
                editor.kb.undo(seq)

        split = Split([*map(str, TEXTS)], None, ["a"] * 25, "rows.csv", list(range(2, 27)))
        with pytest.raises(UsageError, match=r"rows\.csv, row 7: an edit changed .* found added or taken away: new\."):
            predict_split(reader, split, each=undo_after)
        edit = editor.kb.add(TEXTS[:2], "new", new_labels=True)
        assert edit.entry is not None
        editor.kb.wait()
        many = Runtime.predict_many

        def interrupted(self: Runtime, texts: Any) -> Iterator[Prediction]:
            for row, answer in enumerate(many(self, texts)):
                yield answer
                undo_after(row, answer)

        served, seq = ReaugkdClassifier.from_bundle(copy), edit.entry.seq
        edited = served.predict_proba(TEXTS)
        assert edited.shape == (25, 4) and undone.shape == (25, 3)
        monkeypatch.setattr(Runtime, "predict_many", interrupted)
        found = served.predict_proba(TEXTS)
        order = [served.classes_.tolist().index(label) for label in "abc"]
        assert (found[:5] == edited[:5]).all() and (found[5:, order] == undone[5:]).all()
    with Runtime.open(copy) as reader, Runtime.open(copy) as editor:
        first = reader.predict("noon")
        editor.kb.add("noon", "new", new_labels=True)
        second = reader.predict("noon")
    tensor = _output("probabilities", [first, second])
    assert tensor["shape"] == [2, 4]
    assert tensor["data"] == [*first.probabilities.tolist(), 0.0, *second.probabilities.tolist()]


def test_what_needs_an_unedited_bundle_makes_the_same_of_it(original: Path, copy: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    texts = list(dict.fromkeys(tiny_texts(90, seed=900)))
    rows.write_text("".join(json.dumps({"text": text, "label": "abc"[len(text) % 3]}) + "\n" for text in texts))
    with Runtime.open(copy) as runtime:
        runtime.kb.add(TEXTS[:3], "new", new_labels=True)
        runtime.kb.remove([runtime.knowledge_base.id(5)])

    def made(bundle: Path, out: Path) -> dict[str, bytes]:
        fuse(bundle, out / "one.onnx")
        condense(bundle, out / "small", Limit(rows=60), silent)
        ok("calibrate", bundle, "--data", rows, "--split", "all", "--out", out / "calibrated")
        return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    message = r"needs a bundle without edits.* found \d+ edits.*, or undo every edit: `reaugkd kb undo`"
    with pytest.raises(UsageError, match=message):
        fuse(copy, tmp_path / "one.onnx")
    with pytest.raises(UsageError, match=message):
        condense(copy, tmp_path / "small", Limit(rows=60), silent)
    assert re.search(message, refused("calibrate", copy, "--data", rows, "--split", "all", "--out", tmp_path / "new"))
    with Runtime.open(copy) as runtime:
        runtime.kb.undo(1)
        runtime.kb.undo(2)
    for out in ("expected", "found"):
        (tmp_path / out).mkdir()
    found = made(copy, tmp_path / "found")
    assert found == made(original, tmp_path / "expected") and not any("generations" in name for name in found)
    with Runtime.open(copy) as runtime, pytest.raises(UsageError, match="the export has edits"):
        runtime.kb.verify(copy)  # they would be repeated on top of themselves
