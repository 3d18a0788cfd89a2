from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models as tinymodels
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from reaugkd.errors import StorageError
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.execution import training_loop as fitting
from reaugkd.export.modeling.execution.inference import outputs_of, share
from reaugkd.export.modeling.execution.tokens import TokenRows
from reaugkd.export.modeling.execution.training_loop import FitJob, Loss, Step, fit, parameter_groups, uses_bf16
from reaugkd.export.recipe import FitRecipe

ROWS = 40
STEPS = 9  # 3 epochs of 3 batches


class KilledError(Exception):
    """An exception that stands for a signal; no code catches it."""


@pytest.fixture(scope="module")
def rows(tiny_bert: Path) -> TokenRows:
    return tinymodels.tokens_of(tinymodels.make_split(ROWS, 5).inputs(), tiny_bert)


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.arange(ROWS) % 3


@pytest.fixture
def loss(labels: Tensor) -> Loss:
    return loss_on(labels)


def loss_on(labels: Tensor) -> Loss:
    def loss(step: Step) -> Tensor:
        outputs = step.forward(**step.inputs)
        return cross_entropy(outputs.logits, labels[step.rows]) + outputs.embedding[:, 0].mean()

    return loss


def make_job(folder: Path, seconds: float = 0.0, seed: int = 3, **recipe: Any) -> FitJob:
    fit_recipe = tinymodels.fast_fit(3, **{"batch_size": 16, **recipe})
    return FitJob("test", fit_recipe, seed, "fp32", folder / "checkpoints" / "test.pt", seconds)


def start() -> EncoderClassifier:
    return tinymodels.tiny_student(dropout=0.2)


@pytest.fixture(scope="module")
def whole(rows: TokenRows, labels: Tensor, tmp_path_factory: pytest.TempPathFactory) -> EncoderClassifier:
    """The result of an uninterrupted fit."""
    return fitted(rows, loss_on(labels), make_job(tmp_path_factory.mktemp("whole")))


def fitted(rows: TokenRows, loss: Loss, job: FitJob) -> EncoderClassifier:
    model = start()
    fit(model, rows, loss, job)
    return model


def killed_at(number: int, loss: Loss) -> Loss:
    """The loss, which raises at a given call."""
    calls = itertools.count()

    def deadly(step: Step) -> Tensor:
        if next(calls) == number:
            raise KilledError
        return loss(step)

    return deadly


def test_fitting_lowers_the_loss(rows: TokenRows, labels: Tensor, tmp_path: Path) -> None:
    seen: list[float] = []

    def loss(step: Step) -> Tensor:
        value = cross_entropy(step.forward(**step.inputs).logits, labels[step.rows])
        seen.append(value.item())
        return value

    model = start()
    before = cross_entropy(outputs_of(model, rows, "").logits, labels).item()
    fit(model, rows, loss, FitJob("test", tinymodels.fast_fit(8), 0, "fp32", tmp_path / "c.pt"))
    assert cross_entropy(outputs_of(model, rows, "").logits, labels).item() < 0.7 * before
    assert len(seen) == 8 * 3
    assert not model.training


def test_a_row_is_seen_once_an_epoch(rows: TokenRows, loss: Loss, tmp_path: Path) -> None:
    seen: list[int] = []

    def watched(step: Step) -> Tensor:
        seen.extend(step.rows.tolist())
        return loss(step)

    fitted(rows, watched, make_job(tmp_path))
    epochs = [seen[number * ROWS : (number + 1) * ROWS] for number in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(ROWS))] * 3
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize(
    ("step", "freeze"), [(0, False), (1, False), (2, True), (3, False), (4, True), (6, False), (8, False)]
)
def test_killed_at_any_step_and_started_again_it_ends_the_same(
    rows: TokenRows, loss: Loss, whole: EncoderClassifier, tmp_path: Path, step: int, freeze: bool
) -> None:
    if freeze:
        whole = fitted(rows, loss, make_job(tmp_path / "whole", 60.0, freeze_word_embeddings=True))
    job = make_job(tmp_path / "killed", freeze_word_embeddings=freeze)
    with pytest.raises(KilledError):
        fitted(rows, killed_at(step, loss), job)
    assert job.checkpoint.exists() is (step > 0)
    calls = itertools.count()

    def counted(step: Step) -> Tensor:
        next(calls)
        return loss(step)

    torch.rand(step)  # another process would have drawn other numbers
    again = fitted(rows, counted, job)
    assert next(calls) == STEPS - step  # resumed, not started again
    assert tinymodels.same_states(again.state_dict(), whole.state_dict())


