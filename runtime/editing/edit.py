"""What an edit is made of, how it is made, and what it did."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import ReaugkdError, UsageError
from ...kb.edits.change import Change, Labelling, checked_labelling
from ...kb.edits.journal import Entry
from ...kb.storage.ed25519 import PrivateKey
from ..inference.inputs import Text
from .preview import Preview

WAIT = 10.0
"""Seconds that an edit waits for another one to end."""


@dataclass(frozen=True)
class Row:
    """A row to add.

    Attributes:
        text: a text, or a pair.
        label: its label.
        soft: label names and shares that sum to 1, in place of all of it on ``label``.
    """

    text: Text
    label: str | None = None
    soft: Mapping[str, float] | None = None

    @property
    def labelling(self) -> Labelling:
        """What the row will say; it is pinned if that is one label.

        Raises:
            UsageError: neither a label nor shares, or shares that are no distribution.
        """
        return checked_labelling(Labelling(self.label, self.soft, pin=self.soft is None))


@dataclass(frozen=True)
class Edit:
    """What an edit did.

    Attributes:
        entry: its line of the journal; None where there was nothing to change, or it was only tried.
        change: the rows.
        ids: of the rows that were added, relabelled or left as they are, in the order in which they were given.
        unchanged: rows that were there already, with the same label.
        preview: what changes for the held-out rows; None where it was not asked for.
        compacted: the entry of the fold that followed, if there was one.
        not_compacted: why a fold that should have followed did not; the edit is made nevertheless.
    """

    entry: Entry | None
    change: Change
    ids: tuple[int, ...] = ()
    unchanged: int = 0
    preview: Preview | None = None
    compacted: Entry | None = None
    not_compacted: ReaugkdError | None = None


@dataclass(frozen=True)
class How:
    """How an edit is made.

    Attributes:
        why: the reason, for the journal.
        who: the name for the journal; None for the user's and the machine's.
        new_labels: whether labels that are not known are added; otherwise they are an error.
        preview: only say what would change.
        guard: share of the held-out rows, 0 to 1, that may get another label; an edit that changes more is refused.
        compact: fold edits in when there are many of them.
        wait: seconds to wait for another edit to end.
        key: what the edit is signed with; None leaves it unsigned.
        unsigned: leave it unsigned though the bundle is signed: devices that ask for a signature refuse it then.
    """

    why: str = ""
    who: str | None = None
    new_labels: bool = False
    preview: bool = False
    guard: float | None = None
    compact: bool = True
    wait: float = WAIT
    key: PrivateKey | None = None
    unsigned: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.why, str) or not isinstance(self.who, str | None):
            raise UsageError("why and who are texts", found=f"{self.why!r}, {self.who!r}")
        if self.guard is not None and not 0 <= self.guard <= 1:
            raise UsageError("the guard is no share", found=self.guard, expected="0 to 1")

    @property
    def name(self) -> str:
        """Who makes the edit."""
        if self.who is not None:
            return self.who
        try:
            user = getpass.getuser()
        except (KeyError, OSError, ImportError):
            user = f"uid {os.getuid()}"
        return f"{user}@{socket.gethostname()}"
