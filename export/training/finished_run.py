"""Read a finished run: rows, teacher outputs, student and query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...errors import ColumnError, UsageError
from ...runtime.data import Split, label_indices
from ..modeling.encoder import EncoderClassifier
from ..modeling.execution.inference import outputs_of
from ..modeling.execution.tokens import token_rows
from ..modeling.layer_query import with_layer_query
from ..modeling.projection import LinearLayer, project
from ..modeling.teacher import load_teacher
from ..recipe import Recipe, RetrievalRecipe
from ..recipe_file import recipe_from_dict
from ..tuning.build_kb import KbRows
from .run_folder import RunFolder, read_rows
from .teacher.file import TeacherFile
from .teacher.outputs import TeacherOutputs, load_outputs, require_keys


def require_model(run: RunFolder, description: Mapping[str, Any]) -> None:
    """Check that the teacher of a run is a model, which can answer other texts.

    Args:
        run: the run folder.
        description: the contents of its run.json.

    Raises:
        UsageError: the teacher is a file.
    """
    if "teacher_file" in description:
        raise UsageError(
            "the run's teacher is a file, which has no answers to other texts",
            path=run.path,
            found=f"teacher {description['teacher']}",
            remedy="Add the texts with their answers to the file and train again, or add them to the bundle: "
            "reaugkd export --kb-answers, or reaugkd kb add.",
        )


def run_teacher(run: RunFolder, description: Mapping[str, Any]) -> nn.Module:
    """Load the teacher of a run, a model; its outputs are in the order of the run's labels."""
    source = description["teacher"] if description["teacher_is_fine_tuned"] else run.teacher
    return load_teacher(source, recipe_from_dict(description["recipe"]).teacher, description["labels"])


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
        answers: the teacher's answers to extra rows, which it is then not asked for; None to ask it.
    """

    run: RunFolder
    description: dict[str, Any]
    train: Split
    heldout: Split
    outputs: dict[str, TeacherOutputs]
    head: LinearLayer
    answers: TeacherFile | None = None

    @classmethod
    def read(cls, run: RunFolder, answers: TeacherFile | None = None) -> FinishedRun:
        """Read a run; for ``answers`` see the class.

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
            answers=answers,
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
        require_model(self.run, self.description)
        return run_teacher(self.run, self.description)

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
            ColumnError: the answers are to single texts and the run's rows are pairs, or the reverse.
        """
        if not self.outputs["train"].embeddings.shape[1]:
            require_keys(recipe, self.run.path)
        if extra and self.answers is None:
            require_model(self.run, self.description)
        if self.answers is not None and (self.answers.split.pairs is None) != (self.train.pairs is None):
            kinds = ("pairs", "single texts")
            raise ColumnError(
                "the texts are of another kind than the run's",
                path=self.answers.split.source,
                found=kinds[self.answers.split.pairs is None],
                expected=kinds[self.train.pairs is None],
            )
        if self.answers is not None and self.answers.embeddings.shape[1] != self.outputs["train"].embeddings.shape[1]:
            require_keys(recipe, Path(self.answers.split.source))

    def of_train(self, queries: NDArray[np.float32] | None) -> KbRows:
        """Return the train rows; ``queries`` [n, d] are the student's embeddings, None for the teacher's keys."""
        return self._knowledge(self.train, self.outputs["train"], queries)

    def of_heldout(self, queries: NDArray[np.float32] | None) -> KbRows:
        """Return the held-out rows, which no teacher was fitted on; for ``queries`` see `of_train`."""
        return self._knowledge(self.heldout, self.outputs["heldout"], queries)

    def of_extra(self, split: Split, queries: NDArray[np.float32] | None) -> KbRows:
        """Label extra rows by the answers given, or with the run's teacher; their gold labels are not read."""
        unlabelled = Split(split.texts, split.pairs, None, split.source, split.rows)
        if self.answers is not None:
            return self._knowledge(unlabelled, self._answered(split), queries)
        teacher = self.teacher()
        rows = token_rows(self.run.teacher, split, teacher.encoder.config, self.recipe.max_length)  # type: ignore[union-attr]
        found = outputs_of(teacher, rows, "teacher on the extra rows")
        return self._knowledge(unlabelled, TeacherOutputs(found.logits, found.embedding), queries)

    def _answered(self, split: Split) -> TeacherOutputs:
        assert self.answers is not None
        places = self.answers.places(split)
        embeddings = torch.from_numpy(self.answers.embeddings[places])
        hidden = self.head.weight.shape[1]
        if embeddings.shape[1] != hidden:  # the teacher's keys are then not used, see `require`
            embeddings = torch.zeros(len(places), hidden)
        return TeacherOutputs(torch.from_numpy(self.answers.logits[places]), embeddings)

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
