"""Training loop (accelerate). It can be resumed at any step, and the result does not depend on interruptions.

All randomness is a function of (seed, step): the order of rows comes from (seed, epoch), dropout from (seed, step,
process). So a checkpoint needs only weights, optimiser, schedule, step number and the state of the companion (queues,
a momentum copy, a helper network).

Several processes share each batch: a step has the same rows, and apart from dropout and rounding the same gradient,
for every number of processes. So a run may be resumed with another number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from ....errors import DistributedError, RecipeError
from ....kb.storage.atomic import atomic_write
from ...recipe import FitRecipe, Precision
from ..encoder import Detailed, EncoderClassifier, Outputs
from .distributed import accelerator, from_each, part_of
from .progress import progress
from .seeds import mix_seed
from .tokens import TokenRows, epoch_batches


class Forward(Protocol):
    """A model in a fit: it computes in the fit's precision on the fit's device, and returns float32."""

    def __call__(self, *, detailed: bool = False, **inputs: Any) -> Any:
        """Same as ``EncoderClassifier.forward``."""
        ...


@dataclass(frozen=True)
class Batch:
    """A batch that several processes share.

    Args:
        rows: [b], the row numbers of all processes, on the device.
        part: places of this process's rows in the batch.
        inputs: returns the tokenizer's outputs for the batch, each [b, tokens], on the device.
    """

    rows: Tensor
    part: slice
    inputs: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """One step of a fit.

    Args:
        number: number of the step, from 0.
        rows: [n], the row numbers of the batch, or of this process's part of it, on the device. If the batch has fewer
            rows than there are processes, a process without rows computes the last row, with number -1 and weight 0.
        inputs: the tokenizer's outputs for ``rows``, each [n, tokens], on the device.
        forward: the model being fitted, in training mode.
        batch: the whole batch if several processes share it, else None.
    """

    number: int
    rows: Tensor
    inputs: Mapping[str, Any]
    forward: Forward
    batch: Batch | None = None


Loss = Callable[[Step], Tensor]
"""Computes the loss of a step, a scalar: the mean over ``Step.rows``."""


class Companion(Protocol):
    """State that is updated with the model and saved in checkpoints: a momentum copy, a queue, a helper network."""

    def after_step(self) -> None:
        """Update the state; called after each step of the optimizer."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed fit needs: tensors, numbers and containers of them."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from ``state_dict``."""
        ...


@dataclass(frozen=True)
class FitJob:
    """The settings of one fit.

    Args:
        name: label of the progress bar.
        recipe: epochs, batch size, learning rates.
        seed: of all randomness in the fit.
        precision: see ``Recipe``.
        checkpoint: the file to resume from and to save to.
        checkpoint_seconds: seconds between two saves.
    """

    name: str
    recipe: FitRecipe
    seed: int
    precision: Precision
    checkpoint: Path
    checkpoint_seconds: float = 60.0


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether a fit computes in bf16; ``auto`` means bf16 if it is faster on the device.

    Emulated bf16 is slower. Intel's AVX-512 multiplies bf16 no faster than float32, and the casts cost time (0.72
    against 0.47 seconds per step); its AMX is faster. AMD's AVX-512 is twice as fast in bf16.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    avx512 = capabilities.get("avx512_bf16") and "Intel" not in str(capabilities.get("cpu_name", ""))
    return bool(avx512 or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def in_precision(model: nn.Module, precision: Precision, device: torch.device) -> Forward:
    """Wrap a model so that it computes in a fit's precision.

    Only the model runs in bf16. Losses depend on small differences of probabilities and are computed in float32.
    """
    bf16 = uses_bf16(precision, device)

    def forward(*, detailed: bool = False, **inputs: Any) -> Outputs | Detailed:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            found = model(detailed=detailed, **inputs)
        if isinstance(found, Detailed):
            return Detailed(
                found.logits.float(),
                found.embedding.float(),
                found.projection.float(),
                tuple(item.float() for item in found.attentions),
                None if found.general is None else found.general.float(),
            )
        return Outputs(found.logits.float(), found.embedding.float())

    return forward


def fit(model: EncoderClassifier, rows: TokenRows, loss: Loss, job: FitJob, companion: Companion | None = None) -> None:
    """Train a model in place with float32 master weights; afterwards it is in evaluation mode on the CPU.

    Rows of similar length are in one batch. Several processes (``accelerate launch``) share each batch.

    Args:
        model: the model.
        rows: the n rows.
        loss: computes the loss of a step.
        job: the settings.
        companion: state to update after each step and to save in checkpoints; None for none.

    Raises:
        RecipeError: the fit diverged; raised at the next checkpoint, or at the end.
        DistributedError: the processes see different checkpoints.
    """
    accelerate = accelerator()
    if job.recipe.freeze_word_embeddings:
        model.encoder.get_input_embeddings().weight.requires_grad_(False)
    loop = _Loop(accelerate, model, rows, loss, job, companion)
    start = loop.resume()
    with progress(job.name, loop.total, "step", done=start) as advance:
        for step in range(start, loop.total):
            loop.step(step)
            advance(1)
            loop.save_if_due(step + 1)
    loop.require_finite()
    model.to("cpu").eval()
    model.encoder.get_input_embeddings().weight.requires_grad_(True)


class _Loop:
    def __init__(
        self,
        accelerate: Accelerator,
        model: EncoderClassifier,
        rows: TokenRows,
        loss: Loss,
        job: FitJob,
        companion: Companion | None = None,
    ) -> None:
        self.accelerate, self.rows, self.loss, self.job = accelerate, rows, loss, job
        self.companion = companion
        self.bare = model
        self.lengths = rows.lengths()
        self.per_epoch = len(self._batches(0)) if len(rows) else 0
        self.total = self.per_epoch * job.recipe.epochs
        optimizer = torch.optim.AdamW(parameter_groups(model, job.recipe), fused=True)
        schedule = get_linear_schedule_with_warmup(optimizer, int(self.total * job.recipe.warmup), max(self.total, 1))
        self.model, self.optimizer = accelerate.prepare(model, optimizer)
        self.forward = in_precision(self.model, job.precision, accelerate.device)
        self.schedule = schedule
        self.saved_at = time.monotonic()
        self.finite = torch.ones((), dtype=torch.bool, device=accelerate.device)  # whether all losses were finite
        self.epoch = -1
        self.batches: list[list[int]] = []

    def _batches(self, epoch: int) -> list[list[int]]:
        return epoch_batches(self.lengths, self.job.recipe.batch_size, self.job.seed, epoch)

    def step(self, step: int) -> None:
        epoch, within = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch, self.batches = epoch, self._batches(epoch)
        batch = self.batches[within]
        torch.manual_seed(mix_seed(mix_seed(self.job.seed, step), self.accelerate.process_index))
        self.model.train()
        value = self._loss(step, batch)
        self.finite &= value.detach().isfinite()
        self.accelerate.backward(value)
        self.accelerate.clip_grad_norm_(self.model.parameters(), self.job.recipe.clip)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.companion is not None:
            self.companion.after_step()

    def _loss(self, step: int, batch: list[int]) -> Tensor:
        """Return the mean over the batch; of several processes, the terms of which it is the mean over processes."""
        device, number = self.accelerate.device, self.accelerate.num_processes
        part = part_of(len(batch))
        own = batch[part] or [-1]
        whole = None
        if number > 1:
            whole = Batch(torch.tensor(batch, device=device), part, lambda: self._inputs(batch))
        value = self.loss(Step(step, torch.tensor(own, device=device), self._inputs(own), self.forward, whole))
        return value.mul(len(batch[part]) * number / len(batch))

    def _inputs(self, rows: list[int]) -> dict[str, Tensor]:
        return {name: value.to(self.accelerate.device) for name, value in self.rows.batch(rows).items()}

    def resume(self) -> int:
        """Load the checkpoint if it exists; returns the step to resume from.

        Raises:
            DistributedError: the processes see different checkpoints.
        """
        steps = from_each(self._load())
        if len(set(steps)) > 1:
            raise DistributedError(
                "the processes see different checkpoints",
                path=self.job.checkpoint,
                found=f"steps {steps}",
                remedy="Wait until the shared file system shows all machines the same file, and start again.",
            )
        return steps[0]

    def _load(self) -> int:
        if not self.job.checkpoint.is_file():
            return 0
        state: dict[str, Any] = torch.load(self.job.checkpoint, map_location="cpu", weights_only=True)
        if state.get("processes", 1) > 1:
            return 0  # of version 0.1.0, in which each process had a batch of its own
        self.bare.load_state_dict(state["model"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.companion is not None:
            self.companion.load_state_dict(state["companion"])
        return int(state["step"])

    def save_if_due(self, step: int) -> None:
        due = time.monotonic() - self.saved_at >= self.job.checkpoint_seconds
        if not (due and self.accelerate.is_main_process):
            return
        self.require_finite()
        trained = {name for name, value in self.bare.named_parameters() if value.requires_grad}
        state = {
            "model": {name: value for name, value in self.bare.state_dict().items() if name in trained},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "companion": None if self.companion is None else self.companion.state_dict(),
            "step": step,
        }
        with atomic_write(self.job.checkpoint, "wb") as file:
            torch.save(state, file)
        self.saved_at = time.monotonic()

    def require_finite(self) -> None:
        trained = [value for value in self.bare.parameters() if value.requires_grad]
        require_converged(self.job.name, trained, self.finite)


def require_converged(name: str, weights: Iterable[Tensor], losses: Tensor | None = None) -> None:
    """Check that a fit has finite weights and losses.

    Weights that are not finite stay so, so an occasional check is enough; each check waits for the GPU.

    Args:
        name: of the fit.
        weights: the trained weights.
        losses: bool scalar, whether all losses were finite; None if unknown.

    Raises:
        RecipeError: a weight or a loss is not finite.
    """
    finite = [value.detach().isfinite().all() for value in weights]
    if not torch.stack(finite if losses is None else [*finite, losses]).all():
        raise RecipeError(
            f"the fit diverged: {name}",
            found="a loss or weights that are not finite",
            remedy="Lower its learning rates in the recipe. If other stages of the run are done, also give --redo.",
        )


def parameter_groups(model: EncoderClassifier, recipe: FitRecipe) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups: learning rates for encoder and heads, weight decay for matrices only."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            groups.setdefault((name.startswith("encoder."), value.ndim > 1), []).append(value)
    return [
        {
            "params": values,
            "lr": recipe.learning_rate if in_encoder else recipe.head_learning_rate,
            "weight_decay": recipe.weight_decay if matrix else 0.0,
        }
        for (in_encoder, matrix), values in groups.items()
    ]
