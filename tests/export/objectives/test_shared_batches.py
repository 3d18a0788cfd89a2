"""Objectives in a distillation whose batches three processes share on the CPU, compared with one process."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from support.distillations import tiny_rows, tiny_targets
from support.sharing import BATCH_SIZE, CASES, EPOCHS, PERIOD, UNSHARED, run_all, shared_distillation
from support.tiny_models import same_states

from reaugkd.export.modeling.execution.tokens import epoch_batches

pytestmark = pytest.mark.slow

Everyone = list[dict[str, dict[str, Any]]]  # by process and case
NO_EFFECT = "attention.self.key.bias"  # adds the same to all scores of a softmax: its gradient is rounding alone


@pytest.fixture(scope="module")
def everyone(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Everyone:
    """What was found in each process."""
    return run_all(tiny_bert, tmp_path_factory.mktemp("sharing"))


@pytest.fixture(scope="module")
def batches(tiny_bert: Path) -> list[list[int]]:
    lengths = tiny_rows(tiny_bert).lengths()
    return [batch for epoch in range(EPOCHS) for batch in epoch_batches(lengths, BATCH_SIZE, 0, epoch)]


def flat(state: Any) -> list[Any]:
    """What containers hold, in order."""
    if isinstance(state, dict):
        return [item for key in state if NO_EFFECT not in str(key) for item in (key, *flat(state[key]))]
    return [item for part in state for item in flat(part)] if isinstance(state, list | tuple) else [state]


@pytest.mark.parametrize("case", CASES)
def test_all_end_with_the_same_student_and_the_same_beside_it(everyone: Everyone, case: str) -> None:
    """Then any may save it, and write the checkpoint."""
    first, *others = (found[case] for found in everyone)
    assert not same_states(first["student"], first["before"])
    for other in others:
        assert same_states(first["student"], other["student"])
        ours, theirs = flat(first["terms"]), flat(other["terms"])
        assert len(ours) == len(theirs)
        for one, two in zip(ours, theirs, strict=True):
            assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_student_of_one_process(everyone: Everyone, case: str, tiny_bert: Path, tmp_path: Path) -> None:
    alone = shared_distillation(tiny_bert, tmp_path, *CASES[case])
    for kind in ("student", "terms"):
        ours, theirs = flat(alone[kind]), flat(everyone[0][case][kind])
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            if isinstance(one, torch.Tensor):
                torch.testing.assert_close(other, one, atol=2e-4, rtol=0)
            else:
                assert one == other


def test_queues_hold_the_rows_of_all(everyone: Everyone, batches: list[list[int]]) -> None:
    order = [row for batch in batches for row in batch]
    queues = everyone[0]["compress_2q"]["terms"][0]["queues"]
    targets = tiny_targets()
    last = order[-len(targets.labels) :]  # an epoch: the queues are as long as there are rows
    assert queues["added"] == len(order)
    assert queues["rows"].tolist() == last
    assert torch.equal(queues["teacher"], targets.keys[last])


def test_the_scaffold_learns_on_the_rows_of_all(everyone: Everyone, batches: list[list[int]]) -> None:
    state = everyone[0]["disk"]["terms"][0]
    assert state["phase"] == 1
    assert [rows.tolist() for rows, _ in state["kept"]] == batches[PERIOD:]


def test_a_run_folder_that_is_not_shared_is_refused(everyone: Everyone) -> None:
    """By all, though the main process alone has written to its own."""
    for number, found in enumerate(everyone):
        assert "the run folder is not shared" in found[UNSHARED]["error"]
        assert socket.gethostname() in found[UNSHARED]["error"]
        assert found[UNSHARED]["exists"] is (number == 0)
