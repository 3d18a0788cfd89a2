from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.runs import Finished

from reaugkd.errors import QualityError
from reaugkd.export.bundle import student as student_folder
from reaugkd.export.bundle.write import ExportJob, export
from reaugkd.export.onnx.export import detect_target
from reaugkd.export.onnx.quality import Floors
from reaugkd.export.onnx.quantization import NEIGHBOURS, Choice, _other_rows, choose, runs
from reaugkd.runtime.runtime import Runtime

ROWS = 60
GOLD = np.arange(ROWS) % 3


class Clock:
    """Stands still but for what sessions take."""

    now = 0

    def __call__(self) -> int:
        return self.now


class FakeSession:
    """Answers rows, which are their own numbers, right but for those in ``wrong``, and takes its time."""

    def __init__(self, clock: Clock, takes: int, wrong: Sequence[int] = (), turned: float = 0.0) -> None:
        self.clock, self.takes, self.wrong, self.turned = clock, takes, wrong, turned

    def run(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.clock.now += self.takes
        label = (GOLD[row] + (row in self.wrong)) % 3
        angle = 2 * np.pi * row / ROWS + self.turned
        return np.eye(3, dtype=np.float32)[label], np.array([np.cos(angle), np.sin(angle)], np.float32)


USUAL = Floors()


def chosen(floors: Floors | None = USUAL, **candidates: dict[str, Any]) -> Choice:
    clock = Clock()
    sessions: Any = {kind: FakeSession(clock, **given) for kind, given in candidates.items()}
    rows: Any = range(ROWS)
    return choose(sessions.pop("float32", FakeSession(clock, 9)), sessions, rows, GOLD, floors, clock)  # type: ignore[arg-type]


def test_the_fastest_wins() -> None:
    found = chosen(dynamic={"takes": 1000}, static={"takes": 900}, none={"takes": 2600})
    assert found == Choice("static", {"dynamic": 1.111, "static": 1.0, "none": 2.889})


def test_a_hair_faster_is_not_faster() -> None:
    found = chosen(dynamic={"takes": 1000}, static={"takes": 980}, none={"takes": 1000})
    assert found.kind == "dynamic" and found.time == {"dynamic": 1.0, "static": 0.98, "none": 1.0}


def test_who_answers_otherwise_is_out_however_fast() -> None:
    found = chosen(
        dynamic={"takes": 1000}, static={"takes": 10, "wrong": range(10)}, none={"takes": 20, "turned": np.pi}
    )
    assert found.kind == "dynamic" and found.time == {"dynamic": 1.0}
    assert "label agreement" in found.refused["static"][0] and "accuracy" in found.refused["static"][1]
    assert found.refused["none"] == ["neighbour overlap 0.0000 is below 0.3"]


def test_without_floors_nobody_is_out() -> None:
    found = chosen(None, dynamic={"takes": 1000}, static={"takes": 10, "wrong": range(10)})
    assert found.kind == "static" and not found.refused


def test_nobody_left() -> None:
    with pytest.raises(QualityError, match="static: label agreement"):
        chosen(static={"takes": 10, "wrong": range(10)})


def test_progress_counts_every_run() -> None:
    clock, counted = Clock(), []
    sessions: Any = {kind: FakeSession(clock, 5) for kind in ("dynamic", "static", "none")}
    rows: Any = range(ROWS)
    choose(FakeSession(clock, 5), sessions, rows, GOLD, None, clock, counted.append)  # type: ignore[arg-type]
    assert sum(counted) == runs(ROWS) == clock.now / 5


@pytest.mark.parametrize("kind", ["dynamic", "static", "none"])
def test_the_bundle_has_the_chosen_student(
    quick_run: Finished, tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is chosen, the bundle is that of an export which was asked for it."""
    made = Choice(kind, {kind: 1.0})
    monkeypatch.setattr(student_folder, "choose", lambda *args, **kwargs: made)
    job = ExportJob(detect_target(), "auto", allow_quality_loss=True)
    found = export(quick_run[0], tmp_path / "auto", job)
    asked = export(quick_run[0], tmp_path / "asked", replace(job, quantization=kind))
    assert found.manifest.quantization == {
        **asked.manifest.quantization,
        "choice": {"kind": kind, "time": {kind: 1.0}, "refused": {}},
    }
    files = {name: record for name, record in found.manifest.files.items() if name.startswith("student/")}
    assert files == {name: asked.manifest.files[name] for name in files} and "student/model.onnx" in files
    with Runtime.open(tmp_path / "auto") as runtime:
        assert runtime.predict("please play the song").label in runtime.labels


def test_a_choice_by_real_sessions(quick_run: Finished, tmp_path: Path) -> None:
    found = export(quick_run[0], tmp_path / "auto", ExportJob(detect_target(), "auto", allow_quality_loss=True))
    choice = found.manifest.quantization["choice"]
    assert set(choice["time"]) == {"dynamic", "static", "none"} and choice["time"][choice["kind"]] == 1.0


def test_one_that_cannot_be_made_is_refused(
    quick_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = student_folder.quantize

    def no_static(model: Path, target: Any, kind: str, *rest: Any) -> Any:
        if kind == "static":
            raise QualityError("skipped most of the graph")
        return real(model, target, kind, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(student_folder, "quantize", no_static)
    job = ExportJob(detect_target(), "auto", allow_quality_loss=True)
    choice = export(quick_run[0], tmp_path / "auto", job).manifest.quantization["choice"]
    assert choice["refused"] == {"static": ["skipped most of the graph"]} and choice["kind"] != "static"


def test_a_row_is_not_its_own_neighbour() -> None:
    """On a line, with a copy of row 0 that queries find before it."""
    keys = np.array([[1, 0], [1, 0], *([np.cos(a), np.sin(a)] for a in np.linspace(0.1, 1, 20))], np.float32)
    found = _other_rows(keys, keys)
    assert found.shape == (22, NEIGHBOURS)
    assert not (found == np.arange(22)[:, np.newaxis]).any()
    assert found[0, 0] == 1 and found[1, 0] == 0
    # A query that has moved away from its own key loses its last neighbour in its place.
    moved = _other_rows(keys, keys[::-1].copy())
    assert moved.shape == found.shape and moved[0].tolist() == list(range(21, 21 - NEIGHBOURS, -1))


def test_for_another_processor_nothing_is_timed(quick_run: Finished, tmp_path: Path) -> None:
    found = export(quick_run[0], tmp_path / "arm", ExportJob("arm64", "auto", allow_quality_loss=True))
    assert found.manifest.quantization["kind"] == "dynamic" and "choice" not in found.manifest.quantization
