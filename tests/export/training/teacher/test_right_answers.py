from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from support import tiny_models as tinymodels
from support.tiny_models import LABELS
from transformers import BertForSequenceClassification

from reaugkd.errors import ModelError
from reaugkd.export.modeling.checkpoint import load_config
from reaugkd.export.modeling.execution.training_loop import FitJob
from reaugkd.export.modeling.teacher import fine_tune
from reaugkd.export.recipe import TeacherRecipe
from reaugkd.export.recipe_file import override
from reaugkd.export.training.teacher.right_answers import require_right_answers
from reaugkd.runtime.data import Dataset, label_indices


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good teacher whose outputs are weather, alarm, music and one more, with and without these names."""
    folder = tmp_path_factory.mktemp("teachers")
    start, split = tinymodels.write_bert(folder / "start"), tinymodels.make_dataset().splits["train"]
    rows = tinymodels.tokens_of(split.inputs(), start, load_config(str(start)))
    recipe = TeacherRecipe(fit=tinymodels.fast_fit(4), pooling="cls")
    job = FitJob("teacher", recipe.fit, 0, "fp32", folder / "never" / "teacher.pt")
    tuned = fine_tune(str(start), recipe, rows, torch.from_numpy(label_indices(split, LABELS)), LABELS, job)
    made = {}
    for name, labels in {
        "generic": None,
        "named": {0: "weather", 1: "alarm", 2: "music"},
        "wrong": {0: "music", 1: "weather", 2: "alarm"},
    }.items():
        names = {"num_labels": 3} if labels is None else {"id2label": labels}
        model = BertForSequenceClassification(tinymodels.bert_config(**names))
        model.bert.load_state_dict(tuned.encoder.state_dict(), strict=False)
        with torch.no_grad():  # the pooler becomes the identity for small states
            model.bert.pooler.dense.weight.copy_(0.05 * torch.eye(tinymodels.HIDDEN))
            model.bert.pooler.dense.bias.zero_()
            model.classifier.weight.copy_(20 * tuned.classifier.weight[[2, 0, 1]])
            model.classifier.bias.copy_(tuned.classifier.bias[[2, 0, 1]])
        model.save_pretrained(folder / name)
        tinymodels.tiny_tokenizer().save(str(folder / name / "tokenizer.json"))
        made[name] = folder / name
    made["random"] = tinymodels.write_classifier(folder / "random", dict(enumerate(LABELS)))
    return made


def ask(teacher: Path, *labels: str) -> None:
    recipe = override(tinymodels.tiny_recipe(), teacher__labels=labels)
    require_right_answers(str(teacher), recipe, dataset().splits["train"], LABELS)


def dataset() -> Dataset:
    return tinymodels.make_dataset()


@pytest.mark.parametrize("kind", ["generic", "wrong"])
def test_another_order_of_the_labels_is_found(
    teachers: dict[str, Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The order in the error is the right one: with it the teacher is accepted."""
    with pytest.raises(ModelError, match="labels are in another order") as caught:
        ask(teachers[kind])
    advice = re.search(r"--teacher-labels (\S+)\. If", str(caught.value.remedy))
    assert advice is not None and advice[1] == "weather,alarm,music"
    ask(teachers[kind], *advice[1].split(","))
    share = re.findall(r"answers ([0-9.]+)% of 240 train rows", capsys.readouterr().err)
    assert len(share) == 2 and float(share[0]) < 20 and float(share[1]) > 90


def test_a_good_teacher_is_accepted(teachers: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    ask(teachers["named"])
    assert re.search(r"answers 9\d\.\d% of 240 train rows", capsys.readouterr().err)


def test_few_right_answers_are_enough(teachers: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Four right answers are within two standard errors of the most frequent label's two, but no reason to refuse."""
    train = dataset().splits["train"]
    of_label = [[row for row, found in enumerate(train.labels or ()) if found == label] for label in LABELS]
    few = train.take([*of_label[0][:2], of_label[1][0], of_label[2][0]])
    require_right_answers(str(teachers["named"]), tinymodels.tiny_recipe(), few, LABELS)
    assert "answers 100.0% of 4 train rows" in capsys.readouterr().err


def test_a_teacher_that_knows_nothing_is_refused_unless_its_labels_are_given(teachers: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="no better than the most frequent label"):
        ask(teachers["random"])
    ask(teachers["random"], *LABELS)
