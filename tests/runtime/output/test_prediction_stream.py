from __future__ import annotations

import io
import itertools
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaugkd import Runtime, TextError, UsageError
from reaugkd.runtime.data import BadRow, Columns, TextRow
from reaugkd.runtime.output.prediction_stream import (
    Outcome,
    PredictOptions,
    answer_stream,
    records_of_arguments,
    records_of_source,
)


@pytest.fixture(scope="module", params=[1, 3])
def runtime(edge_bundle: Path, request: pytest.FixtureRequest) -> Iterator[Runtime]:
    with Runtime.open(edge_bundle, threads=request.param) as opened:
        yield opened


def bad(row: int) -> BadRow:
    return BadRow(row, TextError("the text is empty", path="in.txt", row=row))


class Lines:
    """An output that counts its lines and discards them."""

    count = 0

    def write(self, text: str) -> None:
        self.count += text.count("\n")


def test_arguments_are_records() -> None:
    assert list(records_of_arguments(("a", "b"), pair=False)) == [TextRow(1, "a"), TextRow(2, "b")]
    assert list(records_of_arguments(("a", "b", "c", "d"), pair=True)) == [
        TextRow(1, ("a", "b")),
        TextRow(2, ("c", "d")),
    ]
    with pytest.raises(UsageError, match="found 1 text; expected an even number"):
        records_of_arguments(("a",), pair=True)


def test_a_source_is_a_file_or_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.txt").write_text("noon\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"alarm\n")))
    assert list(records_of_source(str(tmp_path / "in.txt"), None, Columns(), False)) == [TextRow(1, "noon")]
    assert list(records_of_source("-", None, Columns(), False)) == [TextRow(1, "alarm")]


@settings(max_examples=40, deadline=None)
@given(kinds=st.lists(st.sampled_from(["good", "bad", "late"]), max_size=40), threads=st.sampled_from([1, 2]))
def test_every_row_gets_its_record_in_its_place(edge_bundle: Path, kinds: list[str], threads: int) -> None:
    rows = [
        bad(row) if kind == "bad" else TextRow(row, f"noon {row}" if kind == "good" else " ")
        for row, kind in enumerate(kinds, start=1)
    ]
    out, seen = io.StringIO(), []
    with Runtime.open(edge_bundle, threads=threads, verify=False) as runtime:
        outcome = answer_stream(runtime, rows, PredictOptions("jsonl", source="in.txt"), out, seen.append)
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [record["row"] for record in found] == list(range(1, len(kinds) + 1)) == seen
    assert ["good" if "label" in record else "bad" for record in found] == [
        "good" if kind == "good" else "bad" for kind in kinds
    ]
    assert outcome == Outcome(len(kinds), sum(kind != "good" for kind in kinds))
    assert all(record["error"]["path"] == "in.txt" for record in found if "error" in record)


def test_the_first_bad_argument_ends_the_call_and_is_named(runtime: Runtime) -> None:
    out = io.StringIO()
    with pytest.raises(TextError, match=r"^TEXT 3: the text is empty"):
        options = PredictOptions("jsonl", on_error="raise")
        answer_stream(runtime, records_of_arguments(("a", "b", "", "c"), False), options, out)
    assert len(out.getvalue().splitlines()) == 2


def test_answers_come_as_the_rows_do(runtime: Runtime) -> None:
    """Consecutive bad rows neither delay earlier answers nor accumulate in memory."""
    out = Lines()
    ahead = 0

    def records() -> Iterator[TextRow | BadRow]:
        nonlocal ahead
        for row in range(1, 500):
            yield TextRow(row, "noon") if row % 100 == 1 else bad(row)
            ahead = max(ahead, row - out.count)

    assert answer_stream(runtime, records(), PredictOptions("jsonl", source="x"), out).failed == 494
    assert ahead <= 8 * runtime.threads + 1


@pytest.mark.parametrize("share", [0, 1, 1000])
@pytest.mark.slow
def test_memory_does_not_grow_with_the_stream(runtime: Runtime, share: int) -> None:
    """Good rows alone, bad rows alone, and good rows among a thousand bad ones."""

    def records(count: int) -> Iterator[TextRow | BadRow]:
        for row in range(count):
            yield TextRow(row, "noon") if share == 0 or (share > 1 and row % share == 0) else bad(row)

    def peak(count: int) -> int:
        tracemalloc.reset_peak()
        answer_stream(runtime, records(count), PredictOptions("csv", source="x"), Lines())
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        peak(200)
        short, long = peak(200), peak(6000)
    finally:
        tracemalloc.stop()
    # Errors wait for the garbage collector, which comes every few thousand; kept rows would take 6 MB and more.
    assert long < short + 3_000_000


def test_an_output_that_fails_stops_the_stream(runtime: Runtime) -> None:
    class Full:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    endless = (TextRow(row, "noon") for row in itertools.count(1))
    with pytest.raises(BrokenPipeError):
        answer_stream(runtime, endless, PredictOptions("jsonl", source="x"), Full())
