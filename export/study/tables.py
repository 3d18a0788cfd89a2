"""Tables of a study as Markdown: means, differences to the baseline, gain of retrieval, fidelity, tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...runtime.evaluation.bootstrap import Interval
from ...runtime.evaluation.metrics import METRICS
from ...runtime.evaluation.results import MEANING, TYPOS
from .compare import BLEND, MAIN, RETRIEVAL, STUDENT, STUDENT_FP32, TEACHER, Analysis, SystemComparison, Who
from .plan import KB_REST
from .results import metric_on
from .statistics import CONFIDENCE, RESAMPLES, Spread
from .toml_checks import AVERAGE

TYPOS_ACCURACY, TYPOS_AGREEMENT = metric_on(TYPOS, "accuracy"), metric_on(TYPOS, "teacher_agreement")
HELDOUT = "heldout_nll_blend"
NAMES = {
    **{name: metric.title for name, metric in METRICS.items()},
    TYPOS_ACCURACY: "accuracy on rows with typing errors",
    TYPOS_AGREEMENT: "agreement with the teacher on rows with typing errors",
    "out_of_domain": "nearest-neighbour accuracy of the embeddings on another data set",
}
ADDED = (MAIN, "nll", "ece", "teacher_agreement")
"""Metrics in the tables of retrieval's gain."""

FIDELITY = ("teacher_agreement", "teacher_kl", "ece")
"""Metrics in the fidelity table; other tables have accuracy and NLL."""

OWN = "the recipe's own"
_NONE = "-"
_IN_NATS = (*(name for name, metric in METRICS.items() if metric.unit == "nats"), HELDOUT)


