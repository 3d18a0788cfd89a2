"""The run folder: the results of each training stage, written atomically.

    RUN/run.json             recipe, teacher, labels, hash of the data
    RUN/data/*.jsonl         the rows of train and heldout
    RUN/teacher/             the fine-tuned teacher and its tokenizer
    RUN/teacher_outputs/     its logits and embeddings of train and heldout
    RUN/teacher_pretrained/  with the objective "general": embeddings of train by the encoder before its fine-tuning
    RUN/projection/          the projection head of the keys
    RUN/student/             the distilled student and its tokenizer
    RUN/query/               the head of the query by layers
    RUN/tuning/              the blend, tuned on the float32 student
    RUN/checkpoints/         the checkpoint of the current fit

A stage's folder holds ``stage.json`` with the hash of the stage's inputs. A stage with the same hash is skipped, and
otherwise repeated. Each hash includes the hashes of earlier stages, so all later stages are repeated too.
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

from ...errors import DataError, DistributedError, OutputExistsError
from ...kb.storage.atomic import atomic_directory, atomic_write
from ...runtime.data import Split

RUN_FORMAT = 1
_ADDED_KEYS = {"fingerprints"}  # keys of run.json that older versions did not write
_LAG_SECONDS = 60.0  # in which a network file system shows a machine what another one wrote


@dataclass(frozen=True)
class RunFolder:
    """A new or existing run folder.

    Args:
        path: the folder.
        shared: folder in which runs with the same inputs share the stages of the teacher; None to share nothing.
    """

    path: Path
    shared: Path | None = None

    @property
    def data(self) -> Path:
        """Folder of the splits' rows."""
        return self.path / "data"

    @property
    def teacher(self) -> Path:
        """Folder of the teacher."""
        return self.path / "teacher"

    @property
    def teacher_outputs(self) -> Path:
        """Folder of the teacher's cached outputs."""
        return self.path / "teacher_outputs"

    @property
    def teacher_pretrained(self) -> Path:
        """Folder of the embeddings of the teacher's encoder before its fine-tuning."""
        return self.path / "teacher_pretrained"

    @property
    def projection(self) -> Path:
        """Folder of the projection head."""
        return self.path / "projection"

    @property
    def student(self) -> Path:
        """Folder of the student."""
        return self.path / "student"

    @property
    def query(self) -> Path:
        """Folder of the query head by layers."""
        return self.path / "query"

    @property
    def tuning(self) -> Path:
        """Folder of the tuned blend."""
        return self.path / "tuning"

    def checkpoint(self, stage: str) -> Path:
        """Checkpoint file of a stage."""
        return self.path / "checkpoints" / f"{stage}.pt"

    def describe(self) -> dict[str, Any]:
        """Read run.json.

        Raises:
            DataError: run.json is missing or invalid.
        """
        return read_run_json(self.path / "run.json", "a run folder made by `reaugkd train`")

    def require_finished(self) -> None:
        """Check that all stages are done.

        Raises:
            DataError: the last stage is not done.
        """
        if not all((stage / "stage.json").is_file() for stage in (self.query, self.tuning)):
            raise DataError(
                "the run is not finished",
                path=self.path,
                expected="a run with all stages done",
                remedy="Run the same `reaugkd train` again: it resumes the run.",
            )

    def begin(self, description: dict[str, Any], redo: bool) -> None:
        """Write run.json, or check that an existing one has the same contents.

        Args:
            description: the contents of run.json.
            redo: accept a run with other settings, and replace its run.json.

        Raises:
            OutputExistsError: the folder is not a run folder, or it is a run with other settings and not ``redo``.
        """
        file = self.path / "run.json"
        if file.is_file():
            # Keys that an older version did not write cannot be compared.
            there = {**{key: description[key] for key in _ADDED_KEYS & description.keys()}, **self.describe()}
            self._refuse_other_settings(there, description, redo)
            if there != json.loads(json.dumps(description)):
                remove_folder(self.tuning)  # it belongs to another description: the run is not finished
        elif self.path.exists() and not (self.path.is_dir() and all(map(_is_begun, self.path.iterdir()))):
            raise OutputExistsError(
                "the output exists already and is not a run folder",
                path=self.path,
                remedy="Choose another --out: nothing is overwritten.",
            )
        with atomic_write(file) as out:
            out.write(json.dumps(description, indent=1, ensure_ascii=False))

    def _refuse_other_settings(self, there: dict[str, Any], expected: dict[str, Any], redo: bool) -> None:
        if redo or not self._holds_work():
            return
        # Other library versions are recorded, but a run still resumes.
        old, new = (flatten({**run, "versions": {}}) for run in (there, expected))
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        if changed:
            first, more = changed[0], len(changed) - 5
            raise OutputExistsError(
                f"the output is a run with other settings: {', '.join(changed[:5])}"
                + (f" and {more} more" * (more > 0)),
                path=self.path,
                found=f"{first} = {old.get(first)!r}",
                expected=f"{first} = {new.get(first)!r}",
                remedy="Choose another --out, or give --redo to repeat the stages that depend on them.",
            )

    def _holds_work(self) -> bool:
        """Whether the folder holds results of a training, which another run must not delete."""
        fits = (self.teacher, self.student)
        return any((folder / "stage.json").is_file() or self.checkpoint(folder.name).is_file() for folder in fits)

    @contextmanager
    def stage(self, folder: Path, made_from: str) -> Iterator[Path | None]:
        """Run a stage: yields a temporary folder for its results, or None if it is done with the same inputs.

        With several processes, all run the stage and only the main process writes to the run folder. It also decides
        whether the stage is done. All processes wait until the results are in place.

        Args:
            folder: the stage's folder.
            made_from: the hash of its inputs.

        Raises:
            DistributedError: the results are not visible to this process.
        """
        # Imported here: the processes of a study read this file's hashes before they need PyTorch.
        from ..modeling.execution.distributed import from_main, processes

        siblings = processes()

        def is_done() -> bool:
            if not _is_made(folder, made_from):
                forget_checkpoint_of_other_inputs(self.checkpoint(folder.name), made_from)
                self._take_shared(folder, made_from)
            return _is_made(folder, made_from)

        if from_main(is_done):
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
        _wait_for(folder, made_from)

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
        if self.shared is None or not folder.name.startswith("teacher"):
            return None
        return self.shared / f"{folder.name}-{made_from[:24]}"

    def _reopen(self, folder: Path) -> None:
        """Remove a stage that is repeated, and the tuning, so that the run counts as unfinished."""
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
    """Hard-link a file, or copy it if the file system does not allow hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _is_made(folder: Path, made_from: str) -> bool:
    marker = folder / "stage.json"
    return marker.is_file() and bool(json.loads(marker.read_text(encoding="utf-8"))["made_from"] == made_from)


def _wait_for(folder: Path, made_from: str) -> None:
    """Wait until this process sees a stage that the main process wrote, perhaps on another machine.

    Raises:
        DistributedError: it does not see it.
    """
    deadline = time.monotonic() + _LAG_SECONDS
    while not _is_made(folder, made_from):
        if time.monotonic() >= deadline:
            raise DistributedError(
                "a result of the main process is not visible on this machine",
                path=folder,
                expected=f"the shared file system to show it within {_LAG_SECONDS:.0f} s",
                remedy="Start the same command again on all machines: it resumes the run.",
            )
        time.sleep(0.1)


def _is_begun(path: Path) -> bool:
    """Whether this is a temporary run.json that a killed process left."""
    return path.name.startswith(".run.json.") and path.suffix == ".tmp"


def remove_folder(folder: Path) -> None:
    """Remove a folder if it exists; it is renamed first, so that a kill leaves no partly removed stage."""
    if folder.exists():
        doomed = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def forget_checkpoint_of_other_inputs(checkpoint: Path, made_from: str) -> None:
    """Remove a checkpoint that belongs to another hash of inputs."""
    tag = checkpoint.with_suffix(".from")
    if checkpoint.exists() and (not tag.exists() or tag.read_text() != made_from):
        checkpoint.unlink()
    with atomic_write(tag) as file:
        file.write(made_from)


def made_from(*parts: object) -> str:
    """Hash a stage's inputs: its settings and the hashes of earlier stages."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def flatten(tree: object, prefix: str = "") -> dict[str, object]:
    """Convert nested tables to one table with dotted keys."""
    if isinstance(tree, dict):
        return {name: leaf for key, value in tree.items() for name, leaf in flatten(value, f"{prefix}{key}.").items()}
    value = json.loads(json.dumps(tree))
    return {prefix.rstrip("."): value}


def read_run_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        path: the file.
        what: description of the expected folder, for the error.

    Raises:
        DataError: the file is missing or invalid.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path.name} is missing", path=path.parent, expected=what) from error
    except (json.JSONDecodeError, UnicodeDecodeError, NotADirectoryError) as error:
        raise DataError(f"{path.name} cannot be read", path=path, found=str(error), expected=what) from error
    return value


def write_rows(split: Split, path: Path) -> None:
    """Write a split as JSON lines with text, pair and label."""
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
