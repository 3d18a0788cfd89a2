"""Abstention and statistics on the command line: predict --abstain, --stats, calibrate, inspect."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.command_line import call as run_line
from support.command_line import names, ok, records, refused
from support.heldout_bundle import add_abstention, build_heldout_bundle
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts

from reaugkd import KnowledgeBase, Runtime, UsageError
from reaugkd.export.bundle.calibrate import unknown_rows
from reaugkd.export.tuning.gating import Certificate, certify
from reaugkd.export.tuning.groups import related_inputs
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.kb.texts import TextDigests
from reaugkd.runtime.bundle.bundle import Bundle

TEXTS = tiny_texts(40, seed=321)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_abstention(build_heldout_bundle(tmp_path_factory.mktemp("abstain") / "bundle"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, path: Path) -> Path:
    """Labelled rows; retrieval is right on three of four, and some are in the knowledge base."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    texts = list(dict.fromkeys(tiny_texts(90, seed=900)))
    with Runtime.open(path) as runtime:
        texts += [str(runtime.knowledge_base.text(row)) for row in range(30)]
        labels = [runtime.predict(text).label for text in texts]
    labels[::4] = ["abc"[("abc".index(label) + 1) % 3] for label in labels[::4]]
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
    file.write_text("\n".join(lines) + "\n")
    return file


class TestPredict:
    def test_records_have_the_abstention(self, path: Path) -> None:
        found = records(ok("predict", path, *TEXTS, "--format", "jsonl", "--abstain", "coverage=60%").out)
        with Runtime.open(path) as runtime:
            expected = list(runtime.predict_many(TEXTS, abstain="coverage=60%"))
        for record, answer in zip(found, expected, strict=True):
            assert record["abstained"] is answer.abstained and record["abstention"] == answer.abstention
            assert record["rejection_score"] == answer.rejection_score and record["label"] == answer.label
        assert {record["abstained"] for record in found} == {True, False}

    def test_a_table_and_csv_have_a_column(self, path: Path, tmp_path: Path) -> None:
        with Runtime.open(path) as runtime:
            why = [answer.abstention or "" for answer in runtime.predict_many(TEXTS, abstain="coverage=60%")]
        done = ok("predict", path, *TEXTS, "--format", "csv", "--abstain", "coverage=60%", "--explain")
        read = list(csv.DictReader(io.StringIO(done.out)))
        columns = ["row", "label", "probability", "retrieved", "error", "truncated", "abstained", "neighbours"]
        assert list(read[0]) == columns
        assert [row["abstained"] for row in read] == why
        head, *lines = ok("predict", path, *TEXTS, "--abstain", "coverage=60%").out.splitlines()
        assert head.split() == ["row", "label", "prob.", "abstained", "text"]
        place = head.index("abstained")
        assert [line[place : place + 12].strip() for line in lines] == why
        (tmp_path / "texts.txt").write_text("noon\n\n")
        options = ("--input", tmp_path / "texts.txt", "--format", "csv", "--abstain", "threshold=0")
        bad = run_line("predict", path, *options).out
        assert [len(row) for row in csv.reader(io.StringIO(bad))] == [7, 7, 7]

    def test_without_the_option_nothing_changes(self, path: Path) -> None:
        assert (
            ok("predict", path, "noon", "--format", "csv").out.splitlines()[0]
            == "row,label,probability,retrieved,error,truncated"
        )
        assert "abstained" not in ok("predict", path, "noon").out

    @pytest.mark.parametrize(
        ("goal", "message"),
        [
            ("95%", "Write coverage=95%"),
            ("coverage=99.9%", "fitted on too few rows for this coverage"),
            ("error=0.1%", "could not certify"),
        ],
    )
    def test_goals_that_cannot_be_kept_to(self, path: Path, goal: str, message: str) -> None:
        assert message in refused("predict", path, "noon", "--abstain", goal)

    def test_a_bundle_that_does_not_know_when(self, edge_bundle: Path) -> None:
        assert "has no abstention thresholds" in refused("predict", edge_bundle, "noon", "--abstain", "coverage=95%")


