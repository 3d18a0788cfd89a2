"""The commands: input, output and streams."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from pathlib import Path

import pytest
from support.command_line import (
    COMMANDS,
    HEAVY,
    call,
    finish,
    names,
    ok,
    ok_json,
    records,
    refused,
    spawn,
    spawn_python,
)
from support.tiny_bundle import build_tiny_bundle, reseal

from reaugkd import Runtime, __version__
from reaugkd.export.recipe import Recipe
from reaugkd.runtime.data.formats import FORMATS

TEXTS = ["noon", "alarm call", "jazz music at night"]


class TestHelp:
    def test_bare_call_shows_the_commands_in_the_order_of_work(self) -> None:
        done = call()
        assert done.code == 2 and done.out == ""
        listed = re.findall(r"^  (\w+)  ", done.err.partition("Commands:")[2], re.MULTILINE)
        assert listed == list(COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_its_help(self, command: str) -> None:
        for option in ("--help", "-h"):
            done = ok(command, option)
            assert done.out.startswith(f"Usage: reaugkd {command} ") and done.err == ""
            assert "\\b" not in done.out
            assert "..." not in ok("--help").out.partition("Commands:")[2]  # no description is cut

    @pytest.mark.parametrize(
        ("command", "options"),
        [
            ("train", "--data --teacher --teacher-outputs --out --task --student-layers --student --embedding-dim "),
            ("train", "--teacher-epochs"),
            ("train", "--student-epochs --limit --seed --recipe --text-column --text-pair-column --label-column"),
            ("export", "RUN --out --target --quantization --allow-quality-loss auto|avx2|avx512_vnni|arm64"),
            ("export", "dynamic|none --kb-data --kb-answers --query layers|distilled --keys student|teacher"),
            ("export", "--keep-heldout --leave-heldout --kb-texts plain|hash|none --vocabulary"),
            ("predict", "BUNDLE [TEXT]... --input --output --format --explain --no-retrieval table|jsonl|csv"),
            ("eval", "BUNDLE --data --split --run --json"),
            ("report", "BUNDLE --data --out --split --run --no-texts --seconds --json --follow-links"),
            ("bench", "BUNDLE --data --threads --report --json"),
            ("inspect", "BUNDLE"),
        ],
    )
    def test_the_names_that_scripts_rely_on(self, command: str, options: str) -> None:
        shown = ok(command, "--help").out
        assert [option for option in options.split() if option not in shown] == []

    def test_the_defaults_in_the_help_are_the_recipes(self) -> None:
        recipe = Recipe()
        expected = {
            "--embedding-dim": recipe.projection.embedding_dim,
            "--teacher-epochs": recipe.teacher.fit.epochs,
            "--student-epochs": recipe.student.fit.epochs,
            "--max-length": recipe.max_length,
            "--seed": recipe.seed,
        }
        shown = " ".join(ok("train", "--help").out.split())
        found = {option: re.search(rf"{option} N [^\[]*\[default: (\d+)", shown) for option in expected}
        assert {option: int(match[1]) for option, match in found.items() if match} == expected

    def test_a_former_name_works_with_a_note(self) -> None:
        done = ok("compact", "--help")
        assert done.out.startswith("Usage: reaugkd co")
        assert done.err == "note: `reaugkd compact` is now `reaugkd condense`\n"

    def test_version(self) -> None:
        assert ok("--version").out == f"reaugkd, version {__version__}\n"

    def test_help_loads_no_library(self) -> None:
        calls = [["--help"], *([command, "--help"] for command in COMMANDS)]
        script = f"""
import sys
from reaugkd.cli import main
for arguments in {calls}:
    sys.argv = ["reaugkd", *arguments]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code
