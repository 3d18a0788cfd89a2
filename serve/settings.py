"""The settings of a server."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:  # the process that starts workers loads little
    from ..runtime.inference.retrieval_policy import RetrievalMode

QUEUE, MOST_TEXTS, MOST_BYTES, DEADLINE, CONNECTIONS = 64, 32, 2_000_000, 10.0, 1000
"""Default limits: texts in the queue, texts and bytes of a request, seconds of a request, open connections."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENVIRONMENT = "REAUGKD_API_KEY"


@dataclass(frozen=True)
class ServerSettings:
    """What is served, and its limits.

    Attributes:
        bundles: the bundles' folders by name; the first answers requests that name none.
        threads: texts that are answered side by side.
        retrieval: when to retrieve, unless a request says it: ``"always"``, ``"gated"`` or ``"never"``.
        queue: most texts that wait or are answered at one time; further requests get code 429.
        max_batch: most texts of one request.
        max_body: most bytes of one request.
        deadline: most seconds of one request.
        max_connections: most open connections of a process of `reaugkd serve`; further clients wait.
        allow_edits: whether the routes below ``/kb`` are on.
        edits_without_key: whether edits need no key: only for a server that other machines cannot reach.
        keys: keys, one of which a request must have; none: every request is answered.
        cors_origins: origins whose pages may read answers in a browser; ``"*"`` for all.
        require_signature: the public key that must have signed every bundle; None: signatures are not read.
        follow_links: follow links that lead out of a bundle's folder.

    Raises:
        UsageError: a value cannot be used, or two values do not fit each other.
    """

    bundles: Mapping[str, Path]
    threads: int = 1
    retrieval: RetrievalMode = "always"
    queue: int = QUEUE
    max_batch: int = MOST_TEXTS
    max_body: int = MOST_BYTES
    deadline: float = DEADLINE
    max_connections: int = CONNECTIONS
    allow_edits: bool = False
    edits_without_key: bool = False
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    cors_origins: tuple[str, ...] = ()
    require_signature: bytes | str | os.PathLike[str] | None = None
    follow_links: bool = False

    def __post_init__(self) -> None:
        if not self.bundles:
            raise UsageError("there is no bundle to serve", expected="the folder of a bundle")
        for name in self.bundles:
            if _NAME.fullmatch(name) is None:
                raise UsageError(
                    "the name of a bundle cannot be part of a URL",
                    found=repr(name),
                    expected="letters, digits, and . _ - after the first",
                    remedy="Give it a name: NAME=BUNDLE.",
                )
        if not 0 < self.deadline < math.inf:
            raise UsageError("the deadline is unusable", found=f"{self.deadline:g}", expected="seconds above 0")
        if self.queue < self.max_batch:
            raise UsageError(
                "the queue is shorter than a request may be",
                found=f"a queue of {self.queue} texts, requests of up to {self.max_batch}",
                expected=f"a queue of at least {self.max_batch} texts",
            )
        if self.allow_edits and not self.keys and (self.cors_origins or not self.edits_without_key):
            raise UsageError(
                f"edits {'by pages of other origins' if self.cors_origins else 'over the network'} need a key",
                found="no key",
                remedy="Give a key with --api-key-file or REAUGKD_API_KEY, or listen on 127.0.0.1 alone.",
            )

    @property
    def default(self) -> str:
        """The name of the first bundle."""
        return next(iter(self.bundles))


def named_bundles(arguments: tuple[str, ...]) -> dict[str, Path]:
    """The bundles of ``BUNDLE`` and ``NAME=BUNDLE``; without a name, that of the folder counts.

    Raises:
        UsageError: two bundles have one name.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or _NAME.fullmatch(name) is None or Path(argument).exists():
            name, path = Path(argument).absolute().name, argument
        if name in found:
            raise UsageError("two bundles have one name", found=name, remedy="Give them names: NAME=BUNDLE.")
        found[name] = Path(path)
    return found


def read_keys(path: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[bytes, ...]:
    """The keys of a file, one a line, and that of the environment variable ``REAUGKD_API_KEY``.

    Raises:
        UsageError: the file cannot be read, or a key is empty or has characters that a header cannot have.
    """
    found: list[str] = []
    if path is not None:
        try:
            found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError("the file of the keys cannot be read", path=path, found=type(error).__name__) from error
        if not found:
            raise UsageError("the file of the keys is empty", path=path, expected="one key a line")
    if _ENVIRONMENT in environment:
        found.append(environment[_ENVIRONMENT])
    for key in found:
        if not (key.isascii() and key.isprintable() and key and " " not in key):
            place = path if path is not None else _ENVIRONMENT
            raise UsageError("a key cannot be used", path=place, expected="letters, digits and signs, without spaces")
    return tuple(key.encode() for key in found)
