from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import tiny_models as tinymodels
from support.tiny_models import LABELS
from transformers import AutoModel, AutoModelForSequenceClassification

from reaugkd.errors import ModelError
from reaugkd.export.modeling.checkpoint import load_config
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.execution.inference import outputs_of
from reaugkd.export.modeling.execution.tokens import TokenRows
from reaugkd.export.modeling.execution.training_loop import FitJob
from reaugkd.export.modeling.teacher import (
    FineTunedTeacher,
    fine_tune,
    is_classifier,
    load_fine_tuned,
    load_teacher,
    match_labels,
)
from reaugkd.export.recipe import TeacherRecipe
from reaugkd.runtime.data import Dataset, label_indices

TEXTS = ["the song", "rain tomorrow please", "wake me at seven"]


def classifier(folder: Path, *names: str) -> Path:
    return tinymodels.write_classifier(folder, dict(enumerate(names)))


def test_classifiers_are_recognised(tiny_bert: Path, tmp_path: Path) -> None:
    assert not is_classifier(str(tiny_bert))
    assert is_classifier(str(classifier(tmp_path / "teacher", *LABELS)))
    with pytest.raises(ModelError, match="cannot be loaded"):
        is_classifier(str(tmp_path / "nothing"))


def order_of(names: list[str], label_names: tuple[str, ...] = LABELS) -> list[int]:
    config = tinymodels.bert_config(id2label=dict(enumerate(names)))
    return list(match_labels("a-model", config, label_names).order)


def test_labels_are_matched_by_name() -> None:
    assert order_of(["alarm", "music", "weather"]) == [0, 1, 2]
    assert order_of(["weather", "alarm", "music"]) == [1, 2, 0]
    assert order_of(["Weather", "ALARM", "music"]) == [1, 2, 0]


def test_generic_names_are_matched_by_position() -> None:
    assert order_of(["LABEL_0", "LABEL_1", "LABEL_2"]) == [0, 1, 2]
    # If the data's labels have these names, they are matched by name.
    assert order_of(["LABEL_1", "LABEL_0"], ("LABEL_0", "LABEL_1")) == [1, 0]


def test_names_that_differ_only_in_case_are_distinguished() -> None:
    assert order_of(["us", "US"], ("US", "us")) == [1, 0]
    assert order_of(["us", "US", "it"], ("US", "it")) == [1, 2]
    with pytest.raises(ModelError, match="no output for Us; "):
        order_of(["us", "US", "it"], ("Us", "it"))
    with pytest.raises(ModelError, match="no output for us; "):
        order_of(["US", "it"], ("US", "us"))


