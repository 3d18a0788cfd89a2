from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.decomposition import PCA
from support import tiny_models as tinymodels

from reaugkd.errors import RecipeError
from reaugkd.export.modeling.contrastive_loss import supervised_contrastive
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.projection import LinearLayer, fit_pca, fit_projection, project
from reaugkd.export.recipe import ProjectionRecipe

RECIPE = ProjectionRecipe(embedding_dim=6, epochs=15, batch_size=32, learning_rate=5e-3)


def make_embeddings(rows: int = 120, hidden: int = 20, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Rows whose class depends on a few directions, with noise in the others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    directions = torch.randn(classes, hidden, generator=generator)
    return directions[labels] + 1.5 * torch.randn(rows, hidden, generator=generator), labels


def loss_of(head: LinearLayer, embeddings: torch.Tensor, labels: torch.Tensor) -> float:
    return supervised_contrastive(project(embeddings, head), labels, RECIPE.temperature).item()


def test_keys_are_the_normalised_projections() -> None:
    embeddings, weight = torch.randn(5, 20), torch.randn(6, 20)
    keys = project(embeddings, LinearLayer(weight))
    expected = (embeddings.double() @ weight.double().T).numpy()
    expected = expected / (expected**2).sum(axis=1, keepdims=True) ** 0.5
    assert keys.shape == (5, 6)
    torch.testing.assert_close(keys.double(), torch.from_numpy(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(5))


def test_fitting_lowers_the_contrastive_loss_on_other_rows_too() -> None:
    embeddings, labels = make_embeddings(rows=240)
    train, other = slice(0, 120), slice(120, 240)
    start = fit_projection(embeddings[train], labels[train], ProjectionRecipe(embedding_dim=6, epochs=0), seed=0)
    fitted = fit_projection(embeddings[train], labels[train], RECIPE, seed=0)
    assert fitted.weight.shape == (6, 20) and not fitted.weight.requires_grad and fitted.bias is None
    assert loss_of(fitted, embeddings[train], labels[train]) < loss_of(start, embeddings[train], labels[train]) - 0.3
    assert loss_of(fitted, embeddings[other], labels[other]) < loss_of(start, embeddings[other], labels[other]) - 0.2
    # The effect comes from the labels: with random labels, classes do not move closer.
    mixed = labels[train][torch.randperm(120, generator=torch.Generator().manual_seed(1))]
    misled = fit_projection(embeddings[train], mixed, RECIPE, seed=0)
    assert loss_of(fitted, embeddings[other], labels[other]) < loss_of(misled, embeddings[other], labels[other]) - 0.5


def test_before_the_first_step_nothing_is_scaled() -> None:
    """Orthogonal rows: the first keys keep the teacher's angles as well as so few dimensions can."""
    embeddings, labels = make_embeddings()
    start = fit_projection(embeddings, labels, ProjectionRecipe(embedding_dim=6, epochs=0), seed=3).weight
    torch.testing.assert_close(start @ start.T, torch.eye(6), atol=1e-5, rtol=0)


def test_the_seed_decides_the_head() -> None:
    embeddings, labels = make_embeddings()
    first = fit_projection(embeddings, labels, RECIPE, seed=1).weight
    torch.rand(7)  # whatever was drawn before
    assert torch.equal(first, fit_projection(embeddings, labels, RECIPE, seed=1).weight)
    assert not torch.equal(first, fit_projection(embeddings, labels, RECIPE, seed=2).weight)


@pytest.mark.parametrize("rows", [1, 2, 3, 33, 65])
@pytest.mark.parametrize("one_class", [False, True])
def test_any_number_of_rows(rows: int, one_class: bool) -> None:
    embeddings, labels = make_embeddings(rows=rows)
    weight = fit_projection(embeddings, labels * 0 if one_class else labels, RECIPE, seed=0).weight
    assert torch.isfinite(weight).all()


def test_more_dimensions_than_the_teacher_has() -> None:
    embeddings, labels = make_embeddings(hidden=8)
    head = fit_projection(embeddings, labels, ProjectionRecipe(embedding_dim=12, epochs=2, batch_size=32), seed=0)
    assert head.weight.shape == (12, 8) and torch.isfinite(head.weight).all()


# By principal components.

BY_PCA = ProjectionRecipe(method="pca", embedding_dim=6)


@pytest.mark.parametrize(("rows", "hidden", "dim"), [(120, 20, 6), (30, 12, 12), (9000, 5, 2), (8, 20, 6)])
def test_pca_equals_sklearns_except_for_the_scale(rows: int, hidden: int, dim: int) -> None:
    embeddings = make_embeddings(rows, hidden)[0] + 10.0
    head = fit_projection(embeddings, torch.zeros(rows), ProjectionRecipe(method="pca", embedding_dim=dim), seed=0)
    expected = PCA(dim, svd_solver="full").fit(embeddings.double().numpy())
    scores = expected.transform(embeddings.double().numpy())
    found = head(embeddings).double().numpy()
    assert found.shape == (rows, dim)
    scale = np.sqrt((scores**2).sum(axis=1).mean())
    np.testing.assert_allclose(np.abs(found), np.abs(scores) / scale, atol=1e-4)
    assert (found**2).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-4)
    # The sign of a component depends on its largest entry, not on the eigensolver.
    weight = head.weight.numpy()
    assert (weight[np.arange(dim), np.abs(weight).argmax(axis=1)] > 0).all()
    keys = project(embeddings, head)
    np.testing.assert_allclose(keys.numpy(), found / np.linalg.norm(found, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("whitening", [0.0, 0.25, 0.5, 1.0])
def test_whitening_divides_by_a_power_of_the_standard_deviations(whitening: float) -> None:
    embeddings = make_embeddings()[0] + 10.0
    scores = PCA(6, svd_solver="full").fit_transform(embeddings.double().numpy())
    expected = scores / scores.std(axis=0) ** whitening
    expected /= np.sqrt((expected**2).sum(axis=1).mean())
    found = fit_pca(embeddings, 6, whitening)(embeddings).double().numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)
    widths = found.std(axis=0)
    assert np.allclose(widths, widths[0], atol=1e-4) is (whitening == 1.0)


def test_whitening_adds_nothing_to_directions_without_variance() -> None:
    head = fit_pca(make_embeddings(3)[0] + 100.0, 6, 1.0)
    assert head.weight.any(dim=1).tolist() == [True, True, *[False] * 4]
    assert torch.isfinite(head.weight).all()


def test_pca_does_not_look_at_labels_or_seed() -> None:
    embeddings, labels = make_embeddings()
    first, second = fit_projection(embeddings, labels, BY_PCA, 0), fit_projection(embeddings, labels * 0, BY_PCA, 7)
    assert torch.equal(first.weight, second.weight)
    assert first.bias is not None and second.bias is not None and torch.equal(first.bias, second.bias)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_directions_without_variance_are_left_out(rows: int) -> None:
    """n rows have n - 1 components; rounding errors add none."""
    embeddings = make_embeddings(rows)[0] + 100.0
    head = fit_projection(embeddings, torch.zeros(rows), BY_PCA, seed=0)
    assert head.bias is not None and torch.isfinite(head.bias).all()
    assert head.weight.any(dim=1).tolist() == [number < rows - 1 for number in range(6)]
    assert not head.bias[rows - 1 :].any()


@pytest.mark.parametrize("rows", [3, 1000])
def test_equal_rows_have_no_components(rows: int) -> None:
    embeddings = make_embeddings(1)[0].expand(rows, -1) / 3
    head = fit_projection(embeddings, torch.zeros(rows), BY_PCA, seed=0)
    assert not head.weight.any() and not project(embeddings, head).any()


def test_pca_adds_no_dimensions() -> None:
    embeddings, labels = make_embeddings(hidden=5)
    with pytest.raises(RecipeError, match="at most the teacher's 5"):
        fit_projection(embeddings, labels, BY_PCA, seed=0)


def test_a_head_is_saved_and_loaded(tmp_path: Path) -> None:
    for number, head in enumerate((fit_pca(make_embeddings()[0], 6), LinearLayer(torch.randn(20, 6).T))):
        folder = tmp_path / str(number)
        folder.mkdir()
        head.save(folder)
        again = LinearLayer.load(folder)
        assert torch.equal(again.weight, head.weight)
        assert (again.bias is None) is (head.bias is None)
        assert head.bias is None or (again.bias is not None and torch.equal(again.bias, head.bias))


def test_older_files_without_a_bias(tmp_path: Path) -> None:
    weight = torch.randn(6, 20)
    save_file({"weight": weight}, str(tmp_path / "projection.safetensors"))
    head = LinearLayer.load(tmp_path)
    assert torch.equal(head.weight, weight) and head.bias is None
    student = tinymodels.tiny_student()
    student.save(tmp_path)
    heads = json.loads((tmp_path / "heads.json").read_text())
    assert heads.pop("projection_bias") is False
    (tmp_path / "heads.json").write_text(json.dumps(heads))
    again = EncoderClassifier.load(tmp_path)
    assert again.head == student.head and tinymodels.same_states(again.state_dict(), student.state_dict())
