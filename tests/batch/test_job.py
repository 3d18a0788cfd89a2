"""`reaugkd batch` from files to files, in the local engine."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from support.batch_jobs import answers, output, write_empty_files, write_rows
from support.command_line import call, names, ok, refused

from reaugkd import Runtime, __version__
from reaugkd.batch.build.settings import BuildOptions
from reaugkd.batch.job.inputs import InputFile
from reaugkd.batch.job.plan import Plan
from reaugkd.kb.storage.atomic import sha256_file

ADDED = ("label", "score", "retrieved", "abstained", "error")


def write_csv(path: Path, rows: list[str], first: int = 0) -> Path:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("id", "text"), *((number, f"{text}\n") for number, text in enumerate(rows, first))])
    data = buffer.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_lines(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values))
    return path


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
        parquet.write_table(pa.table({"text": ["noon"], "n": [2**60 + 1]}), tmp_path / "b.parquet")
        for wide in (write_lines(tmp_path / "b.jsonl", [{"text": "noon", "n": 2**60 + 1}]), tmp_path / "b.parquet"):
            message = refused("batch", edge_bundle, tmp_path / "a.parquet", wide, "--out", tmp_path / wide.suffix[1:])
            assert f"{wide}, column 'n': a cell does not fit the type" in message and "expected double" in message

    def test_names(self, edge_bundle: Path, tmp_path: Path) -> None:
        """Names that cannot be written as UTF-8, a column that is named twice, a field named like an added column."""
        lines = write_lines(tmp_path / "a\udcff.jsonl", ['{"text": "noon", "\\ud800": 1}', {"text": "noon"}])
        assert call("batch", edge_bundle, lines, "--out", tmp_path / "names", "--workers", 1).code == 3
        wrong, fine = output(tmp_path / "names")
        assert "a\\udcff.jsonl, row 1: the name of a column holds an unpaired surrogate" in wrong["error"]
        assert list(wrong) == ["text", *ADDED] and fine["error"] is None
        parquet.write_table(pa.table({"text": ["noon"], "a": [{"error": 1}]}), tmp_path / "a.parquet")
        options = ("--columns", "a,a", "--prefix", "a.")
        ok("batch", edge_bundle, tmp_path / "a.parquet", "--out", tmp_path / "out", *options, "--workers", 1)
        assert list(output(tmp_path / "out")[0]) == ["a", *(f"a.{name}" for name in ADDED)]

    def test_plain_text_and_pairs(self, edge_bundle: Path, pair_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("noon\n\nnan\n")
        assert call("batch", edge_bundle, tmp_path / "a.txt", "--out", tmp_path / "out", "--workers", 1).code == 3
        found = output(tmp_path / "out")
        assert [row["text"] for row in found] == ["noon", "", "nan"]
        assert [row["error"] is None for row in found] == [True, False, True]  # where nothing is quoted, nan is a word
        (tmp_path / "b.txt").write_text("noon\talarm\nnoon\n")
        write_lines(tmp_path / "c.jsonl", [["noon", "alarm"], {"text": "noon", "text_pair": "alarm"}])
        given = (tmp_path / "b.txt", tmp_path / "c.jsonl")
        assert call("batch", pair_bundle, *given, "--out", tmp_path / "pairs", "--workers", 1).code == 3
        found = output(tmp_path / "pairs")
        with Runtime.open(pair_bundle) as runtime:
            answer = runtime.predict(("noon", "alarm"))
        assert [row["score"] for row in found] == [answer.probability, None, answer.probability, answer.probability]

    def test_folders_and_patterns(self, edge_bundle: Path, tmp_path: Path) -> None:
        """The command names the files that it does not read. A pattern leaves out hidden files and the job's output."""
        folder, elsewhere = tmp_path / "in [1]", tmp_path / "elsewhere"
        for place in (folder / "_temporary", folder / "deep", elsewhere):
            place.mkdir(parents=True)
            (place / "b.csv").write_text("text\nnoon\n")
        write_lines(folder / "a.jsonl", [{"text": "noon"}, {"text": ""}])
        (folder / "_SUCCESS").touch()
        done = call("batch", edge_bundle, f"{tmp_path}/in*/**/*", "--out", folder / "out", "--part-rows", 1)
        assert (done.code, done.err) == (3, "") and len(output(folder / "out")) == 3
        again = call("batch", edge_bundle, f"{tmp_path}/in*/**/*", "--out", folder / "out", "--part-rows", 1)
        assert "already complete" in again.err and again.out == done.out
        (folder / "out").rename(tmp_path / "out")
        (folder / "link").symlink_to(elsewhere)
        (folder / "gone.csv").symlink_to(tmp_path / "none")
        (folder / "notes.md").touch()
        done = call("batch", edge_bundle, folder, "--out", tmp_path / "new")
        assert done.err.splitlines() == [
            f"note: {folder}/gone.csv: not read, it is no file",
            f"note: {folder}/link: not read, it is a link to a folder",
            f"note: {folder}/notes.md: not read, it is not one of parquet, csv, tsv, jsonl, txt",
        ]
        assert len(output(tmp_path / "new")) == 3

    def test_files_without_rows_are_left_out_and_named(self, edge_bundle: Path, tmp_path: Path) -> None:
        """Also by a restart, and not if the file has rows by then; a job of such files alone is refused."""
        folder, out = tmp_path / "in", tmp_path / "out"
        write_empty_files(folder)
        nothing = sorted(folder.iterdir())
        message = refused("batch", edge_bundle, folder, "--out", out)
        assert f"{nothing[0]}: the input has no rows; found 0 rows in {len(nothing)} files" in message
        write_csv(folder / "m.csv", ["noon", "alarm"])
        call_again = ("batch", edge_bundle, folder, "--out", out, "--part-rows", 1, "--workers", 1)
        notes = [f"note: {path}: left out, it has no rows ({path.stat().st_size} bytes)" for path in nothing]
        done = ok(*call_again)
        assert done.err.splitlines() == notes
        assert done.out == f"2 rows: 2 answered, in 2 files: {out}\n"
        assert [row["text"] for row in output(out)] == ["noon\n", "alarm\n"]
        (out / "part-00001.parquet").unlink()
        for said in ("resumes after 1 of 2 rows", "already complete"):
            again = ok(*call_again).err.splitlines()
            assert again[:-1] == notes and said in again[-1]
        (folder / "0.csv").write_text("id,text\n3,noon\n")
        assert "0.csv had 0 bytes, has 15" in refused(*call_again)

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
        added = (*ADDED, "labels", "scores")
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
            ([tmp_path / "a.json"], "this kind of file cannot be read row by row"),
            ([tmp_path / "a.xyz"], "this kind of file cannot be read row by row"),
            ([source, source], "the file is given twice"),
            ([tmp_path / "two.csv"], "the column appears twice"),
            ([tmp_path / "empty.csv"], "the input has no rows"),
            ([source, tmp_path / "other.csv", "--columns", "lost"], f"{source} and 1 more, column 'lost'"),
            ([tmp_path / "other.csv", tmp_path / "label.csv"], "lacks columns of the other input files"),
            ([tmp_path / "label.csv"], "--prefix predicted_"),
            ([tmp_path / "other.csv", "--text-column", "body"], "there is no such column"),
            ([tmp_path / "bad.parquet"], "the Parquet file cannot be read"),
            ([source, "--abstain", "often"], "not an abstention goal"),
            ([source, "--abstain", "coverage=95%"], "no abstention thresholds"),
            ([source, "--on-error", "raise", "--workers", 1], f"{source}, row 2, column 'text': the text is empty"),
        ):
            assert words in refused("batch", edge_bundle, *given, "--out", out), words
        assert names(out) == ["_plan.json"]  # of the last one, which began

    def test_the_remedy_for_different_columns_works(self, edge_bundle: Path, tmp_path: Path) -> None:
        """The error names the file, its columns, the missing one, and an option with which the same command runs."""
        first, second, third = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.parquet"
        first.write_text('text,id,"a, b",n\nnoon,1,2,3\n')
        second.write_text('n,"a, b",text,lang\n3,2,alarm,en\n')
        parquet.write_table(pa.table({"text": ["jazz"], "a, b": ["2"], "n": [[3]]}), third)
        command = ("batch", edge_bundle, first, second, third, "--workers", 1)
        message = refused(*command, "--out", tmp_path / "out")
        assert f"{first}: the file lacks columns of the other input files; found 'text', 'id', 'a, b', 'n'" in message
        assert "expected also 'lang'." in message
        remedy = shlex.split(message.rpartition("fit: ")[2])
        assert remedy == ["--columns", 'text,"a, b"']
        ok(*command, "--out", tmp_path / "out", *remedy)
        assert [(row["text"], row["a, b"]) for row in output(tmp_path / "out")] == [
            *(("noon", "2"), ("alarm", "2"), ("jazz", "2"))
        ]
        two = ("batch", edge_bundle, first, third, "--workers", 1, "--out", tmp_path / "two")
        message = refused(*two, "--columns", "n,text")
        assert f"{third}: the columns of the input files have types that do not fit" in message
        assert shlex.split(message.rpartition("fit: ")[2]) == ["--columns", "text"]
        (tmp_path / "d.csv").write_text("body\nnoon\n")
        other = ("batch", edge_bundle, first, tmp_path / "d.csv", "--out", tmp_path / "no", "--text-column", "text")
        assert "--columns" not in refused(*other, "--columns", "")  # the text itself cannot be left out

    def test_an_address_without_ray(self, edge_bundle: Path, tmp_path: Path, source: Path) -> None:
        for command in (("batch", edge_bundle, source), ("kb", "build", edge_bundle, "--data", source)):
            message = refused(*command, "--out", tmp_path / "out", "--address", "auto")
            assert "--address is for a cluster of Ray; found --engine local" in message
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.build").exists()

    def test_a_folder_that_cannot_be_read(
        self, edge_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The superuser can read every folder, so the operating system's answer is made here."""
        (tmp_path / "secret").mkdir()
        scandir = os.scandir

        def refuse(path: Any) -> Any:
            if Path(path).name == "secret":
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        message = refused("batch", edge_bundle, tmp_path, "--out", tmp_path.parent / "out")
        assert f"{tmp_path / 'secret'}: the folder cannot be read; found Permission denied" in message

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

    def test_the_work_folder_of_kb_build(self, edge_bundle: Path, tmp_path: Path, source: Path) -> None:
        """Its plan and parts have the names of a batch job's."""
        work = tmp_path / "new.build"
        work.mkdir()
        options = BuildOptions(seal="0" * 64, shards=1)
        Plan(options, ((InputFile.of(source), 2),), "text", None, pa.schema([])).write(work)
        (work / "part-00000.parquet").touch()
        before = (work / "_plan.json").read_bytes()
        for more in ([], ["--overwrite"]):
            message = refused("batch", edge_bundle, source, "--out", work, *more)
            assert "found a plan of `reaugkd kb build`" in message and "Choose another output folder" in message
        assert names(work) == ["_plan.json", "part-00000.parquet"] and (work / "_plan.json").read_bytes() == before
        (work / "_plan.json").write_text("{}")
        message = refused("batch", edge_bundle, source, "--out", work, "--overwrite")
        assert "the plan of the job cannot be read; found no entry 'command'" in message
        assert names(work) == ["_plan.json", "part-00000.parquet"]

    def test_two_runs_at_a_time(self, edge_bundle: Path, tmp_path: Path, source: Path) -> None:
        import fcntl

        (tmp_path / "out").mkdir()
        descriptor = os.open(tmp_path / "out", os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            assert "another process runs this job" in refused("batch", edge_bundle, source, "--out", tmp_path / "out")
        finally:
            os.close(descriptor)
