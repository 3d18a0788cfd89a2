from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import tiny_models as tinymodels
from support.model_families import config_of
from support.steps import step_of
from support.tiny_models import LABELS
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel

from reaugkd.errors import ModelError, RecipeError
from reaugkd.export import objectives
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.execution.inference import outputs_of
from reaugkd.export.modeling.execution.tokens import TokenRows
from reaugkd.export.modeling.execution.training_loop import FitJob
from reaugkd.export.modeling.layers import default_layers
from reaugkd.export.modeling.projection import LinearLayer, project
from reaugkd.export.modeling.teacher import load_fine_tuned
from reaugkd.export.objectives.base import Targets
from reaugkd.export.recipe import ObjectiveRecipe, StudentRecipe, TeacherRecipe
from reaugkd.export.training.distill import distil, start_student

ROWS = 60


@pytest.fixture(scope="module")
def rows(tiny_bert: Path) -> TokenRows:
    return tinymodels.tokens_of(tinymodels.make_split(ROWS, 5).inputs(), tiny_bert)


@pytest.fixture(scope="module")
def targets() -> Targets:
    """A teacher that is mostly right, with near keys for rows of the same class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(ROWS) % 3
    centres = torch.randn(3, 16, generator=generator)
    return Targets(
        teacher_logits=3 * torch.eye(3)[labels] + torch.randn(ROWS, 3, generator=generator),
        teacher_embeddings=torch.randn(ROWS, 32, generator=generator),
        keys=normalize(centres[labels] + 0.5 * torch.randn(ROWS, 16, generator=generator), dim=-1),
        labels=labels,
    )


@pytest.mark.parametrize(
    ("family", "count", "layers"),
    [
        *(("BERT", count, layers) for count, layers in [(1, (0,)), (2, (1,)), (3, (0, 2)), (6, (1, 3, 5))]),
        ("ALBERT", 4, (1, 3)),
        ("ModernBERT", 4, (0, 3)),
    ],
)
def test_every_second_layer_by_default(family: str, count: int, layers: tuple[int, ...]) -> None:
    """ModernBERT's first layer is the only one without a norm before its attention."""
    config = config_of(family, num_hidden_layers=count)
    assert default_layers(AutoModel.from_config(config)) == layers


def test_a_student_of_the_teachers_layers_inherits_everything() -> None:
    teacher = tinymodels.tiny_student(embedding_dim=None, seed=4)
    before = tinymodels.state_of(teacher)
    projection = torch.randn(16, tinymodels.HIDDEN)
    student = start_student(
        teacher, LinearLayer(projection), 3, StudentRecipe(layers=(0, 3), pooling="mean", dropout=0.3)
    )
    assert student.encoder.config.num_hidden_layers == 2 and len(student.encoder.encoder.layer) == 2
    for kept, layer in zip(student.encoder.encoder.layer, (0, 3), strict=True):
        assert tinymodels.same_states(kept.state_dict(), teacher.encoder.encoder.layer[layer].state_dict())
    assert student.projection is not None and torch.equal(student.projection.weight, projection)
    assert tinymodels.same_states(student.classifier.state_dict(), teacher.classifier.state_dict())
    assert student.dropout.p == 0.3 and student.head.embedding_dim == 16
    # The teacher keeps its layers and shares no weight with its student.
    assert tinymodels.same_states(teacher.state_dict(), before)
    assert teacher.encoder.config.num_hidden_layers == 4
    with torch.no_grad():
        for value in student.parameters():
            value.zero_()
    assert tinymodels.same_states(teacher.state_dict(), before)


def test_a_whole_copy_answers_as_its_teacher(rows: TokenRows) -> None:
    teacher = tinymodels.tiny_student(embedding_dim=None, seed=4)
    projection = torch.randn(16, tinymodels.HIDDEN)
    student = start_student(teacher, LinearLayer(projection), 3, StudentRecipe(layers=(0, 1, 2, 3)))
    ours, theirs = outputs_of(student, rows, ""), outputs_of(teacher, rows, "")
    torch.testing.assert_close(ours.logits, theirs.logits)
    torch.testing.assert_close(ours.embedding, normalize(theirs.embedding @ projection.T, dim=-1))