class TestStats:
    def test_they_are_written_at_the_end(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "texts.txt").write_text("noon\n\noven clock\n")
        call = ("predict", path, "--input", tmp_path / "texts.txt", "--abstain", "threshold=0")
        assert run_line(*call, "--stats", tmp_path / "stats.json").code == 3
        found = json.loads((tmp_path / "stats.json").read_text())
        assert (found["predictions"], found["judged"], found["abstained"]) == (2, 2, 2)
        assert found["errors"] == {"TextError": 1}
        done = run_line(*call, "--output", tmp_path / "answers.jsonl", "--stats", "-")
        assert json.loads(done.out)["predictions"] == 2 and len(records((tmp_path / "answers.jsonl").read_text())) == 3

    def test_for_prometheus_by_the_suffix_and_never_over_an_old_one(self, path: Path, tmp_path: Path) -> None:
        ok("predict", path, "noon", "--stats", tmp_path / "stats.prom")
        written = (tmp_path / "stats.prom").read_text()
        assert "\nreaugkd_latency_seconds_count 1\n" in written
        assert "nothing is overwritten" in refused("predict", path, "noon", "--stats", tmp_path / "stats.prom")
        assert names(tmp_path) == ["stats.prom"] and (tmp_path / "stats.prom").read_text() == written

    def test_not_both_to_stdout(self, path: Path) -> None:
        assert "cannot both go to stdout" in refused("predict", path, "noon", "--stats", "-")

    @pytest.mark.parametrize("name", ["stats.json", "stats.prom"])
    def test_an_unwritable_output_is_reported_before_the_predictions(
        self, path: Path, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / name).mkdir()
        refused("predict", path, "noon", "--stats", tmp_path / name)

    def test_nothing_is_left_of_a_call_that_failed(self, path: Path, tmp_path: Path) -> None:
        refused("predict", path, "", "--stats", tmp_path / "stats.prom")
        assert names(tmp_path) == []


