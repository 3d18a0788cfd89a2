"""A whole job: plan it or find its plan, do the parts that are missing, check all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..errors import DataError, OutputExistsError, ReaugkdError, UsageError
from ..kb.storage.atomic import refusals
from ..runtime.data.dataset import Columns
from ..runtime.data.files import once
from ..runtime.data.formats.decoding.source import Tell
from ..runtime.runtime import Runtime
from .answers import AnswerColumns
from .engines.engine import run_parts
from .job.columns import job_columns
from .job.inputs import InputFile, find_files
from .job.part import Settings
from .job.plan import PLAN_FILE, Options, Plan, read_content
from .job.scan import Scanned, scan
from .job.success import SUCCESS_FILE, TEMPORARY, PartRecord, finish, read_success

Progress = Callable[[str, int, int | None, int], object]
"""Called with the stage, the number of units done, of all, and of those that an earlier run has done."""


@dataclass(frozen=True)
class Job:
    """What the user asks for.

    Attributes:
        inputs: files, folders and patterns.
        out: the output folder.
        columns: the text columns and the encoding, as the user names them.
        settings: the bundle and how workers open it.
        options: what decides the answers; ``seal`` and ``edits`` are filled in from the bundle.
        engine: ``"local"`` or ``"ray"``.
        workers: processes, or tasks at a time; None for as many as there are cores for.
        address: of a cluster of Ray.
        overwrite: delete the job in the output folder, and start again.
    """

    inputs: tuple[str, ...]
    out: Path
    columns: Columns
    settings: Settings
    options: Options
    engine: Literal["local", "ray"] = "local"
    workers: int | None = None
    address: str | None = None
    overwrite: bool = False


def run_job(job: Job, tell: Tell, progress: Progress) -> list[PartRecord]:
    """Run a job, or go on with it; a job that is complete is left as it is.

    Args:
        job: the job.
        tell: receives remarks.
        progress: receives the progress.

    Returns:
        The parts of the output.

    Raises:
        ReaugkdError: the inputs, the bundle or the output folder cannot be used, or parts could not be done.
    """
    tell = once(tell)
    files = find_files(job.inputs, job.out, tell)
    with Runtime.open(
        job.settings.bundle,
        retrieval=job.options.retrieval,
        require_signature=job.settings.require_signature,
        follow_links=job.settings.follow_links,
    ) as runtime:
        pair = runtime.manifest.text_pair
        runtime.predict_many((), abstain=job.options.abstain)  # refuses an impossible goal
        options = replace(job.options, seal=runtime.kb.seal, edits=runtime.kb.seq)
    with claimed(job.out):
        if job.overwrite:
            _remove_job(job.out)
        plan = _known_plan(job.out, options, files)
        if plan is None:
            plan = _new_plan(job, options, files, pair, tell, progress)
            plan.write(job.out)
        plan.tell_empty(tell)
        return _complete(job, plan, tell, progress)


def _complete(job: Job, plan: Plan[Options], tell: Tell, progress: Progress) -> list[PartRecord]:
    missing = [part.number for part in plan.parts if not (job.out / part.name).exists()]
    success = job.out / SUCCESS_FILE
    if not missing and success.exists():
        found = read_success(plan, job.out)
        tell(f"{job.out}: already complete, nothing is done")
        return found
    with refusals(success):
        success.unlink(missing_ok=True)
    sizes = [part.rows for part in plan.parts]
    before = plan.rows - sum(sizes[number] for number in missing)
    if before:
        tell(f"{job.out}: resumes after {before:,} of {plan.rows:,} rows")

    def advance(rows: int) -> None:
        progress("batch", before + rows, plan.rows, before)

    failed = run_parts(job.settings, missing, job.engine, job.workers, job.address, advance, sizes.__getitem__)
    if failed:
        number, words = next(iter(failed.items()))
        part = plan.parts[number]
        raise ReaugkdError(
            f"{part.place} killed every worker that took them"
            + (f", and {len(failed) - 1} more parts" * (len(failed) > 1)),
            path=part.file.path,
            found=f"{words}, three times",
            expected="a worker that finishes them",
            remedy="If memory is short, use fewer --workers. The other parts are done and are kept; "
            "the same command does the missing ones.",
        )
    return finish(plan, job.out, lambda done, total: progress("check", done, total, 0))


def _new_plan(
    job: Job, options: Options, files: list[InputFile], pair: bool, tell: Tell, progress: Progress
) -> Plan[Options]:
    scanned = scan_all(files, options.encoding, tell, progress)
    chosen = job_columns(scanned, job.columns, options.columns, pair)
    AnswerColumns(options.prefix, options.top_k).require_free(chosen.schema.names)
    sizes = {file: found.rows for file, found in scanned}
    counted = tuple((file, sizes.get(file, 0)) for file in files)
    return Plan(options, counted, chosen.text, chosen.text_pair, chosen.schema)


def scan_all(
    files: list[InputFile], encoding: str | None, tell: Tell, progress: Progress
) -> list[tuple[InputFile, Scanned]]:
    """Look at all input files, see `scan`; returns those that have rows.

    Raises:
        DataError: a file cannot be read, or none has rows.
    """
    scanned: list[tuple[InputFile, Scanned]] = []
    rows = 0
    for file in files:
        before = rows
        found = scan(file, encoding, tell, lambda done, before=before: progress("read", before + done, None, 0))  # type: ignore[misc]
        rows += found.rows
        if found.rows:
            scanned.append((file, found))
    if not scanned:
        raise DataError(
            "the input has no rows",
            path=files[0].path,
            found=f"0 rows in {len(files):,} file" + "s" * (len(files) > 1),
            expected="a file with at least one row (of a table: below its header)",
            remedy="Give a file with rows.",
        )
    return scanned


def _known_plan(out: Path, options: Options, files: list[InputFile]) -> Plan[Options] | None:
    """The plan of an earlier run.

    Raises:
        OutputExistsError: the folder holds another job, or something else.
    """
    if (out / PLAN_FILE).exists():
        plan = Plan.read(out, Options)
        plan.require_same(options, files, out)
        return plan
    others = [path.name for path in out.iterdir() if not TEMPORARY.fullmatch(path.name)]
    if others:
        raise OutputExistsError(
            "the output folder is not empty, and holds no job",
            path=out,
            found=sorted(others)[0],
            expected="a new or empty folder, or that of the same job",
            remedy="Choose another output folder.",
        )
    return None


def _remove_job(out: Path) -> None:
    """Remove the files of an earlier job, its plan last, so that a kill leaves a job that can go on.

    Raises:
        DataError: there is a plan that cannot be read.
        UsageError: the folder belongs to another command, such as the work folder of ``kb build``: its parts have
            the same names.
    """
    if not (out / PLAN_FILE).exists():
        return
    read_content(out, Options)
    with refusals(out):
        (out / SUCCESS_FILE).unlink(missing_ok=True)
        for path in out.glob("part-*.parquet"):
            path.unlink()
        (out / PLAN_FILE).unlink()


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keep other runs out of the output folder; a lock that its process has left is free.

    Raises:
        UsageError: another run is at work there, or it is a file.
        StorageError: the folder cannot be made.
    """
    if out.exists() and not out.is_dir():
        raise UsageError("the output folder is a file", path=out, expected="a new or empty folder")
    with refusals(out):
        out.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                "another process runs this job", path=out, remedy="Wait until it ends, or stop it."
            ) from error
        yield
    finally:
        os.close(descriptor)
