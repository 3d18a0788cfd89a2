"""Interruptions by Ctrl-C, kill and kill -9 leave no partial files, and the same call succeeds afterwards."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
from support.command_line import call, finish, names, ok, refused, spawn, spawn_python
from support.workshop import Workshop

from reaugkd import StorageError
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.kb.storage.atomic import atomic_directory, atomic_write

TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")


@pytest.fixture(autouse=True)
def _ctrl_c_is_heeded() -> Iterator[None]:
    """A process started in the background ignores SIGINT; these tests must not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def begin_predicting(bundle: Path, folder: Path, rows: int = 5) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start `predict --output`, wait until it writes, and return the process and its open input."""
    pipe = folder / "pipe.txt"
    os.mkfifo(pipe)
    process = spawn("predict", bundle, "--input", pipe, "--output", folder / "out.jsonl")
    writer = pipe.open("wb", buffering=0)  # waits until the reader is there, and so the output's temporary
    writer.write(b"noon\n" * rows)
    return process, writer


class TestPredictToAFile:
    @pytest.mark.parametrize(
        ("number", "code", "word"),
        [
            (signal.SIGINT, 130, "interrupted"),
            (signal.SIGTERM, 143, "terminated"),
            (signal.SIGHUP, 129, "hung up"),
        ],
    )
    def test_a_signal_leaves_nothing(
        self, edge_bundle: Path, tmp_path: Path, number: signal.Signals, code: int, word: str
    ) -> None:
        process, writer = begin_predicting(edge_bundle, tmp_path)
        assert [bool(TEMPORARY.fullmatch(name)) for name in names(tmp_path)] == [True, False]
        process.send_signal(number)
        done = finish(process)
        writer.close()
        assert (done.code, done.out, done.err) == (code, "", f"{word}: no partial files were left\n")
        assert names(tmp_path) == ["pipe.txt"]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_a_signal_in_the_middle_of_a_search(
        self,
        edge_bundle: Path,
        number: signal.Signals,
        code: int,
        monkeypatch: pytest.MonkeyPatch,
        request: pytest.FixtureRequest,
    ) -> None:
        """usearch replaces the exception of the signal handler by a RuntimeError."""

        def cut_short(*_arguments: object) -> None:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(number)
            raise RuntimeError("Operation has been terminated")

        original = VectorIndex.__init__

        def begin(self: VectorIndex, *arguments: Any) -> None:
            original(self, *arguments)
            self._built = SimpleNamespace(search_many=cut_short)

        monkeypatch.setattr(VectorIndex, "__init__", begin)
        before = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored, and stays so
        request.addfinalizer(lambda: signal.signal(number, before))
        done = call("predict", edge_bundle, "noon", "--no-retrieval")
        assert done.code == 0
        done = call("predict", edge_bundle, "noon", "--search", "usearch")
        word = "terminated" if number == signal.SIGTERM else "hung up"
        assert (done.code, done.out, done.err) == (code, "", f"{word}: no partial files were left\n")

    def test_kill_9_leaves_a_temporary_that_the_next_call_removes(self, edge_bundle: Path, tmp_path: Path) -> None:
        process, writer = begin_predicting(edge_bundle, tmp_path)
        process.kill()
        assert finish(process).code == -signal.SIGKILL
        writer.close()
        assert [bool(TEMPORARY.fullmatch(name)) for name in names(tmp_path)] == [True, False]
        ok("predict", edge_bundle, "noon", "--output", tmp_path / "out.jsonl")
        assert names(tmp_path) == ["out.jsonl", "pipe.txt"]

    def test_another_calls_temporary_is_left_alone(self, edge_bundle: Path, tmp_path: Path) -> None:
        process, writer = begin_predicting(edge_bundle, tmp_path, rows=3)
        (temporary,) = [name for name in names(tmp_path) if TEMPORARY.fullmatch(name)]
        with atomic_write(tmp_path / "out.jsonl"):
            assert temporary in names(tmp_path)
        (tmp_path / "out.jsonl").unlink()
        writer.close()
        assert finish(process).code == 0
        assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


class TestPredictToStdout:
    def test_ctrl_c_leaves_whole_lines(self, edge_bundle: Path) -> None:
        process = spawn("predict", edge_bundle, "--input", "-")
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"noon\nalarm\n")
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        done = finish(process)
        assert [json.loads(line)["row"] for line in lines] == [1, 2]
        assert (done.code, done.out) == (130, "") and done.err == "interrupted: no partial files were left\n"

    def test_a_signal_that_is_ignored_stays_so(self, edge_bundle: Path) -> None:
        script = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom reaugkd.cli import main\nmain()"
        process = spawn_python(script, "predict", edge_bundle, "--input", "-")
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"noon\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert finish(process, b"alarm\n").code == 0


def killed_in(module: str, owner: str, name: str, at_call: int) -> str:
    """Return a script that runs the command line and kills itself at the n-th call of ``owner.name``."""
    return f"""
