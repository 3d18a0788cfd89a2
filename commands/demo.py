"""`reaugkd demo`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import resumable, train_extra
from .options import PATH


@click.command(short_help="All of it on an embedded corpus, in four minutes. *")
@click.option("--out", type=PATH, default=Path("demo"), show_default=True, help="Folder for the demo's run and bundle.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N")
def demo(out: Path, seed: int) -> None:
    """The whole job on an embedded corpus, offline: voice-assistant intents, a teacher from scratch, its student."""
    with train_extra("the demo"):
        from ..export.demo import run_demo
    with resumable():
        run_demo(out, seed, click.echo)
