"""The address of a bundle on the Hugging Face Hub: ``owner/name``, ``owner/name@revision``, ``hf://owner/name@revision``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import UsageError

SCHEME = "hf://"

_PART = r"[A-Za-z0-9_](?:[\w.-]*\w)?"
_REPOSITORY = re.compile(f"{_PART}/{_PART}", re.ASCII)
_REVISION = re.compile(r"[\w.+/-]{1,80}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubAddress:
    """A repository of models, and one of its revisions.

    Attributes:
        repository: ``owner/name``.
        revision: a branch, a tag, a commit, or ``refs/pr/N``; None for the branch ``main``.

    Raises:
        UsageError: the repository or the revision has another form.
    """

    repository: str
    revision: str | None = None

    def __post_init__(self) -> None:
        if not is_repository(self.repository):
            raise UsageError(
                "this is not the name of a repository on the Hugging Face Hub",
                found=self.repository,
                expected="owner/name, or hf://owner/name@revision",
            )
        revision = self.revision
        if revision is not None and not (isinstance(revision, str) and _REVISION.fullmatch(revision)):
            raise UsageError(
                "this is not a revision", found=revision, expected="a branch, a tag, a commit or refs/pr/N"
            )

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}"

    @property
    def name(self) -> str:
        """The address without ``hf://``."""
        return self.repository + ("" if self.revision is None else f"@{self.revision}")

    @classmethod
    def parse(cls, text: str, revision: str | None = None) -> HubAddress:
        """Read an address.

        Args:
            text: the address; ``hf://`` may be missing.
            revision: the revision, if the address does not have it.

        Raises:
            UsageError: it has another form, or there are two revisions.
        """
        repository, separator, own = str(text).removeprefix(SCHEME).partition("@")
        if separator and revision is not None:
            raise UsageError("the revision is given twice", found=f"{text} and {revision}", remedy="Give it once.")
        return cls(repository, own if separator else revision)

    @property
    def commit(self) -> str | None:
        """The revision, if it is a commit: its content never changes."""
        return self.revision if self.revision is not None and _COMMIT.fullmatch(self.revision) else None


def is_repository(text: str) -> bool:
    """Whether a text has the form ``owner/name`` by the rules of the Hub."""
    return (
        len(text) <= 96
        and bool(_REPOSITORY.fullmatch(text))
        and not ("--" in text or ".." in text or text.endswith(".git"))
    )
