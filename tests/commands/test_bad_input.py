"""Options, texts and bundles that cannot be used: one line with the place, what was found and a remedy."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.command_line import ROWS, call, finish, names, refused, spawn
from support.workshop import Workshop

from reaugkd.runtime.data.formats import FORMATS


class TestOptions:
    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            (["nosuch"], "No such command 'nosuch'"),
            (["predict"], "Missing argument 'BUNDLE'"),
            (["predict", "B", "--nosuch"], "--nosuch"),
            (["predict", "B"], "give either TEXTs or --input; found neither"),
            (["predict", "B", "x", "--input", "-"], "give either TEXTs or --input; found 1 texts and --input -"),
            (["predict", "B", "x", "--format", "xml"], "'xml' is not one of 'table', 'jsonl', 'csv'"),
            (["predict", "B", "x", "--threads", "0"], "0 is not in the range"),
            (["predict", "B", "x", "--threads", "100000"], "found 100000; expected a whole number from 1 to 1024"),
            (["predict", "B", "--input", "nosuch.csv"], "nosuch.csv: no such file"),
            (["predict", "B", "--input", "B"], "the folder holds no split files"),
            (["predict", "nosuch", "x"], "there is no bundle here"),
            (["eval", "B"], "Missing option '--data'"),
            (["eval", "B", "--data", "nosuch.csv"], "nosuch.csv: no such file or folder"),
            (["bench", "B", "--data", "nosuch.csv"], "nosuch.csv"),
            (["bench", "B", "--seconds", "0"], "--seconds"),
            (["bench", "nosuch"], "there is no bundle here"),
            (["inspect", "nosuch"], "there is no bundle here"),
            (["train", "--data", "x", "--teacher", "x"], "Missing option '--out'"),
            (["train", "--student-layers", "0,x"], "'0,x' is not a list of whole numbers such as 0,2,5"),
            (["train", "--data", "x.csv", "--teacher", "x", "--out", "o", "--student-layers", "2,1"], "ascending"),
            (
                ["train", "--data", "x.csv", "--teacher", "x", "--out", "o", "--recipe", "no.toml"],
                "no.toml: the recipe",
            ),
            (["train", "--data", "x.csv", "--teacher", "x", "--out", "o", "--embedding-dim", "1"], "found 1"),
            (["export", "nosuch", "--out", "o"], "nosuch: run.json is missing; expected a run folder"),
            (["export", "nosuch", "--out", "o", "--target", "z80"], "'z80' is not one of"),
        ],
        ids=lambda part: part if isinstance(part, str) else " ".join(part),
    )
    def test_invalid_options(
        self, edge_bundle: Path, tmp_path: Path, arguments: list[str], part: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        message = refused(*(str(edge_bundle) if one == "B" else one for one in arguments))
        assert part in message
        assert names(tmp_path) == []

    def test_a_task_that_is_unknown(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text(ROWS)
        message = refused("eval", edge_bundle, "--data", tmp_path / "d.csv", "--task", "nosuch")
        assert "unknown task" in message and "sst2" in message

    def test_a_split_that_is_not_there(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text(ROWS)
        message = refused("eval", edge_bundle, "--data", tmp_path / "d.csv", "--split", "test")
        assert "there is no split 'test'; expected one of train, all" in message

    def test_a_run_that_is_not_finished_or_of_other_labels(
        self, workshop: Workshop, edge_bundle: Path, tmp_path: Path
    ) -> None:
        half = Path(shutil.copytree(workshop.run, tmp_path / "half"))
        shutil.rmtree(half / "tuning")
        assert "not finished" in refused("export", half, "--out", tmp_path / "out")
        (tmp_path / "d.csv").write_text(ROWS)
        message = refused("eval", edge_bundle, "--data", tmp_path / "d.csv", "--split", "all", "--run", workshop.run)
        assert "found alarm, music, weather; expected a, b, c" in message
        assert names(tmp_path) == ["d.csv", "half"]


class TestTexts:
    @pytest.mark.parametrize("text", ["", "  \n", "x" * 1_000_001])
    def test_as_arguments_are_named(self, edge_bundle: Path, text: str) -> None:
        done = call("predict", edge_bundle, "noon", text, "alarm", "--format", "jsonl")
        assert done.code == 2
        assert done.err.startswith("error: TEXT 2: the text is ") and done.err.count("\n") == 1
        assert len(done.out.splitlines()) == 1

    def test_that_are_no_unicode(self, edge_bundle: Path) -> None:
        done = finish(spawn("predict", edge_bundle, os.fsdecode(b"caf\xe9")))
        assert done.code == 2 and done.err.startswith("error: TEXT 1: ") and "Unicode" in done.err

    def test_of_pairs_come_two_by_two(self, pair_bundle: Path) -> None:
        message = refused("predict", pair_bundle, "noon", "alarm", "call")
        assert "found 3 texts; expected an even number, two by two" in message

    @pytest.mark.parametrize(
        ("name", "content", "bad"),
        [
            ("d.txt", b"noon\n\n" + b"x" * 10_000_000 + b"\n\xff\nalarm", {2: "empty", 3: "too long", 4: "UTF-8"}),
            ("d.csv", b'text\nnoon\nnan\n"a\nalarm\n', {3: "missing", 4: "never closes"}),
            ("d.tsv", b"id\ttext\n1\tnoon\n2\n3\t \n4\talarm\n", {3: "cells", 4: "empty"}),
            (
                "d.jsonl",
                b'"noon"\n{\n{"text": null}\n["a", "b"]\n"alarm"',
                {2: "JSON", 3: "missing", 4: "single texts"},
            ),
            ("e.jsonl", b'"noon"\n{"text": "\\ud800"}\n"alarm"\n', {2: "surrogate"}),
        ],
    )
    def test_of_files_give_records_and_the_rest_goes_on(
        self, edge_bundle: Path, tmp_path: Path, name: str, content: bytes, bad: dict[int, str]
    ) -> None:
        (tmp_path / name).write_bytes(content)
        for kind in ("jsonl", "csv", "table"):
            done = call("predict", edge_bundle, "--input", tmp_path / name, "--format", kind)
            said = f"{len(bad) + 2} rows: 2 answered, {len(bad)} failed (see the error records)\n"
            assert (done.code, done.err) == (3, said)
            assert done.out.count("\n") == len(done.out.splitlines())
        found = [json.loads(line) for line in call("predict", edge_bundle, "--input", tmp_path / name).out.splitlines()]
        assert [record["row"] for record in found] == sorted(record["row"] for record in found)
        errors = {record["row"]: record["error"] for record in found if "error" in record}
        assert list(errors) == list(bad)
        for row, error in errors.items():
            assert error["row"] == row and error["path"] == str(tmp_path / name)
            assert bad[row] in error["message"] + error["expected"]
        assert len(found) == len(bad) + 2

    @pytest.mark.parametrize("content", [b"", b"foo,bar\n1,2\n", "text\nnoon\n".encode("utf-16-le")])
    def test_files_that_give_nothing_are_refused(self, edge_bundle: Path, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "d.csv").write_bytes(content)
        target = tmp_path / "out.jsonl"
        message = refused("predict", edge_bundle, "--input", tmp_path / "d.csv", "--output", target)
        assert str(tmp_path / "d.csv") in message
        assert names(tmp_path) == ["d.csv"]

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(content=st.binary(max_size=200), kind=st.sampled_from([one.name for one in FORMATS]))
    def test_random_bytes_give_no_traceback(self, edge_bundle: Path, content: bytes, kind: str) -> None:
        done = call("predict", edge_bundle, "--input", "-", "--input-format", kind, stdin=content)
        assert done.code in (0, 1, 2, 3)
        assert all(isinstance(json.loads(line), dict) for line in done.out.splitlines())
        lines = [line for line in done.err.splitlines() if not line.startswith("note: <stdin>: ")]
        assert len(lines) == (1 if lines else 0)


class TestBundles:
    @pytest.mark.parametrize(
        ("command", "harm"),
        [
            ("predict B noon", "missing"),
            ("eval B --data d.csv", "truncated"),
            ("bench B", "altered"),
            ("inspect B", "newer"),
            ("predict B noon", "no manifest"),
        ],
    )
    def test_that_are_harmed(self, edge_bundle: Path, tmp_path: Path, command: str, harm: str) -> None:
        bundle = Path(shutil.copytree(edge_bundle, tmp_path / "bundle"))
        file = bundle / "kb" / "index.usearch"
        content = file.read_bytes()
        if harm == "missing":
            file.unlink()
        elif harm == "truncated":
            file.write_bytes(content[:-7])
        elif harm == "altered":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        else:
            file = bundle / "manifest.json"
            newer = file.read_text().replace('"format_version": 1', '"format_version": 4')
            file.write_text(newer) if harm == "newer" else file.unlink()
        message = refused(*(str(bundle) if part == "B" else part for part in command.split()))
        assert str(file) in message
        expected = {
            "truncated": f"found {len(content) - 7} bytes; expected {len(content)}",
            "newer": "Upgrade",
            "altered": "sha256",
            "no manifest": "expected",
        }
        assert expected.get(harm, harm).lower() in message.replace("SHA-256", "sha256").lower()
