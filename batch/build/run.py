"""A knowledge base of many rows: plan it or find its plan, encode the rows, build the shards, write the bundle."""

from __future__ import annotations

import json
import math
import secrets
import shutil
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pyarrow import parquet

from ...errors import ColumnError, DataError, OutputExistsError, ReaugkdError
from ...kb.index.grouping import SAMPLE_PER_CENTRE, centre_count, grouped
from ...kb.index.shard_tuning import ShardSearch
from ...kb.index.shards import Centres
from ...kb.soft_labels import LABEL_LOSS, top_within
from ...kb.storage.atomic import refuse_existing
from ...kb.storage.ed25519 import read_public_key
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.manifest import Manifest
from ...runtime.data.columns import choose_columns
from ...runtime.data.dataset import Columns
from ...runtime.data.files import once
from ...runtime.data.formats.decoding.source import Tell
from ..engines.engine import run_parts
from ..job.columns import job_columns, named
from ..job.inputs import InputFile, find_files
from ..job.plan import PLAN_FILE, Plan
from ..job.rows import Chunk, PartReader
from ..run import Progress, claimed, scan_all
from .assemble import TuneAgain, assemble
from .encode import Encoder
from .rows import LEFT_OUT
from .settings import CENTRES_FILE, BuildOptions, BuildSettings, Sampled
from .shard import ShardRecord, shard_name


@dataclass(frozen=True)
class BuildJob:
    """What the user asks for.

    Attributes:
        inputs: files, folders and patterns with the rows.
        out: the new bundle's folder; must not exist.
        columns: the columns, as the user names them.
        settings: the bundle and the teacher; ``out`` is filled in.
        options: what decides the rows; ``seal`` is filled in.
        engine: ``"local"`` or ``"ray"``.
        workers: processes, or tasks at a time; None for as many as there are cores for.
        address: of a cluster of Ray.
        tune_again: tunes blend, gate and abstention on the held-out rows; None for the blend of the bundle alone.
    """

    inputs: tuple[str, ...]
    out: Path
    columns: Columns
    settings: BuildSettings
    options: BuildOptions
    engine: Literal["local", "ray"] = "local"
    workers: int | None = None
    address: str | None = None
    tune_again: TuneAgain | None = None


@dataclass(frozen=True)
class Built:
    """The result.

    Attributes:
        manifest: of the new bundle.
        search: the tuned search.
        shards: the shards.
        left_out: the rows that were left out, by reason.
    """

    manifest: Manifest
    search: ShardSearch
    shards: tuple[ShardRecord, ...]
    left_out: dict[str, int]


def build(job: BuildJob, tell: Tell, progress: Progress) -> Built:
    """Build a bundle with a knowledge base in shards, or go on with it.

    The work is kept in a folder beside the new bundle, ``NAME.build``, until the bundle is complete.

    Args:
        job: the job.
        tell: receives remarks.
        progress: receives the progress.

    Raises:
        OutputExistsError: the new bundle exists, or the work folder holds another job.
        ReaugkdError: the inputs or the bundle cannot be used, or a file cannot be written.
    """  # noqa: DOC501
    tell = once(tell)
    refuse_existing(job.out)
    work = job.out.with_name(job.out.name + ".build")
    settings = replace(job.settings, out=str(work.absolute()))
    files = find_files(job.inputs, work, tell)
    signer = None if settings.require_signature is None else read_public_key(settings.require_signature)
    bundle = Bundle.open(settings.bundle, True, signer, settings.follow_links)
    options = replace(job.options, seal=bundle.seal)
    with claimed(work):
        plan = _plan(job, options, files, bundle, work, tell, progress)
        plan.tell_empty(tell)
        if not (work / CENTRES_FILE).exists():
            _sample(plan, settings, work, tell, progress)
        parts = [part.rows for part in plan.parts]
        _run(job, settings.at("rows"), "encode", parts, [part.name for part in plan.parts], progress)
        left_out = _left_out(plan, work)
        sizes = _shard_sizes(plan, work, bundle.manifest.kb.ndim)
        if not sum(sizes):
            raise DataError("no row can be used", path=files[0].path, found=_words(left_out), expected="labelled texts")
        _run(job, settings.at("shards"), "index", sizes, [shard_name(number) for number in range(len(sizes))], progress)
        shards = tuple(ShardRecord.read(work / shard_name(number)) for number in range(len(sizes)))
        manifest, search = assemble(
            bundle,
            work,
            job.out,
            bytes.fromhex(Sampled.read(work).salt),
            job.tune_again,
            lambda done, total: progress("tune", done, total, 0),
        )
        shutil.rmtree(work, ignore_errors=True)
    return Built(manifest, search, shards, left_out)


def _run(
    job: BuildJob, settings: BuildSettings, stage: str, sizes: list[int], names: list[str], progress: Progress
) -> None:
    """Do the parts of a stage that are missing.

    Raises:
        ReaugkdError: a part killed every worker that took it.
    """
    work = Path(settings.out)
    missing = [number for number, name in enumerate(names) if not (work / name).exists()]
    total = sum(sizes)
    before = total - sum(sizes[number] for number in missing)

    def advance(rows: int) -> None:
        progress(stage, before + rows, total, before)

    failed = run_parts(settings, missing, job.engine, job.workers, job.address, advance, sizes.__getitem__)
    if failed:
        number, words = next(iter(failed.items()))
        raise ReaugkdError(
            f"{names[number]} killed every worker that took it",
            path=work,
            found=f"{words}, three times",
            remedy="If memory is short, use fewer --workers, or more --shards. What is done is kept; the same command "
            "does the rest.",
        )


