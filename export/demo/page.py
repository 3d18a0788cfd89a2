"""The demo's text for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from ...errors import one_line

Say = Callable[[str], object]

WIDTH = 100
_INDENT = "     "


class Page:
    """Numbered steps, each a title, a sentence that explains it, the command that does the same, and figures.

    Args:
        say: takes each line.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._steps = 0

    def step(self, title: str, explanation: str, *commands: str) -> None:
        """Begin the next step."""
        self._steps += 1
        self._say("")
        self._say(f"{self._steps}. {title}")
        self.text(explanation, "   ")
        for command in commands:
            self._command(command)

    def _command(self, command: str) -> None:
        """A command, with further options on lines of their own where one line is too short."""
        lines = [""]
        for part in command.replace(" --", "\n--").split("\n"):
            if len(_INDENT) + len(lines[-1]) + len(part) + len(" $ \\") > WIDTH:
                lines.append(f"    {part}")
            else:
                lines[-1] += f" {part}" if lines[-1] else f"$ {part}"
        self._say(" \\\n".join(_INDENT + line for line in lines))

    def text(self, text: str, indent: str = _INDENT) -> None:
        """A paragraph."""
        for line in textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False):
            self._say(line)

    def lines(self, *lines: str) -> None:
        """Lines as they are, cut to the width."""
        for line in lines:
            self._say(cut(_INDENT + line, WIDTH))

    def figures(self, rows: Sequence[Sequence[str]]) -> None:
        """A table without a header: the first column set left, the second right, the others left."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for name, value, *notes in rows:
            cells = [name.ljust(widths[0]), value.rjust(widths[1])]
            cells += [note.ljust(width) for note, width in zip(notes, widths[2:], strict=True)]
            self._say(cut((_INDENT + "   ".join(cells)).rstrip(), WIDTH))


def percent(share: float) -> str:
    """A share as ``86.2 %``."""
    return f"{100 * share:.1f} %"


def points(difference: float, interval: tuple[float, float]) -> str:
    """A difference of shares as ``+2.6 points (95 % interval +1.9 to +3.3)``."""
    return f"{100 * difference:+.1f} points (95 % interval {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"


def cut(text: str, width: int) -> str:
    """The text on one line of at most ``width`` characters."""
    indent = text[: len(text) - len(text.lstrip())]
    text = indent + one_line(text) if "\n" in text else text
    return text if len(text) <= width else text[: width - 3] + "..."
