"""Projection head: a linear map of the frozen teacher's embeddings to keys.

It is fitted by supervised contrastive loss (ReAugKD, step 1; Zhang et al., ACL 2023) or by PCA (SEA; Srivastava et al.
2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...errors import RecipeError
from ..recipe import ProjectionRecipe
from .contrastive_loss import supervised_contrastive
from .execution.progress import progress
from .execution.seeds import mix_seed
from .execution.training_loop import require_converged

_FILE = "projection.safetensors"
_CHUNK = 8192


@dataclass(frozen=True)
class LinearLayer:
    """A linear map of the teacher's embeddings to the space of the keys.

    Args:
        weight: [d, hidden].
        bias: [d], or None.
    """

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Map embeddings [n, hidden] to [n, d], without normalisation."""
        found = embeddings @ self.weight.T
        return found if self.bias is None else found + self.bias

    def to(self, device: torch.device) -> LinearLayer:
        """Copy the map to a device."""
        return LinearLayer(self.weight.to(device), None if self.bias is None else self.bias.to(device))

    def save(self, folder: Path) -> None:
        """Write the map to a folder."""
        tensors = {"weight": self.weight} if self.bias is None else {"weight": self.weight, "bias": self.bias}
        save_file({name: value.contiguous() for name, value in tensors.items()}, str(folder / _FILE))

    @classmethod
    def load(cls, folder: Path) -> LinearLayer:
        """Read a map from a folder that ``save`` wrote to."""
        tensors = load_file(str(folder / _FILE))
        return cls(tensors["weight"], tensors.get("bias"))


def fit_projection(embeddings: Tensor, labels: Tensor, recipe: ProjectionRecipe, seed: int) -> LinearLayer:
    """Fit the head by the recipe's method.

    Args:
        embeddings: [n, hidden], the frozen teacher's embeddings.
        labels: [n], gold labels; PCA does not use them.
        recipe: method, dimension, temperature, epochs.
        seed: of the initial weights and the order of rows.

    Returns:
        The head [embedding_dim, hidden]; the keys are ``project(embeddings, head)``.

    Raises:
        RecipeError: PCA to more dimensions than the embeddings have, or the fit diverged.
    """
    if recipe.method == "pca":
        return fit_pca(embeddings, recipe.embedding_dim)
    torch.manual_seed(mix_seed(seed, 1))
    head = nn.Linear(embeddings.shape[1], recipe.embedding_dim, bias=False)
    nn.init.orthogonal_(head.weight)
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate)
    generator = torch.Generator().manual_seed(mix_seed(seed, 2))
    # Nearly equal batches of batch_size rows or more: rows of a small last batch would have few positives.
    parts = max(1, len(embeddings) // recipe.batch_size)
    with progress("projection head", recipe.epochs * parts, "step") as advance:
        for _ in range(recipe.epochs):
            for batch in torch.randperm(len(embeddings), generator=generator).tensor_split(parts):
                keys = normalize(head(embeddings[batch]), dim=-1)
                loss = supervised_contrastive(keys, labels[batch], recipe.temperature)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                advance(1)
    require_converged("projection head", [head.weight])
    return LinearLayer(head.weight.detach())


def fit_pca(embeddings: Tensor, dim: int, whitening: float = 0.0) -> LinearLayer:
    """Fit a head to the principal components of embeddings, scaled so that their mean squared length is 1.

    Computed in float64 on the CPU, so that every caller gets the same head. The largest entry of a component is
    positive. A component in which the embeddings differ only by rounding errors is a row of zeros.

    Args:
        embeddings: [n, hidden].
        dim: number of components.
        whitening: each component is divided by its standard deviation to this power: 0 keeps distances, 1 gives all
            components the same variance.

    Raises:
        RecipeError: ``dim`` is larger than hidden.
    """
    hidden = embeddings.shape[1]
    require_reducible(dim, hidden)
    mean, covariance = _moments(embeddings)
    variances, directions = torch.linalg.eigh(covariance)  # ascending
    variances, directions = variances.flip(0)[:dim], directions.flip(1)[:, :dim]
    rounding = torch.finfo(torch.float64).eps * hidden * (covariance.trace() + mean @ mean)
    real = variances > rounding
    signs = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True)).sign()
    shrink = torch.where(real, variances, 1.0).pow(-whitening / 2)
    total = (variances * shrink.square())[real].sum()
    scale = total.rsqrt() if total > 0 else 1.0
    weight = (directions * signs * real * shrink * scale).T
    bias = -(weight @ mean)
    return LinearLayer(weight.to(embeddings.dtype).contiguous(), bias.to(embeddings.dtype))


def require_reducible(dim: int, hidden: int) -> None:
    """Check that embeddings have enough components for PCA.

    Args:
        dim: number of components of a key.
        hidden: number of components of an embedding.

    Raises:
        RecipeError: ``dim`` is larger than ``hidden``.
    """
    if dim > hidden:
        raise RecipeError(
            "PCA cannot add dimensions to the teacher's embeddings",
            found=f"embedding_dim {dim}",
            expected=f"at most the teacher's {hidden}",
            remedy="Lower embedding_dim in the recipe's [projection].",
        )


def _moments(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean [hidden] and covariance [hidden, hidden] in float64, in chunks of rows to save memory."""
    parts, count = torch.split(embeddings, _CHUNK), max(len(embeddings), 1)
    mean = torch.zeros(embeddings.shape[1], dtype=torch.float64)
    for part in parts:
        mean += part.to("cpu", torch.float64).sum(dim=0) / count
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in parts:
        centred = part.to("cpu", torch.float64) - mean
        covariance += centred.T @ centred / count
    return mean, covariance


def project(embeddings: Tensor, head: LinearLayer) -> Tensor:
    """Compute keys [n, embedding_dim], L2-normalised, from embeddings [n, hidden]."""
    return normalize(head(embeddings), dim=-1)
