from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, kstest
from support import tiny_models as tinymodels
from support.distillations import ROWS, distillation_of, distilled, require_same_after_a_kill, tiny_rows, tiny_targets
from support.steps import make_targets, step_of
from support.tiny_models import LABELS
from torch import Tensor, nn
from transformers import BertModel

from reaugkd.errors import RecipeError
from reaugkd.export import objectives
from reaugkd.export.modeling.checkpoint import load_encoder
from reaugkd.export.modeling.encoder import Outputs
from reaugkd.export.modeling.execution.tokens import TokenRows
from reaugkd.export.modeling.teacher import load_fine_tuned
from reaugkd.export.objectives.base import Distillation, DistillationStep
from reaugkd.export.objectives.mixkd import MixKD, Mixture, draw_mixture, mix_inputs
from reaugkd.export.recipe import ObjectiveRecipe, Recipe, TeacherRecipe

TOKENS, VOCABULARY, CLASSES = 5, 11, 4


class Bag(nn.Module):
    """A model that numpy can follow: attended word embeddings, each squared by its type's rate, summed, times a matrix.

    The square keeps it from being linear: what is mixed is the embeddings, and not the answers.
    """

    def __init__(self, components: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Embedding(VOCABULARY, components, dtype=torch.float64)
        self.weight = nn.Parameter(torch.randn(components, CLASSES, generator=generator, dtype=torch.float64))
        with torch.no_grad():
            self.table.weight.copy_(torch.randn(VOCABULARY, components, generator=generator, dtype=torch.float64))

    @property
    def encoder(self) -> Any:
        return SimpleNamespace(
            get_input_embeddings=lambda: self.table, config=SimpleNamespace(type_vocab_size=2, num_hidden_layers=1)
        )

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, token_type_ids: Tensor, detailed: bool = False
    ) -> Outputs:
        words = (inputs_embeds**2 * (1 + token_type_ids[..., None]) + inputs_embeds) * attention_mask[..., None]
        summed = words.sum(dim=1)
        return Outputs(summed @ self.weight, summed)


def softmax(scores: np.ndarray) -> np.ndarray:
    exponents = np.exp(scores - scores.max())
    return exponents / exponents.sum()


def answer_by_hand(model: Bag, inputs: dict[str, np.ndarray], first: int, second: int, share: float) -> np.ndarray:
    table, weight = model.table.weight.detach().numpy(), model.weight.detach().numpy()
    total = np.zeros(table.shape[1])
    types = inputs["token_type_ids"][first if share >= 0.5 else second]
    for token in range(TOKENS):
        word = np.zeros(table.shape[1])
        covered = False
        for row, part in ((first, share), (second, 1 - share)):
            if inputs["attention_mask"][row, token]:
                word += part * table[inputs["input_ids"][row, token]]
                covered = True
        if covered:
            total += word**2 * (1 + types[token]) + word
    return total @ weight


def mixkd_by_hand(objective: MixKD, student: Bag, teacher: Bag, step: DistillationStep, drawn: Mixture) -> float:
    inputs = {name: value.numpy() for name, value in step.inputs.items()}
    distances, hard = [], []
    for first, second, share in zip(drawn.first.tolist(), drawn.second.tolist(), drawn.share.tolist(), strict=True):
        answer = answer_by_hand(student, inputs, first, second, share)
        taught = answer_by_hand(teacher, inputs, first, second, share)
        if objective.distance == "mse":
            distances.append(((answer - taught) ** 2).mean())
        else:
            distances.append((softmax(taught) * (np.log(softmax(taught)) - np.log(softmax(answer)))).sum())
        gold = share * np.eye(CLASSES)[step.labels[first]] + (1 - share) * np.eye(CLASSES)[step.labels[second]]
        hard.append(-(gold * np.log(softmax(answer))).sum())
    return float(objective.tmkd_weight * np.mean(distances) + objective.sm_weight * np.mean(hard))


