"""Training from the answers of a teacher in a file: rows and soft labels -> student -> tuned blend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import LabelError, RecipeError
from ...runtime.data import Dataset, Split
from ...runtime.data.assemble import assemble
from .. import objectives
from ..modeling.execution.distributed import from_main, lost_process, processes
from ..modeling.projection import LinearLayer, require_reducible
from ..recipe import REAUGKD, ObjectiveRecipe, Recipe
from ..tuning.tune import Tuning
from .begin_run import begin_run, require_one_training
from .model_checks import load_own_student, refuse_pretrained, require_student
from .run_folder import RunFolder
from .splits import RunSplits, assign
from .teacher.file import TeacherFile
from .teacher.outputs import TeacherOutputs, require_keys
from .train import Pipeline, TrainJob, describe, deterministic, fingerprint


def default_objectives(file: TeacherFile) -> tuple[ObjectiveRecipe, ...]:
    """Return the default objectives, without those that need embeddings if the file has none."""
    return tuple(item for item in REAUGKD if file.has_embeddings or not objectives.build([item]).needs)


@lost_process()
def train_from_file(file: TeacherFile, scored: Dataset | None, job: TrainJob, out: Path) -> Tuning:
    """Train the run at ``out`` from a teacher's answers, or resume it.

    Args:
        file: the answers; their texts are the train rows.
        scored: its dev and test splits are kept out of the training; None for none.
        job: recipe and options; its teacher names the file.
        out: the run folder, new or of an earlier call.

    Returns:
        The blend, tuned on the float32 student.

    Raises:
        RecipeError: the recipe needs a teacher that is a model, or embeddings that the file does not have.
        LabelError: all texts have the same label.
        DataError, DistributedError, ModelError, OutputExistsError, StorageError: same as `train`.
    """
    check_recipe(file, job.recipe)
    if len(set(file.split.labels or ())) < 2:
        raise LabelError(
            "every text has the same label", path=file.split.source, expected="texts of at least 2 classes"
        )
    others = {} if scored is None else {name: split for name, split in scored.splits.items() if name != "train"}
    dataset = assemble(Path(file.name).stem, {"train": file.split, **others}, None, file.label_names)
    for note in dataset.notes:
        if scored is None or note not in scored.notes:
            click.echo(note, err=True)
    splits = assign(dataset, job.recipe, job.limit, file.gold >= 0)
    student = job.recipe.student.model
    models = {"teacher": file.fingerprint, "student": fingerprint(student)}
    run, stages = RunFolder(out), _FromFile(RunFolder(out), splits, job, file, models)
    description = {**describe(splits, job, False, models), "teacher_file": stages.counts()}
    require_one_training(description)
    # In the main process: transformers saves no model in another one.
    from_main(lambda: require_student(load_own_student(job.recipe, file.label_names), student, job.recipe))
    begin_run(run, description, job.redo)
    if processes().is_main_process:
        click.echo(describe_heldout(description), err=True)
    with deterministic():
        return stages.tuned()


def check_recipe(file: TeacherFile, recipe: Recipe) -> None:
    """Check that a recipe works with a teacher in a file.

    Args:
        file: the teacher.
        recipe: the recipe.

    Raises:
        RecipeError: it does not.
    """
    path = file.split.source
    refuse_pretrained(recipe, path, "a teacher in a file")
    for item in recipe.objectives:
        needs = objectives.build([item]).needs
        if needs - {"embeddings"}:
            raise RecipeError(
                f"objective {item.name!r} runs the teacher during the distillation",
                path=path,
                found="a teacher in a file",
                expected="objectives that need its answers only",
                remedy="Leave --recipe out, or use recipes/kd.toml; or give a model as --teacher.",
            )
        if needs and not file.has_embeddings:
            raise RecipeError(
                f"objective {item.name!r} needs the teacher's embeddings",
                path=path,
                found="answers without an embedding",
                remedy="Leave --recipe out, or use recipes/kd.toml; or add an embedding to every row of the file.",
            )
    if not recipe.student.model:
        raise RecipeError(
            "the student has no model to start from",
            path=path,
            found="a teacher in a file, which has no layers",
            remedy="Give a pretrained encoder as --student.",
        )
    if not file.has_embeddings:
        require_keys(recipe.retrieval, Path(path))
    elif recipe.projection.method == "pca":
        require_reducible(recipe.projection.embedding_dim, file.embeddings.shape[1])


class _FromFile(Pipeline):
    """The stages of a training whose teacher is a file: nothing is fine-tuned, and its outputs are the answers."""

    def __init__(
        self, run: RunFolder, splits: RunSplits, job: TrainJob, file: TeacherFile, models: dict[str, str]
    ) -> None:
        super().__init__(run, splits, job, False, models)
        self.file = file

    def counts(self) -> dict[str, Any]:
        """Return what run.json tells of the file."""
        gold = {name: int((self._gold(split) >= 0).sum()) for name, split in self.splits.fitted.items()}
        return {"gold": gold, "embedding_dim": self.file.embeddings.shape[1]}

    def _gold(self, split: Split) -> NDArray[np.int64]:
        return self.file.gold[self.file.places(split)]

    def gold(self) -> NDArray[np.int64]:
        return self._gold(self.splits.train)

    def teacher(self) -> None:
        pass

    def load_teacher(self, attention: str | None = None) -> nn.Module:
        return nn.Identity()  # the student starts from a model of its own

    def ask_teacher(self) -> dict[str, dict[str, Tensor]]:
        answers: dict[str, NDArray[Any]] = {
            "logits": self.file.logits,
            "embeddings": self.file.embeddings,
            "gold": self.file.gold,
        }
        return {
            name: {field: torch.from_numpy(values[self.file.places(split)]) for field, values in answers.items()}
            for name, split in self.splits.fitted.items()
        }

    def projection(self, outputs: TeacherOutputs) -> LinearLayer:
        if self.file.has_embeddings:
            return super().projection(outputs)
        with self.run.stage(self.run.projection, self.projection_hash) as folder:
            if folder:  # no embeddings to project: the teacher's keys are 0, and nothing reads them
                LinearLayer(torch.zeros(self.recipe.projection.embedding_dim, 0)).save(folder)
        return LinearLayer.load(self.run.projection)


def describe_heldout(description: Mapping[str, Any]) -> str:
    """Tell from a run's description what its held-out rows measure."""
    rows = description["data"]["rows"]["heldout"]
    missing = rows - description["teacher_file"]["gold"]["heldout"]
    if not missing:
        return f"all {rows:,} held-out rows have a gold label"
    return (
        f"{missing:,} of {rows:,} held-out rows have no gold label: on these the blend, the gate and abstention are "
        "tuned on the teacher's own answers, and accuracy is agreement with the teacher"
    )