class MarkdownTable(str):
    """A table as Markdown, with its cells for other forms.

    Attributes:
        header: titles of the columns.
        rows: the cells of each row.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """A section of the report: its title, and its paragraphs and tables."""

    title: str
    parts: Sequence[str]


def summary(analysis: Analysis) -> str:
    """Format the main tables as Markdown."""
    return _formatted(["# Study", facts(analysis)], main_sections(analysis))


def report(analysis: Analysis) -> str:
    """Format every table of the study as Markdown."""
    return _formatted(["# Study", facts(analysis)], [*main_sections(analysis), *more_sections(analysis)])


def _formatted(parts: Sequence[str], sections: Sequence[Section]) -> str:
    written = (f"## {section.title}\n\n" + "\n\n".join(section.parts) for section in sections)
    return "\n\n".join([*parts, *written]) + "\n"


def facts(analysis: Analysis) -> str:
    """What was compared, and the units of the tables."""
    done, planned = len(analysis.found), len(analysis.plan.cells())
    said = [f"{done} of {planned} cells", f"baseline {analysis.plan.baseline}", f"teacher {analysis.plan.teacher}"]
    units = "Accuracy, MCC, ECE and agreement in points; NLL in nats; mean ± standard deviation over the seeds."
    return f"{'; '.join(said)}. {units}"


def main_sections(analysis: Analysis) -> list[Section]:
    """Means, differences to the baseline, and the gain of retrieval."""
    intervals = (
        f"In brackets the {CONFIDENCE:.0%} interval over rows: paired bootstrap, {RESAMPLES:,} resamples, the same "
        "rows for all seeds."
    )
    gain = f"{BLEND} minus {STUDENT}, the same student; {AVERAGE} over the tasks."
    return [
        Section("Means", [means(analysis)]),
        Section("Differences to the baseline", [intervals, differences(analysis)]),
        Section("Gain of each retrieval variant over the student alone", [gain, added_on_average(analysis)]),
    ]


def more_sections(analysis: Analysis) -> list[Section]:
    """The gain by task, fidelity, further means, the held-out NLL and the tests."""
    by_task = "Gain of each retrieval variant by task"
    named = {metric: NAMES.get(metric, "the task's metric") for metric in ADDED}
    sections = [Section(f"{by_task}: {name}", [added(analysis, metric)]) for metric, name in named.items()]
    if _is_measured(analysis, TYPOS_ACCURACY):
        sections.append(Section(f"{by_task}: {NAMES[TYPOS_ACCURACY]}", [added(analysis, TYPOS_ACCURACY)]))
    sections.append(Section("Fidelity to the teacher", fidelity(analysis)))
    for metric in (TYPOS_ACCURACY, TYPOS_AGREEMENT, "out_of_domain"):
        if _is_measured(analysis, metric):
            sections.append(Section(f"Means: {NAMES[metric]}", [means(analysis, metric)]))
    if _is_measured(analysis, HELDOUT):
        note = (
            f"NLL of {BLEND} on the held-out rows. Choose between recipes by this table, not by the scored rows. The "
            "blend was tuned on these rows, so its NLL is too low by a few thousandths. "
            "Ignore smaller differences."
        )
        sections.append(Section("Held-out NLL", [note, heldout(analysis)]))
    note = (
        f"Over seeds: the mean difference at the same seed, its {CONFIDENCE:.0%} interval by the t distribution, and "
        "the p-values of the t test and of the sign-flip test. Over rows: the bootstrap interval; the number of "
        "predictions, of all seeds together, that only the first and only the second system has right, and the p-value "
        "of the exact sign-flip test over rows (with one seed, McNemar's test). The average over seeds uses only the "
        "seeds that all tasks have, so it can differ from the average in the tables above."
    )
    return [*sections, Section("Tests", [note, tests(analysis)])]


def _is_measured(analysis: Analysis, metric: str) -> bool:
    return any(one.metric(metric) is not None for cell in analysis.found.values() for one in cell.systems)


def means(analysis: Analysis, metric: str = MAIN) -> str:
    """Format a metric of teacher, student and student with retrieval by recipe and task, without empty rows."""
    systems = [Who(analysis.plan.baseline, TEACHER)]
    own = (STUDENT, BLEND) if metric == MAIN else (STUDENT_FP32, STUDENT, BLEND)
    systems += [Who(recipe, system) for recipe in analysis.plan.recipes for system in own]
    rows = []
    for who in systems:
        cells = [
            spread_cell(analysis.spread(task, who, metric), analysis.metric_of(task, metric), len(seeds))
            for task, seeds in ((task.name, task.seeds) for task in analysis.plan.tasks)
        ]
        if metric != MAIN and all(cell == _NONE for cell in cells):
            continue
        average = analysis.spread(AVERAGE, who, metric)
        last = _NONE if average is None else number(average.mean, "accuracy" if metric == MAIN else metric)
        rows.append([_NONE if who.system == TEACHER else who.recipe, who.system, *cells, last])
    return markdown(["recipe", "system", *_task_headings(analysis, metric), AVERAGE], rows)


def heldout(analysis: Analysis) -> str:
    """Format the held-out NLL of the blend by recipe and task, with the average's difference from the baseline."""
    rows = []
    for recipe in analysis.plan.recipes:
        blend, baseline = Who(recipe, BLEND), Who(analysis.plan.baseline, BLEND)
        tasks = (
            spread_cell(analysis.spread(task.name, blend, HELDOUT), HELDOUT, len(task.seeds))
            for task in analysis.plan.tasks
        )
        compared = None if blend == baseline else analysis.compare(AVERAGE, blend, baseline, HELDOUT)
        average = _average_cell(analysis, blend, HELDOUT, HELDOUT)
        rows.append([recipe, *tasks, average, difference_cell(compared, analysis)])
    return markdown(["recipe", *_task_headings(analysis, HELDOUT), AVERAGE, "minus the baseline"], rows)


def fidelity(analysis: Analysis) -> tuple[str, str]:
    """Format agreement with the teacher, KL and calibration by system and kind of rows; returns a note and a table."""
    columns = [(kind, name) for name in FIDELITY for kind in MEANING if _is_measured(analysis, metric_on(kind, name))]
    rows = []
    for variant, who in _fidelity_systems(analysis):
        cells = [_average_cell(analysis, who, metric_on(kind, metric), metric) for kind, metric in columns]
        if any(cell != _NONE for cell in cells):
            rows.append([_NONE if who.system == TEACHER else who.recipe, who.system, variant, *cells])
    header = ["recipe", "system", "retrieval", *(f"{NAMES[metric]}, {kind}" for kind, metric in columns)]
    meaning = "; ".join(f"{kind}, {meant}" for kind, meant in MEANING.items() if kind in dict(columns))
    note = f"Mean of the tasks' means; KL(teacher || system) in nats. Rows: {meaning}."
    return note, markdown(header, rows)


