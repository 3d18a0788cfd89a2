"""The processes a training runs in, one or several, and the device each computes on (accelerate)."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import parse_flag_from_env


def _on_cpu() -> bool:
    """Whether to compute on the CPU; unless told so, accelerate does not let several processes share one."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def processes() -> PartialState:
    """This process among its siblings; ``device`` is where it computes."""
    return PartialState(cpu=_on_cpu())


def accelerator() -> Accelerator:
    """Wraps a model for its siblings' gradients; precision is the caller's own business."""
    # A recipe without a relational term leaves the projection without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(cpu=_on_cpu(), mixed_precision="no", kwargs_handlers=[unused])