def make_inputs(rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Rows of one to five tokens, the second text of a pair from their middle on; padding is token 0."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, TOKENS + 1, (rows, 1), generator=generator)
    mask = (torch.arange(TOKENS) < lengths).long()
    ids = torch.randint(1, VOCABULARY, (rows, TOKENS), generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": mask * (torch.arange(TOKENS) >= lengths // 2)}


def bag_step(student: Bag, rows: int, number: int = 0) -> DistillationStep:
    targets = make_targets(rows, CLASSES, hidden=3, seed=rows)
    inputs = make_inputs(rows, seed=rows)
    logits = torch.zeros(rows, CLASSES, dtype=torch.float64)
    return step_of(logits, targets.keys, targets, student=student, inputs=inputs, number=number)


def begun(objective: MixKD, student: Any, teacher: nn.Module, seed: int = 7) -> MixKD:
    # A shared teacher function that keeps its gradient: the objective itself must not ask for one.
    objective.begin(Distillation(student, teacher, teacher, make_targets(1), seed, "fp32"))
    return objective


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize(
    "objective",
    [MixKD(), MixKD(distance="kl"), MixKD(1.5, 3, 0.3, 2.0), MixKD(tmkd_weight=0.0)],
    ids=["paper", "kl", "ratio", "sm"],
)
def test_it_is_the_papers_loss(objective: MixKD, rows: int) -> None:
    student, teacher = Bag(3, seed=1), Bag(6, seed=2)
    step = bag_step(student, rows, number=4)
    drawn = draw_mixture(rows, objective.ratio, objective.alpha, 7, 4)
    expected = mixkd_by_hand(objective, student, teacher, step, drawn)
    assert begun(objective, student, teacher)(step).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("distance", ["mse", "kl"])
def test_gradients_are_right_and_the_teacher_has_none(distance: str) -> None:
    student, teacher = Bag(3, seed=1), Bag(4, seed=2)
    step = bag_step(student, 4)
    objective = begun(MixKD(distance=distance), student, teacher)

    def of(table: Tensor, weight: Tensor) -> Tensor:
        def ask(**inputs: Any) -> Outputs:
            return Outputs(*torch.func.functional_call(student, {"table.weight": table, "weight": weight}, (), inputs))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(student.table, "forward", lambda ids: nn.functional.embedding(ids, table))
            return objective(dataclasses.replace(step, student=ask))

    leaves = tuple(value.detach().clone().requires_grad_() for value in (student.table.weight, student.weight))
    assert torch.autograd.gradcheck(of, leaves)
    objective(step).backward()
    assert student.table.weight.grad is not None and student.weight.grad is not None
    assert teacher.table.weight.grad is None and teacher.weight.grad is None


def test_a_row_alone_is_mixed_with_itself() -> None:
    """Whatever the share: the answer to the row as it is."""
    student, teacher = Bag(3, seed=1), Bag(3, seed=2)
    step = bag_step(student, 1)
    plain = {**step.inputs, "inputs_embeds": student.table(step.inputs["input_ids"])}
    del plain["input_ids"]
    expected = nn.functional.cross_entropy(student(**plain).logits, step.labels).item()
    assert begun(MixKD(tmkd_weight=0.0), student, teacher)(step).item() == pytest.approx(expected, rel=1e-12)


@given(rows=st.integers(1, 9), ratio=st.integers(1, 4), seed=st.integers(0, 2**62), step=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_row_is_mixed_and_every_row_is_a_partner(rows: int, ratio: int, seed: int, step: int) -> None:
    drawn = draw_mixture(rows, ratio, 0.4, seed, step)
    for number in range(ratio):
        part = slice(number * rows, (number + 1) * rows)
        assert drawn.first[part].tolist() == list(range(rows))
        assert sorted(drawn.second[part].tolist()) == list(range(rows))
    assert len(drawn.share) == rows * ratio and ((drawn.share >= 0) & (drawn.share <= 1)).all()
    torch.rand(1)  # independent of other random streams
    again = draw_mixture(rows, ratio, 0.4, seed, step)
    assert torch.equal(drawn.share, again.share) and torch.equal(drawn.second, again.second)
    assert not torch.equal(drawn.share, draw_mixture(rows, ratio, 0.4, seed, step + 1).share)
    assert not torch.equal(drawn.share, draw_mixture(rows, ratio, 0.4, seed + 1, step).share)


@pytest.mark.parametrize("alpha", [0.4, 3.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    shares = torch.cat([draw_mixture(50, 1, alpha, 0, step).share for step in range(40)])
    assert kstest(shares.numpy(), beta(alpha, alpha).cdf).pvalue > 0.01


def test_padding_is_zeros_and_attention_covers_both_rows() -> None:
    table = nn.Embedding(VOCABULARY, 3)  # padding's own vector is not 0
    inputs = {
        "input_ids": torch.tensor([[5, 6, 7], [8, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]]),
        "token_type_ids": torch.tensor([[0, 1, 1], [0, 0, 0]]),
    }
    mixture = Mixture(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 1]), torch.tensor([0.25, 0.8, 0.3]))
    mixed = mix_inputs(table, inputs, mixture)
    words = table.weight
    torch.testing.assert_close(mixed["inputs_embeds"][0, 0], 0.25 * words[5] + 0.75 * words[8])
    torch.testing.assert_close(mixed["inputs_embeds"][0, 1], 0.25 * words[6])
    torch.testing.assert_close(mixed["inputs_embeds"][1, 2], 0.2 * words[7])
    torch.testing.assert_close(mixed["inputs_embeds"][2], torch.stack([words[8], 0 * words[8], 0 * words[8]]))
    assert mixed["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    assert mixed["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
    own = mix_inputs(table, inputs, dataclasses.replace(mixture, share=torch.tensor([0.5, 0.2, 0.3])))
    assert own["token_type_ids"].tolist() == [[0, 1, 1], [0, 1, 1], [0, 0, 0]]
    del inputs["token_type_ids"]
    assert "token_type_ids" not in mix_inputs(table, inputs, mixture)


@pytest.mark.parametrize("kind", ["bert", "bert_pairs", "distilbert", "roberta", "classifier"])
@torch.no_grad()
def test_embeddings_and_ids_give_the_same_outputs(tmp_path: Path, kind: str) -> None:
    """A row mixed with itself, padded, gets the answer that the row gets: positions and types are as with ids."""
    makers = {"distilbert": tinymodels.write_distilbert, "roberta": tinymodels.write_roberta}
    if kind == "classifier":
        tinymodels.write_classifier(tmp_path, dict(enumerate(LABELS)))
        model: Any = load_fine_tuned(str(tmp_path), TeacherRecipe(), LABELS)
    else:
        makers.get(kind, tinymodels.write_bert)(tmp_path)
        model = tinymodels.student_of(load_encoder(str(tmp_path)))
    texts = tinymodels.make_split(9, 3, pairs=kind == "bert_pairs").inputs()
    inputs = tinymodels.tokens_of(texts, tmp_path, model.encoder.config).batch(range(9))
    assert (inputs["attention_mask"] == 0).any()
    same = Mixture(torch.arange(9), torch.arange(9), torch.linspace(0, 1, 9))
    mixed = mix_inputs(model.encoder.get_input_embeddings(), inputs, same)
    torch.testing.assert_close(model(**mixed).logits, model(**inputs).logits, rtol=1e-4, atol=1e-5)
    if kind == "bert_pairs":
        assert (inputs["token_type_ids"] == 1).any()
        without = {name: value for name, value in mixed.items() if name != "token_type_ids"}
        assert not torch.allclose(model(**without).logits, model(**inputs).logits, atol=1e-4)


def value_of(objective: MixKD, student: Any, teacher: nn.Module, rows: TokenRows) -> float:
    """The loss on all rows with fixed mixtures, nothing dropped."""
    targets = tiny_targets()
    objective.begin(distillation_of(student.eval(), teacher, targets))
    step = step_of(torch.zeros(ROWS, 3), targets.keys, targets, student=student, inputs=rows.batch(range(ROWS)))
    with torch.no_grad():
        return objective(step).item()


@pytest.mark.parametrize(("distance", "pairs"), [("mse", False), ("kl", True)])
def test_a_fit_lowers_it(tmp_path: Path, tiny_bert: Path, distance: str, pairs: bool) -> None:
    rows = tiny_rows(tiny_bert, pairs)
    tinymodels.write_classifier(tmp_path / "teacher", dict(enumerate(LABELS)), seed=4)

    def load_teacher() -> nn.Module:
        return load_fine_tuned(str(tmp_path / "teacher"), TeacherRecipe(), LABELS)

    student = distilled(
        tmp_path,
        rows,
        ObjectiveRecipe("mixkd", 1.0, {"distance": distance}),
        epochs=6,
        student=tinymodels.tiny_student(dropout=0.0),
        load_teacher=load_teacher,
    )
    before = value_of(MixKD(distance=distance), tinymodels.tiny_student(), load_teacher(), rows)
    assert value_of(MixKD(distance=distance), student, load_teacher(), rows) < 0.9 * before


def test_a_killed_and_resumed_fit_gives_the_same_result(tmp_path: Path, tiny_bert: Path) -> None:
    terms = (ObjectiveRecipe("mixkd"), ObjectiveRecipe("hard_labels", 0.5))
    require_same_after_a_kill(tmp_path, tiny_rows(tiny_bert), *terms, steps=(1, 5))


def test_a_student_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    teacher = tinymodels.tiny_student().encoder
    MixKD().check(teacher, teacher, Recipe())
    other = BertModel(tinymodels.bert_config(vocab_size=200), add_pooling_layer=False)
    with pytest.raises(RecipeError, match=r"'mixkd'.*200 tokens.*teacher's layers"):
        MixKD().check(other, teacher, Recipe())
    untyped = load_encoder(str(tinymodels.write_distilbert(tmp_path / "distilbert")))
    with pytest.raises(RecipeError, match=r"token types.*without"):
        MixKD().check(untyped, teacher, Recipe())


@pytest.mark.parametrize(
    ("name", "value"),
    [("alpha", 0.0), ("ratio", 0), ("ratio", 1.5), ("tmkd_weight", -1.0), ("sm_weight", -0.1), ("distance", "cosine")],
)
def test_invalid_settings_are_refused(name: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=name):
        objectives.build([ObjectiveRecipe("mixkd", 1.0, {name: value})])
