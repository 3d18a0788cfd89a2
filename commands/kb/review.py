"""`reaugkd kb review`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import one_line
from ..console import json_report, progress
from ..options import OWN_BUNDLE, share_of, with_json, with_opening, without_blas_threads

if TYPE_CHECKING:
    from ...runtime.labelling.review import LabelIssue


@click.command(short_help="List rows whose neighbours contradict their label.")
@click.argument("bundle", type=OWN_BUNDLE)
@click.option(
    "--below",
    default="5%",
    callback=share_of,
    metavar="SHARE",
    help="List rows whose label has less than this share of their neighbours' votes.  [default: 5%]",
)
@click.option("--edited", is_flag=True, help="Check the rows whose label comes from an edit too.")
@with_json
@with_opening
@without_blas_threads
def review(
    bundle: Path,
    below: float,
    edited: bool,
    json_path: str | None,
    require_signature: Path | None,
    follow_links: bool,
) -> None:
    """List the rows whose neighbours contradict their label, worst first, each with the command that corrects it.

    A row never votes for itself. Read the list before you run any of its lines: a rare text may be labelled right
    against all its neighbours. Rows without a gold label are not checked.
    """
    from ...runtime.labelling.review import review as find
    from ...runtime.runtime import Runtime

    runtime = Runtime.open(bundle, require_signature=require_signature, follow_links=follow_links)
    with json_report(json_path) as write:
        with progress("review", "row") as advance:
            found = find(runtime, below, edited, advance)
        lines = [_relabel(bundle, issue) for issue in found.issues]
        write(
            {
                "checked": found.checked,
                "edited": found.edited,
                "unlabelled": found.unlabelled,
                "issues": [{**asdict(one), "relabel": line} for one, line in zip(found.issues, lines, strict=True)],
            }
        )
    if json_path != "-":
        for issue, line in zip(found.issues, lines, strict=True):
            click.echo(f"# {_described(issue)}\n{line}")
    left_out = f", {found.edited:,} from edits left out" if found.edited else ""
    left_out += f", {found.unlabelled:,} without a gold label left out" if found.unlabelled else ""
    summary = f"{found.checked:,} rows checked{left_out}: {len(found.issues):,} labels are contradicted"
    click.echo(summary, err=True)


def _relabel(bundle: Path, issue: LabelIssue) -> str:
    return f"reaugkd kb relabel {shlex.quote(str(bundle))} --id {issue.id} --label {shlex.quote(issue.suggested)}"


def _described(issue: LabelIssue) -> str:
    """The votes and the text in one line, which a shell reads as a comment."""
    text: Any = "(the bundle stores no texts)" if issue.text is None else issue.text
    shown = " | ".join(text) if isinstance(text, tuple) else text
    return one_line(
        f"{issue.label} ({issue.self_confidence:.0%} of the votes), rather {issue.suggested} "
        f"({issue.suggested_probability:.0%}): {shown}"
    )