def _fidelity_systems(analysis: Analysis) -> Iterator[tuple[str, Who]]:
    """Yield the variant and the system: teacher, students, neighbours alone of the recipe's own retrieval, blends."""
    yield _NONE, Who(analysis.plan.baseline, TEACHER)
    for recipe in analysis.plan.recipes:
        yield _NONE, Who(recipe, STUDENT)
        yield OWN, Who(recipe, RETRIEVAL)
        yield from ((name, blend) for name, blend, _ in retrieval_pairs(analysis) if blend.recipe == recipe)


def _average_cell(analysis: Analysis, who: Who, metric: str, unit: str) -> str:
    """Format the mean of the tasks' means and the number of missing seeds; a dash if a task has no value."""
    spread = analysis.spread(AVERAGE, who, metric)
    if spread is None:
        return _NONE
    missing = sum(len(task.seeds) - len(analysis.values(task.name, who, metric)) for task in analysis.plan.tasks)
    return number(spread.mean, unit) + _missing_seeds(missing)


def _missing_seeds(count: int) -> str:
    return f" ({count} seed{'s' * (count > 1)} missing)" if count else ""


def differences(analysis: Analysis) -> str:
    """Format each recipe's difference to the baseline by task."""
    rows = []
    for name, first, second in baseline_pairs(analysis):
        compared = (analysis.compare(task, first, second) for task in [*analysis.tasks, AVERAGE])
        rows.append([first.recipe, name, *(difference_cell(one, analysis) for one in compared)])
    return markdown(["recipe", "minus the baseline", *_task_headings(analysis), AVERAGE], rows)


def baseline_pairs(analysis: Analysis) -> Iterator[tuple[str, Who, Who]]:
    """Yield the comparisons with the baseline: description, first system, the baseline's system."""
    baseline = analysis.plan.baseline
    for recipe in analysis.plan.recipes:
        if recipe != baseline:
            yield "student alone", Who(recipe, STUDENT), Who(baseline, STUDENT)
            yield "both with retrieval", Who(recipe, BLEND), Who(baseline, BLEND)
        yield "with retrieval, baseline without", Who(recipe, BLEND), Who(baseline, STUDENT)


def retrieval_pairs(analysis: Analysis) -> Iterator[tuple[str, Who, Who]]:
    """Yield all retrieval variants: name, blend, and student alone of the same recipe."""
    for recipe in analysis.plan.recipes:
        more = [KB_REST] if any(task.kb_rest for task in analysis.plan.tasks) else []
        for variant in ("", *(variant.name for variant in analysis.plan.variants), *more):
            yield variant or OWN, Who(recipe, BLEND, variant), Who(recipe, STUDENT)


def added_on_average(analysis: Analysis) -> str:
    """Format the gain of each retrieval variant by metric, averaged over the tasks."""
    rows = []
    for variant, first, second in retrieval_pairs(analysis):
        compared = (analysis.compare(AVERAGE, first, second, metric) for metric in ADDED)
        rows.append([first.recipe, variant, *(difference_cell(one, analysis) for one in compared)])
    return markdown(["recipe", "retrieval", *(NAMES.get(metric, "metric") for metric in ADDED)], rows)


def added(analysis: Analysis, metric: str) -> str:
    """Format the gain of each retrieval variant by task, for one metric."""
    rows = []
    for variant, first, second in retrieval_pairs(analysis):
        compared = (analysis.compare(task, first, second, metric) for task in [*analysis.tasks, AVERAGE])
        rows.append([first.recipe, variant, *(difference_cell(one, analysis) for one in compared)])
    return markdown(["recipe", "retrieval", *_task_headings(analysis), AVERAGE], rows)


