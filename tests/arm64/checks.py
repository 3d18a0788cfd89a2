"""The same bundles on two architectures: answers to 400 texts, edits, the one-file form.

python checks.py FOLDER make answer     on x86-64: makes the bundles, then answers and edits
python checks.py FOLDER answer compare  on ARM
python checks.py FOLDER compare         on x86-64: reads what ARM edited
"""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from reaugkd import Runtime
from reaugkd.runtime.inference.session.student import StudentSession

TEXTS = 400
FEWER = 60  # of edited and fused ones
ROUNDING, TOLERANCE, BEYOND = 1e-5, 0.005, 4
"""Probabilities differ by float32 rounding. Where that moves a value to the next step of int8, they differ by up to
the tolerance: for 4 texts at most."""

HERE = platform.machine()


def make(folder: Path) -> None:
    """Train and export a student for each target, fuse one, copy the stored bundles, and write their texts."""
    from support.command_line import ok
    from support.paths import KEPT_BUNDLES
    from support.tiny_bundle import reseal, tiny_texts
    from support.tiny_models import make_split
    from support.workshop import build_workshop

    run = build_workshop(folder).run
    texts: dict[str, list[Any]] = {}
    for target in ("avx2", "arm64"):  # the weights for avx512_vnni are those for arm64
        path = folder / "bundles" / target
        ok("export", run, "--out", path, "--target", target, "--allow-quality-loss")
        with Runtime.open(path) as runtime:
            blend = dataclasses.replace(runtime.manifest.blend, student_weight=0.5)  # so that the neighbours count
        reseal(path, blend=dataclasses.asdict(blend))
        ok("fuse", path, "--out", folder / f"{target}.onnx")
        texts[target] = list(make_split(TEXTS, seed=9).texts)
    for path in sorted(KEPT_BUNDLES.glob("v?")):
        shutil.copytree(path, folder / "bundles" / path.name)
        texts[path.name] = list(tiny_texts(TEXTS, seed=9, pairs=path.name == "v2"))
    (folder / "texts.json").write_text(json.dumps(texts))


def texts_of(folder: Path) -> dict[str, list[Any]]:
    """Return the texts of each bundle."""
    given = json.loads((folder / "texts.json").read_text())
    return {name: [text if isinstance(text, str) else tuple(text) for text in texts] for name, texts in given.items()}


def answered(runtime: Runtime, texts: list[Any]) -> dict[str, Any]:
    """Return labels and probabilities. The bundle's golden texts were checked when it was opened."""
    found = list(runtime.predict_many(texts))
    assert all(answer.retrieved for answer in found)
    return {"labels": [answer.label for answer in found], "probabilities": [a.probabilities.tolist() for a in found]}


def edit(runtime: Runtime, texts: list[Any]) -> None:
    """Add a class, compact, add and undo, add: a snapshot, and a journal on top of it."""
    old = runtime.labels[0]
    runtime.kb.add(texts[:3], label="new", new_labels=True, why="test")
    runtime.kb.compact()
    runtime.kb.undo(runtime.kb.add(texts[4], label="new", why="test").entry.seq)
    runtime.kb.add(texts[5], label=old, why="test")


def fused(folder: Path, name: str, texts: list[Any]) -> dict[str, Any]:
    """Return the answers of the one-file form."""
    session = StudentSession(folder / f"{name}.onnx").session
    with Runtime.open(folder / "bundles" / name) as runtime:
        feeds = [runtime.student.feeds(runtime.tokenizer.encode(text)) for text in texts]
    outputs = [session.run(["label", "probabilities"], feed) for feed in feeds]
    return {
        "labels": [str(label.item()) for label, _ in outputs],
        "probabilities": [probabilities.ravel().tolist() for _, probabilities in outputs],
    }


def answer(folder: Path) -> None:
    """Write the answers of each bundle, as it is, edited here and fused."""
    answers: dict[str, Any] = {}
    for name, texts in texts_of(folder).items():
        path = Path(shutil.copytree(folder / "bundles" / name, folder / HERE / name))
        with Runtime.open(path) as runtime:
            answers[name] = answered(runtime, texts)
            edit(runtime, texts)
            answers[f"{name}, edited"] = answered(runtime, texts[:FEWER])
            assert answers[f"{name}, edited"]["labels"].count("new") > 0
        if (folder / f"{name}.onnx").exists():
            answers[f"{name}, fused"] = fused(folder, name, texts[:FEWER])
    (folder / f"{HERE}.json").write_text(json.dumps(answers))


def compare(folder: Path) -> None:
    """Compare the answers with the other architecture's; read, continue and compact what it edited."""
    (other,) = (path for path in folder.glob("*.json") if path.stem not in ("texts", HERE))
    theirs, ours = json.loads(other.read_text()), json.loads((folder / f"{HERE}.json").read_text())
    for name, texts in texts_of(folder).items():
        path = Path(shutil.copytree(folder / other.stem / name, folder / f"{HERE}-{other.stem}" / name))
        with Runtime.open(path) as runtime:
            ours[f"{name}, edited by the other"] = answered(runtime, texts[:FEWER])
            theirs[f"{name}, edited by the other"] = theirs[f"{name}, edited"]
            runtime.kb.undo(why="test")
            before = answered(runtime, texts[:FEWER])
            runtime.kb.compact()
            assert answered(runtime, texts[:FEWER])["labels"] == before["labels"]
    for name, found in ours.items():
        same = sum(map(str.__eq__, found["labels"], theirs[name]["labels"]))
        apart = np.abs(np.subtract(found["probabilities"], theirs[name]["probabilities"])).max(axis=1)
        of = f"{same} of {len(found['labels'])} labels are {other.stem}'s"
        print(f"{HERE}: {name}: {of}, probabilities within {apart.max():.2g}")  # noqa: T201
        assert same == len(found["labels"]) and apart.max() <= TOLERANCE, name
        assert (apart > ROUNDING).sum() <= BEYOND, name


for step in sys.argv[2:]:
    {"make": make, "answer": answer, "compare": compare}[step](Path(sys.argv[1]))