def test_a_head_with_a_bias_gives_the_student_one(tmp_path: Path, rows: TokenRows) -> None:
    """The query of a full copy equals the teacher's key, also after saving and loading."""
    teacher = tinymodels.tiny_student(embedding_dim=None, seed=4)
    head = LinearLayer(torch.randn(16, tinymodels.HIDDEN), torch.randn(16))
    start_student(teacher, head, 3, StudentRecipe(layers=(0, 1, 2, 3))).save(tmp_path)
    student = EncoderClassifier.load(tmp_path)
    assert student.head.projection_bias
    theirs = outputs_of(teacher, rows, "").embedding
    torch.testing.assert_close(outputs_of(student, rows, "").embedding, project(theirs, head))
    # One of another shape has a bias of its own.
    source = tinymodels.write_bert(tmp_path / "narrow", hidden_size=16, intermediate_size=24, num_hidden_layers=1)
    narrow = start_student(teacher, head, 3, StudentRecipe(model=str(source)))
    assert narrow.projection is not None and narrow.projection.bias.shape == (16,)


def test_no_layers_named_takes_every_second(tiny_bert: Path) -> None:
    teacher = tinymodels.tiny_student(embedding_dim=None)
    student = start_student(teacher, LinearLayer(torch.randn(16, tinymodels.HIDDEN)), 3, StudentRecipe())
    kept = student.encoder.encoder.layer
    assert len(kept) == 2
    assert tinymodels.same_states(kept[0].state_dict(), teacher.encoder.encoder.layer[1].state_dict())
    assert tinymodels.same_states(kept[1].state_dict(), teacher.encoder.encoder.layer[3].state_dict())


def test_layers_the_teacher_does_not_have() -> None:
    teacher = tinymodels.tiny_student(embedding_dim=None)
    with pytest.raises(ModelError, match="no such layer"):
        start_student(teacher, LinearLayer(torch.randn(16, tinymodels.HIDDEN)), 3, StudentRecipe(layers=(0, 4)))


def test_a_student_of_a_teacher_fine_tuned_elsewhere(tmp_path: Path, rows: TokenRows) -> None:
    """Its classifier reads a pooler that ours has not: layers and projection are inherited, the classifier is fresh."""
    folder = tinymodels.write_classifier(tmp_path / "teacher", dict(enumerate(LABELS)))
    teacher = load_fine_tuned(str(folder), TeacherRecipe(), LABELS)
    before = tinymodels.state_of(teacher)
    projection = torch.randn(16, tinymodels.HIDDEN)
    student = start_student(teacher, LinearLayer(projection), 3, StudentRecipe(layers=(1, 2)))
    assert student.encoder.pooler is None and teacher.encoder.pooler is not None
    assert student.projection is not None and torch.equal(student.projection.weight, projection)
    assert tinymodels.same_states(teacher.state_dict(), before)
    found = outputs_of(student, rows, "")
    student.save(tmp_path / "student")
    again = outputs_of(EncoderClassifier.load(tmp_path / "student"), rows, "")
    assert torch.equal(found.logits, again.logits)


def test_a_student_from_another_model(tmp_path: Path, rows: TokenRows) -> None:
    teacher = tinymodels.tiny_student(embedding_dim=None)
    for folder, wide in (("same", False), ("narrow", True)):
        changes = {"hidden_size": 16, "intermediate_size": 24} if wide else {}
        source = tinymodels.write_bert(tmp_path / folder, seed=9, num_hidden_layers=1, **changes)
        torch.manual_seed(0)
        student = start_student(
            teacher, LinearLayer(torch.randn(10, tinymodels.HIDDEN)), 3, StudentRecipe(model=str(source), pooling="cls")
        )
        assert student.encoder.config.num_hidden_layers == 1
        assert student.head.pooling == "cls"
        found = outputs_of(student, rows, "")
        assert found.logits.shape == (ROWS, 3) and found.embedding.shape == (ROWS, 10)
        # Nothing of the teacher's: its heads read other states than this encoder makes.
        assert student.classifier.weight.shape != teacher.classifier.weight.shape or not torch.equal(
            student.classifier.weight, teacher.classifier.weight
        )


