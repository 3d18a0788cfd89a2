"""The editing calls as a typed program: mypy checks the types, pytest runs it.

mypy reports an unused ``type: ignore``, so each one also asserts that the types refuse the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import assert_type

import numpy as np
import pytest
from support.tiny_bundle import build_tiny_bundle

from reaugkd import Edit, Row, Runtime, UsageError
from reaugkd.kb.edits.journal import Entry
from reaugkd.kb.searchable import Searchable
from reaugkd.kb.storage.ed25519 import new_key_pair, read_private_key
from reaugkd.runtime.editing.diff import Difference
from reaugkd.runtime.editing.editor import KnowledgeEditor
from reaugkd.runtime.editing.preview import Preview


def test_every_call(bundle: Path, export: Path, tmp_path: Path) -> None:
    new_key_pair(tmp_path / "key.pem")
    key = read_private_key(tmp_path / "key.pem")
    with Runtime.open(bundle) as runtime:
        kb = runtime.kb
        assert_type(kb, KnowledgeEditor)
        assert_type(runtime.knowledge_base, Searchable)
        done = kb.add("noon", label="a", why="a test", who="anna", guard=1.0, auto_compact=False, wait=1, key=key)
        assert_type(done, Edit)
        assert_type(done.preview, Preview | None)
        assert done.entry is not None and (done.entry.who, done.entry.why) == ("anna", "a test")
        assert kb.add(["noon", "night"], "b", preview=True).entry is None
        many = kb.add((text for text in ("jazz", "late light")), soft={"a": 0.5, "x": 0.5}, new_labels=True)
        assert [row.labelling.soft for row in many.change.add] == [{"a": 0.5, "x": 0.5}] * 2
        kb.add([Row("fan", "a"), Row("lamp", soft={"a": 0.3, "b": 0.7})], unsigned=True)
        signed = kb.relabel({"noon": "c"}, key=tmp_path / "key.pem")
        assert signed.entry is not None and signed.entry.signature is not None
        kb.relabel({runtime.knowledge_base.id(3): "y"}, new_labels=True)
        kb.remove([runtime.knowledge_base.id(5)], texts=["noon"], labels=["x"], why="none")
        assert_type(kb.undo(), Edit)
        assert_type(kb.diff(0, 2), tuple[Difference, ...])
        assert_type(kb.log(), list[Entry])
        rows: list[int] = []
        assert_type(kb.compact(progress=lambda done, _all: rows.append(done), why="a test"), Entry)
        assert rows and kb.recall is not None
        assert kb.verify(export).replayed == [entry.op for entry in kb.log()].index("compact")


WRONG: dict[str, Callable[[KnowledgeEditor], object]] = {
    "options in place of a label": lambda kb: kb.add("noon", {"why": "x"}),  # type: ignore[arg-type]
    "no label": lambda kb: kb.add("noon"),
    "label": lambda kb: kb.add("noon", 5),  # type: ignore[arg-type]
    "no texts": lambda kb: kb.add(None, "a"),  # type: ignore[arg-type]
    "texts": lambda kb: kb.add(5, "a"),  # type: ignore[arg-type]
    "texts bytes": lambda kb: kb.add(b"noon", "a"),  # type: ignore[arg-type]
    "texts mapping": lambda kb: kb.add({"noon": "a"}, "a"),  # a mapping is an iterable for mypy
    "one of the texts": lambda kb: kb.add(["noon", 5], "a"),  # type: ignore[list-item]
    "a row beside a label": lambda kb: kb.add(Row("noon", "a"), "b"),
    "a row's label": lambda kb: kb.add(Row("noon", 5)),  # type: ignore[arg-type]
    "soft list": lambda kb: kb.add("noon", soft=[0.5, 0.5]),  # type: ignore[arg-type]
    "soft str": lambda kb: kb.add("noon", soft={"a": "1"}),  # type: ignore[dict-item]
    "soft that sums to 2": lambda kb: kb.add("noon", soft={"a": 1.0, "b": 1.0}),
    "new_labels": lambda kb: kb.add("noon", "x", new_labels=["x"]),  # type: ignore[arg-type]
    "one text to remove": lambda kb: kb.remove(texts="noon"),  # a str is an iterable of str for mypy
    "a text to remove": lambda kb: kb.remove(texts=[5]),  # type: ignore[list-item]
    "one label to remove": lambda kb: kb.remove(labels="a"),
    "a label to remove": lambda kb: kb.remove(labels=[5]),  # type: ignore[list-item]
    "one id": lambda kb: kb.remove(5),  # type: ignore[arg-type]
    "id bool": lambda kb: kb.remove([True]),  # a bool is an int for mypy
    "id str": lambda kb: kb.remove(["5"]),  # type: ignore[list-item]
    "id float": lambda kb: kb.remove([5.0]),  # type: ignore[list-item]
    "rows": lambda kb: kb.relabel(["noon"]),  # type: ignore[arg-type]
    "a new label": lambda kb: kb.relabel({5: 5}),  # type: ignore[arg-type]
    "a key bool": lambda kb: kb.relabel({True: "a"}),  # type: ignore[arg-type]
    "a key float": lambda kb: kb.relabel({2.5: "a"}),  # type: ignore[arg-type]
    "seq bool": lambda kb: kb.undo(True),
    "seq str": lambda kb: kb.undo("1"),  # type: ignore[arg-type]
    "first": lambda kb: kb.diff("0"),  # type: ignore[arg-type]
    "why": lambda kb: kb.add("noon", "a", why=None),  # type: ignore[arg-type]
    "who": lambda kb: kb.add("noon", "a", who=5),  # type: ignore[arg-type]
    "guard": lambda kb: kb.add("noon", "a", guard=2),
    "guard str": lambda kb: kb.add("noon", "a", guard="1%"),  # type: ignore[arg-type]
    "guard bool": lambda kb: kb.add("noon", "a", guard=True),
    "guard NaN": lambda kb: kb.add("noon", "a", guard=float("nan")),
    "wait": lambda kb: kb.add("noon", "a", wait=-1),
    "wait str": lambda kb: kb.add("noon", "a", wait="1"),  # type: ignore[arg-type]
    "preview": lambda kb: kb.add("noon", "a", preview="yes"),  # type: ignore[arg-type]
    "auto_compact": lambda kb: kb.add("noon", "a", auto_compact=1),  # type: ignore[arg-type]
    "unsigned": lambda kb: kb.add("noon", "a", unsigned=1),  # type: ignore[arg-type]
    "key": lambda kb: kb.add("noon", "a", key=5),  # type: ignore[arg-type]
    "key that is no file": lambda kb: kb.compact(key="missing.pem"),
    "export": lambda kb: kb.verify(5),  # type: ignore[arg-type]
}


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeEditor]:
    with Runtime.open(build_tiny_bundle(tmp_path_factory.mktemp("kb") / "bundle")) as runtime:
        yield runtime.kb


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_refused_and_no_edit(
    editor: KnowledgeEditor, call: Callable[[KnowledgeEditor], object]
) -> None:
    with pytest.raises(UsageError) as caught:
        call(editor)
    assert caught.value.found is not None and caught.value.expected is not None
    assert editor.log() == []


def test_an_unknown_keyword_is_refused(editor: KnowledgeEditor) -> None:
    for call in (
        lambda: editor.add("noon", "a", reason="x"),  # type: ignore[call-arg]
        lambda: editor.remove([5], new_labels=True),  # type: ignore[call-arg]
        lambda: editor.compact(guard=0.1),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError, match=r"unexpected keyword argument '(reason|new_labels|guard)'"):
            call()


def test_ids_and_shares_of_numpy_are_numbers(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        rows = {np.int64(runtime.knowledge_base.id(3)): {"a": np.float32(0.5), "b": np.float32(0.5)}}
        assert runtime.kb.relabel(rows).entry is not None  # type: ignore[arg-type]
