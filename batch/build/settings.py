"""What decides a knowledge base that is built from many rows, and what its workers need."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from numpy.typing import NDArray

from ... import __version__
from ...kb.storage.atomic import atomic_write
from ...runtime.inference.text.inputs import Text
from ..engines.task import Worker

CENTRES_FILE, SAMPLED_FILE = "_centres.npy", "_sampled.json"


class Teacher(Protocol):
    """Gives the teacher's answers to texts."""

    def logits(self, texts: Sequence[Text]) -> NDArray[Any]:
        """The logits of the texts, float32 [n, c], in the order of the bundle's labels."""


@dataclass(frozen=True)
class BuildOptions:
    """What decides the rows and their order.

    Attributes:
        seal: the bundle's seal.
        shards: the number of shards.
        text: the column of the text, as the user named it; None = detected.
        text_pair: the column of the second text.
        label: the column of the label.
        teacher: what identifies the teacher; None for labels of the data alone.
        encoding: of text files.
        part_rows: rows of a part, at most.
        reaugkd: the version.
    """

    seal: str
    shards: int
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    teacher: str | None = None
    encoding: str | None = None
    part_rows: int = 20_000
    reaugkd: str = __version__
    command: ClassVar[str] = "reaugkd kb build"
    anew: ClassVar[str] = "Remove the folder of the work, NAME.build, to begin anew"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BuildOptions:
        """Read what `asdict` has written."""
        return cls(**values)


@dataclass(frozen=True)
class Sampled:
    """What a sample of the rows decides for all rows.

    Attributes:
        top: classes that a soft label keeps; None for all, in float16.
        salt: of the digests of the texts, in hexadecimal digits.
    """

    top: int | None
    salt: str

    def write(self, folder: Path) -> None:
        """Write it into the work folder.

        Raises:
            StorageError: it cannot be written.
        """
        with atomic_write(folder / SAMPLED_FILE) as file:
            json.dump(asdict(self), file)

    @classmethod
    def read(cls, folder: Path) -> Sampled:
        """Read what `write` has written."""
        return cls(**json.loads((folder / SAMPLED_FILE).read_text()))


@dataclass(frozen=True)
class BuildSettings:
    """What a worker needs besides the plan.

    Attributes:
        out: the folder of the plan, the parts and the shards.
        bundle: the bundle's folder.
        stage: what the worker does.
        threads: threads of a worker.
        teacher: opens the teacher; None for labels of the data alone.
        require_signature: the file of the key, same as `Runtime.open`.
        follow_links: same as `Runtime.open`.
    """

    out: str
    bundle: str
    stage: Literal["rows", "shards"] = "rows"
    threads: int = 1
    teacher: Callable[[], Teacher] | None = None
    require_signature: str | None = None
    follow_links: bool = False

    @property
    def gpus(self) -> int:
        """One for the teacher."""
        return int(self.stage == "rows" and self.teacher is not None)

    def open(self) -> Worker:
        """The worker of a process."""
        if self.stage == "rows":
            from .rows import RowWorker

            return RowWorker(self)
        from .shard import ShardWorker

        return ShardWorker(self)

    def at(self, stage: Literal["rows", "shards"]) -> BuildSettings:
        """The settings of another stage."""
        return replace(self, stage=stage)