def load_teacher() -> EncoderClassifier:
    return tinymodels.tiny_student(embedding_dim=None, seed=4)


def loss_by_hand(objective: ObjectiveRecipe, student: EncoderClassifier, rows: TokenRows, targets: Targets) -> float:
    found = outputs_of(student, rows, "")
    return objectives.build([objective])(step_of(found.logits, found.embedding, targets)).item()


def distilled(
    tmp_path: Path, rows: TokenRows, targets: Targets, *terms: ObjectiveRecipe, epochs: int = 4
) -> EncoderClassifier:
    student = tinymodels.tiny_student(dropout=0.0)
    recipe = tinymodels.tiny_recipe(objectives=terms)
    job = FitJob("student", tinymodels.fast_fit(epochs), 0, "fp32", tmp_path / "student.pt")
    distil(student, load_teacher, rows, targets, recipe, job)
    return student


@pytest.mark.parametrize("name", ["soft_labels", "hard_labels", "relation"])
def test_distillation_lowers_each_objective(tmp_path: Path, rows: TokenRows, targets: Targets, name: str) -> None:
    objective = ObjectiveRecipe(name)
    before = loss_by_hand(objective, tinymodels.tiny_student(), rows, targets)
    after = loss_by_hand(objective, distilled(tmp_path, rows, targets, objective), rows, targets)
    assert after < 0.85 * before


def test_the_relation_brings_queries_to_keys_of_their_class(tmp_path: Path, rows: TokenRows, targets: Targets) -> None:
    student = distilled(tmp_path, rows, targets, ObjectiveRecipe("relation", 1.0, {"temperature": 0.2}), epochs=6)

    def share_of_own_class(queries: Tensor) -> float:
        similarities = queries @ targets.keys.T
        similarities.fill_diagonal_(-2.0)
        nearest = similarities.argmax(dim=1)
        return (targets.labels[nearest] == targets.labels).float().mean().item()

    untrained = outputs_of(tinymodels.tiny_student(), rows, "").embedding
    assert share_of_own_class(outputs_of(student, rows, "").embedding) > share_of_own_class(untrained) + 0.3


def test_each_row_is_paired_with_its_own_targets(tmp_path: Path, rows: TokenRows, targets: Targets) -> None:
    """Batches are in another order than the rows; each batch must get the targets of its own rows."""
    seen: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
    names = {tuple(row.tolist()): number for number, row in enumerate(targets.keys)}

    class Spy(objectives.Objective):
        def __call__(self, step: objectives.DistillationStep) -> Tensor:
            targets = zip(step.rows, step.teacher_logits, step.teacher_embedding, step.labels, strict=True)
            for keys, row in zip(step.keys, targets, strict=True):
                seen[names[tuple(keys.tolist())]] = row
            return step.student_logits.sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(objectives.registry._REGISTRY, "spy", Spy)
        distilled(tmp_path, rows, targets, ObjectiveRecipe("spy"), epochs=1)
    assert sorted(seen) == list(range(ROWS))
    for row, (number, logits, embedding, label) in seen.items():
        assert number == row
        assert torch.equal(logits, targets.teacher_logits[row])
        assert torch.equal(embedding, targets.teacher_embeddings[row])
        assert label == targets.labels[row]


def test_an_unknown_objective_is_refused(tmp_path: Path, rows: TokenRows, targets: Targets) -> None:
    with pytest.raises(RecipeError, match="unknown objective"):
        distilled(tmp_path, rows, targets, ObjectiveRecipe("softlabels"))
