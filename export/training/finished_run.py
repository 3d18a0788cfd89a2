"""Read a finished run: rows, teacher outputs, student and query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...errors import UsageError
from ...runtime.data import Split, label_indices
from ..modeling.encoder import EncoderClassifier
from ..modeling.layer_query import with_layer_query
from ..modeling.projection import LinearLayer, project
from ..modeling.teacher import load_teacher
from ..modeling.tokens import token_rows
from ..modeling.training_loop import outputs_of
from ..recipe import Recipe, RetrievalRecipe
from ..recipe_file import recipe_from_dict
from ..tuning.build_kb import KbRows
from .run_folder import RunFolder, read_rows
from .teacher_outputs import TeacherOutputs, load_outputs, require_keys


@dataclass(frozen=True)
class FinishedRun:
    """The contents of a finished run.

    Args:
        run: the run folder.
        description: the contents of run.json.
        train: the rows that the student was distilled on.
        heldout: the rows that the blend is tuned on.
        outputs: the teacher's outputs for ``train`` and ``heldout``.
        head: the projection head, which makes the teacher's keys.
    """

    run: RunFolder
    description: dict[str, Any]
    train: Split
    heldout: Split
    outputs: dict[str, TeacherOutputs]
    head: LinearLayer

    @classmethod
    def read(cls, run: RunFolder) -> FinishedRun:
        """Read a run.

        Raises:
            DataError: the run is not finished.
        """
        description = run.describe()
        run.require_finished()
        return cls(
            run=run,
            description=description,
            train=read_rows(run.data / "train.jsonl"),
            heldout=read_rows(run.data / "heldout.jsonl"),
            outputs=load_outputs(run),
            head=LinearLayer.load(run.projection),
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of the logits."""
        return tuple(self.description["labels"])

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return recipe_from_dict(self.description["recipe"])

    def student(self, recipe: RetrievalRecipe) -> EncoderClassifier:
        """Load the student with the recipe's query."""
        student = EncoderClassifier.load(self.run.student)
        return with_layer_query(student, LinearLayer.load(self.run.query)) if recipe.query == "layers" else student

    def teacher(self) -> nn.Module:
        """Load the teacher; its outputs are in the order of the labels.

        Raises:
            UsageError: the teacher is a file.
        """
        if self.of_file:
            raise UsageError(
                "the run's teacher is a file, which has no answers to other texts",
                path=self.run.path,
                found=f"teacher {self.description['teacher']}",
                remedy="Add the texts with their answers to the file and train again, or add them to the bundle: "
                "reaugkd kb add.",
            )
        source = self.description["teacher"] if self.description["teacher_is_fine_tuned"] else self.run.teacher
        return load_teacher(source, self.recipe.teacher, self.labels)

    @property
    def of_file(self) -> bool:
        """Whether the teacher is a file of answers."""
        return "teacher_file" in self.description

    def require(self, recipe: RetrievalRecipe, extra: bool) -> None:
        """Check that the run has what a knowledge base needs.

        Args:
            recipe: the source of the keys.
            extra: whether there are extra rows, which the teacher must label.

        Raises:
            RecipeError: the keys need the teacher's embeddings, and the run has none.
            UsageError: the extra rows need a teacher, and the run's is a file.
        """
        if not self.outputs["train"].embeddings.shape[1]:
            require_keys(recipe, self.run.path)
        if extra and self.of_file:
            self.teacher()

    def of_train(self, queries: NDArray[np.float32] | None) -> KbRows:
        """Return the train rows; ``queries`` [n, d] are the student's embeddings, None for the teacher's keys."""
        return self._knowledge(self.train, self.outputs["train"], queries)

    def of_heldout(self, queries: NDArray[np.float32] | None) -> KbRows:
        """Return the held-out rows, which no teacher was fitted on; for ``queries`` see `of_train`."""
        return self._knowledge(self.heldout, self.outputs["heldout"], queries)

    def of_extra(self, split: Split, queries: NDArray[np.float32] | None) -> KbRows:
        """Label extra rows with the run's teacher; their gold labels are not read."""
        teacher = self.teacher()
        rows = token_rows(self.run.teacher, split, teacher.encoder.config, self.recipe.max_length)  # type: ignore[union-attr]
        found = outputs_of(teacher, rows, "teacher on the extra rows")
        unlabelled = Split(split.texts, split.pairs, None, split.source, split.rows)
        return self._knowledge(unlabelled, TeacherOutputs(found.logits, found.embedding), queries)

    def _knowledge(self, split: Split, outputs: TeacherOutputs, queries: NDArray[np.float32] | None) -> KbRows:
        keys = project(outputs.embeddings, self.head).numpy()
        gold = np.full(len(split), -1)
        if outputs.gold is not None:
            gold = outputs.gold.numpy()
        elif split.labels is not None:
            gold = label_indices(split, self.labels)
        return KbRows(
            inputs=split.inputs(),
            logits=outputs.logits.numpy(),
            teacher_keys=keys,
            queries=keys if queries is None else queries,
            gold=gold,
        )