class TestCalibrate:
    def test_the_thresholds_are_those_of_the_rows_that_the_base_does_not_hold(
        self, path: Path, rows: Path, tmp_path: Path
    ) -> None:
        done = ok("calibrate", path, "--data", rows, "--split", "all", "--out", tmp_path / "new")
        assert "abstention by coverage" in done.err and done.out == "" and "held-out" not in done.err
        with Runtime.open(path) as before, Runtime.open(tmp_path / "new") as after:
            old, new = before.manifest.abstention, after.manifest.abstention
            assert old is not None and new is not None and new != old
            held = {str(before.knowledge_base.text(row)) for row in range(400)}
            read = [json.loads(line) for line in rows.read_text().splitlines()]
            kept = [one for one in read if one["text"] not in held]
            assert len(read) - len(kept) >= 30
            # Of related texts, such as a phrase and its part, one counts.
            assert new.rows == len(set(related_inputs([one["text"] for one in kept]))) and old.rows == 30
            # What was promised is kept on the rows themselves, to a few.
            answers = [(after.predict(one["text"]), one["label"]) for one in kept]
            share = sum(label in answer.prediction_set_of(0.8) for answer, label in answers) / len(answers)
            assert 0.77 <= share <= 0.87
            assert answers[0][0].probabilities.tobytes() == before.predict(kept[0]["text"]).probabilities.tobytes()
        assert names(tmp_path / "new") == sorted({*names(path), "README.md", "config.json"})

    def test_the_gate_is_certified_on_the_rows(self, path: Path, rows: Path, tmp_path: Path) -> None:
        shutil.copytree(path, tmp_path / "gated")
        gate = {"threshold": 0.9, "epsilon": 0.2, "delta": 0.1, "rows": 9, "losses": 0, "retrieved": 0.5}
        reseal(tmp_path / "gated", gate=gate)
        call = ("calibrate", tmp_path / "gated", "--data", rows, "--split", "all", "--out")
        done = ok(*call, tmp_path / "new")
        with Runtime.open(tmp_path / "new") as runtime:
            held = {str(runtime.knowledge_base.text(row)) for row in range(400)}
            kept = [one for one in map(json.loads, rows.read_text().splitlines()) if one["text"] not in held]
            said = [runtime.predict(one["text"]) for one in kept]
            gold = np.array([runtime.labels.index(one["label"]) for one in kept])
            found = runtime.gate
        student, blend = (
            np.array([getattr(one, name) for one in said]) for name in ("student_probabilities", "probabilities")
        )
        groups = related_inputs([one["text"] for one in kept])
        expected = certify(student, blend, gold, groups, Certificate(0.2, 0.1))
        assert expected is not None and found is not None and expected.rows == len(set(groups))
        assert (found.rows, found.losses, found.epsilon, found.delta) == (expected.rows, expected.losses, 0.2, 0.1)
        assert found.threshold == pytest.approx(expected.threshold, abs=1e-5)
        assert f"--gated): retrieves for {found.retrieved:.1%} of the rows of --data" in done.err
        never = ok("calibrate", path, *call[2:], tmp_path / "never").err
        assert "--gated): none: too few rows of --data" in never and "held-out" not in done.err + never

        reseal(tmp_path / "gated", gate={**gate, "epsilon": 0.001})  # 90 rows cannot prove it
        assert (
            "--gated): as before: retrieves for 50.0% of the rows that certified it" in ok(*call, tmp_path / "few").err
        )
        with Runtime.open(tmp_path / "few") as runtime:
            assert runtime.gate is not None and runtime.gate.rows == 9

    def test_the_search_is_that_of_the_runtime(self, path: Path, rows: Path, tmp_path: Path) -> None:
        """Few rows are all compared with a text, in the graph: neighbours that the index misses count too."""
        bundle = Path(shutil.copytree(path, tmp_path / "sparse"))
        manifest = Bundle.open(bundle).manifest
        kb = KnowledgeBase.open(bundle / "kb", manifest.kb, 3)
        config = IndexConfig(kb.ndim, dtype="f16", connectivity=2, expansion_add=2, expansion_search=1)
        VectorIndex.build(kb.keys(), config).save(bundle / "kb" / "index.usearch")
        reseal(bundle, kb=config.as_record())
        ok("calibrate", bundle, "--data", rows, "--split", "all", "--out", tmp_path / "new")
        texts = [one["text"] for one in map(json.loads, rows.read_text().splitlines())]
        with Runtime.open(tmp_path / "new") as runtime:
            held = {runtime.knowledge_base.text(row) for row in range(400)}
            kept = [text for text in texts if text not in held]
            each = [kept[row] for row in np.unique(related_inputs(kept), return_index=True)[1]]
            found = runtime.manifest.abstention
            answers = {
                method: [one.predict(text, abstain="threshold=0") for text in each]
                for method, one in (("graph", runtime), ("usearch", runtime.with_retrieval("always", "usearch")))
            }
        scores = {name: sorted(one.rejection_score or 0.0 for one in some) for name, some in answers.items()}
        missed = np.mean([a.nearest > b.nearest for a, b in zip(answers["graph"], answers["usearch"], strict=True)])
        assert missed > 0.02 and found is not None  # otherwise this shows nothing
        ranks = [math.ceil(share * (len(each) + 1) - 1e-9) - 1 for share in found.blend.coverages]
        np.testing.assert_allclose(found.blend.rejection_scores, np.array(scores["graph"])[ranks], atol=1e-3)
        assert np.abs(np.array(scores["usearch"])[ranks] - found.blend.rejection_scores).max() > 0.1

    def test_rows_are_left_out_by_their_digests_too(self, path: Path, rows: Path, tmp_path: Path) -> None:
        """Digests hide the texts, but they still identify rows of the knowledge base."""
        texts = [json.loads(line) for line in rows.read_text().splitlines()]
        with Runtime.open(path) as runtime:
            held = {str(runtime.knowledge_base.text(row)) for row in range(len(runtime.knowledge_base))}
        base = sorted(held)
        kb = KnowledgeBase.build(
            np.eye(2, dtype=np.float32)[np.zeros(len(base), int)],
            np.tile(np.array([1, 0], np.float32), (len(base), 1)),
            config=IndexConfig(2),
            texts=TextDigests.of(base),
        )
        inputs = [one["text"] for one in texts]
        expected = [place for place, text in enumerate(inputs) if text not in held]
        assert unknown_rows(kb, inputs, path) == expected and 0 < len(expected) < len(inputs)
        bare = KnowledgeBase.build(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), config=IndexConfig(2))
        with pytest.raises(UsageError, match="neither texts nor digests"):
            unknown_rows(bare, inputs, path)

    def test_no_row_at_all_is_left(self, path: Path, tmp_path: Path) -> None:
        with Runtime.open(path) as runtime:
            held = [runtime.knowledge_base.text(row) for row in range(40)]
        same = tmp_path / "same.jsonl"
        lines = [json.dumps({"text": text, "label": "abc"[row % 3]}) + "\n" for row, text in enumerate(held)]
        same.write_text("".join(lines))
        line = refused("calibrate", path, "--out", tmp_path / "new", "--split", "all", "--data", same)
        assert "too few rows to calibrate on" in line and "found 0 that" in line

    def test_unusable_input_leaves_no_output(self, path: Path, rows: Path, tmp_path: Path) -> None:
        few, foreign = tmp_path / "few.jsonl", tmp_path / "foreign.jsonl"
        few.write_text("\n".join(rows.read_text().splitlines()[:19]) + "\n")
        foreign.write_text('{"text": "noon", "label": "nobody\'s"}\n')
        call = ("calibrate", path, "--out", tmp_path / "new", "--split", "all", "--data")
        assert "too few rows to calibrate on" in refused(*call, few, remarks=1)
        assert "label" in refused(*call, foreign)
        assert names(tmp_path) == ["few.jsonl", "foreign.jsonl"]
        (tmp_path / "new").mkdir()
        refused(*call, rows)

    def test_inspect_lists_the_thresholds(self, path: Path, tmp_path: Path) -> None:
        (line,) = [line for line in ok("inspect", path).out.splitlines() if line.startswith("abstention")]
        assert "on 30 rows" in line and "prediction sets: up to 95% coverage" in line
        assert "abstention" not in ok("inspect", build_tiny_bundle(tmp_path / "tiny")).out
