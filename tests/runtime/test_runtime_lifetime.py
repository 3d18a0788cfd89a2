"""A runtime is opened, pickled, forked and closed."""

from __future__ import annotations

import gc
import pickle
import weakref
from pathlib import Path

import pytest
from support.tiny_bundle import build_tiny_bundle, reseal

from reaugkd import BundleError, Runtime, UsageError


def test_pickling_keeps_path_and_settings(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(path.parent)
    with Runtime.open("tiny", threads=2, retrieval="never", verify=False) as runtime:
        content = pickle.dumps(runtime)
        expected = runtime.predict("noon")
    assert len(content) < 500
    monkeypatch.chdir(tmp_path)
    with pickle.loads(content) as copy:
        assert repr(copy) == f"Runtime({str(path)!r}, threads=2, retrieval='never')"
        assert copy.predict("noon") == expected


def test_predictions_and_neighbours_can_be_pickled_and_outlive_the_runtime(path: Path) -> None:
    with Runtime.open(path) as runtime:
        got = runtime.predict("noon")
    assert got.neighbours[0].text
    copy = pickle.loads(pickle.dumps(got))
    assert copy == got and copy.timings == got.timings and copy.student_weight == got.student_weight
    assert [near.text for near in copy.neighbours] == [near.text for near in got.neighbours]


def test_a_closed_runtime_raises_an_error(path: Path) -> None:
    runtime = Runtime.open(path)
    sibling = runtime.with_retrieval("never")
    runtime.close()
    runtime.close()
    assert "closed" in repr(runtime)
    for use in (lambda: runtime.predict("a"), lambda: runtime.predict_many(["a"]), lambda: runtime.labels):
        with pytest.raises(UsageError, match="closed"):
            use()
    assert sibling.predict("noon").label


def test_closing_lets_go_of_the_model_and_the_knowledge_base(path: Path) -> None:
    with Runtime.open(path) as runtime:
        runtime.predict("noon")
        held = [weakref.ref(part) for part in (runtime.knowledge_base, runtime.student, runtime.tokenizer)]
        assert all(part() is not None for part in held)
    gc.collect()
    assert runtime.threads and [part() for part in held] == [None, None, None]


def test_settings_are_checked(path: Path, runtime: Runtime) -> None:
    for settings_ in ({"threads": 0}, {"retrieval": "sometimes"}):
        with pytest.raises(UsageError):
            Runtime.open(path, **settings_)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="on_error"):
        runtime.predict_many(["a"], on_error="skip")  # type: ignore[call-overload]
    with Runtime.open(path, threads=None) as opened:
        assert opened.threads >= 1


def test_after_a_fork_a_replaced_bundle_is_noticed(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    mine = build_tiny_bundle(tmp_path / "tiny")
    with Runtime.open(mine) as runtime:
        before = runtime.predict("noon")
        monkeypatch.setattr(os, "getpid", lambda: -1)  # as if forked
        assert runtime.predict("noon") == before
    monkeypatch.undo()
    with Runtime.open(mine) as runtime:
        reseal(mine, pooling="cls")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(BundleError, match="replaced"):
            runtime.predict("noon")
