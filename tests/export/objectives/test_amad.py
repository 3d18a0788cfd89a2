from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_models as tinymodels
from support.distillations import ROWS, distilled, require_same_after_a_kill, tiny_rows, tiny_targets
from support.steps import make_step, step_of
from torch import Tensor
from transformers import BertModel

from reaugkd.errors import RecipeError
from reaugkd.export import objectives
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.execution.tokens import TokenRows
from reaugkd.export.objectives.amad import Attention, spread_layers
from reaugkd.export.objectives.base import DistillationStep
from reaugkd.export.recipe import ObjectiveRecipe, Recipe
from reaugkd.export.recipe_file import load_recipe

TOKENS = 5
SHOWN = {"attn_implementation": "eager"}  # what shows maps
WEIGHT = 20.0  # of the term in a fit: next to maps that start nearly flat


def make_maps(mask: Tensor, heads: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Attention maps [n, heads, t, t] as an encoder makes them: padded columns get nothing, padded rows something."""
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(len(mask), heads, mask.shape[1], mask.shape[1], generator=generator, dtype=dtype)
    return scores.masked_fill(mask[:, None, None, :] == 0, torch.finfo(dtype).min).softmax(dim=-1)


def lengths_mask(*lengths: int) -> Tensor:
    return (torch.arange(TOKENS) < torch.tensor(lengths)[:, None]).long()


def maps_step(mask: Tensor, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> DistillationStep:
    changes = {"student_attentions": student, "teacher_attentions": teacher, "inputs": {"attention_mask": mask}}
    return dataclasses.replace(make_step(len(mask)), **changes)


def value(objective: Attention, mask: Tensor, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> float:
    return objective(maps_step(mask, student, teacher)).item()


# The formulas again: one row, one head of each and one token at a time.


def divergence_by_hand(teacher: np.ndarray, student: np.ndarray) -> float:
    """Of two maps [t, t], each row's given that the student's map has the column at all."""
    total = 0.0
    for taught, own in zip(teacher, student, strict=True):
        kept = own > 0
        if not kept.any():
            continue
        target, answer = taught[kept] / taught[kept].sum(), own[kept] / own[kept].sum()
        total += math.fsum(t * math.log(t / a) for t, a in zip(target, answer, strict=True) if t > 0)
    return total / len(teacher)


def layer_by_hand(teacher: Tensor, student: Tensor, mask: Tensor, temperature: float) -> float:
    terms = []
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        taught, own = (maps[row, :, :length, :length].detach().numpy() for maps in (teacher, student))
        for one in taught:
            cosines = [(one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other) for other in own]
            shares = np.exp(np.array(cosines) / temperature)
            divergences = [divergence_by_hand(one, other) for other in own]
            terms.append(float((shares / shares.sum()) @ divergences))
    return math.fsum(terms) / len(terms)


@pytest.mark.parametrize("heads", [(1, 1), (4, 2), (2, 3), (3, 1)], ids=str)
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_every_teacher_head_teaches_all_student_heads(heads: tuple[int, int], temperature: float) -> None:
    mask = lengths_mask(5, 3, 1, 2)
    teacher, student = make_maps(mask, heads[0], 1), make_maps(mask, heads[1], 2)
    expected = layer_by_hand(teacher, student, mask, temperature)
    assert value(Attention(temperature), mask, (student,), (teacher,)) == pytest.approx(expected, rel=1e-10)


@given(
    lengths=st.lists(st.integers(1, TOKENS), min_size=1, max_size=4),
    teacher_heads=st.integers(1, 4),
    student_heads=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    dropped=st.floats(0, 0.9),
)
@settings(max_examples=80, deadline=None)
def test_it_holds_for_any_maps_and_any_dropout(
    lengths: list[int], teacher_heads: int, student_heads: int, seed: int, dropped: float
) -> None:
    mask = lengths_mask(*lengths)
    teacher, whole = make_maps(mask, teacher_heads, seed), make_maps(mask, student_heads, seed + 1)
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(whole.shape, generator=generator, dtype=whole.dtype) >= dropped
    student = (whole * kept / (1 - dropped)).requires_grad_()
    step = maps_step(mask, (student,), (teacher,))
    loss = Attention()(step)
    assert loss.item() >= -1e-12
    loss.backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()
    # A map without kept tokens has no direction: 0 / 0 by hand.
    if all((student[row, :, :length, :length].sum(dim=(1, 2)) > 0).all() for row, length in enumerate(lengths)):
        assert loss.item() == pytest.approx(layer_by_hand(teacher, student, mask, 0.1), rel=1e-9, abs=1e-12)


def test_equal_maps_leave_nothing_to_learn_with_dropout_too() -> None:
    mask = lengths_mask(5, 4)
    maps = make_maps(mask, 1, 3)
    assert value(Attention(), mask, (maps,), (maps,)) == pytest.approx(0.0, abs=1e-12)
    dropped = maps * (torch.rand(maps.shape, generator=torch.Generator().manual_seed(0)) > 0.3) / 0.7
    assert (dropped == 0).any()
    assert value(Attention(), mask, (dropped,), (maps,)) == pytest.approx(0.0, abs=1e-12)
    assert value(Attention(), mask, (torch.zeros_like(maps),), (maps,)) == 0.0


def test_a_low_temperature_aligns_the_most_similar_heads() -> None:
    """The same heads in another order have a loss of 0."""
    mask = lengths_mask(5, 5)
    maps = make_maps(mask, 3, 5)
    turned = maps[:, [2, 0, 1]]
    assert value(Attention(1e-3), mask, (turned,), (maps,)) == pytest.approx(0.0, abs=1e-9)
    assert value(Attention(10.0), mask, (turned,), (maps,)) > 0.1


def test_padding_does_not_count() -> None:
    mask = lengths_mask(5, 2)
    teacher, student = make_maps(mask, 2, 1), make_maps(mask, 2, 2)
    before = value(Attention(), mask, (student,), (teacher,))
    valid = mask[:, None, :, None] * mask[:, None, None, :] == 1
    for noise in (7.0, math.nan):
        spoilt = [maps.masked_fill(~valid, noise) for maps in (student, teacher)]
        assert value(Attention(), mask, (spoilt[0],), (spoilt[1],)) == pytest.approx(before, rel=1e-12)
    alone = []
    for row, length in enumerate((5, 2)):
        cut = [(maps[row : row + 1, :, :length, :length],) for maps in (student, teacher)]
        alone.append(value(Attention(), mask[row : row + 1, :length], cut[0], cut[1]))
    assert before == pytest.approx(sum(alone) / 2, rel=1e-12)


@pytest.mark.parametrize(
    ("student", "teacher", "pairing"),
    [
        (2, 4, (1, 3)),
        (3, 6, (1, 3, 5)),
        (1, 12, (11,)),
        (2, 3, (1, 2)),
        (4, 4, (0, 1, 2, 3)),
        (3, 4, (1, 2, 3)),
        (4, 2, (0, 0, 1, 1)),
    ],
)
def test_layers_are_spread_up_to_the_last(student: int, teacher: int, pairing: tuple[int, ...]) -> None:
    assert spread_layers(student, teacher) == pairing


@pytest.mark.parametrize(("layers", "pairing"), [((), (1, 3)), ((0, 2), (0, 2)), ((3, 3), (3, 3))])
def test_each_layer_follows_its_own(layers: tuple[int, ...], pairing: tuple[int, int]) -> None:
    mask = lengths_mask(4, 3)
    teacher = tuple(make_maps(mask, 2, seed) for seed in range(4))
    student = tuple(make_maps(mask, 3, 10 + seed) for seed in range(2))
    expected = np.mean(
        [layer_by_hand(teacher[number], own, mask, 0.1) for own, number in zip(student, pairing, strict=True)]
    )
    assert value(Attention(layers=layers), mask, student, teacher) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("heads", "temperature"), [((3, 1), 0.1), ((2, 3), 1e9)], ids=["one head", "equal weights"])
def test_gradients_are_right(heads: tuple[int, int], temperature: float) -> None:
    """Where the weights, through which nothing is learnt, do not change with the maps."""
    mask = lengths_mask(4, 2)
    teacher = make_maps(mask, heads[0], 1)
    scores = torch.randn(2, heads[1], TOKENS, TOKENS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def of(scores: Tensor) -> Tensor:
        own = scores.masked_fill(mask[:, None, None, :] == 0, -1e30).softmax(dim=-1)
        return Attention(temperature)(maps_step(mask, (own,), (teacher,)))

    assert torch.autograd.gradcheck(of, (scores.requires_grad_(),))


def test_nothing_is_learnt_through_the_weights() -> None:
    mask = lengths_mask(5, 4)
    teacher, student = make_maps(mask, 2, 1), make_maps(mask, 3, 2).requires_grad_()
    Attention(0.2)(maps_step(mask, (student,), (teacher,))).backward()
    fixed = student.detach().clone().requires_grad_()
    total = fixed.new_zeros(())
    for row, length in enumerate((5, 4)):
        for i in range(2):
            taught = teacher[row, i, :length, :length]
            own = fixed[row, :, :length, :length]
            cosines = torch.stack([(taught * one).sum() / taught.norm() / one.norm() for one in own.detach()])
            for share, one in zip((cosines / 0.2).softmax(dim=0), own, strict=True):
                answer = one / one.sum(dim=-1, keepdim=True)
                total = total + share * (taught * (taught.log() - answer.log())).sum() / length / 4
    total.backward()
    assert student.grad is not None and fixed.grad is not None
    torch.testing.assert_close(student.grad, fixed.grad)


@pytest.mark.parametrize("smallest", [1e-30, 1e-40, 1e-45])
def test_probabilities_next_to_nothing_give_finite_gradients(smallest: float) -> None:
    mask = lengths_mask(2)
    scores = torch.tensor([[[[0.0, math.log(smallest)], [0.0, 0.0]]]]).requires_grad_()
    own = torch.nn.functional.pad(scores.softmax(dim=-1), (0, 3, 0, 3))
    teacher = make_maps(mask, 1, 0, torch.float32)
    loss = Attention()(maps_step(mask, (own,), (teacher,)))
    loss.backward()
    assert torch.isfinite(loss) and scores.grad is not None and torch.isfinite(scores.grad).all()


def four_headed() -> EncoderClassifier:
    """A student with two layers and twice as many heads as its teacher."""
    torch.manual_seed(2)
    config = tinymodels.bert_config(num_hidden_layers=2, num_attention_heads=4, initializer_range=0.3, **SHOWN)
    return tinymodels.student_of(BertModel(config, add_pooling_layer=False))


def sharp_teacher() -> EncoderClassifier:
    """A teacher with attention that is not uniform."""
    torch.manual_seed(3)
    config = tinymodels.bert_config(initializer_range=0.3, **SHOWN)
    return tinymodels.student_of(BertModel(config, add_pooling_layer=False))


def value_of(student: EncoderClassifier, rows: TokenRows) -> float:
    """The term on all rows, nothing dropped."""
    inputs = rows.batch(range(ROWS))
    found = []
    for model in (student, sharp_teacher()):
        with torch.no_grad():
            found.append(model.eval()(detailed=True, output_attentions=True, **inputs))
    targets = tiny_targets()
    step = step_of(
        found[0].logits,
        found[0].embedding,
        targets,
        inputs=inputs,
        student_attentions=found[0].attentions,
        teacher_attentions=found[1].attentions,
    )
    return Attention()(step).item()


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
def test_a_fit_lowers_it_with_other_heads_and_dropout(tmp_path: Path, tiny_bert: Path, pairs: bool) -> None:
    rows = tiny_rows(tiny_bert, pairs)
    before = value_of(four_headed(), rows)
    terms = (ObjectiveRecipe("attention", WEIGHT), ObjectiveRecipe("soft_labels"))
    student = distilled(tmp_path, rows, *terms, epochs=6, student=four_headed(), load_teacher=sharp_teacher)
    assert student.encoder.config.attention_probs_dropout_prob > 0
    assert value_of(student, rows) < 0.85 * before


def test_a_killed_and_resumed_fit_gives_the_same_result(tmp_path: Path, tiny_bert: Path) -> None:
    terms = (ObjectiveRecipe("attention", WEIGHT), ObjectiveRecipe("hard_labels", 0.5))
    require_same_after_a_kill(tmp_path, tiny_rows(tiny_bert), *terms, steps=(4,))


@pytest.mark.parametrize("layers", [[1], [0, 1, 2, 3, 0], [0, 1, 2, 4]], ids=str)
def test_layers_that_do_not_fit_the_models_are_refused(layers: list[int]) -> None:
    encoder = sharp_teacher().encoder
    with pytest.raises(RecipeError, match=r"4 numbers.*from 0 to 3"):
        Attention(layers=tuple(layers)).check(encoder, encoder, Recipe())


def test_a_student_of_another_vocabulary_is_refused() -> None:
    other = BertModel(tinymodels.bert_config(vocab_size=200), add_pooling_layer=False)
    with pytest.raises(RecipeError, match=r"'attention'.*200 tokens"):
        Attention().check(other, sharp_teacher().encoder, Recipe())


def test_layers_are_a_list_in_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[[objectives]]\nname = "attention"\nlayers = [2, 5]\n', encoding="utf-8")
    assert objectives.build(load_recipe(path).objectives).terms == ((1.0, Attention(layers=(2, 5))),)
    path.write_text('[[objectives]]\nname = "attention"\nlayers = []\n', encoding="utf-8")
    assert objectives.build(load_recipe(path).objectives).terms == ((1.0, Attention()),)


@pytest.mark.parametrize(
    ("name", "found"),
    [("layers", [2, 5.0]), ("layers", [True]), ("layers", "2,5"), ("layers", 2), ("layers", [-1]), ("temperature", 0)],
)
def test_invalid_settings_are_refused(name: str, found: Any) -> None:
    with pytest.raises(RecipeError, match=name):
        objectives.build([ObjectiveRecipe("attention", 1.0, {name: found})])
