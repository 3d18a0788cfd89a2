"""How much an embedding fitted to one task is still worth on another, as SEA (Srivastava et al. 2021) reports it.

The embeddings are taken as they are: the label of a test row is that of the majority of its nearest train rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime.data import Dataset, Split, carve, choose_split, label_indices
from ...runtime.evaluate import STUDENT_FP32, TEACHER
from ..encoder import EncoderClassifier
from ..fit import outputs_of
from ..run import RunFolder
from ..source import RunSource
from ..tokens import token_rows

NEIGHBOURS = 5
MOST_TRAIN, MOST_TEST = 3000, 1000
_SEED = 7


def out_of_domain_accuracy(run: RunFolder, other: Dataset) -> dict[str, float]:
    """The accuracy of teacher and float32 student as nearest-neighbour classifiers of another data set.

    Args:
        run: a finished run; pairs are read by a model of single texts as it reads any pair.
        other: a data set that the run has not seen; at most 3,000 train and 1,000 test rows of it count.

    Returns:
        ``teacher`` (its pooled states) and ``student_fp32`` (the embedding that the objectives trained).
    """
    source = RunSource.read(run)
    train = _at_most(other.splits["train"], other, MOST_TRAIN)
    test = _at_most(choose_split(other, None)[1], other, MOST_TEST)
    labels = [torch.from_numpy(label_indices(split, other.label_names)) for split in (train, test)]
    models: dict[str, nn.Module] = {TEACHER: source.teacher(), STUDENT_FP32: EncoderClassifier.load(run.student)}
    folders = {TEACHER: run.teacher, STUDENT_FP32: run.student}
    found = {}
    for name, model in models.items():
        config = EncoderClassifier.load(folders[name]).encoder.config
        embeddings = [
            outputs_of(
                model, token_rows(folders[name], split, config, source.recipe.max_length), f"{name}, other domain"
            ).embedding
            for split in (train, test)
        ]
        found[name] = nearest_neighbour_accuracy(*embeddings, *labels)
    return found


def nearest_neighbour_accuracy(train: Tensor, test: Tensor, train_labels: Tensor, test_labels: Tensor) -> float:
    """The share of test rows whose label most of their ``NEIGHBOURS`` nearest train rows have, by cosine.

    Args:
        train: [n, d].
        test: [m, d].
        train_labels: [n], int64.
        test_labels: [m].
    """
    train, test = nn.functional.normalize(train, dim=-1), nn.functional.normalize(test, dim=-1)
    nearest = (test @ train.T).topk(min(NEIGHBOURS, len(train)), dim=1).indices
    # Among equally many the nearest one's label, which comes first.
    predicted = torch.tensor([max(dict.fromkeys(row), key=row.count) for row in train_labels[nearest].tolist()])
    return float((predicted == test_labels).double().mean())


def _at_most(split: Split, dataset: Dataset, count: int) -> Split:
    if len(split) <= count:
        return split
    return split.take(np.sort(carve(split, dataset.label_names, count, _SEED)[1]))