print("loaded:", *sys.modules)
"""
        done = finish(spawn_python(script))
        assert done.code == 0, done.err
        loaded = {name.partition(".")[0] for name in done.out.rpartition("loaded:")[2].split()}
        assert "click" in loaded
        assert not loaded & {*HEAVY, "numpy", "onnxruntime", "usearch", "tokenizers"}


class TestPredict:
    def test_jsonl_has_the_promised_keys(self, edge_bundle: Path) -> None:
        done = ok("predict", edge_bundle, *TEXTS, "--format", "jsonl")
        assert done.err == ""
        found = records(done.out)
        with Runtime.open(edge_bundle) as runtime:
            answers = [runtime.predict(text) for text in TEXTS]
        for row, (record, answer) in enumerate(zip(found, answers, strict=True), start=1):
            assert list(record) == ["row", "label", "probability", "probabilities", "retrieved", "truncated"]
            assert record["row"] == row and record["retrieved"] is True
            assert record["label"] == answer.label and record["probability"] == answer.probability
            assert record["probabilities"] == dict(zip("abc", answer.probabilities.tolist(), strict=True))

    def test_explain_adds_the_neighbours(self, edge_bundle: Path) -> None:
        (record,) = records(ok("predict", edge_bundle, "noon", "--format", "jsonl", "--explain").out)
        assert set(record) >= {"label", "probability", "probabilities", "retrieved", "neighbours"}
        near = record["neighbours"]
        assert len(near) == 8
        for one in near:
            assert set(one) == {"row", "id", "similarity", "weight", "label", "gold_label", "text"}
        assert [one["similarity"] for one in near] == sorted((one["similarity"] for one in near), reverse=True)
        assert math.isclose(sum(one["weight"] for one in near), 1, abs_tol=1e-5)

    def test_without_retrieval_the_student_answers_alone(self, edge_bundle: Path) -> None:
        call_ = ("predict", edge_bundle, "noon", "--format", "jsonl", "--explain", "--no-retrieval")
        (record,) = records(ok(*call_).out)
        assert record["retrieved"] is False and record["neighbours"] == []
        with Runtime.open(edge_bundle, retrieval="never") as runtime:
            assert record["probability"] == runtime.predict("noon").probability

    def test_a_gate_and_a_budget_leave_the_search_out(self, edge_bundle: Path, tmp_path: Path) -> None:
        (record,) = records(ok("predict", edge_bundle, "noon", "--format", "jsonl", "--budget-ms", "0.000001").out)
        assert record["retrieved"] is False and record["reason"] == "budget"
        shutil.copytree(edge_bundle, tmp_path / "gated")
        gate = {"threshold": 0.0, "epsilon": 0.1, "delta": 0.1, "rows": 9, "losses": 0, "retrieved": 0.0}
        reseal(tmp_path / "gated", gate=gate)
        (record,) = records(ok("predict", tmp_path / "gated", "noon", "--format", "jsonl", "--gated").out)
        assert record["retrieved"] is False and record["reason"] == "sure"
        assert "has no gate" in refused("predict", edge_bundle, "noon", "--gated")
        assert "either --gated or" in refused("predict", edge_bundle, "noon", "--gated", "--no-retrieval")

    def test_csv(self, edge_bundle: Path) -> None:
        rows = list(csv.DictReader(io.StringIO(ok("predict", edge_bundle, *TEXTS, "--format", "csv", "--explain").out)))
        assert list(rows[0]) == ["row", "label", "probability", "retrieved", "error", "truncated", "neighbours"]
        assert [row["row"] for row in rows] == ["1", "2", "3"]
        assert all(len(json.loads(row["neighbours"])) == 8 for row in rows)

    def test_texts_give_a_table_and_files_give_json_lines(self, edge_bundle: Path, tmp_path: Path) -> None:
        table = ok("predict", edge_bundle, *TEXTS).out.splitlines()
        assert table[0].split() == ["row", "label", "prob.", "text"]
        assert [line.split()[0] for line in table[1:]] == ["1", "2", "3"]
        assert [line.endswith(text) for line, text in zip(table[1:], TEXTS, strict=True)] == [True] * 3
        (tmp_path / "in.txt").write_text("\n".join(TEXTS))
        assert len(records(ok("predict", edge_bundle, "--input", tmp_path / "in.txt").out)) == 3

    @pytest.mark.parametrize("suffix", [suffix for one in FORMATS for suffix in one.suffixes])
    def test_every_kind_of_file(self, edge_bundle: Path, tmp_path: Path, suffix: str) -> None:
        file = tmp_path / f"in{suffix}"
        rows = [{"id": row, "text": text, "label": "unknown"} for row, text in enumerate(TEXTS)]
        if suffix == ".parquet":
            pyarrow = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), file)
        elif suffix in (".arrow", ".feather", ".ipc"):
            pyarrow = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.feather").write_feather(pyarrow.Table.from_pylist(rows), str(file))
        elif suffix in (".xlsx", ".xlsm"):
            book = pytest.importorskip("openpyxl").Workbook()
            for cells in (list(rows[0]), *(list(row.values()) for row in rows)):
                book.active.append(cells)
            book.save(file)
        elif suffix in (".txt", ".text"):
            file.write_text("".join(f"{text}\n" for text in TEXTS))
        elif suffix in (".jsonl", ".ndjson", ".json"):
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            mark = "," if suffix == ".csv" else "\t"
            lines = [mark.join(map(str, row.values())) for row in rows]
            file.write_text("\n".join([mark.join(rows[0]), *lines]) + "\n")
        expected = [record["probabilities"] for record in records(ok_json(edge_bundle, *TEXTS))]
        assert [record["probabilities"] for record in records(ok_json(edge_bundle, "--input", file))] == expected

    def test_stdin_is_lines_of_text_by_default(self, edge_bundle: Path) -> None:
        expected = [record["probabilities"] for record in records(ok_json(edge_bundle, *TEXTS))]
        plain = "".join(f"{text}\r\n" for text in TEXTS).encode()
        table = ("text\n" + "".join(f"{text}\n" for text in TEXTS)).encode()
        for stdin, options in ((plain, []), (table, ["--input-format", "csv"])):
            out = ok("predict", edge_bundle, "--input", "-", *options, stdin=stdin).out
            assert [record["probabilities"] for record in records(out)] == expected

    def test_an_empty_stdin_is_no_mistake(self, edge_bundle: Path) -> None:
        assert ok("predict", edge_bundle, "--input", "-").out == ""

    def test_a_column_can_be_named(self, edge_bundle: Path, tmp_path: Path) -> None:
        file = tmp_path / "in.csv"
        file.write_text("text,words\nignored,noon\n")
        (record,) = records(ok_json(edge_bundle, "--input", file, "--text-column", "words"))
        assert record["probability"] == records(ok_json(edge_bundle, "noon"))[0]["probability"]

    def test_pairs(self, pair_bundle: Path, tmp_path: Path) -> None:
        expected = records(ok_json(pair_bundle, "noon", "alarm", "jazz", "call"))
        assert [record["row"] for record in expected] == [1, 2]
        (tmp_path / "in.jsonl").write_text('{"sentence1": "noon", "sentence2": "alarm"}\n["jazz", "call"]\n')
        (tmp_path / "in.csv").write_text("a,b\nnoon,alarm\njazz,call\n")
        named = ("--text-column", "a", "--text-pair-column", "b")
        found = {
            "jsonl": ok_json(pair_bundle, "--input", tmp_path / "in.jsonl"),
            "csv": ok_json(pair_bundle, "--input", tmp_path / "in.csv", *named),
            "stdin": ok("predict", pair_bundle, "--input", "-", stdin=b"noon\talarm\njazz\tcall\n").out,
        }
        for kind, out in found.items():
            assert [one["probabilities"] for one in records(out)] == [one["probabilities"] for one in expected], kind
        assert "noon | alarm" in ok("predict", pair_bundle, "noon", "alarm").out

    @pytest.mark.parametrize("threads", [1, 3])
    def test_bad_rows_get_their_records_in_their_places(self, edge_bundle: Path, threads: int) -> None:
        stdin = b"noon\n\n\xff\nalarm\n   \ncall"
        done = call("predict", edge_bundle, "--input", "-", "--threads", threads, stdin=stdin)
        found = records(done.out)
        assert [record["row"] for record in found] == [1, 2, 3, 4, 5, 6]
        assert ["error" in record for record in found] == [False, True, True, False, True, False]
        error = found[2]["error"]
        assert (error["type"], error["path"], error["row"], error["expected"]) == ("TextError", "<stdin>", 3, "UTF-8")
        assert "0xff" in error["found"] and error["remedy"]
        assert (done.code, done.err) == (3, "6 rows: 3 answered, 3 failed (see the error records)\n")

    def test_an_error_found_while_answering_names_the_row_too(self, pair_bundle: Path) -> None:
        out = call("predict", pair_bundle, "--input", "-", stdin=b"noon\talarm\nnoon\n").out
        assert records(out)[1]["error"]["row"] == 2 and records(out)[1]["error"]["path"] == "<stdin>"

    def test_to_a_file(self, edge_bundle: Path, tmp_path: Path) -> None:
        target = tmp_path / "deep" / "out.jsonl"
        done = ok("predict", edge_bundle, *TEXTS, "--format", "jsonl", "--output", target)
        assert (done.out, done.err) == ("", "")
        assert target.read_text() == ok_json(edge_bundle, *TEXTS)
        assert names(target.parent) == ["out.jsonl"]
        message = refused("predict", edge_bundle, "noon", "--output", target)
        assert str(target) in message and "exists" in message and "nothing is overwritten" in message
        assert len(records(target.read_text())) == 3

    def test_text_that_looks_like_an_option(self, edge_bundle: Path) -> None:
        assert "--noon" in ok("predict", edge_bundle, "--", "--noon").out

    def test_characters_that_the_terminal_lacks_are_replaced(self, edge_bundle: Path) -> None:
        text = "\u202eé 木 \x1b[31m"
        plain = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
        done = finish(spawn("predict", edge_bundle, text, env=plain))
        assert done.code == 0 and done.err == "" and "\x1b" not in done.out
        with_text = finish(spawn("predict", build_unicode(edge_bundle), "noon", "--format", "jsonl", env=plain))
        assert with_text.code == 0 and json.loads(with_text.out)["label"] in "äöü"

    def test_a_reader_that_leaves_early_is_no_error(self, edge_bundle: Path) -> None:
        process = spawn("predict", edge_bundle, "--input", "-")
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"noon\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["row"] == 1  # at once, with the input still open
        process.stdout.close()
        process.stdin.write(b"alarm\n" * 100)
        process.stdin.close()
        assert process.stderr is not None and process.stderr.read() == b""
        assert process.wait(60) == 0
        process.stderr.close()

    def test_closed_streams_are_empty_ones(self, edge_bundle: Path) -> None:
        script = "import os, sys\nos.close({})\nsys.{} = None\nfrom reaugkd.cli import main\nmain()"
        no_out = finish(spawn_python(script.format(1, "stdout"), "predict", edge_bundle, "noon"))
        assert (no_out.code, no_out.err) == (0, "")
        no_in = finish(spawn_python(script.format(0, "stdin"), "predict", edge_bundle, "--input", "-", stdin=None))
        assert no_in == (0, "", "0 rows: 0 answered\n")


def build_unicode(beside: Path) -> Path:
    path = beside.parent / "unicode"
    return path if path.exists() else build_tiny_bundle(path, labels=("ä", "ö", "ü"))
