"""The teacher: fine-tuned from an encoder, or an existing classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from ...errors import ModelError
from ..recipe import Pooling, TeacherRecipe
from .distributed import processes
from .encoder import Detailed, EncoderClassifier, HeadConfig, Outputs, load_config, load_encoder, pool
from .tokens import TokenRows
from .training_loop import FitJob, Step, fit


class FineTunedTeacher(nn.Module):
    """A classifier that was fine-tuned elsewhere, its outputs in the order of our labels.

    Args:
        model: a sequence classifier.
        pooling: how its last token states become the embedding.
        order: for each of our labels, the model's output.
    """

    def __init__(self, model: PreTrainedModel, pooling: Pooling, order: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.order = list(order)

    @property
    def encoder(self) -> PreTrainedModel:
        """The encoder of the classifier, without the head."""
        base: PreTrainedModel = self.model.base_model
        return base

    def forward(self, *, detailed: bool = False, **inputs: Any) -> Outputs | Detailed:
        """Same as EncoderClassifier.forward; the embedding is the pooled vector."""
        with _last_states(self.encoder) as states:
            result = self.model(**inputs, return_dict=True)
        pooled = pool(states[-1], inputs["attention_mask"], self.pooling)
        logits = result.logits[:, self.order]
        if detailed:
            return Detailed(logits, pooled, pooled, tuple(result.get("attentions") or ()))
        return Outputs(logits, pooled)


@contextmanager
def _last_states(encoder: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Capture the encoder's last hidden states while a classifier runs, [batch, tokens, hidden] a call.

    The last of the classifier's own ``hidden_states`` may lack the final norm (ModernBERT).
    """
    found: list[Tensor] = []
    hook = encoder.register_forward_hook(lambda _module, _inputs, outputs: found.append(outputs.last_hidden_state))
    try:
        yield found
    finally:
        hook.remove()


def is_classifier(model: str) -> bool:
    """Whether the model (hub id or folder) is a classifier by its configuration, or the teacher of a run."""
    if is_ours(model):
        return True
    architectures = load_config(model).architectures or []
    return any(name.endswith("ForSequenceClassification") for name in architectures)


def is_ours(folder_or_model: Path | str) -> bool:
    """Whether a run wrote this folder."""
    return (Path(folder_or_model) / "heads.json").is_file()


def load_fine_tuned(
    model: str, pooling: Pooling, label_names: Sequence[str], attention: str | None = None
) -> FineTunedTeacher:
    """Load an already fine-tuned classifier and match its labels with ours.

    By name where the names agree (in any case), by position where the model has only ``LABEL_0``, ``LABEL_1``, ...

    Raises:
        ModelError: the labels cannot be matched, or the model cannot be loaded.
    """
    config = load_config(model)
    order = match_labels(model, config, label_names)
    try:
        classifier = AutoModelForSequenceClassification.from_pretrained(
            model, dtype=torch.float32, attn_implementation=attention
        )
    except Exception as error:
        raise ModelError("the model cannot be loaded", path=model, found=str(error)) from error
    return FineTunedTeacher(classifier, pooling, order).eval()


def match_labels(model: str, config: Any, label_names: Sequence[str]) -> list[int]:
    """For each of our labels the number of the model's output; see load_fine_tuned."""
    for fold in (str, str.casefold):
        theirs = {fold(str(name)): int(number) for number, name in config.id2label.items()}
        ours = [fold(name) for name in label_names]
        # As many names as labels: names that differ in their case alone are never mixed up.
        if set(theirs) == set(ours) and len(theirs) == len(ours) == len(config.id2label):
            return [theirs[name] for name in ours]
    generic = set(theirs) == {f"label_{number}" for number in range(len(theirs))}
    if generic and len(theirs) == len(ours):
        return list(range(len(ours)))
    raise ModelError(
        "the fine-tuned teacher's labels are not the data's",
        path=model,
        found=", ".join(map(str, config.id2label.values())),
        expected=", ".join(label_names),
        remedy="Name the data's labels as the model does, or give an encoder without a classifier head.",
    )


def fine_tune(
    model: str, recipe: TeacherRecipe, rows: TokenRows, labels: Tensor, label_names: Sequence[str], job: FitJob
) -> EncoderClassifier:
    """Fit an encoder and a fresh classifier on gold labels.

    Args:
        model: hub id or folder of an encoder.
        recipe: the teacher's part of the recipe.
        rows: n rows of tokens.
        labels: [n], int64.
        label_names: [c]; the encoder's config keeps them, so that the teacher can be another run's.
        job: see fit.
    """
    torch.manual_seed(job.seed)  # of what the checkpoint lacks
    encoder = load_encoder(model)
    encoder.config.id2label = dict(enumerate(label_names))
    encoder.config.label2id = {name: number for number, name in enumerate(label_names)}
    torch.manual_seed(job.seed)
    teacher = EncoderClassifier(encoder, HeadConfig(len(label_names), recipe.pooling, None, recipe.dropout))

    def loss(step: Step) -> Tensor:
        return cross_entropy(step.forward(**step.inputs).logits, targets[step.rows])

    targets = labels.to(processes().device)
    fit(teacher, rows, loss, job)
    return teacher


def load_teacher(
    folder_or_model: Path | str, pooling: Pooling, label_names: Sequence[str], attention: str | None = None
) -> nn.Module:
    """The teacher again: one that a run fitted from its folder, or another fine-tuned one from where it came.

    see ``load_encoder`` for ``attention``.

    Raises:
        ModelError: its labels are not these.
    """
    if not is_ours(folder_or_model):
        return load_fine_tuned(str(folder_or_model), pooling, label_names, attention)
    teacher = EncoderClassifier.load(Path(folder_or_model), attention)
    order = match_labels(str(folder_or_model), teacher.encoder.config, label_names)
    with torch.no_grad():
        for parameter in teacher.classifier.parameters():
            parameter.copy_(parameter[order].clone())
    return teacher
