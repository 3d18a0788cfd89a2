"""What tests of jobs share."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import pytest
from support.batch_jobs import texts

from reaugkd.batch.engines.task import Settings


@pytest.fixture(scope="module")
def rows() -> list[str]:
    return texts(130)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the parts in this process, by two workers in turn: processes take a second to start."""

    def run(settings: Settings, parts: list[int], _workers: int, advance: Any, rows_of: Any) -> dict[int, str]:
        with ExitStack() as stack:
            pair = [stack.enter_context(closing(settings.open())) for _ in range(2)]
            for number in parts:
                pair[number % 2].do(number, lambda rows: None)
                advance(rows_of(number))
        return {}

    monkeypatch.setattr("reaugkd.batch.engines.engine.run_local", run)
