"""Find out how the cells of a text table are separated and quoted."""

from __future__ import annotations

import re
from dataclasses import dataclass

COMMA, TAB = ",", "\t"
_DELIMITERS = (COMMA, ";", TAB, "|")
_HINT = re.compile(r"sep=(.)\r?")
_IN_QUOTES = re.compile(r'"[^"]*"')
_NAMES = {TAB: "a tab", COMMA: "a comma", ";": "a semicolon", "|": "a vertical bar"}

# A cell of a tab-separated table in quotes, a cell without any quote, and a cell that no quote closes.
_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=\t|\r?(?:\n|\Z))')
_PLAIN = re.compile(r'[^\t\n"]*(?=\t|\n|\Z)')
_UNCLOSED = re.compile(r'"[^"]*(?:""[^"]*)*\Z')


@dataclass(frozen=True)
class Dialect:
    """How cells are separated.

    Attributes:
        delimiter: the character between cells.
        blank_after_delimiter: whether a blank follows it, which is no part of the cell.
    """

    delimiter: str = COMMA
    blank_after_delimiter: bool = False

    @property
    def named(self) -> str:
        """The delimiter in words."""
        return _NAMES.get(self.delimiter, repr(self.delimiter))

    def remarks(self, usual: str) -> list[str]:
        """Say what differs from the usual table, whose delimiter is ``usual``."""
        found = []
        if self.delimiter != usual:
            found.append(f"the cells are separated by {self.named}")
        if self.blank_after_delimiter:
            found.append(f"a blank after {self.named} is no part of the cell")
        return found


def hinted_delimiter(line: str) -> str | None:
    """Return the delimiter that Excel's hint ``sep=;`` names, or None if the line is no hint."""
    hint = _HINT.fullmatch(line)
    return hint[1] if hint else None


def dialect_of(header: str, usual: str) -> Dialect:
    """Return the dialect of a table by its first line: the delimiter that the line holds most often.

    Args:
        header: the first line.
        usual: the delimiter of this kind of file; a tab is taken wherever it is usual and there.
    """
    bare = _IN_QUOTES.sub("", header)
    counts = {one: bare.count(one) for one in (usual, *_DELIMITERS)}
    chosen = TAB if usual == TAB and counts[TAB] else max(counts, key=counts.__getitem__)
    blanks = chosen != TAB and 0 < counts[chosen] == bare.count(chosen + " ")
    return Dialect(chosen, blanks) if counts[chosen] else Dialect(usual)


def are_tabs_quoted(sample: str, width: int, *, complete: bool) -> bool | None:
    """Find out whether quotes in a tab-separated table are quoting, as pandas and Excel write it, or part of the texts.

    In a quoted table a cell with a quote is in quotes as a whole, and its own quotes are doubled.

    Args:
        sample: lines of the table; the first has a quote.
        width: the number of columns.
        complete: whether the table ends with the sample.

    Returns:
        True or False; None if all cells with quotes are in quotes, but none needs to be.
    """
    seen = doubled = needed = alike = False
    at = begin = column = 0
    while at < len(sample):
        quoted = _QUOTED.match(sample, at)
        if quoted:
            seen = True
            doubled = doubled or '"' in quoted[1]
            needed = needed or TAB in quoted[1] or ("\n" in quoted[1] and width > 1)
        elif seen and not complete and _UNCLOSED.match(sample, at):
            break
        cell = quoted or _PLAIN.match(sample, at)
        if cell is None:
            return False
        at, column = cell.end(), column + 1
        if sample.startswith(TAB, at):
            at += 1
            continue
        lines = sample[begin:at].split("\n")
        if len(lines) > 1 and column != width:
            return False
        # Each line of a quoted cell is a whole row, too: then only doubled quotes show that it is one.
        alike = alike or (len(lines) > 1 and width > 1 and all(line.count(TAB) == width - 1 for line in lines))
        at = begin = sample.find("\n", at) + 1 or len(sample)
        column = 0
    if doubled or alike:
        return doubled
    return True if needed else None