def _plan(
    job: BuildJob,
    options: BuildOptions,
    files: list[InputFile],
    bundle: Bundle,
    work: Path,
    tell: Tell,
    progress: Progress,
) -> Plan[BuildOptions]:
    if (work / PLAN_FILE).exists():
        plan = Plan.read(work, BuildOptions)
        plan.require_same(options, files, work)
        return plan
    if any(work.iterdir()):
        raise OutputExistsError(
            "the work folder has other files in it", path=work, remedy="Remove it, or choose another --out."
        )
    scanned = scan_all(files, options.encoding, tell, progress)
    names = list(dict.fromkeys(name for _, one in scanned for name in one.schema.names))
    pair, required = bundle.manifest.text_pair, job.settings.teacher is None
    choose_columns(names, replace(job.columns, label=None), named(scanned), pair=pair)
    try:
        label = choose_columns(names, job.columns, named(scanned), pair=pair, label=required).label
    except ColumnError as error:
        if job.columns.label is None and required:
            raise error.at(remedy=f"{error.remedy} Or let the teacher of a run label the rows, with --run.") from None
        raise
    chosen = job_columns(scanned, job.columns, () if label is None else (label,), pair, optional=False)
    sizes = {file: one.rows for file, one in scanned}
    counted = tuple((file, sizes.get(file, 0)) for file in files)
    plan = Plan(options, counted, chosen.text, chosen.text_pair, chosen.schema)
    plan.write(work)
    return plan


def _sample(plan: Plan[BuildOptions], settings: BuildSettings, work: Path, tell: Tell, progress: Progress) -> None:
    """Choose the centres, and how many classes a soft label keeps, by rows from all over the data.

    Raises:
        DataError: none of these rows can be used.
    """
    wanted = SAMPLE_PER_CENTRE * centre_count(plan.options.shards)
    encoder = Encoder(settings)
    left_out: Counter[str] = Counter()
    keys, probabilities = [], []
    found = read = 0
    with closing(_chunks(plan)) as chunks:
        for path, chunk in chunks:
            read += len(chunk.texts)
            due = math.ceil(wanted * read / plan.rows)
            labels = chunk.kept.column(0).to_pylist() if chunk.kept.num_columns else None
            places = _spread(len(chunk.texts), due - found)
            while found < due and places:  # more of the chunk where rows cannot be used
                some, places = places[: due - found], places[due - found :]
                texts = [chunk.texts[place] for place in some]
                of_some = None if labels is None else [labels[place] for place in some]
                encoded = encoder.encode(texts, of_some, left_out, path)
                keys.append(encoded.keys)
                probabilities.append(encoded.probabilities)
                found += len(encoded.keys)
            progress("sample", min(found, wanted), min(wanted, plan.rows), 0)
    if not found:
        raise DataError(
            "no row can be used", path=plan.parts[0].file.path, found=_words(left_out), expected="labelled texts"
        )
    centres = grouped(np.concatenate(keys), plan.options.shards)
    made = int(centres.shard.max()) + 1
    if made < plan.options.shards:
        tell(f"there are too few different texts for {plan.options.shards} shards: {made} are made")
    Sampled(top_within(np.concatenate(probabilities), LABEL_LOSS), secrets.token_hex(32)).write(work)
    centres.save(work / CENTRES_FILE)


def _chunks(plan: Plan[BuildOptions]) -> Generator[tuple[str, Chunk], None, None]:
    """The rows of all data in chunks, each with the path of its file."""
    with closing(PartReader(plan)) as reader:
        for part in plan.parts:
            for chunk in reader.chunks(part):
                yield part.file.path, chunk


def _spread(rows: int, count: int) -> list[int]:
    """The numbers of all rows, about ``count`` from all over first."""
    step = max(rows // max(count, 1), 1)
    return [place for first in range(step) for place in range(first, rows, step)]


def _left_out(plan: Plan[BuildOptions], work: Path) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in plan.parts:
        total.update(json.loads(parquet.read_schema(work / part.name).metadata[LEFT_OUT]))
    return dict((+total).most_common())  # without counts of 0


def _shard_sizes(plan: Plan[BuildOptions], work: Path, ndim: int) -> list[int]:
    """The rows of each shard, duplicates included."""
    centres = Centres.open(work / CENTRES_FILE, ndim)
    sizes = np.zeros(int(centres.shard.max()) + 1, np.int64)
    for part in plan.parts:
        metadata = parquet.read_metadata(work / part.name)
        for group in range(metadata.num_row_groups):
            sizes[metadata.row_group(group).column(0).statistics.min] += metadata.row_group(group).num_rows
    return [int(size) for size in sizes]


def _words(left_out: dict[str, int] | Counter[str]) -> str:
    return "; ".join(f"{count:,} rows: {reason}" for reason, count in list(left_out.items())[:3]) or "no rows"
