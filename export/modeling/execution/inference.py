"""A model's outputs for all rows, by one process or several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from ....errors import ModelError
from ..encoder import Outputs
from .distributed import of_all_processes, processes
from .progress import progress
from .tokens import TokenRows, sorted_batches


@torch.inference_mode()
def outputs_of(model: nn.Module, rows: TokenRows, label: str, batch_size: int = 64) -> Outputs:
    """Compute logits [n, c] and embeddings [n, d] of all rows in float32, on the GPU if there is one.

    Several processes share the batches; all must call this, and all get all rows.

    Args:
        model: an EncoderClassifier or a FineTunedTeacher; in evaluation mode on the CPU afterwards.
        rows: the n rows.
        label: label of the progress bar.
        batch_size: rows per batch.

    Raises:
        ModelError: an output is not finite.
    """
    siblings = processes()
    device = siblings.device
    logits: list[Tensor] = [torch.empty(0)] * len(rows)
    embeddings = list(logits)
    batches = share(sorted_batches(rows.lengths(), batch_size), siblings.process_index, siblings.num_processes)
    with progress(label, sum(map(len, batches)), "row") as advance:
        for batch, result in answers_of(model, rows, batches, device):
            found = of_all_processes(torch.tensor(batch, device=device), result.logits, result.embedding)
            for row, logit, embedding in zip(*(values.cpu() for values in found), strict=True):
                logits[row], embeddings[row] = logit, embedding
            advance(len(batch))
    model.to("cpu")
    if not len(rows):
        return Outputs(torch.empty(0, 0), torch.empty(0, 0))
    return require_finite_outputs(Outputs(torch.stack(logits), torch.stack(embeddings)), label)


@torch.inference_mode()
def answers_of(
    model: nn.Module, rows: TokenRows, batches: Iterable[list[int]], device: torch.device
) -> Iterator[tuple[list[int], Outputs]]:
    """Yield batches of row numbers with the model's outputs for them, on a device where the model then stays."""
    model = model.to(device).eval()
    for batch in batches:
        yield batch, model(**{name: value.to(device) for name, value in rows.batch(batch).items()})


def require_finite_outputs(outputs: Outputs, label: str) -> Outputs:
    """Check that outputs are finite, and return them.

    Args:
        outputs: the outputs.
        label: what was computed, for the error.

    Raises:
        ModelError: an output is not finite.
    """
    if not all(values.isfinite().all() for values in outputs):
        raise ModelError(
            f"the model's outputs are not finite numbers: {label}",
            expected="finite logits and embeddings",
            remedy="Use another model, or lower the learning rates of its fit and give --redo.",
        )
    return outputs


def share(batches: list[list[int]], process: int, processes: int) -> list[list[int]]:
    """Return one process's batches of an inference; the first are repeated so that all processes have as many."""
    each = -(-len(batches) // processes)
    return [batches[(process + step * processes) % len(batches)] for step in range(each)]
