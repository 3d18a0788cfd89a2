"""The commands that measure and describe: their tables and their JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import html5lib
import pytest
from support.command_line import (
    labelled_rows,
    names,
    ok,
    refused,
)
from support.short_bench import short_bench
from support.workshop import Workshop

QUANTILES = {"p50_us", "p95_us", "p99_us"}


class TestEval:
    def test_the_json_keys(self, edge_bundle: Path, tmp_path: Path) -> None:
        data, report = labelled_rows(tmp_path / "data.jsonl"), tmp_path / "out" / "report.json"
        done = ok("eval", edge_bundle, "--data", data, "--split", "all", "--json", report)
        assert done.err == "" and done.out.startswith("all: 30 rows of ")
        found = json.loads(report.read_text())
        assert found["n"] == 30 and found["split"] == "all"
        assert [row["system"] for row in found["rows"]] == ["student", "retrieval", "student+retrieval"]
        measures = {"accuracy", "macro_f1", "mcc", "nll", "ece", "teacher_agreement", "teacher_kl"}
        for row in found["rows"]:
            assert set(row) >= {"system", *measures}
            assert 0 <= row["accuracy"] <= 1 and row["nll"] > 0 and row["teacher_kl"] is None
        assert set(found["mcnemar"]) >= {"first_only", "second_only", "p_value"}

    def test_an_older_report_is_not_replaced_nor_is_a_folder(self, edge_bundle: Path, tmp_path: Path) -> None:
        data, report = labelled_rows(tmp_path / "data.jsonl"), tmp_path / "report.json"
        report.write_text("older")
        (tmp_path / "folder").mkdir()
        for existing in (report, tmp_path / "folder"):
            message = refused("eval", edge_bundle, "--data", data, "--split", "all", "--json", existing)
            assert "nothing is overwritten" in message
        assert report.read_text() == "older"
        assert names(tmp_path) == ["data.jsonl", "folder", "report.json"]

    def test_json_to_stdout_sends_the_table_to_stderr(self, edge_bundle: Path, tmp_path: Path) -> None:
        data = labelled_rows(tmp_path / "data.jsonl")
        done = ok("eval", edge_bundle, "--data", data, "--split", "all", "--json", "-")
        assert json.loads(done.out)["n"] == 30 and "student+retrieval" in done.err

    def test_the_held_out_dev_split_is_reported(self, edge_bundle: Path, tmp_path: Path) -> None:
        data = labelled_rows(tmp_path / "data.jsonl")
        done = ok("eval", edge_bundle, "--data", data)
        assert done.out.startswith("dev: 3 rows of ")
        assert "3 rows that the training holds out of its 30" in done.err and "--split all" in done.err
        few = labelled_rows(tmp_path / "few.jsonl", rows=3)
        assert "--split all" in refused("eval", edge_bundle, "--data", few)
        assert "3 rows" in ok("eval", edge_bundle, "--data", few, "--split", "all").out

    def test_splits(self, edge_bundle: Path, tmp_path: Path) -> None:
        for name, rows in (("train", 20), ("dev", 8), ("test", 6)):
            labelled_rows(tmp_path / f"{name}.jsonl", rows)
        for options, said in (
            ([], "test: 6 rows"),
            (["--split", "dev"], "dev: 8 rows"),
            (["--split", "train"], "train: 20 rows"),
            (["--split", "all"], "all: 34 rows"),
        ):
            done = ok("eval", edge_bundle, "--data", tmp_path, *options)
            assert done.out.startswith(said) and done.err == ""


class TestReport:
    def test_a_run_adds_its_systems_its_recipe_and_its_data(self, workshop: Workshop, tmp_path: Path) -> None:
        page, report = tmp_path / "report.html", tmp_path / "report.json"
        options = ("--data", workshop.data, "--seconds", "0", "--out", page, "--json", report)
        ok("report", workshop.bundle, *options, "--run", workshop.run)
        found, run = json.loads(report.read_text()), json.loads((workshop.run / "run.json").read_text())
        systems = [row["system"] for row in found["evaluation"]["rows"]]
        assert systems[:2] == ["teacher", "student_fp32"] and "student+retrieval" in systems
        assert found["recipe"] == run["recipe"]
        for name in ("training data", "run's training data"):
            assert run["data"]["sha256"] in found["provenance"][name]
        said = page.read_text()
        assert "The teacher answers" in said and run["data"]["sha256"] in said
        note = "it uses them for scores only"
        assert (note in said) == (note in found["note"]) == (found["evaluation"]["split"] == "dev")
        assert "No evaluated row is a train or held-out row of the run." in said
        message = refused("report", workshop.bundle, *options[:-3], tmp_path / "other.html", "--run", tmp_path)
        assert "run.json is missing" in message and not (tmp_path / "other.html").exists()

    @pytest.mark.parametrize(("part", "said"), [("train", "was trained on them"), ("heldout", "tuned on them")])
    def test_it_says_so_where_the_run_used_the_rows(
        self, workshop: Workshop, tmp_path: Path, part: str, said: str
    ) -> None:
        rows = workshop.run / "data" / f"{part}.jsonl"
        options = ("--data", rows, "--split", "all", "--seconds", "0", "--run", workshop.run)
        ok("report", workshop.bundle, *options, "--out", tmp_path / "page.html", "--json", tmp_path / "report.json")
        found = json.loads((tmp_path / "report.json").read_text())
        names = ("train rows of the run", "held-out rows of the run")
        count = len(rows.read_text().splitlines())
        assert [found["among"][name] for name in names] == ([count, 0] if part == "train" else [0, count])
        assert said in (page := (tmp_path / "page.html").read_text()) and f"All {count:,} evaluated rows" in page


class TestBench:
    @pytest.fixture(autouse=True)
    def short(self) -> Iterator[None]:
        with short_bench():
            yield

    def test_the_json_keys(self, edge_bundle: Path, tmp_path: Path) -> None:
        options = ("--seconds", "0.01", "--processes", "1", "--json", "-")
        done = ok("bench", edge_bundle, *options)
        found = json.loads(done.out)
        assert set(found["session_run"]) == QUANTILES
        assert set(found["student"]) >= QUANTILES
        assert set(found["student+retrieval"]) == {*QUANTILES, "stages"} and found["setting"]["search"] == "graph"
        assert set(found["student+usearch"]["stages"]) >= {"tokenize", "run", "search", "blend"}
        assert all(set(stage) == QUANTILES for stage in found["student+retrieval"]["stages"].values())
        assert set(found["overhead"]) >= {"p50_percent", "p95_percent", "p50_us", "ci95_percent"}
        low, high = found["overhead"]["ci95_percent"]
        assert low <= high
        assert found["cold_start_ms"] > 0
        assert found["rss_mb"] is None or found["rss_mb"] > 1
        assert {"student", "knowledge_base"} <= set(found["bytes"])
        assert "retrieval over the student" in done.err

    def test_the_page_has_the_figures(self, edge_bundle: Path, tmp_path: Path) -> None:
        quick = ("--seconds", "0.01", "--processes", "0")
        made = ("--report", tmp_path / "bench.html", "--json", tmp_path / "bench.json")
        assert "retrieval over the student" in ok("bench", edge_bundle, *quick, *made).out
        page = (tmp_path / "bench.html").read_text(encoding="utf-8")
        document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
        found = json.loads((tmp_path / "bench.json").read_text())
        assert json.loads(document.find(".//script[@id='data']").text) == found
        said = "".join(document.find(".//section[@id='latency']").itertext())
        assert f"{found['student+retrieval']['p99_us']:,.1f}" in said and f"{found['bytes']['total']:,}" in said
        assert "nothing is overwritten" in refused("bench", edge_bundle, *quick, *made[:2])

    def test_texts_of_a_file_need_no_labels(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "texts.txt").write_text("noon\n\nalarm call\n")
        quick = ("--seconds", "0.01", "--processes", "0")
        report = tmp_path / "report.json"
        done = ok("bench", edge_bundle, "--data", tmp_path / "texts.txt", *quick, "--json", report)
        found = json.loads(report.read_text())
        assert found["setting"]["texts"] == 2 and found["setting"]["source"] == str(tmp_path / "texts.txt")
        assert found["cold_start_ms"] is None and "1 of 3 rows left out" in done.err
        (tmp_path / "set").mkdir()
        labelled_rows(tmp_path / "set" / "train.jsonl")
        (tmp_path / "set" / "test.csv").write_text("text\nnoon\n")
        assert "1 texts" in ok("bench", edge_bundle, "--data", tmp_path / "set", *quick).out

    def test_pairs_from_a_file(self, pair_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_text("sentence1,sentence2\nnoon,alarm\n")
        ok("bench", pair_bundle, "--data", tmp_path / "rows.csv", "--seconds", "0.01", "--processes", "0")


class TestInspect:
    def test_for_people_and_for_programs(self, edge_bundle: Path) -> None:
        shown = ok("inspect", edge_bundle)
        assert shown.err == "" and "labels     3: a, b, c" in shown.out and "kb/index.usearch" in shown.out
        manifest = json.loads((edge_bundle / "manifest.json").read_text())
        del manifest["seal"]
        assert json.loads(ok("inspect", edge_bundle, "--json").out) == manifest
