"""`reaugkd train`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import UsageError
from ..console import resumable, train_extra
from ..data_source import go_offline_if_unreachable, load
from ..options import PATH, names, numbers, with_columns, with_task

if TYPE_CHECKING:
    from ...export.recipe import ObjectiveRecipe
    from ...export.training.train import TrainJob
    from ...export.tuning.tune import Tuning
    from ...runtime.data import Columns

    Training = Callable[[TrainJob, Path], Tuning]


@click.command(short_help="Fine-tune a teacher, distil a student from it, tune retrieval. *")
@click.option(
    "--data",
    metavar="PATH|HUB_ID",
    help="Data folder, data file, or id of a Hugging Face data set. With --teacher-outputs it is optional: its dev and "
    "test rows are kept out of the training, and its labels are those allowed.",
)
@click.option("--teacher", metavar="MODEL", help="Hub id or folder of an encoder or a fine-tuned classifier.")
@click.option(
    "--teacher-outputs",
    type=PATH,
    metavar="FILE",
    help="Instead of --teacher: JSON lines or Parquet with the train texts and the answers of a teacher, such as an "
    "LLM. Needs --student.",
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
    data: str | None,
    teacher: str | None,
    teacher_outputs: Path | None,
    out: Path,
    task: str | None,
    limit: int | None,
    recipe: Path | None,
    redo: bool,
    columns: Columns,
    **options: Any,
) -> None:
    """Fine-tune a teacher, compute its keys, distil a student and tune retrieval.

    With --teacher-outputs, the student is distilled from given answers, and no teacher is run.

    The same command resumes the run after an interruption.
    """
    from ...export import recipe_file as recipes
    from ...export.recipe import Recipe

    _require_one_teacher(teacher, teacher_outputs, data, options)
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
    if teacher_outputs is None:
        run_training = _from_model(teacher or "", data or "", task, columns, options["student"])
    else:
        run_training, objectives = _from_file(teacher_outputs, data, task, columns, chosen.student.model)
        chosen = recipes.override(chosen, objectives=None if recipe else objectives)
    with train_extra("training"):
        from ...export.modeling.execution.distributed import processes
        from ...export.training.train import TrainJob
    name = teacher or f"file {Path(str(teacher_outputs)).name}"
    with resumable():
        tuning = run_training(TrainJob(name, chosen, limit, redo), out)
    if processes().is_main_process:
        click.echo(tuning.describe(), err=True)
        click.echo(f"next: reaugkd export {out} --out BUNDLE", err=True)


def _require_one_teacher(
    teacher: str | None, teacher_outputs: Path | None, data: str | None, options: dict[str, Any]
) -> None:
    if (teacher is None) == (teacher_outputs is None):
        raise UsageError(
            "train needs one teacher",
            found="none" if teacher is None else "--teacher and --teacher-outputs",
            expected="--teacher MODEL or --teacher-outputs FILE",
        )
    if teacher is not None and data is None:
        raise UsageError("train needs the rows", expected="--data with --teacher")
    of_a_model = [name for name in ("student_layers", "teacher_epochs", "teacher_labels") if options[name] is not None]
    if teacher_outputs is not None and of_a_model:
        raise UsageError(
            f"--{of_a_model[0].replace('_', '-')} needs a teacher that is a model",
            found="--teacher-outputs",
            remedy="Leave it out; the student starts from --student.",
        )


def _from_model(teacher: str, data: str, task: str | None, columns: Columns, student: str | None) -> Training:
    """Read the rows, and return the training with a model as teacher."""
    # The Hugging Face libraries are imported after `load`, which finds out whether the hub can be reached.
    dataset = load(data, task, columns, models=(teacher, student or teacher))
    with train_extra("training"):
        from ...export.training.train import train as run_training
    return partial(run_training, dataset)


def _from_file(
    path: Path, data: str | None, task: str | None, columns: Columns, student: str
) -> tuple[Training, tuple[ObjectiveRecipe, ...]]:
    """Read a teacher's answers, and return the training from them and its default objectives."""
    if data is None:
        go_offline_if_unreachable(student)
    scored = None if data is None else load(data, task, columns, models=(student,))
    with train_extra("training"):
        from ...export.training.teacher.file import read_teacher_file
    file = read_teacher_file(path, columns, None if scored is None else scored.label_names)
    for remark in file.remarks:
        click.echo(remark, err=True)
    if scored is not None and "train" in scored.splits:
        click.echo(f"the train rows are those of {path}; the train rows of {data} are not used", err=True)
    with train_extra("training"):
        from ...export.training.train_from_file import default_objectives, train_from_file
    return partial(train_from_file, file, scored), default_objectives(file)
