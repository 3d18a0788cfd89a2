"""Plain text tables."""

from __future__ import annotations

from reaugkd.runtime.output.text_table import table


def test_first_column_left_others_right() -> None:
    text = table(["name", "n"], [["a", "1"], ["longer", "1,000"]])
    assert text == "name        n\n------  -----\na           1\nlonger  1,000"


def test_no_rows() -> None:
    assert table(["name", "n"], []) == "name  n\n----  -"
