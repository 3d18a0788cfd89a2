"""Kills edits at every system call (or every STEPth), in a process of its own; prints JSON.

    python kills.py BUNDLE FOLDER OPERATION [STEP]
    python kills.py                                  (all operations, every system call: `make kills`)

After each kill the bundle is opened anew: it has to be the state before the edit or the one after it, whole, the one
after it if the edit was acknowledged, and the next edit has to succeed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from reaugkd.kb.edits.change import Change, Labelling, NewRow, Payload, Relabelling
from reaugkd.kb.edits.classifier_file import FittedClassifier
from reaugkd.kb.edits.overlay import OverlayKnowledgeBase
from reaugkd.kb.linear_classifier import LinearClassifier
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.editing.edit import WriteOptions
from reaugkd.runtime.editing.store import KnowledgeStore
from reaugkd.runtime.editing.writer import KnowledgeWriter
from support.system_calls import killed_at

_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp")

Edit = Callable[[KnowledgeWriter], object]
MEMORY = Path("/dev/shm")
"""Where syncing costs nothing, if there is such a place: a killed process loses nothing that it had written."""

OPTS = WriteOptions(why="test", who="test")


def added(seed: int, count: int = 2) -> Callable[[OverlayKnowledgeBase, int], Change]:
    """Add rows with keys of their own."""

    def make(kb: OverlayKnowledgeBase, next_id: int) -> Change:
        keys = np.random.default_rng(seed).standard_normal((count, kb.ndim)).astype(np.float32)
        rows = [
            NewRow.of(next_id + place, Labelling("new", None, True), Payload.of(key, f"text {seed}", kb.config.dtype))
            for place, key in enumerate(keys)
        ]
        return Change(labels=() if "new" in kb.labels else ("new",), add=tuple(rows))

    return make


def relabelled(kb: OverlayKnowledgeBase, _next_id: int) -> Change:
    """Relabel one row."""
    row = int(np.flatnonzero(kb.alive)[-1])
    return Change(relabel=(Relabelling(kb.id(row), kb.labelling(row), Labelling("b", None, True)),))


def removed(kb: OverlayKnowledgeBase, _next_id: int) -> Change:
    """Remove the first two rows."""
    return Change(remove=tuple(kb.id(int(row)) for row in np.flatnonzero(kb.alive)[:2]))


def fitted(writer: KnowledgeWriter) -> object:
    """Commit a classifier of the new label."""
    store = writer._store
    labels, ndim = len(store.view.labels), store.view.kb.ndim
    made = LinearClassifier(np.ones((labels, ndim), np.float32), np.zeros(labels, np.float32))
    found = FittedClassifier(store.view.head.seq, made, np.zeros(labels, np.float32))
    return writer.write_fit(found, store.view.snapshot.number, OPTS)


EDITS: dict[str, tuple[list[Edit], Edit]] = {
    "first": ([], lambda writer: writer.edit("add", added(1), OPTS)),
    "add": (
        [lambda writer: writer.edit("add", added(1), OPTS)],
        lambda writer: writer.edit("add", added(2), OPTS),
    ),
    "remove": (
        [lambda writer: writer.edit("add", added(1), OPTS)],
        lambda writer: writer.edit("remove", removed, OPTS),
    ),
    "relabel": (
        [lambda writer: writer.edit("add", added(1), OPTS)],
        lambda writer: writer.edit("relabel", relabelled, OPTS),
    ),
    "compact": (
        [lambda writer: writer.edit("add", added(1), OPTS), lambda writer: writer.edit("remove", removed, OPTS)],
        lambda writer: writer.write_snapshot(OPTS),
    ),
    "fit": (
        [lambda writer: writer.edit("add", added(1), OPTS), fitted, lambda writer: writer.edit("add", added(2), OPTS)],
        fitted,
    ),
    "again": (
        [
            lambda writer: writer.edit("add", added(1), OPTS),
            lambda writer: writer.write_snapshot(OPTS),
            lambda writer: writer.edit("add", added(2), OPTS),
        ],
        lambda writer: writer.write_snapshot(OPTS),
    ),
}


def state(bundle: Path) -> tuple[object, ...]:
    """Return everything that predictions depend on, independent of the order of a search."""
    store = KnowledgeStore(Bundle.open(bundle))
    kb = store.edited()
    rows = np.flatnonzero(kb.alive)
    soft = kb.soft_labels.take(rows)
    told = tuple((kb.id(int(row)), kb.label(int(row)), kb.text(int(row)), bool(kb.pins[row])) for row in rows)
    queries = np.random.default_rng(0).standard_normal((3, kb.ndim)).astype(np.float32)
    found = tuple(tuple(kb.id(int(row)) for row in kb.search(query, 5).rows) for query in queries)
    fit = store.view.fitted
    return len(store.log()), kb.labels, told, soft.tobytes(), found, fit and fit.name


def run(bundle: Path, folder: Path, operation: str, step: int = 1) -> dict[str, object]:
    """Kill one operation at its stops, two for each system call."""
    before, edit = EDITS[operation]
    old = folder / "old"
    shutil.copytree(bundle, old)
    for former in before:
        former(KnowledgeWriter(KnowledgeStore(Bundle.open(old))))
    new = folder / "new"
    shutil.copytree(old, new)
    edit(KnowledgeWriter(KnowledgeStore(Bundle.open(new))))
    states = {"old": state(old), "new": state(new)}
    ends = {"old": 0, "new": 0}
    faults: list[str] = []
    cleared: set[object] = set()
    stop, kills = 1 - step, 0
    going = True
    while going:
        stop += step
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(old, copy)
        writer = KnowledgeWriter(KnowledgeStore(Bundle.open(copy)))
        heard, said = os.pipe()

        def work(writer: KnowledgeWriter = writer, said: int = said) -> None:
            edit(writer)
            os.write(said, b"done")

        going = killed_at(stop, work)
        os.close(said)
        kills += going
        acknowledged = os.read(heard, 4) == b"done"
        os.close(heard)
        try:
            found = state(copy)
            which = [name for name, known in states.items() if known == found]
            if not which or (acknowledged and "new" not in which):
                faults.append(f"stop {stop}: {which}, acknowledged: {acknowledged}")
                continue
            ends[which[-1]] += 1
            left = tuple((str(path.relative_to(copy)), path.stat().st_size) for path in sorted(copy.rglob("*")))
            kind = tuple((_TEMPORARY.sub("TEMPORARY", name), size) for name, size in left)
            if kind not in cleared:  # what is left over is of few kinds
                cleared.add(kind)
                edit_after(copy)
        except Exception as error:
            faults.append(f"stop {stop}: {type(error).__name__}: {error}")
    return {"kills": kills, "ends": ends, "faults": faults}


def edit_after(bundle: Path) -> None:
    """The next edit succeeds and removes the remains of the interrupted edit."""
    store = KnowledgeStore(Bundle.open(bundle))
    number = len(list(store.log()))
    KnowledgeWriter(store).edit("add", added(3), OPTS)
    KnowledgeWriter(store).write_snapshot(OPTS)
    assert len(list(KnowledgeStore(Bundle.open(bundle)).log())) == number + 2
    names = sorted(path.name for path in (bundle / "generations").iterdir())
    assert names == sorted(["HEAD", str(store.view.snapshot.number)]), names
    assert not (bundle / "kb").exists()


def every() -> int:
    """Kill all operations at every stop; return the number of failures."""
    from support.tiny_bundle import build_tiny_bundle

    kills = faults = 0
    for operation in EDITS:
        with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
            bundle = build_tiny_bundle(Path(folder) / "bundle", rows=12)
            found = run(bundle, Path(folder), operation)
        print(operation, json.dumps(found), flush=True)  # noqa: T201
        kills += int(str(found["kills"]))
        faults += len(found["faults"])  # type: ignore[arg-type]
    print(f"{kills} kills, {faults} faults")  # noqa: T201
    return faults


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(min(every(), 1))
    print(json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))))  # noqa: T201
