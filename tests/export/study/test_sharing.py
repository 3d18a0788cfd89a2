"""Objectives in a distillation that two processes share on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.distillations import tiny_rows, tiny_targets
from support.sharing import CASES, EPOCHS, PERIOD, run_both
from support.tiny_models import fast_fit, same_states

from reaugkd.export.modeling.tokens import epoch_batches

pytestmark = pytest.mark.slow

Both = list[dict[str, dict[str, Any]]]  # by process and case


@pytest.fixture(scope="module")
def both(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """What was found in either process."""
    return run_both(tiny_bert, tmp_path_factory.mktemp("sharing"))


@pytest.fixture(scope="module")
def batches(tiny_bert: Path) -> list[tuple[list[int], list[int]]]:
    """The rows of the two processes, step by step: they take an epoch's batches in turn."""
    lengths, size = tiny_rows(tiny_bert).lengths(), fast_fit().batch_size
    epochs = [epoch_batches(lengths, size, 0, epoch) for epoch in range(EPOCHS)]
    return [(epoch[at], epoch[at + 1]) for epoch in epochs for at in range(0, len(epoch), 2)]


def flat(state: Any) -> list[Any]:
    """What containers hold, in order."""
    if isinstance(state, dict):
        return [item for key in state for item in (key, *flat(state[key]))]
    return [item for part in state for item in flat(part)] if isinstance(state, list | tuple) else [state]


@pytest.mark.parametrize("case", CASES)
def test_both_end_with_the_same_student_and_the_same_beside_it(both: Both, case: str) -> None:
    """Then either may save it, and write the checkpoint."""
    first, second = (found[case] for found in both)
    assert same_states(first["student"], second["student"])
    assert all(torch.isfinite(value).all() for value in first["student"].values())
    assert not same_states(first["student"], first["before"])
    ours, theirs = flat(first["terms"]), flat(second["terms"])
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_queues_hold_the_rows_of_both(both: Both, batches: list[tuple[list[int], list[int]]]) -> None:
    order = [row for step in batches for rows in step for row in rows]
    queues = both[0]["compress_2q"]["terms"][0]["queues"]
    targets = tiny_targets()
    last = order[-len(targets.labels) :]  # an epoch: the queues are as long as there are rows
    assert len({len(rows) for step in batches for rows in step}) > 1  # a shorter batch is filled up on its way
    assert queues["added"] == len(order)
    assert queues["rows"].tolist() == last
    assert torch.equal(queues["teacher"], targets.keys[last])
    torch.testing.assert_close(queues["student"].norm(dim=1), torch.ones(len(last)))


def test_the_scaffold_learns_on_the_rows_of_both(both: Both, batches: list[tuple[list[int], list[int]]]) -> None:
    state = both[0]["disk"]["terms"][0]
    assert state["phase"] == 1
    assert [rows.tolist() for rows, _ in state["kept"]] == [one + other for one, other in batches[PERIOD:]]
    assert all(logits.shape == (len(rows), 3) for rows, logits in state["kept"])


def test_each_mixes_its_rows_in_its_own_way(both: Both) -> None:
    first, second = (found["mixkd"]["shares"] for found in both)
    alike = [(one, other) for one, other in zip(first, second, strict=True) if len(one) == len(other)]
    assert alike and not any(torch.equal(one, other) for one, other in alike)
