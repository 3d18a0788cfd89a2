"""How many labels of unseen text the export changes: the exported student against the run's float32 student.

    python benchmarks/quality/exported_labels.py DATA RUN

The texts are the train rows of DATA that RUN does not have, ten draws of 1,000 (or of half of them, if there are fewer
than 2,000). Prints a row of a Markdown table: data and layers; unseen texts; the share of labels in per cent that int8
changes with the token table in 8 bits too, and with it in 4 bits, which is what `reaugkd export` writes (mean of the
draws, and the largest); accuracy of the float32 and of the exported student.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from reaugkd.export.bundle.student import StudentJob, ask, write_student
from reaugkd.export.onnx import quantization
from reaugkd.export.onnx.quantization import detect_target
from reaugkd.export.training.finished_run import FinishedRun
from reaugkd.export.training.run_folder import RunFolder
from reaugkd.runtime.data import Split, label_indices, load_dataset
from reaugkd.runtime.data.splits import drop_duplicates_of

DRAWS, ROWS, MOST = 10, 1000, 3000
Rows, Floats = NDArray[np.int64], NDArray[np.float32]


def unseen(source: FinishedRun, data: str) -> Split:
    """Return at most `MOST` train rows that the run does not have, with other texts than those that it has."""
    train = load_dataset(Path(data)).splits["train"]
    rows = drop_duplicates_of(train, [source.train, source.heldout])
    return train.take(sorted(np.random.default_rng(0).permutation(rows)[:MOST].tolist()))


def logits_of(source: FinishedRun, rows: Split, float32: bool = False) -> Floats:
    """Export a student; return the logits of the model for rows, or those of the float32 model before quantization."""
    with tempfile.TemporaryDirectory() as folder:
        made = write_student(source, source.recipe.retrieval, StudentJob(detect_target()), Path(folder) / "student")
        return ask(made.float32 if float32 else made.session, made.tokenizer, rows.inputs(), "unseen rows").logits


def draws(rows: int) -> list[Rows]:
    """Draw rows without replacement, `DRAWS` times."""
    size = min(ROWS, rows // 2)
    return [np.random.default_rng(seed).permutation(rows)[:size] for seed in range(DRAWS)]


def line(name: str, rows: Split, gold: Rows, exact: Floats, others: list[Floats]) -> str:
    """Return a row of the table."""
    drawn = draws(len(rows))
    cells = [name, f"{len(rows):,}"]
    for logits in others:
        changed = [100 * float((logits[some].argmax(1) != exact[some].argmax(1)).mean()) for some in drawn]
        cells.append(f"{np.mean(changed):.2f} ({max(changed):.1f})")
    right = [100 * float((logits.argmax(1) == gold).mean()) for logits in (exact, others[-1])]
    return f"| {' | '.join([*cells, f'{right[0]:.2f}', f'{right[1]:.2f}'])} |"


def main(data: str, run: str) -> None:
    """Print the line of a run."""
    source = FinishedRun.read(RunFolder(Path(run)))
    rows = unseen(source, data)
    exact, both = logits_of(source, rows, float32=True), logits_of(source, rows)
    with mock.patch.object(quantization, "pack_token_table", return_value=[]):
        int8 = logits_of(source, rows)
    name = f"{source.description['data']['name']}, {len(source.recipe.student.layers)} layers"
    sys.stdout.write(line(name, rows, label_indices(rows, source.labels), exact, [int8, both]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
