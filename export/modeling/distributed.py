"""Processes of a training and their devices (accelerate)."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import gather, pad_across_processes, parse_flag_from_env
from torch import Tensor


def _on_cpu() -> bool:
    """Whether to compute on the CPU; accelerate needs this flag if several processes share one CPU."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def processes() -> PartialState:
    """Return accelerate's state of this process, with its index and its ``device``."""
    return PartialState(cpu=_on_cpu())


def accelerator() -> Accelerator:
    """Make an accelerator that averages gradients over processes; the caller sets the precision."""
    # A recipe without a relational term leaves the projection without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(cpu=_on_cpu(), mixed_precision="no", kwargs_handlers=[unused])


def of_all_processes(rows: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Gather one step's batches of all processes, in the order of the processes.

    Args:
        rows: [n], row numbers, 0 or more; n may differ between processes.
        *values: tensors [n, ...] with values of the rows.

    Returns:
        ``rows`` and ``values`` of all processes, each [sum of n, ...].
    """
    if processes().num_processes == 1:
        return rows, *values
    # Shorter batches are padded with row -1.
    whole = [gather(pad_across_processes(value.contiguous(), pad_index=-1)) for value in (rows, *values)]
    return tuple(value[whole[0] >= 0] for value in whole)
