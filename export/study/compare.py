"""Compare any two systems of a study, on one task or on average over all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...runtime.evaluation.bootstrap import Interval
from ...runtime.evaluation.metrics import Floats
from ...runtime.evaluation.results import BLEND, RETRIEVAL, STUDENT, STUDENT_FP32, TEACHER
from .plan import Plan
from .results import Found, SystemResult
from .statistics import RowTest, SeedTest, Spread, difference_interval, resampled, row_test, seed_test, spread
from .toml_checks import AVERAGE

__all__ = ["BLEND", "MAIN", "RETRIEVAL", "STUDENT", "STUDENT_FP32", "TEACHER", "Analysis", "SystemComparison", "Who"]

MAIN = "main"
"""Name that stands for the main metric of each task."""


class Who(NamedTuple):
    """A system of a recipe with a retrieval variant; an empty variant is the recipe's own retrieval."""

    recipe: str
    system: str
    variant: str = ""


@dataclass(frozen=True)
class SystemComparison:
    """Difference of a metric between two systems, ``first`` minus ``second``, with its tests.

    Attributes:
        task: its name, or ``AVERAGE``.
        first: a system.
        second: the system it is compared with.
        metric: the compared metric, or ``MAIN``.
        value: mean over the common seeds; for ``AVERAGE`` the mean of the tasks' values.
        missing: number of planned seeds that are missing; for ``AVERAGE`` of all tasks together.
        over_seeds: test over the seeds; for ``AVERAGE`` of the tasks' mean at each seed that all tasks have.
        over_rows: paired bootstrap interval; None if the metric cannot be resampled or the rows differ.
        predictions: test over rows of the predictions that only one of the two has right; None for ``AVERAGE``.
    """

    task: str
    first: Who
    second: Who
    metric: str
    value: float
    missing: int
    over_seeds: SeedTest | None
    over_rows: Interval | None
    predictions: RowTest | None


class Analysis:
    """Means and differences of a study's finished cells.

    Args:
        plan: the study.
        found: its finished cells.
    """

    def __init__(self, plan: Plan, found: Found) -> None:
        self.plan, self.found = plan, found
        self._metrics = {task.name: task.metric for task in plan.tasks}
        self._seeds = {task.name: len(task.seeds) for task in plan.tasks}
        self._draws: dict[tuple[str, str], dict[tuple[Who, int], Floats]] = {}

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of the study."""
        return list(self._metrics)

    def metric_of(self, task: str, metric: str = MAIN) -> str:
        """Name of the metric in the results; ``MAIN`` stands for the task's own."""
        return self._metrics[task] if metric == MAIN else metric

    def values(self, task: str, who: Who, metric: str = MAIN) -> dict[int, float]:
        """Return the metric at each seed that has it."""
        found = {seed: one.metric(self.metric_of(task, metric)) for seed, one in self._results(task, who).items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def spread(self, task: str, who: Who, metric: str = MAIN) -> Spread | None:
        """Mean and spread over the seeds; for ``AVERAGE`` the mean of the tasks' means, None if a task has none."""
        if task == AVERAGE:
            spreads = [one for name in self.tasks if (one := self.spread(name, who, metric)) is not None]
            if len(spreads) < len(self.tasks):
                return None
            return Spread(min(one.n for one in spreads), float(np.mean([one.mean for one in spreads])), None)
        values = self.values(task, who, metric)
        return spread(list(values.values())) if values else None

    def compare(self, task: str, first: Who, second: Who, metric: str = MAIN) -> SystemComparison | None:
        """Compare two systems; None if no seed has both, or for ``AVERAGE`` if a task has no such seed."""
        if task == AVERAGE:
            return self._average(first, second, metric)
        differences = self._differences(task, first, second, metric)
        if not differences:
            return None
        seeds = list(differences)
        draws = [self._paired_draws(task, who, seeds, metric) for who in (first, second)]
        interval = difference_interval(draws[0], draws[1]) if draws[0] and draws[1] else None
        results = [self._results(task, who) for who in (first, second)]
        test = seed_test(list(differences.values()))
        tested = row_test([(results[0][seed], results[1][seed]) for seed in seeds])
        missing = self._seeds[task] - len(differences)
        return SystemComparison(task, first, second, metric, test.mean, missing, test, interval, tested)

    def _average(self, first: Who, second: Who, metric: str) -> SystemComparison | None:
        by_task = {task: self._differences(task, first, second, metric) for task in self.tasks}
        if not all(by_task.values()):
            return None
        value = float(np.mean([np.mean(list(values.values())) for values in by_task.values()]))
        common = sorted(set.intersection(*(set(values) for values in by_task.values())))
        test = (
            seed_test([float(np.mean([values[seed] for values in by_task.values()])) for seed in common])
            if common
            else None
        )
        draws = [
            [self._paired_draws(task, who, list(seeds), metric) for task, seeds in by_task.items()]
            for who in (first, second)
        ]
        interval = None
        if all(map(all, draws)):
            interval = difference_interval(*([np.mean(part, axis=0) for part in parts] for parts in draws))
        missing = sum(self._seeds[task] - len(values) for task, values in by_task.items())
        return SystemComparison(AVERAGE, first, second, metric, value, missing, test, interval, None)

    def _differences(self, task: str, first: Who, second: Who, metric: str) -> dict[int, float]:
        ones, others = (self.values(task, who, metric) for who in (first, second))
        return {seed: ones[seed] - others[seed] for seed in sorted(ones.keys() & others.keys())}

    def _results(self, task: str, who: Who) -> dict[int, SystemResult]:
        found = {
            seed: cell.find(who.system, who.variant)
            for (name, recipe, seed), cell in self.found.items()
            if (name, recipe) == (task, who.recipe)
        }
        return {seed: one for seed, one in found.items() if one is not None}

    def _paired_draws(self, task: str, who: Who, seeds: Sequence[int], metric: str) -> list[Floats]:
        """Return the metric's resampled values at each of the seeds; empty if a seed has none."""
        drawn = self._resampled(task, self.metric_of(task, metric))
        draws = [drawn.get((who, seed)) for seed in seeds]
        return [one for one in draws if one is not None] if all(one is not None for one in draws) else []

    def _resampled(self, task: str, metric: str) -> dict[tuple[Who, int], Floats]:
        if (task, metric) not in self._draws:
            systems = {
                (Who(recipe, one.system, one.variant), seed): one
                for (name, recipe, seed), cell in self.found.items()
                if name == task
                for one in cell.systems
            }
            teachers = {key: self.found[task, key[0].recipe, key[1]].find(TEACHER) for key in systems}
            self._draws[task, metric] = resampled(task, systems, teachers, metric)
        return self._draws[task, metric]
