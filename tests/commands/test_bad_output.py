"""Outputs that cannot be written, or exist: one line with the place and a remedy; no file is lost."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.command_line import ROWS, call, finish, names, refused, spawn
from support.workshop import Workshop


def no_temporaries(folder: Path) -> bool:
    return [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".old")) or path.match(".*")] == []


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit every file to ``size`` bytes, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL = "writing failed, no part of the output was left"


class TestFullDisks:
    def test_while_predicting_to_a_file(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "in.txt").write_text("noon\n" * 300)
        for kind in ("jsonl", "csv", "table"):
            target = tmp_path / f"out.{kind}"
            with largest_file(4000):
                message = refused(
                    *("predict", edge_bundle, "--input", tmp_path / "in.txt", "--output", target, "--format", kind),
                    code=1,
                )
            assert f"{target}: {FULL}; found File too large" in message
            assert names(tmp_path) == ["in.txt"]

    @pytest.mark.parametrize("command", [["predict", "B", "noon"], ["inspect", "B"], ["--help"]])
    def test_behind_stdout(self, edge_bundle: Path, command: list[str]) -> None:
        with Path("/dev/full").open("wb") as full:
            arguments = [str(edge_bundle) if part == "B" else part for part in command]
            done = finish(spawn(*arguments, stdout=full))
        assert done.code == 1 and done.err == "error: stdout: No space left on device\n"

    def test_while_reporting(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text(ROWS)
        report = tmp_path / "report.json"
        with largest_file(1000):
            done = call("eval", edge_bundle, "--data", tmp_path / "d.csv", "--split", "all", "--json", report)
        assert done.code == 1 and done.err.startswith(f"error: {report}: {FULL}")
        assert "student+retrieval" in done.out  # the figures are not lost
        assert names(tmp_path) == ["d.csv"]

    # The limits lie between the sizes of the files, so that each is stopped by another writer.
    @pytest.mark.parametrize("size", [100, 2_000, 6_000, 20_000, 60_000])
    def test_while_exporting(self, workshop: Workshop, tmp_path: Path, size: int) -> None:
        out = tmp_path / "bundle"
        with largest_file(size):
            message = refused("export", workshop.run, "--out", out, "--target", "avx2", code=1, remarks=3)
        assert f"{out}: {FULL}" in message
        assert names(tmp_path) == []

    @pytest.mark.parametrize("size", [10, 300, 2_000, 20_000, 60_000])
    def test_while_training(
        self, workshop: Workshop, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arguments = workshop.train_arguments(tmp_path / "run")
        monkeypatch.setattr("reaugkd.export.training.model_checks._exportable", set())
        with largest_file(size):  # the check of the models writes to the folder for temporary files
            assert f"error: {tempfile.gettempdir()}/" in refused(*arguments, code=1, remarks=20)
        monkeypatch.setattr("reaugkd.export.training.train.check_models", lambda *_: None)
        with largest_file(size):
            message = refused(*arguments, code=1, remarks=20)
        assert FULL in message and str(tmp_path / "run") in message
        assert no_temporaries(tmp_path)


class TestPlacesThatCannotBeWritten:
    @pytest.mark.parametrize("place", ["file/out", "/proc/nosuch/out", "x" * 250])
    def test_are_named(self, edge_bundle: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("file").write_text("mine")
        Path("d.csv").write_text(ROWS)
        message = refused("predict", edge_bundle, "noon", "--output", place, code=1)
        assert message.startswith(f"error: {place}: {FULL}; found ")
        done = call("eval", edge_bundle, "--data", "d.csv", "--split", "all", "--json", place)
        assert done.code == 1 and done.out == ""  # reported before anything is measured
        assert done.err.startswith(f"error: {place}: {FULL}")
        assert Path("file").read_text() == "mine" and names(tmp_path) == ["d.csv", "file"]

    def test_folders_without_permission(
        self, edge_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def denied(self: Path, *_arguments: object, **_options: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "touch", denied)
        message = refused("predict", edge_bundle, "noon", "--output", tmp_path / "out", code=1)
        assert f"{tmp_path / 'out'}: {FULL}; found Permission denied" in message

    @pytest.mark.parametrize("command", ["train", "export"])
    def test_for_training_and_exporting(self, workshop: Workshop, tmp_path: Path, command: str) -> None:
        (tmp_path / "file").write_text("mine")
        out = tmp_path / "file" / "out"
        arguments = workshop.train_arguments(out) if command == "train" else ["export", workshop.run, "--out", out]
        message = refused(*arguments, code=1)
        assert f"{FULL}; found" in message and str(out) in message
        assert names(tmp_path) == ["file"]


class TestExistingOutputs:
    def test_of_train(self, workshop: Workshop, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "file").write_text("mine")
        for place in (tmp_path / "folder", tmp_path / "folder" / "file"):
            message = refused(*workshop.train_arguments(place))
            assert f"{place}: the output exists already and is not a run folder" in message
        assert (tmp_path / "folder" / "file").read_text() == "mine" and names(tmp_path) == ["folder"]

    @pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
    def test_of_export_and_predict(self, workshop: Workshop, edge_bundle: Path, tmp_path: Path, kind: str) -> None:
        out = tmp_path / "out"
        if kind == "folder":
            out.mkdir()
        elif kind == "file":
            out.write_text("mine")
        else:
            out.symlink_to(tmp_path / "nowhere")
        for arguments in (["export", workshop.run, "--out", out], ["predict", edge_bundle, "noon", "--output", out]):
            assert f"{out}: the output exists already" in refused(*arguments)
        assert names(tmp_path) == ["out"]
