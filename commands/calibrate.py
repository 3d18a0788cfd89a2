"""`reaugkd calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console import train_extra
from .data_source import load
from .options import PATH, with_columns, with_task

if TYPE_CHECKING:
    from ..runtime.data import Columns


@click.command(short_help="A bundle that abstains by other rows than its held-out ones. *")
@click.argument("bundle", type=PATH)
@click.option("--data", required=True, metavar="PATH|HUB_ID", help="Labelled rows that look like those to come.")
@click.option("--split", metavar="NAME", default="dev", show_default=True, help="train, dev, test, or all rows.")
@with_task
@click.option("--out", required=True, type=PATH, metavar="NEW", help="The bundle folder to make.")
@with_columns
def calibrate(bundle: Path, data: str, split: str, task: str | None, out: Path, columns: Columns) -> None:
    """Write BUNDLE anew, with abstention and prediction sets fitted on labelled rows of --data.

    An export fits them on held-out train rows; where texts in use are harder, the shares they promise are not kept.
    Rows that the bundle was trained on must not be among these, nor rows that it is scored on afterwards.
    """
    with train_extra("calibrating"):
        from ..export.bundle.calibrate import calibrate as run_calibrate
        from ..export.tuning.abstention import describe_abstention
    from ..runtime.bundle.bundle import Bundle
    from ..runtime.data import choose_split

    labels = Bundle.open(bundle, verify=False).manifest.labels
    rows = choose_split(load(data, task, columns, labels), split)[1]
    done = run_calibrate(bundle, out, rows)
    click.echo(f"{out}: abstention {describe_abstention(done.abstention)}", err=True)
