"""The plots of a study as SVG, by matplotlib, which is asked for only here."""

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
_APART = 0.14  # of a row, so that spreads do not cover each other
_BLUE, _GREY, _LIGHT = "#1f5fa8", "#707070", "#c8c8c8"
# The same figures, the same bytes.
_SETTINGS: Any = {"svg.hashsalt": "reaugkd", "svg.fonttype": "none", "font.size": 9}


def draw(analysis: Analysis, out: Path) -> list[Path]:
    """Write OUT/retrieval.svg and, for each recipe, OUT/variants.RECIPE.svg; returns their paths.

    Raises:
        DependencyError: matplotlib is not installed.
        StorageError: the disk refused.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise DependencyError(
            "the plots need matplotlib",
            found=f"no module {error.name!r}",
            remedy="Install it: pip install 'reaugkd[plots]', then call the study again with --report-only.",
        ) from error
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # fonts it looks for, caches it builds
    recipes = list(analysis.plan.recipes)
    with matplotlib.rc_context(_SETTINGS):
        written = [_save(_retrieval(Figure, analysis, recipes), out / "retrieval.svg")]
        for recipe in recipes:
            written.append(_save(_variants(Figure, analysis, recipe), out / f"variants.{recipe}.svg"))
    return written


def _retrieval(figure_kind: Any, analysis: Analysis, recipes: Sequence[str]) -> Any:
    """Student and student with retrieval by recipe, a panel for each task: means and standard deviations over seeds."""
    figure, panels = _panels(figure_kind, [*analysis.tasks, AVERAGE], recipes)
    for task, panel in panels.items():
        for row, recipe in enumerate(recipes):
            for system, colour, shift in ((STUDENT, _GREY, -_APART), (BLEND, _BLUE, _APART)):
                one = analysis.spread(task, Who(recipe, system))
                if one is not None:
                    reach = 100 * (one.sd or 0.0)
                    panel.errorbar([100 * one.mean], [row + shift], xerr=[reach], fmt="o", color=colour, markersize=4)
        panel.set_title(_title(analysis, task))
        panel.set_xlabel("points")
    figure.suptitle(f"{STUDENT} (grey) and {BLEND} (blue): mean and standard deviation over seeds")
    return figure


def _variants(figure_kind: Any, analysis: Analysis, recipe: str) -> Any:
    """What each way of retrieving adds to a recipe's student, a panel for each task: value and interval over rows."""
    variants = ["", *(variant.name for variant in analysis.plan.variants)]
    figure, panels = _panels(figure_kind, [*analysis.tasks, AVERAGE], [name or OWN for name in variants])
    for task, panel in panels.items():
        panel.axvline(0, color=_LIGHT, linewidth=1)
        for row, variant in enumerate(variants):
            one = analysis.compare(task, Who(recipe, BLEND, variant), Who(recipe, STUDENT))
            if one is not None:
                low, high = one.over_rows or (one.value, one.value)
                # A percentile interval need not hold the value itself.
                panel.plot([100 * low, 100 * high], [row, row], color=_BLUE, linewidth=1)
                panel.plot([100 * one.value], [row], "o", color=_BLUE, markersize=4)
        panel.set_title(_title(analysis, task))
        panel.set_xlabel("points over the student alone")
    figure.suptitle(f"{recipe}: what retrieval adds, with the interval over rows")
    return figure


def _panels(figure_kind: Any, tasks: Sequence[str], rows: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """A figure with a panel for each task, side by side, and a line for each row, the first on top."""
    size = (1.5 + _PANEL_INCHES * len(tasks), 1.3 + _ROW_INCHES * len(rows))
    figure = figure_kind(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    for panel in axes:
        panel.grid(axis="x", color=_LIGHT, linewidth=0.4)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, dict(zip(tasks, axes, strict=True))


def _title(analysis: Analysis, task: str) -> str:
    return task if task == AVERAGE else f"{task} ({NAMES[analysis.metric_of(task)]})"


def _save(figure: Any, path: Path) -> Path:
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    return path
