"""Processes of a training and their devices (accelerate)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object, pad_across_processes, parse_flag_from_env
from torch import Tensor

from ....errors import DistributedError, ReaugkdError

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others.

A killed process is noticed at once, because its connections close. This limit is for a machine that disappears, and for
computations between two exchanges that take longer on another machine.
"""

_T = TypeVar("_T")


def _on_cpu() -> bool:
    """Whether to compute on the CPU; accelerate needs this flag if several processes share one CPU."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def processes() -> PartialState:
    """Return accelerate's state of this process, with its index and its ``device``.

    The first call joins the processes. It must come before any function of accelerate, which would not know the CPU.
    """
    return PartialState(cpu=_on_cpu(), timeout=TIMEOUT)


def accelerator() -> Accelerator:
    """Make an accelerator that averages gradients over processes; the caller sets the precision."""
    processes()  # with its timeout
    # A recipe without a relational term leaves the projection without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(cpu=_on_cpu(), mixed_precision="no", kwargs_handlers=[unused])


def part_of(count: int) -> slice:
    """Return this process's part of a batch of ``count`` rows; the parts of all processes differ by one row at most."""
    siblings = processes()
    index, number = siblings.process_index, siblings.num_processes
    return slice(count * index // number, count * (index + 1) // number)


def of_all_processes(rows: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Gather the processes' parts of a batch, in the order of the processes.

    Args:
        rows: [n], row numbers; n may differ between processes. A negative one stands for no row.
        *values: tensors [n, ...] with values of the rows.

    Returns:
        ``rows`` and ``values`` of all processes, each [sum of n, ...].
    """
    if processes().num_processes == 1:
        return rows, *values
    # Shorter parts are padded with row -1.
    whole = [gather(pad_across_processes(value.contiguous(), pad_index=-1)) for value in (rows, *values)]
    return tuple(value[whole[0] >= 0] for value in whole)


def from_main(compute: Callable[[], _T]) -> _T:
    """Call a function in the main process alone, and return its result in all processes.

    Raises:
        ReaugkdError: the function raised it; all processes raise it.
    """
    found: list[Any] = [None, None]
    if processes().is_main_process:
        try:
            found[0] = compute()
        except ReaugkdError as error:
            found[1] = error
    result, refusal = broadcast_object_list(found)
    if refusal is not None:
        raise refusal
    return result  # type: ignore[no-any-return]


def from_each(value: _T) -> list[_T]:
    """Return the values of all processes, in the order of the processes."""
    if processes().num_processes == 1:
        return [value]
    found: list[_T] = gather_object([value])
    return found


@contextmanager
def lost_process() -> Iterator[None]:
    """Say so if the block fails because another process ended or does not answer.

    Raises:
        DistributedError: another process ended or does not answer.
        RuntimeError: any other error.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DistributedError(
            "another process of the training ended, or did not answer",
            found=re.sub(r"^\[[^]]*\] *", "", first),  # without gloo's source file
            remedy="Its own output says why. Start the same command again on all machines: it resumes the run.",
        ) from error
