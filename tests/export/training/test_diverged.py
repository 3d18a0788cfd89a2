"""Fits that diverge: the error names the learning rate, and the stage does not count as done."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import tiny_models as tinymodels
from support.runs import QUICK
from torch import Tensor
from torch.nn.functional import cross_entropy

from reaugkd.errors import ModelError, RecipeError
from reaugkd.export.modeling.execution.inference import outputs_of
from reaugkd.export.modeling.execution.training_loop import FitJob, Step, fit
from reaugkd.export.modeling.projection import fit_projection
from reaugkd.export.recipe import ProjectionRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training.train import TrainJob, train
from reaugkd.runtime.data import Dataset

NOT_FINITE = re.escape("; found a loss or weights that are not finite. Lower its learning rates in the recipe")


@pytest.mark.parametrize(
    ("stage", "name"), [("teacher", "teacher"), ("student", "student"), ("projection", "projection head")]
)
def test_the_error_names_the_diverged_fit_and_a_lower_rate_resumes_the_run(
    small_dataset: Dataset, tiny_bert: Path, tmp_path: Path, stage: str, name: str
) -> None:
    path = f"{stage}__learning_rate" if stage == "projection" else f"{stage}__fit__learning_rate"
    job = TrainJob(str(tiny_bert), override(QUICK, **{path: 1e30}))
    for _ in range(2):
        with pytest.raises(RecipeError, match=f"the fit diverged: {name}{NOT_FINITE}"):
            train(small_dataset, job, tmp_path / "run")
        assert not (tmp_path / "run" / stage).exists()
    train(small_dataset, replace(job, recipe=QUICK, redo=True), tmp_path / "run")


def job_of(folder: Path, seconds: float, epochs: int) -> FitJob:
    return FitJob("test", tinymodels.fast_fit(epochs), 0, "fp32", folder / "c.pt", seconds)


@pytest.mark.parametrize(("seconds", "steps"), [(0.0, 2), (60.0, 4)], ids=["checkpoint", "end"])
@pytest.mark.parametrize("spoilt", ["loss", "weights"])
def test_divergence_is_reported_at_the_next_checkpoint_or_at_the_end(
    tiny_bert: Path, tmp_path: Path, spoilt: str, seconds: float, steps: int
) -> None:
    """What was saved before stays good."""
    rows = tinymodels.tokens_of(tinymodels.make_split(32, 5).inputs(), tiny_bert)
    labels = torch.arange(32) % 3
    model = tinymodels.tiny_student()
    seen: list[int] = []

    def loss(step: Step) -> Tensor:
        seen.append(step.number)
        value = cross_entropy(step.forward(**step.inputs).logits, labels[step.rows])
        if spoilt == "loss":
            return value if step.number != 1 else value.detach() * torch.inf + 0 * value
        if step.number == 1:
            with torch.no_grad():
                model.classifier.bias[0] = torch.nan
        return value

    with pytest.raises(RecipeError, match="the fit diverged: test"):
        fit(model, rows, loss, job_of(tmp_path, seconds, 2))
    assert len(seen) == steps
    if seconds == 0.0:
        saved = torch.load(tmp_path / "c.pt", weights_only=True)
        assert saved["step"] == 1 and all(value.isfinite().all() for value in saved["model"].values())


def test_a_projection_head_that_is_not_finite_is_refused() -> None:
    embeddings, labels = torch.randn(60, 32, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    fit_projection(embeddings, labels, ProjectionRecipe(embedding_dim=4, epochs=1), 0)
    with pytest.raises(RecipeError, match="the fit diverged: projection head"):
        fit_projection(embeddings, labels, ProjectionRecipe(embedding_dim=4, epochs=9, learning_rate=1e30), 0)


@pytest.mark.parametrize("head", ["classifier", "projection"])
def test_outputs_that_are_not_finite_are_refused(tiny_bert: Path, head: str) -> None:
    """Of a model from elsewhere, or of one whose last step alone was too long."""
    rows = tinymodels.tokens_of(["wake me", "rain"], tiny_bert)
    model = tinymodels.tiny_student()
    with torch.no_grad():
        getattr(model, head).weight[0] = torch.inf
    with pytest.raises(ModelError, match="outputs are not finite numbers: student on heldout; expected finite logits"):
        outputs_of(model, rows, "student on heldout")
