"""Plots of a study as SVG. Only this module imports matplotlib, when it draws."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import DependencyError
from ...kb.storage.atomic import atomic_write
from .compare import BLEND, STUDENT, Analysis, Who
from .tables import NAMES, OWN
from .toml_checks import AVERAGE

_ROW_INCHES, _PANEL_INCHES = 0.28, 2.6
_APART = 0.14  # vertical offset as a share of a row, so that error bars do not overlap
_BLUE, _GREY, _LIGHT = "#1f5fa8", "#707070", "#c8c8c8"
# Fixed, so that the same results give the same bytes.
_SETTINGS: Any = {"svg.hashsalt": "reaugkd", "svg.fonttype": "none", "font.size": 9}


def draw(analysis: Analysis, out: Path) -> list[Path]:
    """Write OUT/retrieval.svg and, for each recipe, OUT/variants.RECIPE.svg; returns their paths.

    Raises:
        DependencyError: matplotlib is not installed.
        StorageError: a file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise DependencyError(
            "the plots need matplotlib",
            found=f"no module {error.name!r}",
            remedy="Install it: pip install 'reaugkd[plots]', then run the study again with --report-only.",
        ) from error
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # hide its messages about fonts and caches
    recipes = list(analysis.plan.recipes)
    with matplotlib.rc_context(_SETTINGS):
        written = [_save(_retrieval(Figure, analysis, recipes), out / "retrieval.svg")]
        for recipe in recipes:
            written.append(_save(_variants(Figure, analysis, recipe), out / f"variants.{recipe}.svg"))
    return written


def spreads(analysis: Analysis, task: str, system: str) -> dict[str, tuple[float, float, float]]:
    """The mean of a system over the seeds, and one standard deviation below and above, by recipe."""
    found = {recipe: analysis.spread(task, Who(recipe, system)) for recipe in analysis.plan.recipes}
    return {
        recipe: (one.mean, one.mean - (one.sd or 0.0), one.mean + (one.sd or 0.0))
        for recipe, one in found.items()
        if one is not None
    }


def gains(analysis: Analysis, task: str, recipe: str) -> dict[str, tuple[float, float, float]]:
    """The gain of each retrieval variant over a recipe's student, with its interval over rows."""
    found = {}
    for variant in ("", *(variant.name for variant in analysis.plan.variants)):
        one = analysis.compare(task, Who(recipe, BLEND, variant), Who(recipe, STUDENT))
        if one is not None:
            found[variant or OWN] = (one.value, *(one.over_rows or (one.value, one.value)))
    return found


def _retrieval(figure_kind: Any, analysis: Analysis, recipes: Sequence[str]) -> Any:
    """Draw student and student with retrieval by recipe, one panel a task: mean and standard deviation over seeds."""
    figure, panels = _panels(figure_kind, [*analysis.tasks, AVERAGE], recipes)
    for task, panel in panels.items():
        for system, colour, offset in ((STUDENT, _GREY, -_APART), (BLEND, _BLUE, _APART)):
            for recipe, (mean, low, _) in spreads(analysis, task, system).items():
                reach, row = 100 * (mean - low), recipes.index(recipe)
                panel.errorbar([100 * mean], [row + offset], xerr=[reach], fmt="o", color=colour, markersize=4)
        panel.set_title(title(analysis, task))
        panel.set_xlabel("points")
    figure.suptitle(f"{STUDENT} (grey) and {BLEND} (blue): mean and standard deviation over seeds")
    return figure


def _variants(figure_kind: Any, analysis: Analysis, recipe: str) -> Any:
    """Draw the gain of each retrieval variant over a recipe's student, one panel a task: value and row interval."""
    variants = [OWN, *(variant.name for variant in analysis.plan.variants)]
    figure, panels = _panels(figure_kind, [*analysis.tasks, AVERAGE], variants)
    for task, panel in panels.items():
        panel.axvline(0, color=_LIGHT, linewidth=1)
        for variant, (value, low, high) in gains(analysis, task, recipe).items():
            row = variants.index(variant)
            # A percentile interval does not always contain the value.
            panel.plot([100 * low, 100 * high], [row, row], color=_BLUE, linewidth=1)
            panel.plot([100 * value], [row], "o", color=_BLUE, markersize=4)
        panel.set_title(title(analysis, task))
        panel.set_xlabel("points over the student alone")
    figure.suptitle(f"{recipe}: gain of retrieval, with the interval over rows")
    return figure


def _panels(figure_kind: Any, tasks: Sequence[str], rows: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Return a figure with one panel a task, side by side; the first row is on top."""
    size = (1.5 + _PANEL_INCHES * len(tasks), 1.3 + _ROW_INCHES * len(rows))
    figure = figure_kind(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    for panel in axes:
        panel.grid(axis="x", color=_LIGHT, linewidth=0.4)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, dict(zip(tasks, axes, strict=True))


def title(analysis: Analysis, task: str) -> str:
    """The title of a task's panel."""
    return task if task == AVERAGE else f"{task} ({NAMES[analysis.metric_of(task)]})"


def _save(figure: Any, path: Path) -> Path:
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    return path
