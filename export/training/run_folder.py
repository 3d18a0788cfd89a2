"""The run folder: the results of each training stage, written atomically.

    RUN/run.json             recipe, teacher, labels, what the data was
    RUN/data/*.jsonl         the rows of train and heldout
    RUN/teacher/             the fine-tuned teacher and its tokenizer
    RUN/teacher_outputs/     its logits and embeddings of train and heldout
    RUN/projection/          the keys' head
    RUN/cross_fit_0/ ...     where cross-fitted labels are asked for: those of one fold of train
    RUN/student/             the distilled student and its tokenizer
    RUN/query/               the head of the query by layers
    RUN/tuning/              the blend, tuned on the float32 student
    RUN/checkpoints/         of the fit under way

A stage's folder holds ``stage.json`` with the hash of what it was made from. The same hash again skips the stage,
another one redoes it and, since each hash includes those before it, whatever follows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ...errors import DataError, OutputExistsError
from ...kb.storage.atomic import atomic_directory, atomic_write
from ...runtime.data import Split
from ..modeling.distributed import processes

RUN_FORMAT = 1
_OF_TEACHERS = ("teacher", "cross_fit")
_ADDED_KEYS = {"fingerprints"}  # of run.json, since the first version


@dataclass(frozen=True)
class RunFolder:
    """A run folder, to be made or to be read.

    Args:
        path: the folder.
        shared: where runs that agree in a stage's inputs find what another one of them has made of it, for the stages
            of the teacher; None to compute everything again.
    """

    path: Path
    shared: Path | None = None

    @property
    def data(self) -> Path:
        """The rows of the splits."""
        return self.path / "data"

    @property
    def teacher(self) -> Path:
        """The teacher."""
        return self.path / "teacher"

    @property
    def teacher_outputs(self) -> Path:
        """The teacher's cached outputs."""
        return self.path / "teacher_outputs"

    @property
    def projection(self) -> Path:
        """The keys' head."""
        return self.path / "projection"

    @property
    def student(self) -> Path:
        """The student."""
        return self.path / "student"

    @property
    def query(self) -> Path:
        """The query by layers."""
        return self.path / "query"

    def cross_fit(self, fold: int) -> Path:
        """The folder of one fold's labels by the teacher fitted without it."""
        return self.path / f"cross_fit_{fold}"

    @property
    def tuning(self) -> Path:
        """The tuned blend."""
        return self.path / "tuning"

    def checkpoint(self, stage: str) -> Path:
        """The checkpoint folder of a stage."""
        return self.path / "checkpoints" / f"{stage}.pt"

    def describe(self) -> dict[str, Any]:
        """The contents of run.json.

        Raises:
            DataError: not a run folder, or one whose training has not got that far.
        """
        return read_run_json(self.path / "run.json", "a run folder made by `reaugkd train`")

    def require_finished(self) -> None:
        """Raise DataError where the last stage was not reached."""
        if not all((stage / "stage.json").is_file() for stage in (self.query, self.tuning)):
            raise DataError(
                "the run is not finished",
                path=self.path,
                expected="every stage done",
                remedy="Run the same `reaugkd train` again: it resumes where it stopped.",
            )

    def begin(self, description: dict[str, Any], redo: bool) -> None:
        """Write run.json, or check that the one there says the same.

        Raises:
            OutputExistsError: the folder holds something else, or a run of other settings (unless ``redo``).
        """
        file = self.path / "run.json"
        if file.is_file():
            # A run of a version that did not write them down is taken at its word.
            there = {**{key: description[key] for key in _ADDED_KEYS & description.keys()}, **self.describe()}
            self._refuse_other_settings(there, description, redo)
            if there != json.loads(json.dumps(description)):
                remove_folder(self.tuning)  # what it holds is of another description: the run is not finished
        elif self.path.exists() and not (self.path.is_dir() and all(map(_is_begun, self.path.iterdir()))):
            raise OutputExistsError(
                "the output exists already and is not a run folder",
                path=self.path,
                remedy="Choose another --out: nothing is overwritten.",
            )
        with atomic_write(file) as out:
            out.write(json.dumps(description, indent=1, ensure_ascii=False))

    def _refuse_other_settings(self, there: dict[str, Any], wanted: dict[str, Any], redo: bool) -> None:
        if redo or not self._holds_work():
            return
        # Other library versions are recorded, but a run still resumes.
        old, new = (flatten({**run, "versions": {}}) for run in (there, wanted))
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        if changed:
            first, more = changed[0], len(changed) - 5
            raise OutputExistsError(
                f"the output is a run of other settings: {', '.join(changed[:5])}" + (f" and {more} more" * (more > 0)),
                path=self.path,
                found=f"{first} = {old.get(first)!r}",
                expected=f"{first} = {new.get(first)!r}",
                remedy="Choose another --out, or give --redo to redo what depends on them.",
            )

    def _holds_work(self) -> bool:
        """Whether anything was trained that another call must not delete."""
        fits = (self.teacher, self.student)
        return any((folder / "stage.json").is_file() or self.checkpoint(folder.name).is_file() for folder in fits)

    @contextmanager
    def stage(self, folder: Path, made_from: str) -> Iterator[Path | None]:
        """A folder to fill for a stage, or None where the stage was done from the same inputs before.

        Under several processes all of them do the stage, the main one keeps its output, and no process leaves before
        that is in its place.

        Args:
            folder: the stage's folder.
            made_from: the hash of its inputs.
        """
        siblings = processes()
        if siblings.is_main_process and not _is_made(folder, made_from):
            forget_checkpoint_of_other_inputs(self.checkpoint(folder.name), made_from)
            self._take_shared(folder, made_from)
        siblings.wait_for_everyone()
        if _is_made(folder, made_from):
            yield None
        elif siblings.is_main_process:
            with self._main_stage(folder, made_from) as temporary:
                yield temporary
        else:
            with tempfile.TemporaryDirectory() as discarded:
                yield Path(discarded)
        if siblings.is_main_process:
            self._share(folder, made_from)
        siblings.wait_for_everyone()

    def _take_shared(self, folder: Path, made_from: str) -> None:
        """Reuse a stage of another run, if there is one."""
        if (there := self._place_shared(folder, made_from)) is not None and there.is_dir():
            self._reopen(folder)
            with atomic_directory(folder) as temporary:
                shutil.copytree(there, temporary, copy_function=_link_or_copy, dirs_exist_ok=True)
            remove_folder(self.checkpoint(folder.name).parent)

    def _share(self, folder: Path, made_from: str) -> None:
        """Share a stage with other runs by hard links."""
        there = self._place_shared(folder, made_from)
        if there is not None and folder.is_dir() and not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OutputExistsError), atomic_directory(there) as temporary:
                shutil.copytree(folder, temporary, copy_function=_link_or_copy, dirs_exist_ok=True)

    def _place_shared(self, folder: Path, made_from: str) -> Path | None:
        if self.shared is None or not folder.name.startswith(_OF_TEACHERS):
            return None
        return self.shared / f"{folder.name}-{made_from[:24]}"

    def _reopen(self, folder: Path) -> None:
        """Remove the stages to be repeated; the run is then unfinished."""
        remove_folder(self.tuning)
        remove_folder(folder)

    @contextmanager
    def _main_stage(self, folder: Path, made_from: str) -> Iterator[Path]:
        self._reopen(folder)
        begun = time.monotonic()
        with atomic_directory(folder) as temporary:
            yield temporary
            seconds = round(time.monotonic() - begun, 1)
            (temporary / "stage.json").write_text(json.dumps({"made_from": made_from, "seconds": seconds}))
        remove_folder(self.checkpoint(folder.name).parent)
        click.echo(f"{folder.name}: done in {seconds:.0f} s", err=True)