@pytest.mark.parametrize(
    "names",
    [["alarm", "music"], ["LABEL_0", "LABEL_1"], ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"], ["a", "b", "c"]],
)
def test_other_labels_are_refused(names: list[str]) -> None:
    with pytest.raises(ModelError, match="does not know a label of the data") as caught:
        order_of(names)
    assert caught.value.path == "a-model"
    missing = [label for label in LABELS if label not in names]
    assert caught.value.found == f"outputs {', '.join(names)}; no output for {', '.join(missing)}"
    assert caught.value.expected == "alarm, music, weather"


def test_a_teacher_may_know_more_labels_and_they_may_be_named() -> None:
    config = tinymodels.bert_config(id2label=dict(enumerate(["news", "weather", "alarm", "music"])))
    matched = match_labels("a-model", config, LABELS)
    assert (matched.order, matched.by_position, matched.unused) == ((2, 3, 1), False, ("news",))
    assert match_labels("a-model", config, LABELS, ["music", "weather", "x", "alarm"]).order == (3, 0, 1)
    for given in (LABELS, (*LABELS, "music")):
        with pytest.raises(ModelError, match=f"found {len(given)} names, 3 of them different; expected 4"):
            match_labels("a-model", config, LABELS, given)
    assert match_labels("a-model", tinymodels.bert_config(num_labels=3), LABELS).by_position


@pytest.mark.parametrize(
    ("changes", "found"),
    [({"problem_type": "multi_label_classification"}, "multi_label"), ({"num_labels": 1}, "1 output")],
)
def test_a_classifier_without_one_label_per_text_is_refused(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(ModelError, match="one label per text") as caught:
        match_labels("a-model", tinymodels.bert_config(**changes), LABELS)
    assert found in str(caught.value.found)


def test_a_classifier_without_its_head_is_refused(tmp_path: Path) -> None:
    """Its weights would be random."""
    folder = classifier(tmp_path / "teacher", *LABELS)
    weights = load_file(folder / "model.safetensors")
    for change, missing in (
        (lambda name: None if name.startswith("classifier") else name, "2 missing: classifier.bias, classifier.weight"),
        (lambda name: f"module.{name}", "missing: bert.embeddings"),
        (lambda name: None if "pooler" in name else name, "2 missing: bert.pooler.dense.bias"),
    ):
        kept = {change(name): value for name, value in weights.items() if change(name)}
        save_file(kept, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match="lacks weights") as caught:
            load_fine_tuned(str(folder), TeacherRecipe(), LABELS)
        assert missing in str(caught.value.found)


def test_a_head_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "teacher", *LABELS)
    config = json.loads((folder / "config.json").read_text())
    names = {"id2label": dict(enumerate((*LABELS, "news"))), "label2id": {}}
    (folder / "config.json").write_text(json.dumps({**config, **names}))
    with pytest.raises(ModelError, match="2 of another size: classifier"):
        load_fine_tuned(str(folder), TeacherRecipe(), LABELS)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_fine_tuned_classifier_is_used_as_it_is(tmp_path: Path, pooling: str) -> None:
    """The model's logits in the order of the data's labels; the embedding is pooled from its last states."""
    folder = classifier(tmp_path / "teacher", "weather", "alarm", "music")
    teacher = load_fine_tuned(str(folder), TeacherRecipe(pooling=pooling), LABELS)
    rows = tinymodels.tokens_of(TEXTS, folder)
    found = outputs_of(teacher, rows, "teacher")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for row in range(len(TEXTS)):
        with torch.inference_mode():
            result = model(**rows.batch([row]), output_hidden_states=True)
        torch.testing.assert_close(found.logits[row], result.logits[0, [1, 2, 0]], atol=1e-5, rtol=0)
        states = result.hidden_states[-1][0]
        expected = states.mean(dim=0) if pooling == "mean" else states[0]
        torch.testing.assert_close(found.embedding[row], expected, atol=1e-5, rtol=0)
    assert not teacher.training
    assert teacher.encoder is teacher.model.bert


def test_the_embedding_is_the_encoders_output(tmp_path: Path) -> None:
    """ModernBERT's last norm comes after the last of its classifier's hidden states."""
    folder = tinymodels.write_modernbert_classifier(tmp_path / "teacher", dict(enumerate(LABELS)))
    teacher = load_fine_tuned(str(folder), TeacherRecipe(), LABELS)
    rows = tinymodels.tokens_of(TEXTS, folder, load_config(str(folder)))
    found = outputs_of(teacher, rows, "teacher")
    encoder = AutoModel.from_pretrained(folder).eval()
    for row in range(len(TEXTS)):
        with torch.inference_mode():
            result = encoder(**rows.batch([row]), output_hidden_states=True)
        expected = result.last_hidden_state[0].mean(dim=0)
        torch.testing.assert_close(found.embedding[row], expected, atol=1e-5, rtol=0)


def test_a_fine_tuned_classifier_that_cannot_be_read(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "teacher", *LABELS)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_fine_tuned(str(folder), TeacherRecipe(), LABELS)


def test_loading_distinguishes_a_runs_teacher_from_others(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    model = tinymodels.tiny_student(embedding_dim=None)
    model.encoder.config.id2label = dict(enumerate(LABELS))
    model.save(ours)
    assert is_classifier(str(ours))
    assert isinstance(load_teacher(ours, TeacherRecipe(), LABELS), EncoderClassifier)
    assert isinstance(load_teacher(classifier(tmp_path / "other", *LABELS), TeacherRecipe(), LABELS), FineTunedTeacher)


def test_fine_tuning_learns_and_repeats(tiny_bert: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:
    split = tiny_dataset.splits["train"]
    rows = tinymodels.tokens_of(split.inputs(), tiny_bert, load_config(str(tiny_bert)))
    labels = torch.from_numpy(label_indices(split, LABELS))

    def tuned(seed: int) -> EncoderClassifier:
        recipe = TeacherRecipe(fit=tinymodels.fast_fit(4))
        job = FitJob("teacher", recipe.fit, seed, "fp32", tmp_path / "never" / "teacher.pt")
        return fine_tune(str(tiny_bert), recipe, rows, labels, LABELS, job)

    teacher = tuned(0)
    answers = outputs_of(teacher, rows, "teacher").logits.argmax(dim=1)
    assert (answers == labels).float().mean().item() > 0.9
    assert teacher.head.embedding_dim is None
    torch.rand(5)  # whatever was drawn before
    assert tinymodels.same_states(teacher.state_dict(), tuned(0).state_dict())
    assert not tinymodels.same_states(teacher.state_dict(), tuned(1).state_dict())
    check_that_it_can_teach_another_run(teacher, rows, tmp_path / "teacher")
    assert not (tmp_path / "never").exists()  # a fit shorter than the checkpoint's interval writes none


def check_that_it_can_teach_another_run(teacher: EncoderClassifier, rows: TokenRows, folder: Path) -> None:
    """Its labels are kept with it, so that data which lists them in another order gets the same answers."""
    teacher.save(folder)
    order = [2, 0, 1]
    again = load_teacher(folder, TeacherRecipe(), [LABELS[number] for number in order])
    found = outputs_of(again, rows, "teacher").logits
    assert torch.equal(found, outputs_of(teacher.eval(), rows, "teacher").logits[:, order])
    some = outputs_of(load_teacher(folder, TeacherRecipe(), ("weather", "alarm")), rows, "teacher").logits
    assert torch.equal(some, outputs_of(teacher.eval(), rows, "teacher").logits[:, [2, 0]])
