"""`reaugkd train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import resumable, train_extra
from .data_source import load
from .options import PATH, names, numbers, with_columns, with_task

if TYPE_CHECKING:
    from ..runtime.data import Columns


@click.command(short_help="Fine-tune a teacher, distil a student from it, tune retrieval. *")
@click.option(
    "--data", required=True, metavar="PATH|HUB_ID", help="Data folder, data file, or id of a Hugging Face data set."
)
@click.option(
    "--teacher", required=True, metavar="MODEL", help="Hub id or folder of an encoder or a fine-tuned classifier."
)
@click.option("--out", required=True, type=PATH, metavar="RUN", help="Run folder: a new one, or one to resume.")
@with_task
@click.option(
    "--student-layers",
    callback=numbers,
    metavar="N,N,..",
    help="Layers of the teacher, 0-based, that the student starts from.  [default: every second layer]",
)
@click.option(
    "--teacher-labels",
    callback=names,
    metavar="NAME,NAME,..",
    help="Names of a fine-tuned teacher's outputs, in their order.  [default: those of its config.json]",
)
@click.option("--student", metavar="MODEL", help="Hub id or folder of another model to start the student from.")
@click.option("--embedding-dim", type=int, metavar="N", help="Dimension of keys and queries.  [default: 128]")
@click.option(
    "--teacher-epochs", type=int, metavar="N", help="Number of epochs of the teacher's fine-tuning.  [default: 4]"
)
@click.option("--student-epochs", type=int, metavar="N", help="Number of epochs of the distillation.  [default: 5]")
@click.option(
    "--max-length",
    type=int,
    metavar="N",
    help="Largest number of tokens of a text; longer texts are truncated.  [default: 128]",
)
@click.option("--limit", type=click.IntRange(2), metavar="N", help="Largest number of train rows to use, stratified.")
@click.option(
    "--seed", type=click.IntRange(0), metavar="N", help="Random seed of the training, not of splits.  [default: 0]"
)
@click.option(
    "--recipe",
    type=PATH,
    metavar="FILE.toml",
    help="Recipe file with all other settings; the options above override it.",
)
@click.option("--redo", is_flag=True, help="Repeat the stages of an existing run whose settings changed.")
@with_columns
def train(
    data: str,
    teacher: str,
    out: Path,
    task: str | None,
    limit: int | None,
    recipe: Path | None,
    redo: bool,
    columns: Columns,
    **options: Any,
) -> None:
    """Fine-tune a teacher, compute its keys, distil a student and tune retrieval.

    The same command resumes the run after an interruption.
    """
    from ..export import recipe_file as recipes
    from ..export.recipe import Recipe

    base = recipes.load_recipe(recipe) if recipe else Recipe()
    chosen = recipes.override(
        base,
        seed=options["seed"],
        max_length=options["max_length"],
        teacher__labels=options["teacher_labels"],
        teacher__fit__epochs=options["teacher_epochs"],
        projection__embedding_dim=options["embedding_dim"],
        student=recipes.with_start(base.student, options["student_layers"], options["student"]),
        student__fit__epochs=options["student_epochs"],
    )
    # The Hugging Face libraries are imported after `load`, which finds out whether the hub can be reached.
    dataset = load(data, task, columns, models=(teacher, options["student"] or teacher))
    with train_extra("training"):
        from ..export.training.train import TrainJob
        from ..export.training.train import train as run_training
    with resumable():
        tuning = run_training(dataset, TrainJob(teacher, chosen, limit, redo), out)
    blend = tuning.blend
    nll = ", ".join(f"{name} {value:.4f}" for name, value in tuning.nll.items())
    click.echo(
        f"blend tuned on {tuning.rows} held-out rows: student weight "
        f"{f'{blend.student_weight:.3f}' if blend.weight is None else blend.weight.kind}, k {blend.k}, "
        f"tau {blend.tau:g}; negative log-likelihood: {nll}",
        err=True,
    )
    click.echo(f"next: reaugkd export {out} --out BUNDLE", err=True)
