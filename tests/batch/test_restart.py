"""A job that was ended, or whose workers die, goes on; what has changed stops it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from support import batch_jobs
from support.batch_jobs import answers, leftovers, output, write_rows
from support.command_line import call, names, ok, refused

from reaugkd import BundleError, Runtime
from reaugkd.batch.engines import local
from reaugkd.batch.job.part import PartWorker, Settings


@pytest.mark.usefixtures("in_process")
class TestRestart:
    @pytest.fixture
    def source(self, tmp_path: Path, rows: list[str]) -> Path:
        return write_rows(tmp_path / "a.parquet", rows)

    @pytest.fixture
    def arguments(self, bundle: Path, tmp_path: Path, source: Path) -> list[object]:
        return ["batch", bundle, source, "--out", tmp_path / "out", "--part-rows", 50, "--workers", 1]

    def test_only_missing_parts_are_done(
        self, arguments: list[object], bundle: Path, tmp_path: Path, rows: list[str]
    ) -> None:
        out = tmp_path / "out"
        ok(*arguments)
        kept = (out / "part-00000.parquet").stat().st_ino
        (out / "part-00001.parquet").unlink()
        for name in (".part-00001.parquet.0123abcd.tmp", ".part-00000.parquet.0123abcd.tmp"):
            (out / name).touch()  # a worker was killed; a second one, of a part that another machine has done
        done = ok(*arguments, "--threads", 2)  # which changes no answer
        assert "resumes after 80 of 130 rows" in done.err
        assert output(out) == answers(bundle, rows) and leftovers(out) == []
        assert (out / "part-00000.parquet").stat().st_ino == kept

    def test_what_has_changed_is_said(
        self, arguments: list[object], bundle: Path, tmp_path: Path, source: Path, rows: list[str]
    ) -> None:
        out = tmp_path / "out"
        ok(*arguments)
        for more, words in (
            (["--part-rows", 51], "the size of a part was 50, is 51"),
            (["--prefix", "p_"], "prefix was '', is 'p_'"),
            (["--columns", "id"], "columns was None, is ('id',)"),
            (["--retrieval", "never"], "retrieval was 'always', is 'never'"),
            ([write_rows(tmp_path / "b.parquet", rows)], f"{tmp_path / 'b.parquet'} is a new input"),
        ):
            message = refused(*arguments, *more)
            assert words in message and "--overwrite" in message
        with Runtime.open(bundle) as runtime:
            runtime.kb.add("jazz at noon", label="a", why="a test")
        assert "the edits of the bundle's knowledge base was 0, is 1" in refused(*arguments)
        ok(*arguments, "--overwrite")
        assert output(out) == answers(bundle, rows)
        write_rows(source, rows[:-1])
        assert "bytes, has" in refused(*arguments)
        write_rows(source, rows)
        assert "was written again" in refused(*arguments)
        source.unlink()
        assert "cannot be read" in refused(*arguments)

    def test_an_altered_plan_is_refused(
        self, arguments: list[object], bundle: Path, tmp_path: Path, rows: list[str]
    ) -> None:
        """If a value has changed; not if the JSON is only laid out in another way."""
        plan = tmp_path / "out" / "_plan.json"
        ok(*arguments)
        text = plan.read_text()
        plan.write_text(json.dumps(json.loads(text)))
        assert "already complete" in ok(*arguments).err
        (tmp_path / "out" / "part-00001.parquet").unlink()
        for before, after in (('"rows": 130', '"rows": 129'), ('"part_rows": 50', '"part_rows": 49')):
            assert text.count(before) == 1
            plan.write_text(text.replace(before, after))
            message = refused(*arguments)
            assert f"{plan}: the plan of the job cannot be read; found another SHA-256" in message
            assert "remove this one" in message
        assert not (tmp_path / "out" / "part-00001.parquet").exists()
        ok(*arguments, "--overwrite")
        assert output(tmp_path / "out") == answers(bundle, rows)

    def test_a_damaged_part_is_found(self, arguments: list[object], tmp_path: Path) -> None:
        out = tmp_path / "out"
        ok(*arguments)
        (out / "_SUCCESS").unlink()
        other = pa.table({"id": range(50), "text": ["noon"] * 50})
        for write, words in (
            (lambda path: path.write_bytes(b"PAR1"), "the part is damaged"),
            (lambda path: parquet.write_table(other, path), "the part is damaged"),
            (lambda path: path.write_bytes((out / "part-00002.parquet").read_bytes()), "30 rows instead of 50"),
        ):
            write(out / "part-00001.parquet")
            assert words in refused(*arguments, remarks=1)
            assert not (out / "_SUCCESS").exists()

    def test_a_finished_part_that_has_changed_is_found(
        self, arguments: list[object], bundle: Path, tmp_path: Path, rows: list[str]
    ) -> None:
        """It is kept: somebody may have written it on purpose."""
        out = tmp_path / "out"
        ok(*arguments)
        success = (out / "_SUCCESS").read_bytes()
        part = out / "part-00001.parquet"
        whole = part.read_bytes()
        for content in (whole[:-1], whole + b"x", b""):
            part.write_bytes(content)
            message = refused(*arguments)
            assert f"{part}: the part is damaged; found {len(content)} bytes instead of {len(whole)}" in message
            assert "Remove it, and run the same command again" in message
            assert part.read_bytes() == content and (out / "_SUCCESS").read_bytes() == success
        part.unlink()
        assert "resumes after 80 of 130 rows" in ok(*arguments).err
        assert output(out) == answers(bundle, rows)
        assert "already complete" in ok(*arguments).err

    def test_a_list_of_parts_that_was_changed_is_found(self, arguments: list[object], tmp_path: Path) -> None:
        """The numbers of `_SUCCESS` are those of the parts and of the plan, or it is written again."""
        path = tmp_path / "out" / "_SUCCESS"
        ok(*arguments)
        text = path.read_text()
        content = json.loads(text)
        for place, name, value, words in (
            (content, "rows", 129, "found rows = 129; expected 130"),
            (content, "errors", 1, "found errors = 1; expected 0"),
            (content, "edits", None, "found edits = None; expected 0"),
            (content["parts"][1], "rows", 49, "found rows of part-00001.parquet = 49; expected 50"),
            (content["parts"][2], "errors", 1, "found errors of part-00002.parquet = 1; expected 0"),
            (content["parts"][0], "start", 1, "found start of part-00000.parquet = 1; expected 0"),
            (content, "parts", content["parts"][:2], "of part-00002.parquet = None; expected"),
            (content, "more", 1, "found more = 1; expected None"),
        ):
            kept = place.get(name)
            place[name] = value
            path.write_text(json.dumps(content))
            place[name] = kept
            message = refused(*arguments)
            assert f"{path}: the list of the parts does not fit the parts" in message and words in message
            assert "Remove it, and run the same command again" in message
        path.write_text(text.replace('"bytes": ', '"bytes": "many", "others": '))
        assert "bytes instead of many" in refused(*arguments)
        path.unlink()
        ok(*arguments)
        assert path.read_text() == text
        assert "already complete" in ok(*arguments).err


class TestWorkersThatDie:
    @pytest.fixture
    def arguments(self, edge_bundle: Path, tmp_path: Path, rows: list[str]) -> list[object]:
        source = write_rows(tmp_path / "a.parquet", rows)
        return ["batch", edge_bundle, source, "--out", tmp_path / "out", "--part-rows", 50, "--workers", 2]

    def test_once_is_repaired(
        self, arguments: list[object], edge_bundle: Path, tmp_path: Path, rows: list[str], monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(local, "work", batch_jobs.work_and_die_once)
        ok(*arguments)
        assert (tmp_path / "died").exists()
        assert output(tmp_path / "out") == answers(edge_bundle, rows) and leftovers(tmp_path / "out") == []

    def test_three_times_is_reported_and_the_others_are_done(
        self, arguments: list[object], edge_bundle: Path, tmp_path: Path, rows: list[str], monkeypatch: Any
    ) -> None:
        out = tmp_path / "out"
        monkeypatch.setattr(local, "work", batch_jobs.work_and_die)
        message = refused(*arguments)
        assert f"{tmp_path / 'a.parquet'}: rows 51 to 100 killed every worker that took them" in message
        assert "signal 9 (SIGKILL), three times" in message
        assert [name for name in names(out) if name[0] not in "._"] == ["part-00000.parquet", "part-00002.parquet"]
        assert not (out / "_SUCCESS").exists()
        monkeypatch.undo()
        ok(*arguments)
        assert output(out) == answers(edge_bundle, rows) and leftovers(out) == []

    def test_nohup(self, arguments: list[object], monkeypatch: Any) -> None:
        """A command that ignores SIGHUP has workers that ignore it."""
        monkeypatch.setattr(local, "work", batch_jobs.work_and_hang_up)
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            ok(*arguments)
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_before_they_begin(self, arguments: list[object], monkeypatch: Any) -> None:
        monkeypatch.setattr(local, "work", batch_jobs.die_early)
        assert "the workers end before they have opened the bundle; found code 7" in refused(*arguments)


@pytest.mark.usefixtures("in_process")
def test_the_knowledge_base_is_edited_meanwhile(bundle: Path, tmp_path: Path, rows: list[str]) -> None:
    """A part that was answered from two states is not written."""
    source = write_rows(tmp_path / "a.parquet", rows)
    ok("batch", bundle, source, "--out", tmp_path / "out", "--workers", 1)
    (tmp_path / "out" / "part-00000.parquet").unlink()
    worker = PartWorker(Settings(str(tmp_path / "out"), str(bundle)))
    with Runtime.open(bundle) as runtime:
        runtime.kb.add("jazz at noon", label="a", why="a test")
    with pytest.raises(BundleError, match="the bundle has changed since the job began"):
        worker.do(0, lambda rows: None)
    worker.close()
    assert names(tmp_path / "out") == ["_SUCCESS", "_plan.json"]


_LOST = """
import os, signal, weakref
from multiprocessing import Pipe
from reaugkd.batch.engines.worker import work

class Settings:
    def open(self):
        collected = set()
        kept = weakref.ref(collected, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        del collected

mine, theirs = Pipe()
work(theirs, Settings())
"""


def test_a_worker_that_is_ended_in_a_callback_of_the_garbage_collector_prints_nothing() -> None:
    """Python cannot raise an exception there, and prints it: a full disk showed a traceback beside the error."""
    done = subprocess.run([sys.executable, "-c", _LOST], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_output_folder_that_is_a_file(edge_bundle: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.parquet", ["noon"])
    done = call("batch", edge_bundle, source, "--out", source)
    assert done.code == 2 and f"{source}: the output folder is a file" in done.err
