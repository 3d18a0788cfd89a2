"""Any rows that are written are read again as they were."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reaugkd.runtime.data import load_dataset

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: bool(text.strip()) and text.strip().lower() not in ("nan", "<na>")
)
# The spellings of labels are tested in test_labels_over_formats.py.
LABEL = TEXT.map(lambda text: f"x{text}x")
ROWS = st.lists(st.tuples(TEXT, TEXT, LABEL), min_size=2, max_size=8).filter(lambda rows: len({r[2] for r in rows}) > 1)
ROUND_TRIP = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ROUND_TRIP
@given(rows=ROWS)
def test_csv_round_trip(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("text_a", "text_b", "label"), *rows])
    train = load_dataset(path).splits["train"]
    assert list(zip(train.texts, train.pairs or [], train.labels or [], strict=True)) == rows


@ROUND_TRIP
@given(rows=ROWS, ascii_only=st.booleans())
def test_jsonl_round_trip(tmp_path: Path, rows: list[tuple[str, str, str]], ascii_only: bool) -> None:
    path = tmp_path / "a.jsonl"
    names = ("premise", "hypothesis", "intent")
    lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=ascii_only) for row in rows]
    path.write_bytes("\n".join(lines).encode("utf-8"))
    train = load_dataset(path).splits["train"]
    assert list(zip(train.texts, train.pairs or [], train.labels or [], strict=True)) == rows


@ROUND_TRIP
@given(rows=ROWS)
def test_tsv_round_trip(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    rows = [(a.translate(NO_TABS) + ".", b.translate(NO_TABS) + ".", c.translate(NO_TABS) + ".") for a, b, c in rows]
    rows.append(("a", "b", "one class more"))
    rows.append(("a", "b", "and another"))
    path = tmp_path / "a.tsv"
    header = ("sentence1", "sentence2", "label")
    path.write_bytes("".join("\t".join(row) + "\n" for row in [header, *rows]).encode("utf-8"))
    train = load_dataset(path).splits["train"]
    assert list(zip(train.texts, train.pairs or [], train.labels or [], strict=True)) == rows


NO_TABS = {ord("\t"): " ", ord("\n"): " "}
