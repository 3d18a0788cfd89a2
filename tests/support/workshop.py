"""One training through the command line with a model that trains in two seconds.

The student has one layer and hardly learns, so its neighbours are better than it and the blend has a weight well below
1: with a weight of 1, errors of search, labels and blend change no answer.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

from support.command_line import ok

RECIPE = """
max_length = 24
precision = "fp32"
heldout_share = 0.2
[teacher.fit]
epochs = 3
batch_size = 16
learning_rate = 2e-3
head_learning_rate = 5e-3
freeze_word_embeddings = false
[projection]
embedding_dim = 16
epochs = 3
batch_size = 64
[student.fit]
epochs = 3
batch_size = 16
learning_rate = 2e-3
head_learning_rate = 5e-3
freeze_word_embeddings = false
"""

WEAK_STUDENT = """
[student.fit]
epochs = 1
batch_size = 16
learning_rate = 1e-5
head_learning_rate = 1e-5
freeze_word_embeddings = false
"""


@dataclass(frozen=True)
class Workshop:
    """A training through the command line: its inputs, results and output."""

    data: Path
    teacher: Path
    recipe: Path
    run: Path
    bundle: Path
    train_said: tuple[str, str]
    export_said: tuple[str, str]

    def train_arguments(self, out: Path) -> list[object]:
        """Return the command that made ``run``, with another output folder."""
        given = {"--data": self.data, "--teacher": self.teacher, "--recipe": self.recipe, "--out": out}
        return ["train", *(part for pair in given.items() for part in pair), "--student-layers", "0"]


def build_workshop(folder: Path) -> Workshop:
    """Write the data, the teacher and the recipe into ``folder``, train and export."""
    import torch

    from support import tiny_models as tinymodels

    torch.set_num_threads(1)
    (folder / "data").mkdir()
    for name, split in tinymodels.make_dataset().splits.items():
        with (folder / "data" / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows(zip(split.texts, split.labels or (), strict=True))
    (folder / "recipe.toml").write_text(RECIPE.partition("[student.fit]")[0] + WEAK_STUDENT)
    teacher = tinymodels.write_bert(folder / "teacher")
    made = Workshop(
        folder / "data", teacher, folder / "recipe.toml", folder / "run", folder / "bundle", ("", ""), ("", "")
    )
    trained = ok(*made.train_arguments(made.run))
    exported = ok("export", made.run, "--out", made.bundle, "--target", "avx2", "--allow-quality-loss")
    return replace(made, train_said=(trained.out, trained.err), export_said=(exported.out, exported.err))