import itertools, os
import {module}
owner, calls = {owner}, itertools.count(1)
original = owner.{name}
def replaced(*arguments, **options):
    if next(calls) == {at_call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
owner.{name} = replaced
from reaugkd.cli import main
main()
"""


def weights(run: Path) -> bytes:
    return (run / "student" / "model.safetensors").read_bytes() + (run / "student" / "heads.safetensors").read_bytes()


@pytest.mark.slow
class TestTraining:
    @pytest.mark.parametrize(("stage", "step"), [("teacher", 5), ("student", 40)])
    def test_ctrl_c_leaves_whole_stages_and_goes_on(
        self, workshop: Workshop, tmp_path: Path, stage: str, step: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from reaugkd.export.modeling.execution import training_loop as fit

        steps = 0
        original = fit._Loop.step

        def interrupted(self: fit._Loop, number: int) -> None:
            nonlocal steps
            steps += 1
            if steps == step:
                signal.raise_signal(signal.SIGINT)
            original(self, number)

        run = tmp_path / "run"
        with monkeypatch.context() as patched:
            patched.setattr(fit._Loop, "step", interrupted)
            done = call(*workshop.train_arguments(run))
        assert done.code == 130 and done.out == ""
        assert "to resume, run the same command again" in done.err
        assert done.err.endswith("interrupted: no partial files were left\n")
        finished = {"teacher": {"data"}, "student": {"data", "teacher", "teacher_outputs", "projection"}}[stage]
        assert {file.parent.name for file in run.rglob("stage.json")} == finished
        assert [path for path in run.rglob(".*")] == []
        assert "not finished" in refused("export", run, "--out", tmp_path / "bundle")
        ok(*workshop.train_arguments(run))
        assert weights(run) == weights(workshop.run)

    def test_kill_9_leaves_whole_stages_and_temporaries_that_the_next_call_removes(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        script = killed_in(
            "reaugkd.export.modeling.execution.training_loop",
            "reaugkd.export.modeling.execution.training_loop._Loop",
            "step",
            40,
        )
        assert finish(spawn_python(script, *workshop.train_arguments(run))).code == -signal.SIGKILL
        stages = {file.parent.name for file in run.rglob("stage.json")}
        assert stages == {"data", "teacher", "teacher_outputs", "projection"}
        left = [name for name in names(run) if name not in {*stages, "run.json", "checkpoints"}]
        assert left and all(TEMPORARY.fullmatch(name) for name in left)
        assert names(tmp_path) == ["run"]
        ok(*workshop.train_arguments(run))
        assert [path for path in run.rglob(".*")] == []
        assert weights(run) == weights(workshop.run)


@pytest.mark.slow
class TestExporting:
    @pytest.mark.parametrize("where", ["quantize", "build_tuned_kb", "seal"])
    def test_ctrl_c_leaves_nothing(
        self, workshop: Workshop, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from reaugkd.export.bundle import student as student_folder
        from reaugkd.export.bundle import write as bundle

        of = student_folder if where == "quantize" else bundle
        monkeypatch.setattr(of, where, lambda *_: signal.raise_signal(signal.SIGINT))
        done = call("export", workshop.run, "--out", tmp_path / "bundle", "--target", "avx2")
        assert done.code == 130 and done.out == ""
        assert done.err.endswith("interrupted: no partial files were left\n")
        assert names(tmp_path) == []

    def test_kill_9_leaves_a_temporary_that_the_next_call_removes(self, workshop: Workshop, tmp_path: Path) -> None:
        arguments = ("export", workshop.run, "--out", tmp_path / "bundle", "--target", "avx2", "--allow-quality-loss")
        script = killed_in("reaugkd.export.bundle.write", "reaugkd.export.bundle.write", "build_tuned_kb", 1)
        assert finish(spawn_python(script, *arguments)).code == -signal.SIGKILL
        assert [bool(TEMPORARY.fullmatch(name)) for name in names(tmp_path)] == [True]
        ok(*arguments)
        assert names(tmp_path) == ["bundle"]
        expected = json.loads((workshop.bundle / "manifest.json").read_text())["files"]
        assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["files"] == expected


class TestTemporaries:
    """Temporary files that `atomic_write` removes."""

    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_of_dead_writers_of_the_same_name_go_and_all_else_stays(self, tmp_path: Path, kind: str) -> None:
        dead, others = ".out.0123abcd.tmp", [".out.0123abcg.tmp", ".other.0123abcd.tmp", "out.0123abcd.tmp", "x.tmp"]
        for name in others:
            (tmp_path / name).write_text("mine")
        if kind == "file":
            (tmp_path / dead).write_text("half")
        else:
            (tmp_path / dead / "deep").mkdir(parents=True)
            (tmp_path / dead / "deep" / "file").write_text("half")
        with atomic_write(tmp_path / "out") as file:
            assert dead not in names(tmp_path)
            file.write("whole")
        assert names(tmp_path) == sorted([*others, "out"])

    @pytest.mark.parametrize("write", [atomic_write, atomic_directory])
    def test_of_living_writers_stay(self, tmp_path: Path, write: Any) -> None:
        with pytest.raises(ZeroDivisionError), write(tmp_path / "out"):
            (first,) = names(tmp_path)
            with write(tmp_path / "out"):
                assert len(names(tmp_path)) == 2
            assert names(tmp_path) == [first, "out"]
            raise ZeroDivisionError
        assert names(tmp_path) == ["out"]

    def test_errors_of_other_files_pass_through(self, tmp_path: Path) -> None:
        def denied() -> None:
            raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere")

        for write in (atomic_write, atomic_directory):
            with pytest.raises(PermissionError), write(tmp_path / "out"):
                denied()
        assert names(tmp_path) == []

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
            (OSError("5000 requested and 234 written"), "a short write"),
            (Exception("Error while serializing: I/O error: File too large (os error 27)"), "File too large"),
            (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "a short write"),
            (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"), "a short write"),
            (OSError("We couldn't connect to the hub"), None),
            (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), None),
            (RuntimeError("No such thing (os error 2)"), None),
            (ValueError("nonsense"), None),
        ],
    )
    def test_messages_of_libraries_on_a_full_disk(self, tmp_path: Path, error: Exception, reason: str | None) -> None:
        for write in (atomic_write, atomic_directory):
            with pytest.raises(type(error) if reason is None else StorageError) as caught, write(tmp_path / "out"):
                raise error
            assert reason is None or reason in str(caught.value)
        assert names(tmp_path) == []