@pytest.mark.slow
def test_killed_again_and_again(rows: TokenRows, loss: Loss, whole: EncoderClassifier, tmp_path: Path) -> None:
    job = make_job(tmp_path / "killed")
    for _ in range(STEPS - 1):
        with pytest.raises(KilledError):
            fitted(rows, killed_at(1, loss), job)
    assert tinymodels.same_states(fitted(rows, loss, job).state_dict(), whole.state_dict())


def test_killed_long_after_the_last_checkpoint(
    rows: TokenRows, loss: Loss, whole: EncoderClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(fitting.time, "monotonic", lambda: float(next(clock)))
    job = make_job(tmp_path / "killed", seconds=4.0)
    with pytest.raises(KilledError):
        fitted(rows, killed_at(7, loss), job)
    saved = torch.load(job.checkpoint, weights_only=True)["step"]
    assert 0 < saved < 7
    assert tinymodels.same_states(fitted(rows, loss, job).state_dict(), whole.state_dict())


@pytest.mark.slow
def test_a_kill_while_saving_resumes_from_the_previous_checkpoint(
    rows: TokenRows, loss: Loss, whole: EncoderClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path / "killed")
    save, saves = torch.save, itertools.count()

    def deadly(state: object, file: Any) -> None:
        if next(saves) == 4:
            file.write(b"half a checkpoint")
            raise KilledError
        save(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", deadly)
        with pytest.raises(KilledError):
            fitted(rows, loss, job)
    assert [path.name for path in job.checkpoint.parent.iterdir()] == ["test.pt"]
    assert torch.load(job.checkpoint, weights_only=True)["step"] == 4
    assert tinymodels.same_states(fitted(rows, loss, job).state_dict(), whole.state_dict())


def test_a_finished_fit_is_not_done_again(
    rows: TokenRows, loss: Loss, whole: EncoderClassifier, tmp_path: Path
) -> None:
    job = make_job(tmp_path)
    fitted(rows, loss, job)
    again = fitted(rows, killed_at(0, loss), job)
    assert tinymodels.same_states(again.state_dict(), whole.state_dict())


def test_a_full_disk_is_reported(rows: TokenRows, loss: Loss, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: object, file: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        fitted(rows, loss, make_job(tmp_path))


def test_the_seed_decides_everything(rows: TokenRows, loss: Loss, whole: EncoderClassifier, tmp_path: Path) -> None:
    other = fitted(rows, loss, make_job(tmp_path / "other", 60.0, seed=4))
    assert not tinymodels.same_states(whole.state_dict(), other.state_dict())
    torch.manual_seed(77)
    same = fitted(rows, loss, make_job(tmp_path / "same", 60.0))
    assert tinymodels.same_states(whole.state_dict(), same.state_dict())


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_word_embeddings_do_not_change(rows: TokenRows, loss: Loss, tmp_path: Path, freeze: bool) -> None:
    model = start()
    before = tinymodels.state_of(model)
    fit(model, rows, loss, make_job(tmp_path, 60.0, freeze_word_embeddings=freeze))
    name = "encoder.embeddings.word_embeddings.weight"
    after = model.state_dict()
    assert torch.equal(after[name], before[name]) is freeze
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])
    assert not torch.equal(
        after["encoder.embeddings.position_embeddings.weight"], before[name.replace("word", "position")]
    )
    assert model.encoder.get_input_embeddings().weight.requires_grad


def test_no_epochs_and_no_rows_change_nothing(rows: TokenRows, tiny_bert: Path, loss: Loss, tmp_path: Path) -> None:
    before = start().state_dict()
    job = FitJob("test", tinymodels.fast_fit(0), 0, "fp32", tmp_path / "c.pt", 0.0)
    assert tinymodels.same_states(fitted(rows, loss, job).state_dict(), before)
    none = tinymodels.tokens_of([], tiny_bert)
    assert tinymodels.same_states(fitted(none, loss, make_job(tmp_path)).state_dict(), before)


def test_groups_have_their_own_rates_and_only_matrices_decay() -> None:
    model = start()
    recipe = FitRecipe(learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.05)
    model.encoder.get_input_embeddings().weight.requires_grad_(False)
    groups = parameter_groups(model, recipe)
    found = {id(value): (group["lr"], group["weight_decay"]) for group in groups for value in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found)
    for name, value in model.named_parameters():
        if "word_embeddings" in name:
            assert id(value) not in found
            continue
        in_encoder = name.startswith("encoder.")
        matrix = not (name.endswith(".bias") or "LayerNorm" in name)
        assert found.pop(id(value)) == (1e-4 if in_encoder else 1e-3, 0.05 if matrix else 0.0), name
    assert not found


def test_rates_warm_up_and_fade_away(
    rows: TokenRows, loss: Loss, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    fitted(rows, loss, make_job(tmp_path, 60.0, warmup=0.34, learning_rate=9e-3))
    expected = [9e-3 * share for share in (0, 1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)]
    assert rates == pytest.approx(expected)


def test_the_gradient_is_clipped(rows: TokenRows, tmp_path: Path) -> None:
    """The norm of the whole gradient, as the optimizer is done with it, of a loss a million times too large."""

    def large(step: Step) -> Tensor:
        return 1e6 * step.forward(**step.inputs).logits.pow(2).mean()

    norms: list[float] = []

    def watch(model: EncoderClassifier) -> None:
        total = sum(float(value.grad.pow(2).sum()) for value in model.parameters() if value.grad is not None)
        norms.append(total**0.5)

    model = start()
    zero_grad = torch.optim.AdamW.zero_grad

    def watched(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> None:
        watch(model)
        zero_grad(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "zero_grad", watched)
        fit(model, rows, large, make_job(tmp_path, 60.0, clip=0.5))
    assert len(norms) == STEPS
    assert max(norms) <= 0.5 + 1e-4 and norms[0] == pytest.approx(0.5, rel=1e-3)


def test_precision_follows_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert uses_bf16("bf16", cpu) and not uses_bf16("fp32", cpu)
    intel = {"cpu_name": "Intel Xeon", "avx512_bf16": True}
    for capability, expected in (
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx2": True}, False),
        (intel, False),
        ({**intel, "amx_bf16": True}, True),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capability: found)
        assert uses_bf16("auto", cpu) is expected


@pytest.mark.parametrize("there", [True, False])
def test_precision_follows_the_device_of_the_fit(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """A fit that is kept on the processor has nothing of the GPU beside it, nor one on the GPU of the processor."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: there)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": not there})
    assert uses_bf16("auto", torch.device("cuda")) is there
    assert uses_bf16("auto", torch.device("cpu")) is not there


def test_bf16_keeps_float32_weights_and_losses(rows: TokenRows, labels: Tensor, tmp_path: Path) -> None:
    dtypes = set()

    def loss(step: Step) -> Tensor:
        outputs = step.forward(**step.inputs)
        dtypes.update({outputs.logits.dtype, outputs.embedding.dtype})
        return cross_entropy(outputs.logits, labels[step.rows])

    model = start()
    before = tinymodels.state_of(model)
    fit(model, rows, loss, FitJob("test", tinymodels.fast_fit(1), 0, "bf16", tmp_path / "c.pt"))
    assert dtypes == {torch.float32}
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert not tinymodels.same_states(model.state_dict(), before)
    assert all(torch.isfinite(value).all() for value in model.parameters())


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_outputs_are_those_of_each_row_alone_in_the_rows_order(rows: TokenRows, batch_size: int) -> None:
    model = start()
    assert len(set(rows.lengths())) > 3 and rows.lengths() != sorted(rows.lengths(), reverse=True)
    model.train()
    found = outputs_of(model, rows, "", batch_size)
    assert not model.training
    assert found.logits.shape == (ROWS, 3) and found.embedding.shape == (ROWS, 16)
    with torch.no_grad():
        alone = [model(**rows.batch([row])) for row in range(ROWS)]
    torch.testing.assert_close(found.logits, torch.cat([one.logits for one in alone]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.embedding, torch.cat([one.embedding for one in alone]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.embedding, normalize(found.embedding, dim=-1))


def test_outputs_of_no_rows(tiny_bert: Path) -> None:
    found = outputs_of(start(), tinymodels.tokens_of([], tiny_bert), "")
    assert len(found.logits) == 0 and len(found.embedding) == 0


@pytest.mark.parametrize(("count", "world"), [(6, 1), (6, 2), (7, 2), (3, 8), (1, 4)])
def test_every_process_gets_the_same_number_of_batches(count: int, world: int) -> None:
    batches = [[number] for number in range(count)]
    shares = [share(batches, process, world) for process in range(world)]
    assert {len(one) for one in shares} == {-(-count // world)}
    assert {number for one in shares for (number,) in one} == set(range(count))
    if world == 1:
        assert shares == [batches]
