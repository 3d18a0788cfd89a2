from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import call, names, ok, records, refused

from reaugkd import Runtime

SCRIPT = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print(os.environ.get("OPENBLAS_NUM_THREADS"))

sys.meta_path.insert(0, Watch())
from reaugkd.cli import cli
cli(sys.argv[1:], standalone_mode=False)
"""


@pytest.mark.parametrize(("given", "found"), [(None, "1"), ("3", "3")])
def test_predict_loads_numpy_without_threads_by_default(edge_bundle: Path, given: str | None, found: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment |= {} if given is None else {"OPENBLAS_NUM_THREADS": given}
    call = [sys.executable, "-c", SCRIPT, "predict", str(edge_bundle), "noon", "--format", "jsonl"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=120, check=True)
    first, answer = done.stdout.splitlines()
    assert first == found and '"label"' in answer


def test_an_input_without_a_name_is_refused(edge_bundle: Path) -> None:
    for command in ("predict", "kb add"):
        assert "'--input': the name is empty" in refused(*command.split(), edge_bundle, "--input", "")


class TestRowsThatFail:
    """Rows 1 and 3 of the input are answered, row 2 is empty; or every row is empty."""

    SOME, ALL = b"noon\n\nalarm\n", b"\n \n"

    def test_record_is_the_default_for_an_input(self, edge_bundle: Path) -> None:
        done = call("predict", edge_bundle, "--input", "-", stdin=self.SOME)
        assert (done.code, done.err) == (3, "3 rows: 2 answered, 1 failed (see the error records)\n")
        assert done == call("predict", edge_bundle, "--input", "-", "--on-error", "record", stdin=self.SOME)
        assert ["error" in record for record in records(done.out)] == [False, True, False]
        nothing = call("predict", edge_bundle, "--input", "-", stdin=self.ALL)
        assert (nothing.code, nothing.err) == (1, "2 rows: 0 answered, 2 failed (see the error records)\n")

    @pytest.mark.parametrize("kind", ["jsonl", "csv", "table"])
    def test_skip_leaves_them_out_and_tells_so(self, edge_bundle: Path, kind: str) -> None:
        options = ("--input", "-", "--format", kind)
        done = call("predict", edge_bundle, *options, "--on-error", "skip", stdin=self.SOME)
        assert (done.code, done.err) == (3, "3 rows: 2 answered, 1 failed (left out)\n")
        whole = call("predict", edge_bundle, *options, stdin=self.SOME).out.splitlines(keepends=True)
        assert done.out == "".join(line for line in whole if "the text is empty" not in line)
        assert call("predict", edge_bundle, *options, "--on-error", "skip", stdin=self.ALL).code == 1

    @pytest.mark.parametrize("threads", [1, 3])
    def test_raise_ends_at_the_first_with_its_row(self, edge_bundle: Path, tmp_path: Path, threads: int) -> None:
        options = ("--input", "-", "--on-error", "raise", "--threads", threads)
        done = call("predict", edge_bundle, *options, stdin=self.SOME)
        assert done.code == 2 and done.err.startswith("error: <stdin>, row 2: the text is empty")
        assert [record["row"] for record in records(done.out)] == [1]
        refused("predict", edge_bundle, *options, "--output", tmp_path / "out.jsonl", stdin=self.SOME)
        assert names(tmp_path) == []

    def test_raise_is_the_default_for_arguments(self, edge_bundle: Path) -> None:
        assert call("predict", edge_bundle, "noon", "").code == 2
        done = call("predict", edge_bundle, "noon", "", "--on-error", "record", "--format", "jsonl")
        assert (done.code, done.err) == (3, "2 rows: 1 answered, 1 failed (see the error records)\n")
        assert ["error" in record for record in records(done.out)] == [False, True]


def test_truncated_texts_are_told_everywhere(edge_bundle: Path, tmp_path: Path) -> None:
    """A text fills the tiny bundle's 24 tokens with 22 words between two marks."""
    exact, longer = "noon " * 22, "noon " * 23
    done = ok(
        "predict", edge_bundle, "--input", "-", "--stats", tmp_path / "s.json", stdin=f"{exact}\n{longer}".encode()
    )
    assert done.err == "2 rows: 2 answered, 1 truncated to 24 tokens\n"
    assert [record["truncated"] for record in records(done.out)] == [False, True]
    assert json.loads((tmp_path / "s.json").read_text())["truncated"] == 1
    as_csv = call("predict", edge_bundle, longer, "--format", "csv", "--stats", tmp_path / "s.prom")
    assert (as_csv.code, as_csv.err) == (0, "1 row: 1 answered, 1 truncated to 24 tokens\n")
    assert [row["truncated"] for row in csv.DictReader(io.StringIO(as_csv.out))] == ["true"]
    assert "\nreaugkd_truncated_total 1\n" in (tmp_path / "s.prom").read_text()


def test_truncated_pairs(pair_bundle: Path) -> None:
    """A pair fills the 24 tokens with 21 words among three marks."""
    for words, truncated in ((21, False), (22, True)):
        (found,) = records(ok("predict", pair_bundle, "noon " * (words - 1), "noon", "--format", "jsonl").out)
        assert found["truncated"] is truncated


def test_it_reads_no_label_column(edge_bundle: Path) -> None:
    assert "No such option" in refused("predict", edge_bundle, "noon", "--label-column", "label")


def test_top_k(edge_bundle: Path) -> None:
    with Runtime.open(edge_bundle) as runtime:
        first, second = runtime.predict("noon").top(2)
    record = json.loads(ok("predict", edge_bundle, "noon", "--top-k", "2", "--format", "jsonl").out)
    assert record["label"] == first[0] and list(record["probabilities"].items()) == [first, second]
    assert ok("predict", edge_bundle, "noon", "--top-k", "2").out.splitlines()[2].split()[0] == second[0]
    assert "0 is not in the range x>=1" in refused("predict", edge_bundle, "noon", "--top-k", "0")
