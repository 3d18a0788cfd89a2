"""`reaugkd kb build`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import json_report, resumable, stages, tell
from ..options import BUNDLE, PATH, with_columns, with_engine, with_json, with_opening, without_blas_threads

if TYPE_CHECKING:
    from ...runtime.bundle.manifest import Manifest
    from ...runtime.data import Columns

_LINES = {
    "read": ("row", False),
    "sample": ("row", True),
    "encode": ("row", True),
    "index": ("row", True),
    "tune": ("row", False),
}
"""The progress lines of the stages: the unit, and whether there is a rate."""


@click.command(short_help="Build a knowledge base of millions of rows, in shards.")
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--data",
    "inputs",
    multiple=True,
    required=True,
    metavar="INPUT",
    help="File, folder or pattern with the rows; can be given repeatedly.",
)
@click.option("--out", type=PATH, required=True, metavar="FOLDER", help="Folder of the new bundle; must not exist.")
@click.option(
    "--shards",
    type=click.IntRange(1, 1000),
    default=1,
    metavar="N",
    help="Number of shards of the index. A shard is built in memory, with about 600 bytes a row for keys of 128 "
    "components.  [default: 1]",
)
@click.option(
    "--run",
    type=PATH,
    metavar="RUN",
    help="Run whose teacher labels the rows (extra train).  [default: the label column of the data]",
)
@with_engine
@click.option(
    "--part-rows",
    type=click.IntRange(1),
    default=20_000,
    metavar="N",
    help="Rows that a worker encodes at a time; a worker that is killed loses the work on so many.  [default: 20000]",
)
@with_json
@with_opening
@without_blas_threads
@with_columns
def build(
    bundle: Path,
    inputs: tuple[str, ...],
    out: Path,
    shards: int,
    run: Path | None,
    engine: Any,
    address: str | None,
    workers: int | None,
    threads: int,
    part_rows: int,
    json_path: str | None,
    require_signature: Path | None,
    follow_links: bool,
    columns: Columns,
) -> None:
    """Write a bundle with the student of BUNDLE and a knowledge base of the rows of --data.

    An INPUT is a Parquet, CSV, TSV or JSON lines file, a folder of such files, or a pattern in quotes. Keys are the
    student's embeddings. Each text is stored once. Texts of held-out rows are left out, and the blend is tuned on
    these rows. The gate is certified again on them, with the bounds of BUNDLE's gate, and the abstention thresholds are
    fitted again; without the train extra, or held-out rows, both are left out. The rows of BUNDLE's own knowledge base
    are not kept: give their data too.

    The same command resumes a build that was ended in any way. Its work is in FOLDER.build until the new bundle is
    complete. Needs the batch extra: pip install 'reaugkd[batch]'.
    """
    from ...batch.build.run import BuildJob
    from ...batch.build.run import build as build_kb
    from ...batch.build.settings import BuildOptions, BuildSettings
    from ...export.tuning.tune_again import tune_again
    from ...runtime.bundle.bundle import Bundle

    old = Bundle.open(bundle, verify=False, follow_links=follow_links).manifest
    signer = None if require_signature is None else str(require_signature.absolute())
    teacher = None
    if run is not None:
        from ...export.training.teacher.predictor import RunTeacher

        teacher = RunTeacher(str(run.absolute()))
        _require_same_labels(old.labels, teacher().labels, run)
    identity = None if teacher is None else teacher.run
    job = BuildJob(
        inputs,
        out,
        columns,
        BuildSettings("", str(bundle.absolute()), "rows", threads, teacher, signer, follow_links),
        BuildOptions("", shards, columns.text, columns.pair, columns.label, identity, columns.encoding, part_rows),
        engine,
        workers,
        address,
        tune_again,
    )
    why_not = _why_not_fitted(old)
    if why_not is not None:
        tell(why_not)
    with json_report(json_path) as write_json:
        with resumable(), stages(_LINES) as show:
            made = build_kb(job, tell, show)
        new = made.manifest
        notes = [*_blend(new), *(_fitted(old, new) if why_not is None else [why_not])]
        rows, duplicates = new.kb_rows, sum(one.duplicates for one in made.shards)
        report = {
            "out": str(out),
            "rows": rows,
            "shards": len(made.shards),
            "duplicates": duplicates,
            "conflicts": sum(one.conflicts for one in made.shards),
            "left_out": made.left_out,
            "recall": made.search.recall,
            "ef_search": made.search.expansion_search,
            "probes": made.search.probes,
            "gate": None if new.gate is None else asdict(new.gate),
            "abstention": None if new.abstention is None else {"rows": new.abstention.rows},
            "notes": notes,
        }
        write_json(report)
    if json_path == "-":
        return
    search = made.search
    click.echo(f"{out}: {rows:,} rows, number of shards: {len(made.shards)}")
    click.echo(f"recall {search.recall:.3f} with ef_search {search.expansion_search} and {search.probes} probes")
    if duplicates:
        conflicts = f"{report['conflicts']:,} of them with another label"
        click.echo(f"rows left out (the text is that of another row): {duplicates:,}, {conflicts}")
    for reason, count in made.left_out.items():
        click.echo(f"rows left out ({reason}): {count:,}")
    for line in notes:
        click.echo(line)


def _blend(new: Manifest) -> list[str]:
    """Describe the blend of the new bundle; nothing if there were no rows to tune it on."""
    from ...export.tuning.tune import Tuning

    found: Any = new.quality.get("tuning")
    return [] if found is None else [Tuning(new.blend, found["rows"], found["nll"], found["accuracy"]).describe()]


def _why_not_fitted(old: Manifest) -> str | None:
    """Say in one line why the bundle's gate and thresholds cannot be fitted again; None if they can, or it has none."""
    from ...export.tuning.tune_again import missing_module
    from ...runtime.bundle.heldout_rows import HELDOUT_FILE

    parts = {"gate": old.gate, "abstention thresholds": old.abstention}
    lost = " and no ".join(name for name, part in parts.items() if part is not None)
    if lost and HELDOUT_FILE not in old.files:
        return f"the new bundle has no {lost}: there are no held-out rows; `reaugkd calibrate` fits on rows of yours"
    if lost and (module := missing_module()) is not None:
        return f"the new bundle has no {lost}: found no module {module!r}; pip install 'reaugkd[train]' installs it"
    return None


def _fitted(old: Manifest, new: Manifest) -> list[str]:
    """Describe gate and thresholds of the new bundle; those that the old one does not have are not fitted."""
    lines = []
    if old.gate is not None:
        from ...export.tuning.gating import describe_gate

        lines.append(f"gate (predict --gated): {describe_gate(new.gate, old.gate.epsilon)}")
    if old.abstention is not None:
        from ...export.tuning.abstention import describe_abstention

        lines.append(f"abstention: {describe_abstention(new.abstention)}")
    return lines


def _require_same_labels(expected: tuple[str, ...], labels: tuple[str, ...], run: Path) -> None:
    """Check that a run's teacher has the labels of the bundle.

    Raises:
        UsageError: it has others.
    """
    from ...errors import UsageError

    if labels != expected:
        raise UsageError(
            "the run has other labels than the bundle",
            path=run,
            found=", ".join(labels[:5]),
            expected=", ".join(expected[:5]),
            remedy="Give the run that the bundle was exported from.",
        )
