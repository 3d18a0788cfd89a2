"""Simulate a week of uptime: many predictions with edits between them; records memory and other resources.

    python benchmarks/scale/uptime.py BUNDLE --data FILE.csv [--predictions 200000] [--json FILE]

BUNDLE is copied. Its runtimes predict single texts and streams, with and without abstention, while rows are added,
removed and relabelled, edits are undone, and the log is compacted. Resident memory, open files, threads and sockets are
recorded 100 times.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections import deque
from pathlib import Path

from reaugkd import Row, Runtime

EDITS = 400  # in all
COMPACTIONS = 40


def resident_mb() -> float:
    """Return the resident memory of this process in megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def held() -> dict[str, float]:
    """Return the resident memory, open files, threads and sockets of the process."""
    files = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return {
        "resident_mb": round(resident_mb(), 2),
        "files": len(files),
        "sockets": sum(name.startswith("socket:") for name in files),
        "threads": len(list(Path("/proc/self/task").iterdir())),
    }


def edit(runtime: Runtime, number: int, texts: list[str]) -> None:
    """Make one edit, of each kind in turn; the size of the knowledge base stays the same in the long run."""
    kind, text, labels = number % 5, texts[number * 7 % len(texts)], runtime.labels
    options = {"why": "uptime", "who": "uptime", "auto_compact": False}
    if kind == 0:
        runtime.kb.add([Row(f"{text} {place}", labels[number % len(labels)]) for place in range(3)], **options)
    elif kind == 1:
        runtime.kb.relabel({runtime.knowledge_base.id(number): labels[(number + 1) % len(labels)]}, **options)
    elif kind == 2:
        runtime.kb.undo(**options)
    elif kind == 3:
        runtime.kb.remove(texts=[f"{texts[(number - 3) * 7 % len(texts)]} {place}" for place in range(3)], **options)
    else:
        runtime.kb.add(f"{text} once more", labels[number % len(labels)], **options)
        runtime.kb.undo(**options)


def run(bundle: Path, texts: list[str], predictions: int) -> list[dict[str, float]]:
    """Predict and edit, and return the resources at every hundredth of the predictions."""
    notes: list[dict[str, float]] = []
    endless = itertools.cycle(texts)
    goal = "coverage=95%"
    with Runtime.open(bundle) as runtime, Runtime.open(bundle, threads=2) as other:
        abstains = runtime.manifest.abstention is not None
        done, edits, each = 0, 0, max(1, predictions // 100)
        while done < predictions:
            for turn, text in enumerate(itertools.islice(endless, each // 2)):
                runtime.predict(text, abstain=goal if abstains and turn % 10 == 0 else None)
            deque(other.predict_many(itertools.islice(endless, each - each // 2)), maxlen=0)
            done += each
            while edits < EDITS * done // predictions:
                edit(runtime, edits, texts)
                edits += 1
                if edits % (EDITS // COMPACTIONS) == 0:
                    runtime.kb.compact(who="uptime")
            for one in (runtime, other):  # both release the files that the last edits replaced
                one.predict(texts[0])
            notes.append({"predictions": done, "edits": edits, **held()})
            print(notes[-1], file=sys.stderr)  # noqa: T201
    return notes


def main() -> None:
    """Run the command line and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="CSV with a column text.")
    parser.add_argument("--predictions", type=int, default=200_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with options.data.open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    texts += [" ".join(texts[:count]) for count in (5, 10, 20)]  # long texts too
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bundle"
        shutil.copytree(options.bundle, copy)
        notes = run(copy, texts, options.predictions)
    tenth, last = notes[len(notes) // 10 - 1], notes[-1]
    report = {
        "predictions": last["predictions"],
        "edits": last["edits"],
        "growth": round(last["resident_mb"] / tenth["resident_mb"] - 1, 4),
        "at_10_percent": tenth,
        "at_100_percent": last,
    }
    print(json.dumps(report, indent=1))  # noqa: T201
    if options.json is not None:
        options.json.write_text(json.dumps({**report, "notes": notes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
