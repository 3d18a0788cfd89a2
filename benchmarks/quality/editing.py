"""Measure labels added by edits: a student trained on 120 of clinc150's 150 intents, the other 30 added as rows.

    python benchmarks/quality/editing.py prepare data_full.json OUT [--seed 0]    train, dev, test.csv of 120 intents
    reaugkd train --data OUT --teacher all-MiniLM-L6-v2 --student-layers 0,2,5 --out RUN --seed 0
    reaugkd export RUN --out BUNDLE
    python benchmarks/quality/editing.py measure data_full.json BUNDLE [--draws 3] [--json FILE]

The new intents are those that BUNDLE does not know. For 5, 20 and 100 rows of each, drawn from their train rows, it
reports, before and after the fit of the classifier of new labels: accuracy on the test rows of new intents, accuracy
lost on the test rows of old intents, and median milliseconds of an answer. Then milliseconds per row for one edit with
all rows and for one edit per row, seconds of the fit, and bytes of its file.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from reaugkd import Row, Runtime
from reaugkd.runtime.editing.new_labels.background_fit import BackgroundFit

NEW_INTENTS = 30
ROWS = (5, 20, 100)
ALONE = 30  # rows added by an edit each, for the time per edit

Pairs = list[tuple[str, str]]


def prepare(full: dict[str, list[list[str]]], out: Path, seed: int) -> None:
    """Write the splits without the new intents."""
    intents = sorted({label for _, label in full["train"]})
    new = set(random.Random(seed).sample(intents, NEW_INTENTS))
    out.mkdir(parents=True)
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test")):
        with (out / f"{name}.csv").open("w", newline="") as file:
            rows = [(text, label) for text, label in full[split] if label not in new]
            csv.writer(file).writerows([("text", "label"), *rows])


def accuracy(runtime: Runtime, rows: Pairs) -> float:
    """Return the share of rows predicted with their gold label."""
    answers = runtime.predict_many([text for text, _ in rows])
    return sum(answer.label == label for answer, (_, label) in zip(answers, rows, strict=True)) / len(rows)


def drawn(rows: Pairs, count: int, seed: int) -> list[Row]:
    """Draw ``count`` rows of each label."""
    by_label: dict[str, list[str]] = {}
    for text, label in rows:
        by_label.setdefault(label, []).append(text)
    rng = random.Random(seed)
    return [Row(text, label) for label, texts in sorted(by_label.items()) for text in rng.sample(texts, count)]


def measure(full: dict[str, list[list[str]]], bundle: Path, draws: int) -> dict[str, object]:
    """Measure each number of rows, several draws each."""
    with Runtime.open(bundle) as runtime:
        known = set(runtime.labels)
        old = [(text, label) for text, label in full["test"] if label in known]
        before, alone = accuracy(runtime, old), accuracy(runtime.with_retrieval("never"), old)
    new = [(text, label) for text, label in full["test"] if label not in known]
    train = [(text, label) for text, label in full["train"] if label not in known]
    found: dict[str, object] = {"old": len(old), "new": len(new), "before": before, "student": alone, "rows": {}}
    for count in ROWS:
        runs = [
            once(bundle, drawn(train, count, seed), old, new, before) for seed in range(draws if count < 100 else 1)
        ]
        summary = {name: [round(run[name], 4) for run in runs] for name in runs[0]}
        found["rows"][count] = summary  # type: ignore[index]
        figures = ", ".join(f"{name} {mean_and_range(values)}" for name, values in summary.items())
        print(f"{count} rows of each new label: {figures}")  # noqa: T201
    return found


def mean_and_range(values: Sequence[float]) -> str:
    """Format the mean and the range."""
    spread = f" +- {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def once(bundle: Path, rows: list[Row], old: Pairs, new: Pairs, before: float) -> dict[str, float]:
    """Add the rows to a copy of the bundle, and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bundle"
        shutil.copytree(bundle, copy)
        with Runtime.open(copy) as runtime:
            with patch.object(BackgroundFit, "request"):
                found = edits(runtime, rows)
                found |= {"new_before": accuracy(runtime, new), "lost_before": before - accuracy(runtime, old)}
                found["odds"] = runtime.knowledge_base.new_label_odds
            found["ms_answer_before"] = answer_ms(runtime, new)
            fit = runtime.kb.wait()
            assert fit is not None
            (file,) = (copy / "generations").rglob("classifier-*.npy")
            return found | {
                "new": accuracy(runtime, new),
                "lost": before - accuracy(runtime, old),
                "ms_answer": answer_ms(runtime, new),
                "fit_seconds": fit.seconds,
                "file_bytes": file.stat().st_size,
            }


def edits(runtime: Runtime, rows: list[Row]) -> dict[str, float]:
    """Add the rows, the last ones by one edit each, and time it."""
    options = {"new_labels": True, "auto_compact": False}
    begin = time.perf_counter()
    runtime.kb.add(rows[:-ALONE], **options)
    together = (time.perf_counter() - begin) / len(rows[:-ALONE])
    singles = []
    for row in rows[-ALONE:]:
        begin = time.perf_counter()
        runtime.kb.add(row, **options)
        singles.append(time.perf_counter() - begin)
    return {"ms_a_row_together": 1e3 * together, "ms_a_row_alone": 1e3 * statistics.median(singles)}


def answer_ms(runtime: Runtime, rows: Pairs) -> float:
    """Return the median milliseconds of an answer."""
    times = []
    for text, _ in rows[:200]:
        begin = time.perf_counter()
        runtime.predict(text)
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["prepare", "measure"])
    parser.add_argument("data", type=Path, help="clinc150's data_full.json.")
    parser.add_argument("path", type=Path, help="OUT, or BUNDLE.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    full = json.loads(options.data.read_text())
    if options.step == "prepare":
        prepare(full, options.path, options.seed)
        return
    found = measure(full, options.path, options.draws)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
