"""The sections of the page about accuracy: verdict, systems, classes, confusions, wrong rows and wrong labels."""

from __future__ import annotations

from ..evaluation.metrics import METRICS
from ..evaluation.report import format_score
from ..evaluation.results import BLEND, GATED, STUDENT, TEACHER, EvalRow, ScoreDifference
from .contents import Report, ShownNeighbour, Text, WrongRow
from .markup import Column, Content, Markup, joined, stranger, table, tag
from .provenance import what_rows_served_for

MATRIX_CLASSES = 25
"""The most classes of a confusion matrix; with more, it cannot be read."""

PAIRS = 30
"""Pairs of confused classes that are listed instead."""


_WHAT_SYSTEMS_ARE = (
    "The student is a small model. The bundle also has a knowledge base: rows of the training data with their labels. "
    "Retrieval finds the rows that are most similar to a text, its neighbours, and answers by their votes. "
    f"{BLEND} blends both answers. {GATED} does so only where the student is uncertain."
)


def percent(share: float | None, digits: int = 1) -> str:
    """A share in per cent; ``-`` for None."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def shown_text(text: Text, missing: str = "(the text is not stored)") -> Markup:
    """A text, or both texts of a pair."""
    if text is None:
        return tag("span", missing, class_="soft")
    return stranger(text) if isinstance(text, str) else joined(map(stranger, text), " | ")


def verdict(report: Report) -> Markup:
    """The most important figures, and what they mean."""
    evaluation, rows = report.evaluation, {row.system: row for row in report.evaluation.rows}
    accuracy = rows[report.system].scores["accuracy"]
    low, high = rows[report.system].intervals["accuracy"]
    cards = [_card("right answers", percent(accuracy), f"95 % interval {100 * low:.1f} to {100 * high:.1f}")]
    sentences = [
        f"{percent(accuracy, 2)} of {evaluation.n:,} rows are answered right (95 % interval {100 * low:.2f} to "
        f"{100 * high:.2f})."
    ]
    gain = evaluation.differences.get("accuracy")
    if gain is not None:
        least, most = (100 * value for value in gain.interval)
        between = f"95 % interval {least:+.1f} to {most:+.1f}"
        cards.append(_card("what retrieval adds", f"{100 * gain.value:+.1f} points", between))
        sentences.append(_retrieval(gain))
    if evaluation.mcnemar is not None:
        test = evaluation.mcnemar
        sentences.append(
            f"{test.second_only:,} rows are right only with retrieval, {test.first_only:,} only without it (exact "
            f"McNemar test: p = {test.p_value:.3g})."
        )
    if TEACHER in rows:
        sentences.append(f"The teacher answers {percent(rows[TEACHER].scores['accuracy'], 2)} right.")
    sentences += [*_unseen(report), *filter(None, [report.note]), *what_rows_served_for(report.among, evaluation.n)]
    cards.append(_card("wrong answers", f"{report.wrong_count:,}", f"of {evaluation.n:,} rows"))
    if report.latency is not None:
        system = report.latency.latencies.get(BLEND, report.latency.latencies[STUDENT])
        cards.append(_card("time of an answer", f"{system.total.p50_us / 1000:.2f} ms", "p50, on this machine"))
    cards.append(_card("size", f"{report.bytes['total'] / 1e6:.1f} MB", "student and knowledge base"))
    return joined([tag("dl", *cards, class_="cards"), *(tag("p", sentence) for sentence in sentences)])


def _card(name: str, value: str, note: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value, tag("small", note)))


def _retrieval(gain: ScoreDifference) -> str:
    low, high = gain.interval
    meaning = "this is more than chance" if _yes_or_no(gain) == "yes" else "this may be chance"
    verb = "adds" if gain.value >= 0 else "costs"
    return (
        f"Retrieval {verb} {abs(100 * gain.value):.2f} points of accuracy (95 % interval of the paired difference "
        f"{100 * low:+.2f} to {100 * high:+.2f}): {meaning}."
    )


def _unseen(report: Report) -> list[str]:
    unseen = report.evaluation.unseen
    return [f"Rows with a label that the bundle does not have: {unseen:,}. They count as wrong."] if unseen else []


def systems(report: Report) -> Markup:
    """Every system with every metric, and what retrieval changes."""
    used = [
        metric
        for metric in METRICS.values()
        if any(row.scores[metric.name] is not None for row in report.evaluation.rows)
    ]
    first, *others = used
    columns = [Column("system", None), Column(first.title), Column("95 % interval")]
    columns += [Column(metric.title) for metric in others]

    def cells(row: EvalRow) -> list[Content]:
        low, high = (format_score(first.name, value) for value in row.intervals[first.name])
        scores = [row.scores[metric.name] for metric in used]
        own, *rest = ["-" if one is None else format_score(used[at].name, one) for at, one in enumerate(scores)]
        return [row.system, own, f"{low} to {high}", *rest]

    in_percent = ", ".join(metric.title for metric in used if metric.unit == "share")
    parts: list[Content] = [
        tag("p", _WHAT_SYSTEMS_ARE),
        tag(
            "p",
            f"In per cent: {in_percent}. NLL and KL are in nats. The bundle answers as {report.system}.",
            class_="soft",
        ),
        table(columns, map(cells, report.evaluation.rows)),
    ]
    if report.evaluation.differences:
        parts += [tag("h3", f"{BLEND} minus {STUDENT}"), _differences(report)]
    return joined(parts)


def _differences(report: Report) -> Markup:
    rows: list[list[Content]] = []
    for name, one in report.evaluation.differences.items():
        value, low, high = (f"{_sign(number)}{format_score(name, number)}" for number in (one.value, *one.interval))
        better = "yes" if one.value and (one.value > 0) == METRICS[name].higher_is_better else "no"
        rows.append([METRICS[name].title, value, f"{low} to {high}", better, _yes_or_no(one)])
    titles = (Column("metric", None), Column("difference"), Column("95 % interval"))
    return table([*titles, Column("better", None), Column("more than chance", None)], rows)


def _sign(number: float) -> str:
    return "+" if number > 0 else ""


def _yes_or_no(difference: ScoreDifference) -> str:
    """Whether the interval of a difference excludes zero."""
    low, high = difference.interval
    return "yes" if low > 0 or high < 0 else "no"


def classes(report: Report) -> Markup:
    """The scores by class, lowest F1 first."""
    columns = [Column("class", None), Column("rows"), Column("predicted"), Column("precision"), Column("recall")]
    columns += [Column("F1"), Column("recall, student"), Column("recall, difference")]

    def gain(recall: float | None, baseline: float | None) -> str:
        return "-" if recall is None or baseline is None else f"{100 * (recall - baseline):+.1f}"

    rows: list[list[Content]] = [
        [
            stranger(one.label),
            f"{one.rows:,}",
            f"{one.predicted:,}",
            *(percent(value) for value in (one.precision, one.recall, one.f1, one.baseline_recall)),
            gain(one.recall, one.baseline_recall),
        ]
        for one in report.classes
    ]
    shown = _of(len(report.classes), report.class_count, "Classes", "those with the lowest F1")
    return joined(
        [
            tag("p", f"{shown} The last columns compare with the student alone.", class_="soft"),
            table(columns, rows, sortable=True),
        ]
    )


def confusions(report: Report) -> Markup:
    """The confusion matrix, or the most confused pairs of many classes."""
    if not report.confusion_count:
        return tag("p", "No class is confused with another.")
    labels = report.evaluation.labels
    if (
        len(set(labels)) <= MATRIX_CLASSES
        and len(set(labels)) == len(labels)
        and report.confusion_count == len(report.confusions)
    ):
        return _matrix(report)
    columns = [
        Column("label in the data", None),
        Column("answer", None),
        Column("rows"),
        Column("share of the label's rows"),
    ]
    rows: list[list[Content]] = [
        [stranger(one.gold), stranger(one.predicted), f"{one.rows:,}", percent(one.share)]
        for one in report.confusions[:PAIRS]
    ]
    shown = _of(len(rows), report.confusion_count, "Confused pairs of classes", "the most frequent ones")
    return joined([tag("p", shown, class_="soft"), table(columns, rows, sortable=True)])


def _matrix(report: Report) -> Markup:
    labels = report.evaluation.labels
    counts = {(one.gold, one.predicted): one.rows for one in report.confusions}
    right = {one.label: round((one.recall or 0) * one.rows) for one in report.classes}
    gold = [*labels, *dict.fromkeys(one.gold for one in report.confusions if one.gold not in labels)]
    total = {one: right.get(one, 0) + sum(rows for (own, _), rows in counts.items() if own == one) for one in gold}

    def cell(row: str, column: str) -> Markup:
        count = right.get(row, 0) if row == column else counts.get((row, column), 0)
        share = count / total[row] if total[row] else 0.0
        heat = f"h{min(4, 1 + int(4 * share))}" if count else ""
        names = " ".join(filter(None, (heat, "right" if row == column else "")))
        return tag("td", f"{count:,}" if count else "", class_=names or None)

    head = tag(
        "tr", tag("th", "data \\ answer", scope="col"), *(tag("th", stranger(one), scope="col") for one in labels)
    )
    body = [tag("tr", tag("th", stranger(row), scope="row"), *(cell(row, column) for column in labels)) for row in gold]
    text = "A row is a label in the data, a column an answer. Colour: the share of the row."
    return joined(
        [
            tag("p", text, class_="soft"),
            tag("div", tag("table", tag("thead", head), tag("tbody", *body), class_="matrix"), class_="wide"),
        ]
    )


def wrong_rows(report: Report) -> Markup:
    """The rows answered wrong, with their neighbours."""
    if not report.wrong_count:
        return tag("p", "Every row is answered right.")
    columns = [Column("row"), Column("text", "text"), Column("label in the data", None), Column("answer", None)]
    columns += [Column("probability of the answer"), Column("probability of the label")]
    columns += [Column("student alone", None), Column("neighbours alone", None)]
    shown = _of(
        len(report.wrong), report.wrong_count, "Rows answered wrong", "those with the most probable wrong answers"
    )
    text = (
        f"{shown} A confident wrong answer is often a wrong label in the data. The last column opens: it shows the "
        "nearest rows with their similarity (cosine), label and text."
    )
    return joined(
        [tag("p", text, class_="soft"), tag("div", class_="tools"), table(columns, map(_wrong_row, report.wrong), True)]
    )


def _wrong_row(row: WrongRow) -> list[Content]:
    said = "-" if row.neighbours_say is None else stranger(row.neighbours_say)
    near = tag("details", tag("summary", said), tag("ul", *map(_neighbour, row.neighbours))) if row.neighbours else said
    return [
        str(row.row),
        shown_text(row.text, "(not shown)"),
        stranger(row.gold),
        stranger(row.predicted),
        percent(row.probability),
        percent(row.gold_probability),
        stranger(row.student),
        near,
    ]


def _neighbour(near: ShownNeighbour) -> Markup:
    text = shown_text(near.text, f"row with id {near.id}")
    return tag("li", f"{near.similarity:.2f} ", stranger(near.label), ": ", text)


def wrong_labels(report: Report) -> Markup:
    """The rows of the knowledge base whose label is probably wrong."""
    found = report.wrong_labels
    if not found.found:
        return tag("p", f"The neighbours contradict no label of the {found.checked:,} rows that were checked.")
    columns = [Column("id"), Column("text", "text"), Column("label", None), Column("its share of the votes")]
    columns += [Column("suggested label", None), Column("its share of the votes")]
    rows: list[list[Content]] = [
        [
            str(one.id),
            shown_text(one.text, "(not shown)"),
            stranger(one.label),
            percent(one.self_confidence),
            stranger(one.suggested),
            percent(one.suggested_probability),
        ]
        for one in found.shown
    ]
    shown = _of(
        len(found.shown), found.found, "Rows of the knowledge base whose neighbours contradict their label", "the worst"
    )
    command = tag("code", "reaugkd kb review")
    help_ = tag(
        "p",
        shown,
        f" {found.checked:,} rows were checked. ",
        command,
        " prints the commands that correct them.",
        class_="soft",
    )
    return joined([help_, table(columns, rows, sortable=True)])


def _of(shown: int, total: int, what: str, which: str) -> str:
    return f"{what}: {total:,}." if shown == total else f"{what}: {total:,}; the table has {shown:,}, {which}."
