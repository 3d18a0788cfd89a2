"""Every kind of file is read by every command, and the table of the reference says exactly what is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.file_kinds import BEGIN, END, KINDS, PAGE, head_of_table, line_of_table, look_at

pytest.importorskip("pyarrow")
pytest.importorskip("openpyxl")


def committed() -> list[str]:
    _, table = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return table.split(END)[0].splitlines(keepends=True)


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[kind.what for kind in KINDS])
def test_all_that_is_trained_on_is_predicted_and_added_too_and_the_table_says_so(tmp_path: Path, number: int) -> None:
    kind = KINDS[number]
    found = look_at(kind, tmp_path)
    assert found.train == "yes"
    several_splits = "of splits" in kind.what or "`test`" in kind.what
    assert {found.predict, found.kb_add} == ({"no"} if several_splits else {"yes"})
    assert committed()[number + 2] == line_of_table(kind, found), "run `python -m support.file_kinds` in tests"


def test_the_table_has_a_line_for_each_kind() -> None:
    assert committed()[:2] == head_of_table() and len(committed()) == len(KINDS) + 2
