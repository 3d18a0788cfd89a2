"""Out-of-domain accuracy against scikit-learn, by hand for ties, and from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from support import tiny_models as tinymodels
from support.runs import QUICK, Finished
from support.tiny_models import LABELS

from reaugkd.errors import DataError, LabelError, ReaugkdError
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.recipe_file import override
from reaugkd.export.study import out_of_domain
from reaugkd.export.study.out_of_domain import (
    NEIGHBOURS,
    OtherDomain,
    nearest_neighbour_accuracy,
    out_of_domain_accuracy,
)
from reaugkd.export.training.run_folder import RunFolder
from reaugkd.export.training.train import TrainJob, train
from reaugkd.runtime.data import Dataset, Split


def sklearns(train: np.ndarray, test: np.ndarray, labels: np.ndarray, gold: np.ndarray) -> float:
    model = KNeighborsClassifier(min(NEIGHBOURS, len(train)), metric="cosine", algorithm="brute")
    return float(model.fit(train, labels).score(test, gold))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_of_two_classes_it_is_sklearns(seed: int, scale: float) -> None:
    """Five neighbours of two classes are never equally many. Lengths do not count."""
    rng = np.random.default_rng(seed)
    labels, gold = np.arange(80) % 2, np.arange(40) % 2
    train, test = (
        (np.eye(6)[classes] + 0.7 * rng.standard_normal((len(classes), 6))) * scale for classes in (labels, gold)
    )
    train *= rng.uniform(0.1, 10, (80, 1))
    found = nearest_neighbour_accuracy(*map(torch.from_numpy, (train, test, labels, gold)))
    assert found == sklearns(train, test, labels, gold)
    assert 0.5 < found < 1.0


def directions(*degrees: float) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.mark.parametrize(
    ("labels", "predicted"),
    [
        ([1, 1, 0, 0, 2, 2], 1),  # two of each: the nearest one's, though 0 is the smaller
        ([0, 1, 1, 0, 2, 2], 0),
        ([2, 1, 0, 1, 0, 0], 1),  # the nearest is outvoted; of 1 and 0, two each, 1 comes first
        ([0, 1, 1, 2, 1, 2], 1),
        ([4, 3, 2, 1, 0, 0], 4),
        ([3, 1, 1, 1, 1, 1], 1),
        ([0, 0, 1, 1, 1, 0], 1),  # the sixth nearest does not count
    ],
)
def test_most_of_the_five_nearest_decide_and_among_equals_the_nearest(labels: list[int], predicted: int) -> None:
    train, test = directions(5, 10, 15, 20, 25, 30), directions(0)
    for label in range(5):
        found = nearest_neighbour_accuracy(train, test, torch.tensor(labels), torch.tensor([label]))
        assert found == float(label == predicted)


def test_fewer_rows_than_neighbours() -> None:
    found = nearest_neighbour_accuracy(
        directions(0, 90), directions(10, 80, 100), torch.tensor([3, 4]), torch.tensor([3, 4, 3])
    )
    assert found == pytest.approx(2 / 3)


def alone(model: EncoderClassifier, texts: list[str], run: RunFolder) -> torch.Tensor:
    """The embeddings, a text at a time."""
    rows = tinymodels.tokens_of(texts, run.student)
    with torch.inference_mode():
        return torch.cat([model(**rows.batch([row])).embedding for row in range(len(rows))])


def test_a_runs_models_on_another_data_set(tiny_run: Finished) -> None:
    """The teacher's pooled states, and the embedding that the objectives trained."""
    run = RunFolder(tiny_run[0])
    other = Dataset(
        "other",
        {"train": tinymodels.make_split(50, 21), "test": tinymodels.make_split(30, 22)},
        ("alarm", "music", "weather"),
    )
    models = {
        "teacher": EncoderClassifier.load(run.teacher),
        "student_fp32": EncoderClassifier.load(run.student),
    }
    found = out_of_domain_accuracy(run, OtherDomain.of(other))
    assert list(found) == list(models)
    labels = [torch.arange(rows) % 3 for rows in (50, 30)]
    for name, model in models.items():
        embeddings = [alone(model, other.splits[split].texts, run) for split in ("train", "test")]
        assert found[name] == nearest_neighbour_accuracy(*embeddings, *labels)
    assert min(found.values()) > 0.6


def test_large_data_sets_are_sampled_once_and_for_all(tiny_run: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also its train rows if there is no test split: then a part of them is split off."""
    run = RunFolder(tiny_run[0])
    other = Dataset("other", {"train": tinymodels.make_split(200, 21)}, ("alarm", "music", "weather"))
    monkeypatch.setattr(out_of_domain, "MOST_TRAIN", 40)
    monkeypatch.setattr(out_of_domain, "MOST_TEST", 10)
    asked: list[int] = []
    original = out_of_domain.token_rows

    def counted(*given: object) -> object:
        asked.append(len(given[1]))  # type: ignore[arg-type]
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(out_of_domain, "token_rows", counted)
    first = out_of_domain_accuracy(run, OtherDomain.of(other))
    assert asked == [40, 10, 40, 10]
    assert out_of_domain_accuracy(run, OtherDomain.of(other)) == first


@pytest.mark.parametrize("kept", ["train", "train dev", "train test", "train dev test"])
def test_no_row_is_its_own_neighbour(kept: str) -> None:
    """Also if the dev split is split off train."""
    given = {name: tinymodels.make_split(60, number) for number, name in enumerate(("train", "dev", "test"))}
    other = OtherDomain.of(Dataset("other", {name: given[name] for name in kept.split()}, LABELS))
    if "test" in kept:
        assert (other.train.texts, other.test.texts) == (given["train"].texts, given["test"].texts)
    elif "dev" in kept:
        assert (other.train.texts, other.test.texts) == (given["train"].texts, given["dev"].texts)
    else:
        assert sorted([*other.train.rows, *other.test.rows]) == sorted(given["train"].rows)
        assert not set(other.train.rows) & set(other.test.rows)


@pytest.mark.parametrize(
    ("splits", "error", "reported"),
    [
        ({"test": tinymodels.make_split(9, 1)}, DataError, "found test; expected a train split.*out_of_domain"),
        (
            {"train": Split(["a", "b"], None, None, "other.csv", [1, 2]), "test": tinymodels.make_split(9, 1)},
            LabelError,
            "no labels",
        ),
        ({"train": tinymodels.make_split(3, 1)}, DataError, "too few rows"),
    ],
)
def test_unusable_data_sets_are_refused(splits: dict[str, Split], error: type[ReaugkdError], reported: str) -> None:
    with pytest.raises(error, match=reported):
        OtherDomain.of(Dataset("other", splits, LABELS))


def test_a_teacher_that_came_fine_tuned(small_dataset: Dataset, tmp_path: Path) -> None:
    """Its run has its tokenizer alone."""
    source = tinymodels.write_classifier(tmp_path / "teacher", dict(enumerate(LABELS)))
    recipe = override(QUICK, teacher__labels=LABELS)  # it is random, and used all the same
    train(small_dataset, TrainJob(str(source), recipe), tmp_path / "run")
    other = Dataset("other", {"train": tinymodels.make_split(50, 21), "test": tinymodels.make_split(30, 22)}, LABELS)
    found = out_of_domain_accuracy(RunFolder(tmp_path / "run"), OtherDomain.of(other))
    assert list(found) == ["teacher", "student_fp32"] and all(0 <= value <= 1 for value in found.values())