def _link_or_copy(source: str, target: str) -> None:
    """Hard-link a file; copy it where the file system does not allow that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _is_made(folder: Path, made_from: str) -> bool:
    marker = folder / "stage.json"
    return marker.is_file() and bool(json.loads(marker.read_text(encoding="utf-8"))["made_from"] == made_from)


def _is_begun(path: Path) -> bool:
    """Whether this is the run.json of a call that was killed while writing it."""
    return path.name.startswith(".run.json.") and path.suffix == ".tmp"


def remove_folder(folder: Path) -> None:
    """Remove a folder if it is there, its name first, so that a kill half-way leaves no half-removed stage."""
    if folder.exists():
        doomed = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def forget_checkpoint_of_other_inputs(checkpoint: Path, made_from: str) -> None:
    """A checkpoint belongs to one hash of inputs: remove it if it was begun from others."""
    tag = checkpoint.with_suffix(".from")
    if checkpoint.exists() and (not tag.exists() or tag.read_text() != made_from):
        checkpoint.unlink()
    with atomic_write(tag) as file:
        file.write(made_from)


def made_from(*parts: object) -> str:
    """The hash of a stage's inputs: settings and the hashes of the stages before."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def flatten(tree: object, prefix: str = "") -> dict[str, object]:
    """Nested tables as dotted keys, for comparing and showing."""
    if isinstance(tree, dict):
        return {name: leaf for key, value in tree.items() for name, leaf in flatten(value, f"{prefix}{key}.").items()}
    value = json.loads(json.dumps(tree))
    return {prefix.rstrip("."): value}


def read_run_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file that must be there."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path.name} is missing", path=path.parent, expected=what) from error
    except (json.JSONDecodeError, UnicodeDecodeError, NotADirectoryError) as error:
        raise DataError("cannot be read", path=path, found=str(error), expected=what) from error
    return value


def write_rows(split: Split, path: Path) -> None:
    """A split as JSON lines: text, pair, label."""
    columns = {"text": split.texts, "pair": split.pairs, "label": split.labels}
    present = {name: values for name, values in columns.items() if values is not None}
    with path.open("w", encoding="utf-8") as file:
        for row in zip(*present.values(), strict=True):
            file.write(json.dumps(dict(zip(present, row, strict=True)), ensure_ascii=False) + "\n")


def read_rows(path: Path) -> Split:
    """Read the rows that ``write_rows`` wrote."""
    with path.open(encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file]

    def column(name: str) -> list[str] | None:
        return [row[name] for row in rows] if rows and name in rows[0] else None

    return Split(
        texts=column("text") or [],
        pairs=column("pair"),
        labels=column("label"),
        source=str(path),
        rows=list(range(1, len(rows) + 1)),
    )