def tests(analysis: Analysis) -> str:
    """Format every test: recipes against the baseline, retrieval against the student alone."""
    header = ["recipe", "comparison", "task", "seeds", "over seeds", "interval", "t p", "flip p"]
    header += ["interval over rows", "predictions", "p"]
    retrieval = [
        (f"retrieval ({name}) over the student", first, second) for name, first, second in retrieval_pairs(analysis)
    ]
    pairs = [(f"{name}, over the baseline", first, second) for name, first, second in baseline_pairs(analysis)]
    rows = []
    for name, first, second in [*pairs, *retrieval]:
        for task in [*analysis.tasks, AVERAGE]:
            compared = analysis.compare(task, first, second)
            if compared is not None:
                rows.append([first.recipe, name, task, *_test_cells(compared, analysis)])
    return markdown(header, rows)


def _test_cells(compared: SystemComparison, analysis: Analysis) -> list[str]:
    metric = _shown_metric(compared, analysis)
    seeds, tested = compared.over_seeds, compared.predictions
    over_seeds = [_NONE] * 5
    if seeds is not None:
        over_seeds = [
            str(seeds.n),
            spread_cell(Spread(seeds.n, seeds.mean, seeds.sd), metric, seeds.n, signed=True),
            interval_cell(seeds.interval, metric),
            p_value(seeds.t_p_value),
            p_value(seeds.flip_p_value),
        ]
    counts = _NONE if tested is None else f"{tested.first_only} : {tested.second_only}"
    p = p_value(None if tested is None else tested.p_value)
    return [*over_seeds, interval_cell(compared.over_rows, metric), counts, p]


def _task_headings(analysis: Analysis, metric: str = MAIN) -> list[str]:
    """Return the headings of the task columns: name, main metric (if it is shown), rows, seeds."""
    headings = []
    for task in analysis.plan.tasks:
        counts = {
            int(one.metrics["n"] or 0)
            for (name, _, _), cell in analysis.found.items()
            if name == task.name and (one := cell.find(STUDENT)) is not None
        }
        rows = f", {'/'.join(f'{count:,}' for count in sorted(counts))} rows" if counts else ""
        plural = "s" * (len(task.seeds) > 1)
        shown = f"{NAMES[task.metric]}{rows}, " if metric == MAIN else ""
        headings.append(f"{task.name} ({shown}{len(task.seeds)} seed{plural})")
    return headings


def _shown_metric(compared: SystemComparison, analysis: Analysis) -> str:
    if compared.metric != MAIN:
        return compared.metric
    return "accuracy" if compared.task == AVERAGE else analysis.metric_of(compared.task)


def difference_cell(compared: SystemComparison | None, analysis: Analysis) -> str:
    """Format as ``+0.52 [-0.10, +1.12]`` with the number of missing seeds; a dash for None."""
    if compared is None:
        return _NONE
    metric = _shown_metric(compared, analysis)
    text = number(compared.value, metric, signed=True)
    if compared.over_rows is not None:
        text += f" {interval_cell(compared.over_rows, metric)}"
    return text + _missing_seeds(compared.missing)


def interval_cell(interval: Interval | None, metric: str) -> str:
    """Format as ``[-0.10, +1.12]``; a dash for None."""
    return _NONE if interval is None else f"[{', '.join(number(end, metric, signed=True) for end in interval)}]"


def spread_cell(spread: Spread | None, metric: str, seeds: int, signed: bool = False) -> str:
    """Format as ``88.15 ± 0.31``, with the number of seeds if it is not ``seeds``; a dash for None."""
    if spread is None:
        return _NONE
    text = number(spread.mean, metric, signed)
    if spread.sd is not None:
        text += f" ± {number(spread.sd, metric)}"
    return text if spread.n == seeds else f"{text} (n = {spread.n})"


def number(value: float, metric: str, signed: bool = False) -> str:
    """Format nats with four decimals, everything else in points with two."""
    sign = "+" if signed else ""
    text = f"{value:{sign}.4f}" if metric in _IN_NATS else f"{100 * value:{sign}.2f}"
    # A value that rounds to zero is shown as +0.
    return text.replace("-", sign) if signed and not float(text) else text


def p_value(value: float | None) -> str:
    """Format with three decimals; a dash for None."""
    if value is None:
        return _NONE
    return f"{value:.3f}" if value >= 0.0005 else "<0.001"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> MarkdownTable:
    """Format a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    table = MarkdownTable("\n".join(f"| {' | '.join(line)} |" for line in lines))
    table.header, table.rows = header, rows
    return table
