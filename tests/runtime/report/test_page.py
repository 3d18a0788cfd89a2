"""The page: valid HTML, the figures of the other commands, hostile texts, its size, and no network or library."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import binomtest
from support.command_line import HEAVY, labelled_rows, ok, refused
from support.heldout_bundle import add_abstention, build_heldout_bundle
from support.html_pages import cells, checked, section
from support.short_bench import short_bench
from support.tiny_bundle import WORDS, build_tiny_bundle, reseal, tiny_texts

from reaugkd import Runtime
from reaugkd.runtime.data import Columns, load_dataset
from reaugkd.runtime.report.collect import ReportSettings, collect
from reaugkd.runtime.report.contents import Report, ShownNeighbour, WrongRow
from reaugkd.runtime.report.page import render

QUICK = ("--split", "all", "--seconds", "0")
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script><!--",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "&lt;b&gt; &amp; ]]> <![CDATA[",
    "\u202eright to left\u2028\u2029\x7f\x85\ufdd0\ufffe\U0001ffff",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with abstention."""
    path = build_heldout_bundle(tmp_path_factory.mktemp("report") / "bundle", rows=120, unrelated=90)
    return add_abstention(path)


@pytest.fixture(scope="module")
def rows(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose labels are mostly those of the bundle, with one label that it does not have."""
    texts = tiny_texts(90, seed=5)
    with Runtime.open(bundle) as runtime:
        labels = [runtime.predict(text).label if at % 3 else "abc"[at % 9 // 3] for at, text in enumerate(texts)]
    labels[7] = "new"
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    return _rows(path, texts, labels)


def _rows(path: Path, texts: Sequence[object], labels: Sequence[str]) -> Path:
    """Write rows of texts or pairs, whose labels are taken in turn."""
    with path.open("w", encoding="utf-8") as file:
        for at, text in enumerate(texts):
            names = {"text": text} if isinstance(text, str) else dict(zip(("text", "text_pair"), text, strict=True))
            file.write(json.dumps({**names, "label": labels[at % len(labels)]}) + "\n")
    return path


@pytest.fixture(scope="module")
def made(bundle: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    options = ("--split", "all", "--json", folder / "report.json")
    with short_bench(samples=4, processes=1):
        done = ok("report", bundle, "--data", rows, "--out", folder / "report.html", *options)
    assert done.out == "" and len(done.err.splitlines()) == 1 and "'new'" in done.err
    ok("eval", bundle, "--data", rows, "--split", "all", "--json", folder / "eval.json")
    ok("kb", "review", bundle, "--json", folder / "review.json")
    return folder


def test_the_figures_are_those_of_the_other_commands(made: Path, bundle: Path, rows: Path) -> None:
    document, inside = checked(made / "report.html")
    assert json.loads((made / "report.json").read_text()) == inside
    scored = json.loads((made / "eval.json").read_text())
    assert inside["evaluation"] == scored
    own = {row["system"]: row for row in scored["rows"]}
    best = own["student+retrieval"]
    shown = {row[0]: row[1:] for row in cells(document, "systems")}
    assert list(shown)[1:] == list(own)
    assert all(float(shown[name][0]) == pytest.approx(100 * row["accuracy"], abs=0.006) for name, row in own.items())
    said = section(document, "verdict")
    assert f"{100 * best['accuracy']:.2f} % of 90 rows are answered right" in said
    low, high = scored["difference"]["accuracy"]["interval"]
    assert f"{100 * low:+.2f} to {100 * high:+.2f}" in said and "a label that the bundle does not have: 1." in said
    test = scored["mcnemar"]
    p_value = binomtest(test["first_only"], test["first_only"] + test["second_only"]).pvalue
    assert f"{test['second_only']} rows are right only with retrieval, {test['first_only']} only without" in said
    assert f"p = {p_value:.3g}" in said
    with Runtime.open(bundle) as runtime:
        stored = {runtime.knowledge_base.text(row) for row in range(len(runtime.knowledge_base))}
    found = sum(json.loads(line)["text"] in stored for line in rows.read_text().splitlines())
    assert inside["among"] == {"rows of the knowledge base": found}
    assert ("where each finds itself" in said) == bool(found)
    assert inside["wrong_count"] == len(inside["wrong"]) == round(90 * (1 - best["accuracy"]))
    counts = cells(document, "confusions")
    assert counts[0][1:] == list("abc") and [row[0] for row in counts[1:]] == ["a", "b", "c", "new"]
    matrix = [[int(cell or 0) for cell in row[1:]] for row in counts[1:]]
    assert sum(map(sum, matrix)) == 90 and sum(matrix[at][at] for at in range(3)) == 90 - inside["wrong_count"]
    errors = {
        name: sum(one["rows"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / 90
        for name, bins in inside["reliability"].items()
    }
    assert errors == pytest.approx({name: own[name]["ece"] for name in ("student", "student+retrieval")})
    for curve in inside["curves"].values():
        assert curve["coverage"][-1] == 1 and curve["error_rate"][-1] == pytest.approx(1 - best["accuracy"])
    review = json.loads((made / "review.json").read_text())
    labels = inside["wrong_labels"]
    assert (labels["checked"], labels["found"]) == (review["checked"], len(review["issues"]))
    assert [one["id"] for one in labels["shown"]] == [one["id"] for one in review["issues"]]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert inside["provenance"]["bundle's seal"] == manifest["seal"] and manifest["seal"] in section(
        document, "provenance"
    )
    assert set(inside["latency"]["student+retrieval"]["stages"]) >= {"tokenize", "run"}
    assert inside["bytes"] == inside["latency"]["bytes"]


def test_wrong_rows_and_goals_are_those_of_single_predictions(made: Path, bundle: Path, rows: Path) -> None:
    inside = json.loads((made / "report.json").read_text())
    records = [json.loads(line) for line in rows.read_text().splitlines()]
    with Runtime.open(bundle) as runtime:
        for one in inside["wrong"]:
            record, answer = records[one["row"] - 1], runtime.predict(one["text"])
            assert (record["text"], record["label"]) == (one["text"], one["gold"])
            assert (answer.label, answer.probability) == (one["predicted"], one["probability"])
            assert [near.id for near in answer.neighbours[:3]] == [near["id"] for near in one["neighbours"]]
        assert inside["goals"]
        for goal in inside["goals"]:
            answers = [runtime.predict(record["text"], abstain=goal["goal"]) for record in records]
            right = [a.label == r["label"] for a, r in zip(answers, records, strict=True) if not a.abstained]
            assert goal["coverage"] == pytest.approx(len(right) / 90)
            assert goal["error_rate"] == pytest.approx(1 - sum(right) / len(right) if right else None)
    probabilities = [one["probability"] for one in inside["wrong"]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_hostile_texts_and_labels_stay_text(tmp_path: Path) -> None:
    labels = [f"{text} {at}" for at, text in enumerate(HOSTILE[:4])]
    bundle = build_tiny_bundle(tmp_path / "<b>bundle & '\"", labels=labels)
    reseal(
        bundle, created_from={"teacher": HOSTILE[1], "recipe": {HOSTILE[0]: HOSTILE[1]}, "data": {"name": HOSTILE[2]}}
    )
    texts = [f"{text} {WORDS[at]}" for at, text in enumerate(HOSTILE * 5)]
    data = _rows(tmp_path / "<title><script>.jsonl", texts, labels)
    ok("report", bundle, "--data", data, *QUICK, "--out", tmp_path / "out.html")
    document, inside = checked(tmp_path / "out.html")
    assert {one["text"] for one in inside["wrong"]} <= set(texts) and len(inside["wrong"]) > 6
    assert {one["gold"] for one in inside["wrong"]} <= set(labels)
    said = "".join(document.find(".//section[@id='errors']").itertext())
    assert all(text in said for text in (one["text"] for one in inside["wrong"]) if "\u202e" not in text)
    names = {one.tag for one in document.find(".//body").iter()}
    assert not names & {"img", "b", "iframe", "object", "link", "form"} and len(document.findall(".//script")) == 2


def test_texts_none_shows_no_text(made: Path, bundle: Path, rows: Path, tmp_path: Path) -> None:
    ok("report", bundle, "--data", rows, *QUICK, "--no-texts", "--out", tmp_path / "out.html")
    _, inside = checked(tmp_path / "out.html")
    assert inside["wrong"] and inside["latency"] is None
    page = (tmp_path / "out.html").read_text()
    texts = [json.loads(line)["text"] for line in rows.read_text().splitlines()]
    assert not [text for text in texts if len(text) > 12 and text in page]
    assert {one["text"] for one in inside["wrong"]} == {None}


def test_a_page_of_500_errors_fits_in_a_megabyte(bundle: Path, rows: Path, tmp_path: Path) -> None:
    split = load_dataset(rows, Columns(), None, list("abc"), str).splits["train"]
    with Runtime.open(bundle) as runtime:
        report = collect(runtime, bundle, split, ReportSettings(0, True, "all", "reaugkd report"), _no_progress)
    neighbours = tuple(ShownNeighbour(at, 0.9, 0.3, "a label", f"{'neighbour ' * 6}{at}") for at in range(3))
    text, label = "a text of sixty characters, as those of many intent data sets", "a label of some length"
    wrong = WrongRow(1, text, label, label, 0.9, 0.1, label, label, neighbours)
    assert _shown(replace(report, wrong=(wrong,) * 500, wrong_count=500), tmp_path) == 500
    # 4 bytes for each character in UTF-8: fewer are shown, and the page says so.
    huge = replace(wrong, text="\U0001f600" * 160, neighbours=(replace(neighbours[0], text="\u4e2d" * 160),) * 3)
    assert 100 < _shown(replace(report, wrong=(huge,) * 500, wrong_count=700), tmp_path) < 500


@contextmanager
def _no_progress(_label: str, _unit: str) -> Iterator[Callable[[int, int], object]]:
    yield lambda _done, _total: None


def _shown(report: Report, folder: Path) -> int:
    path = folder / "page.html"
    path.write_text(render(report), encoding="utf-8")
    document, inside = checked(path)
    shown = len(inside["wrong"])
    assert len(cells(document, "errors")) == shown + 1
    if shown < report.wrong_count:
        assert f"{report.wrong_count}; the table has {shown}," in section(document, "errors")
    return shown


def test_many_classes_pairs_and_a_knowledge_base_without_texts(pair_bundle: Path, tmp_path: Path) -> None:
    labels = [f"class {at}" for at in range(40)]
    bundle = build_tiny_bundle(tmp_path / "bundle", labels=labels, texts=False)
    _rows(tmp_path / "rows.jsonl", tiny_texts(200, seed=3), labels)
    ok("report", bundle, "--data", tmp_path / "rows.jsonl", *QUICK, "--out", tmp_path / "many.html")
    document, inside = checked(tmp_path / "many.html")
    assert len(cells(document, "confusions")) == 31 and "the table has 30," in section(document, "confusions")
    assert inside["among"] == {} and inside["goals"] == [] and "no thresholds" in section(document, "abstention")
    _rows(tmp_path / "pairs.jsonl", tiny_texts(30, seed=3, pairs=True), "abc")
    ok("report", pair_bundle, "--data", tmp_path / "pairs.jsonl", *QUICK, "--out", tmp_path / "pairs.html")
    document, inside = checked(tmp_path / "pairs.html")
    assert all(f"{a} | {b}" in section(document, "errors") for a, b in (one["text"] for one in inside["wrong"]))


def test_an_empty_knowledge_base_and_no_wrong_answer(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle", rows=0)
    with Runtime.open(bundle) as runtime:
        texts = tiny_texts(20, seed=4)
        rows = _rows(tmp_path / "rows.jsonl", texts, [runtime.predict(text).label for text in texts])
    with short_bench(samples=4, processes=0):
        ok("report", bundle, "--data", rows, "--split", "all", "--out", tmp_path / "out.html")
    document, inside = checked(tmp_path / "out.html")
    assert inside["system"] == "student" and inside["evaluation"]["mcnemar"] is None
    assert "Every row is answered right" in section(document, "errors")
    assert "No class is confused" in section(document, "confusions")


def test_wrong_calls_leave_nothing(bundle: Path, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text("older")
    for out, json_path in (("there.html", "new.json"), ("new.html", "there.html")):
        options = ("--out", tmp_path / out, "--json", tmp_path / json_path)
        assert "nothing is overwritten" in refused("report", bundle, "--data", rows, *QUICK, *options, remarks=1)
    for command in (("report", bundle, "--data", rows, *QUICK, "--out"), ("bench", bundle, "--report")):
        for place, message in (("-", "cannot both go to stdout"), (tmp_path / "new", "name the same file")):
            assert message in refused(*command, place, "--json", place)
    (tmp_path / "bad.jsonl").write_text('{"text": "noon", "label": "unknown"}\n')
    call = ("report", bundle, "--data", tmp_path / "bad.jsonl", *QUICK, "--out", tmp_path / "new.html")
    assert "bad.jsonl" in refused(*call, remarks=1)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bad.jsonl", "there.html"]


def test_it_needs_no_library_beyond_the_edge(edge_bundle: Path, tmp_path: Path) -> None:
    script = "import sys; from reaugkd.cli import cli; cli(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    call = ("report", edge_bundle, "--data", labelled_rows(tmp_path / "d.jsonl"), *QUICK, "--out", tmp_path / "r.html")
    done = subprocess.run([sys.executable, "-c", script, *map(str, call)], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in done.stdout.split()} & {*HEAVY, "matplotlib"}
