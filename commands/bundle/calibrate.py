"""`reaugkd calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..console import tell_kept_card, train_extra
from ..data_source import load
from ..options import BUNDLE, PATH, with_columns, with_links, with_task

if TYPE_CHECKING:
    from ...runtime.data import Columns

_ROWS = "rows of --data"  # in messages; the other commands fit on held-out rows


@click.command(short_help="Re-fit gate and abstention thresholds on your own labelled data. *")
@click.argument("bundle", type=BUNDLE)
@click.option("--data", required=True, metavar="PATH|HUB_ID", help="Labelled rows that resemble the texts in use.")
@click.option(
    "--split",
    metavar="NAME",
    default="dev",
    show_default=True,
    help="Split of the data to use: train, dev, test or all.",
)
@with_task
@click.option("--out", required=True, type=PATH, metavar="NEW", help="Folder of the new bundle.")
@with_links
@with_columns
def calibrate(
    bundle: Path, data: str, split: str, task: str | None, out: Path, follow_links: bool, columns: Columns
) -> None:
    """Write a copy of BUNDLE with gate, abstention thresholds and prediction sets fitted on the rows of --data.

    An export fits them on held-out train rows. If the texts in use are harder, coverage is lower than promised. The
    data must not include rows that the bundle was trained on or is evaluated on afterwards. The gate keeps its bounds,
    by default a loss of at most 0.5 % with 95 % confidence; where the rows are too few for them, the gate stays.
    """
    with train_extra("calibrating"):
        from ...export.bundle.calibrate import calibrate as run_calibrate
        from ...export.tuning.abstention import describe_abstention
        from ...export.tuning.gating import Certificate, describe_gate
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.data import choose_split

    opened = Bundle.open(bundle, verify=False, follow_links=follow_links)
    rows = choose_split(load(data, task, columns, opened.manifest.labels), split)[1]
    done = run_calibrate(bundle, out, rows, follow_links)
    tell_kept_card(opened, follow_links)
    click.echo(f"{out}: abstention {describe_abstention(done.abstention, _ROWS)}", err=True)
    before = opened.manifest.gate
    kept = before is not None and done.gate == before
    described = describe_gate(done.gate, Certificate.of(before).epsilon, "rows that certified it" if kept else _ROWS)
    click.echo(f"gate (predict --gated): {'as before: ' if kept else ''}{described}", err=True)
