"""`reaugkd batch` from files to files, in the local engine."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from support import batch_jobs
from support.batch_jobs import answers, leftovers, output, texts, write_rows
from support.command_line import call, names, ok, refused

from reaugkd import BundleError, Runtime, __version__
from reaugkd.batch.engines import local
from reaugkd.batch.job.part import PartWorker, Settings
from reaugkd.kb.storage.atomic import sha256_file


@pytest.fixture(scope="module")
def rows() -> list[str]:
    return texts(130)


def write_csv(path: Path, rows: list[str], first: int = 0) -> Path:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("id", "text"), *((number, f"{text}\n") for number, text in enumerate(rows, first))])
    data = buffer.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_lines(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values))
    return path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the parts in this process, by two workers in turn: processes take a second to start."""

    def run(settings: Settings, parts: list[int], _workers: int, advance: Any, rows_of: Any) -> dict[int, str]:
        pair = [PartWorker(settings) for _ in range(2)]
        for number in parts:
            pair[number % 2].do(number, lambda rows: None)
            advance(rows_of(number))
        for worker in pair:
            worker.close()
        return {}

    monkeypatch.setattr("reaugkd.batch.run.run_local", run)


@pytest.mark.usefixtures("in_process")
class TestFiles:
    @pytest.mark.parametrize("group", [7, 50, 1000])
    def test_parquet_by_row_groups(self, edge_bundle: Path, tmp_path: Path, rows: list[str], group: int) -> None:
        """Row groups that are smaller and larger than the parts, and a second file; types are kept."""
        write_rows(tmp_path / "a.parquet", rows[:80], row_group_size=group)
        wide = pa.table({"id": pa.array(range(80, 130), pa.int64()), "text": rows[80:]})
        parquet.write_table(wide.replace_schema_metadata({"pandas": "{}"}), tmp_path / "b.parquet")
        (tmp_path / "in").mkdir()
        for name in ("a", "b"):
            (tmp_path / f"{name}.parquet").rename(tmp_path / "in" / f"{name}.parquet")
        out = tmp_path / "out"
        done = ok("batch", edge_bundle, tmp_path / "in", "--out", out, "--part-rows", 20, "--workers", 1)
        assert done.out == f"130 rows: 130 answered, in 7 files: {out}\n" and done.err == ""
        assert names(out) == ["_SUCCESS", "_plan.json", *(f"part-{number:05d}.parquet" for number in range(7))]
        assert output(out) == answers(edge_bundle, rows)
        with Runtime.open(edge_bundle) as runtime:
            origin = {"version": __version__, "seal": runtime.kb.seal, "edits": "0"}
        metadata = parquet.read_schema(out / "part-00004.parquet").metadata
        assert metadata == {f"reaugkd.{name}".encode(): value.encode() for name, value in origin.items()}
        success = json.loads((out / "_SUCCESS").read_text())
        assert (success["rows"], success["errors"]) == (130, 0)
        assert [part["rows"] for part in success["parts"]] == [20, 20, 20, 20, 20, 20, 10]
        assert [part["start"] for part in success["parts"]] == [0, 20, 40, 60, 0, 20, 40]
        assert all(part["sha256"] == sha256_file(out / part["name"]) for part in success["parts"])
        again = ok("batch", edge_bundle, tmp_path / "in", "--out", out, "--part-rows", 20)
        assert again.out == done.out and "already complete" in again.err

    def test_text_files_in_order_and_malformed_rows(self, edge_bundle: Path, tmp_path: Path, rows: list[str]) -> None:
        """Two workers take turns in one file; cells of CSV stay strings; line breaks are part of a cell."""
        write_csv(tmp_path / "a.csv", rows[:60])
        write_csv(tmp_path / "b.csv.gz", rows[60:], 60)
        with (tmp_path / "a.csv").open("a") as file:
            file.write('1000\n1001,""\n1002,nan\n1003,noon\n')
        out = tmp_path / "out"
        done = call("batch", edge_bundle, tmp_path / "*.csv*", "--out", out, "--part-rows", 9, "--workers", 2)
        assert (done.code, done.err) == (3, "")
        assert done.out == f"134 rows: 131 answered, 3 failed (see the column error), in 16 files: {out}\n"
        found = output(out)
        given = [{**row, "id": str(row["id"])} for row in answers(edge_bundle, [f"{row}\n" for row in rows])]
        assert found[:60] + found[64:] == given
        assert [(row["id"], row["text"]) for row in found[60:64]] == [
            *((None, None), ("1001", ""), ("1002", "nan"), ("1003", "noon"))
        ]
        errors = [row["error"] for row in found[60:64]]
        source = tmp_path / "a.csv"
        assert errors[0].startswith(f"{source}, row 62: the row does not have as many cells as the header")
        assert errors[1].startswith(f"{source}, row 63, column 'text': the text is empty")
        assert errors[2].startswith(f"{source}, row 64, column 'text': the text is missing") and errors[3] is None
        assert found[60]["label"] is found[61]["score"] is found[62]["retrieved"] is None
        assert found[63]["label"] is not None

    def test_json_lines_of_every_value(self, edge_bundle: Path, tmp_path: Path) -> None:
        lines: list[Any] = [
            {
                "text": "noon",
                "n": 1,
                "x": 1,
                "big": 2**60,
                "flag": True,
                "mixed": "a",
                "deep": {"a": [1]},
                "none": None,
            },
            {"text": "alarm", "n": None, "x": 0.5, "big": 1, "mixed": 1, "deep": [], "huge": 2**70, "late": "é"},
            {"text": 5, "n": 2},
            '{"text": "noon',
            "[1, 2]",
            '"music"',
            '{"text": "noon", "late": "\\ud800"}',
            {"text": "\u2028 noon"},
            "",
        ]
        source = write_lines(tmp_path / "a.jsonl", lines)
        write_lines(tmp_path / "b.jsonl", [{"text": "noon", "n": 2.5, "huge": 1}])
        out = tmp_path / "out"
        done = call("batch", edge_bundle, source, tmp_path / "b.jsonl", "--out", out, "--workers", 1, "--json", "-")
        assert done.code == 3 and json.loads(done.out) == {"out": str(out), "rows": 9, "errors": 4, "parts": 2}
        table = parquet.read_table(out)
        kinds = {field.name: str(field.type) for field in table.schema}
        assert (kinds["n"], kinds["x"], kinds["big"], kinds["flag"]) == ("double", "double", "int64", "bool")
        assert {kinds[name] for name in ("mixed", "deep", "huge", "none", "late", "text")} == {"string"}
        found = table.to_pylist()
        assert [row["n"] for row in found] == [1, None, 2, *[None] * 5, 2.5]
        assert [row["big"] for row in found[:2]] == [2**60, 1]
        assert [row["mixed"] for row in found[:2]] == ["a", "1"] and found[1]["huge"] == str(2**70)
        assert [row["deep"] for row in found[:2]] == ['{"a": [1]}', "[]"]
        assert [row["text"] for row in found] == [
            *("noon", "alarm", "5", None, None, "music", None, "\u2028 noon", "noon")
        ]
        wrong = ["", "", "not a string", "malformed JSON", "no named columns", "", "unpaired surrogate", "", ""]
        for number, (row, words) in enumerate(zip(found, wrong, strict=True), start=1):
            assert (row["error"] is None) == (words == "") == (row["label"] is not None)
            assert row["error"] is None or (words in row["error"] and f"row {number}" in row["error"])

    def test_a_number_that_its_column_cannot_hold(self, edge_bundle: Path, tmp_path: Path) -> None:
        """It would be rounded."""
        parquet.write_table(pa.table({"text": ["noon"], "n": [0.5]}), tmp_path / "a.parquet")
        lines = write_lines(tmp_path / "b.jsonl", [{"text": "noon", "n": 2**60 + 1}])
        message = refused("batch", edge_bundle, tmp_path / "a.parquet", lines, "--out", tmp_path / "out")
        assert f"{lines}, column 'n': a cell does not fit the type" in message and "expected double" in message

    def test_plain_text_and_pairs(self, edge_bundle: Path, pair_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("noon\n\nalarm\n")
        assert call("batch", edge_bundle, tmp_path / "a.txt", "--out", tmp_path / "out", "--workers", 1).code == 3
        assert [row["text"] for row in output(tmp_path / "out")] == ["noon", "", "alarm"]
        (tmp_path / "b.txt").write_text("noon\talarm\nnoon\n")
        write_lines(tmp_path / "c.jsonl", [["noon", "alarm"], {"text": "noon", "text_pair": "alarm"}])
        given = (tmp_path / "b.txt", tmp_path / "c.jsonl")
        assert call("batch", pair_bundle, *given, "--out", tmp_path / "pairs", "--workers", 1).code == 3
        found = output(tmp_path / "pairs")
        with Runtime.open(pair_bundle) as runtime:
            answer = runtime.predict(("noon", "alarm"))
        assert [row["score"] for row in found] == [answer.probability, None, answer.probability, answer.probability]

    def test_all_rows_fail(self, edge_bundle: Path, tmp_path: Path) -> None:
        source = write_lines(tmp_path / "a.jsonl", [{"text": ""}, {"text": None}])
        assert call("batch", edge_bundle, source, "--out", tmp_path / "out", "--workers", 1).code == 1

    def test_options(self, edge_bundle: Path, tmp_path: Path, rows: list[str]) -> None:
        table = {"id": range(130), "question": rows, "label": rows, "nested": [{"a": [1]}] * 130}
        parquet.write_table(pa.table(table), tmp_path / "a.parquet")
        options = ("--prefix", "p_", "--columns", "id,nested", "--text-column", "question", "--top-k", 2)
        source = tmp_path / "a.parquet"
        ok("batch", edge_bundle, source, "--out", tmp_path / "out", *options, "--workers", 1, "--threads", 2)
        found = output(tmp_path / "out")
        added = ("label", "score", "retrieved", "abstained", "error", "labels", "scores")
        assert list(found[0]) == ["id", "nested", *(f"p_{name}" for name in added)]
        with Runtime.open(edge_bundle) as runtime:
            for row, text in zip(found, rows, strict=True):
                assert list(zip(row["p_labels"], row["p_scores"], strict=True)) == list(runtime.predict(text).top(2))
                assert row["nested"] == {"a": [1]}
        none = ("--columns", "", "--text-column", "question", "--retrieval", "never")
        ok("batch", edge_bundle, source, "--out", tmp_path / "none", *none, "--workers", 1)
        assert {row["retrieved"] for row in output(tmp_path / "none")} == {False}


@pytest.mark.usefixtures("in_process")
class TestRefusals:
    """Before anything is written."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return write_lines(tmp_path / "a.jsonl", [{"text": "noon"}, {"text": ""}])

    def test_inputs(self, edge_bundle: Path, tmp_path: Path, source: Path) -> None:
        out = tmp_path / "out"
        for name, content in (("a.json", "[]"), ("a.xyz", ""), ("two.csv", "text,text\na,b\n")):
            (tmp_path / name).write_text(content)
        (tmp_path / "empty.csv").write_text("text\n")
        (tmp_path / "other.csv").write_text("text,id\nnoon,1\n")
        (tmp_path / "label.csv").write_text("text,label\nnoon,1\n")
        (tmp_path / "bad.parquet").write_bytes(b"PAR1" * 9)
        (tmp_path / "folder").mkdir()
        for given, words in (
            ([tmp_path / "none.csv"], "none.csv: the file cannot be read; found No such file"),
            ([tmp_path / "*.nothing"], "no input file"),
            ([tmp_path / "folder"], "no input file"),
            ([tmp_path / "a.json"], "this kind of file cannot be read here"),
            ([tmp_path / "a.xyz"], "this kind of file cannot be read here"),
            ([source, source], "the file is given twice"),
            ([tmp_path / "two.csv"], "the column appears twice"),
            ([tmp_path / "empty.csv"], "the input has no rows"),
            ([source, tmp_path / "other.csv", "--columns", "lost"], "there is no such column"),
            ([tmp_path / "other.csv", tmp_path / "label.csv"], "lacks columns of the other input files"),
            ([tmp_path / "label.csv"], "--prefix predicted_"),
            ([tmp_path / "other.csv", "--text-column", "body"], "there is no such column"),
            ([tmp_path / "bad.parquet"], "the Parquet file cannot be read"),
            ([source, "--address", "auto"], "--engine ray"),
            ([source, "--abstain", "often"], "not an abstention goal"),
            ([source, "--abstain", "coverage=95%"], "no abstention thresholds"),
            ([source, "--on-error", "raise", "--workers", 1], f"{source}, row 2, column 'text': the text is empty"),
        ):
            assert words in refused("batch", edge_bundle, *given, "--out", out), words
        assert names(out) == ["_plan.json"]  # of the last one, which began

    def test_output_folders(self, edge_bundle: Path, tmp_path: Path, source: Path) -> None:
        folder = tmp_path / "in"
        folder.mkdir()
        source.rename(folder / "a.jsonl")
        for out in (folder, folder / "out"):
            assert "is in an input folder" in refused("batch", edge_bundle, folder, "--out", out)
        full = tmp_path / "full"
        full.mkdir()
        (full / "mine.txt").touch()
        for more in ([], ["--overwrite"]):
            assert "not empty, and holds no job" in refused("batch", edge_bundle, folder, "--out", full, *more)
        assert names(full) == ["mine.txt"]

    def test_two_runs_at_a_time(self, edge_bundle: Path, tmp_path: Path, source: Path) -> None:
        import fcntl

        (tmp_path / "out").mkdir()
        descriptor = os.open(tmp_path / "out", os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            assert "another process runs this job" in refused("batch", edge_bundle, source, "--out", tmp_path / "out")
        finally:
            os.close(descriptor)


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
            (["--part-rows", 51], "the rows of a part was 50, is 51"),
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

    def test_a_damaged_part_is_found(self, arguments: list[object], tmp_path: Path) -> None:
        out = tmp_path / "out"
        ok(*arguments)
        (out / "_SUCCESS").unlink()
        (out / "part-00001.parquet").write_bytes(b"PAR1")
        assert "the part is damaged" in refused(*arguments, remarks=1)
        assert not (out / "_SUCCESS").exists()


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
