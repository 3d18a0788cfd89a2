"""Out-of-domain accuracy of embeddings, as reported for SEA (Srivastava et al. 2021).

Another data set is classified with the embeddings: a test row gets the majority label of its nearest train rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import DataError
from ...runtime.data import Dataset, Split, choose_split, hold_out, label_indices
from ...runtime.evaluation.results import STUDENT_FP32, TEACHER
from ..modeling.encoder import EncoderClassifier
from ..modeling.execution.inference import outputs_of
from ..modeling.execution.tokens import token_rows
from ..training.finished_run import FinishedRun
from ..training.run_folder import RunFolder

NEIGHBOURS = 5
MOST_TRAIN, MOST_TEST = 3000, 1000
_SEED = 7


@dataclass(frozen=True)
class OtherDomain:
    """Rows of another data set: train rows as neighbours, and test rows to classify.

    Args:
        train: at most 3,000 labelled rows.
        test: at most 1,000 other labelled rows.
        label_names: the class names.
    """

    train: Split
    test: Split
    label_names: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset) -> OtherDomain:
        """Choose the rows: test rows if they have labels, else dev rows (split off train if there is no dev split).

        Raises:
            DataError: train is missing or too small to split, or a split has no labels.
        """
        if "train" not in dataset.splits:
            raise DataError(
                "the out-of-domain data set has no train rows",
                path=dataset.name,
                found=", ".join(dataset.splits),
                expected="a train split",
                remedy="Choose another options.out_of_domain.",
            )
        name, test = choose_split(dataset, None)
        if name == "test":  # dev rows are not used, so do not split any off train
            dataset = replace(dataset, splits={**dataset.splits, "dev": test})
        train = choose_split(dataset, "train")[1]
        return cls(_at_most(train, dataset, MOST_TRAIN), _at_most(test, dataset, MOST_TEST), dataset.label_names)


def out_of_domain_accuracy(run: RunFolder, other: OtherDomain) -> dict[str, float]:
    """Accuracy of teacher and float32 student as nearest-neighbour classifiers of another data set.

    Args:
        run: a finished run.
        other: rows that the run has not seen.

    Returns:
        Accuracy by system: ``teacher`` (pooled states) and ``student_fp32`` (the embedding trained by the objectives).
    """
    source = FinishedRun.read(run)
    splits = (other.train, other.test)
    labels = [torch.from_numpy(label_indices(split, other.label_names, unseen=True)) for split in splits]
    models: dict[str, tuple[nn.Module, Path]] = {
        TEACHER: (source.teacher(), run.teacher),
        STUDENT_FP32: (EncoderClassifier.load(run.student), run.student),
    }
    found = {}
    for name, (model, folder) in models.items():
        config = model.encoder.config  # type: ignore[union-attr]
        tokens = [token_rows(folder, split, config, source.recipe.max_length) for split in splits]
        embeddings = [outputs_of(model, rows, f"{name}, other domain").embedding for rows in tokens]
        found[name] = nearest_neighbour_accuracy(*embeddings, *labels)
    return found


def nearest_neighbour_accuracy(train: Tensor, test: Tensor, train_labels: Tensor, test_labels: Tensor) -> float:
    """Accuracy of the majority label of the ``NEIGHBOURS`` nearest train rows by cosine.

    Args:
        train: [n, d].
        test: [m, d].
        train_labels: [n], int64.
        test_labels: [m].
    """
    train, test = nn.functional.normalize(train, dim=-1), nn.functional.normalize(test, dim=-1)
    nearest = (test @ train.T).topk(min(NEIGHBOURS, len(train)), dim=1).indices
    # On a tie, the label of the nearest row wins: it comes first.
    predicted = torch.tensor([max(dict.fromkeys(row), key=row.count) for row in train_labels[nearest].tolist()])
    return float((predicted == test_labels).double().mean())


def _at_most(split: Split, dataset: Dataset, count: int) -> Split:
    if len(split) <= count:
        return split
    return split.take(np.sort(hold_out(split, dataset.label_names, count, _SEED)[1]))
