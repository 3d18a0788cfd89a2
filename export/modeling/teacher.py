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
    """A classifier that was fine-tuned elsewhere, with outputs in the order of the data's labels.

    Args:
        model: a sequence classifier.
        pooling: how its last token states become the embedding.
        order: the model's output for each of the data's labels.
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
    """Record the encoder's last hidden states while a classifier runs, [batch, tokens, hidden] per call.

    The last of the classifier's own ``hidden_states`` may lack the final norm (ModernBERT).
    """
    found: list[Tensor] = []
    hook = encoder.register_forward_hook(lambda _module, _inputs, outputs: found.append(outputs.last_hidden_state))
    try:
        yield found
    finally:
        hook.remove()


def is_classifier(model: str) -> bool:
    """Whether a model (hub id or folder) is a classifier by its configuration, or the teacher of a run."""
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
    """Load a fine-tuned classifier and match its labels with the data's; for the arguments see ``load_teacher``.

    Labels are matched by name, ignoring case, or by position if the model's names are ``LABEL_0``, ``LABEL_1``, ...

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
    """Find the model's output for each of the data's labels; see ``load_fine_tuned``.

    Args:
        model: hub id or folder, for the error.
        config: the model's configuration.
        label_names: the data's labels in order.

    Raises:
        ModelError: the labels cannot be matched.
    """
    for fold in (str, str.casefold):
        theirs = {fold(str(name)): int(number) for number, name in config.id2label.items()}
        ours = [fold(name) for name in label_names]
        # The number of names must stay the same, so that names that differ only in case are never confused.
        if set(theirs) == set(ours) and len(theirs) == len(ours) == len(config.id2label):
            return [theirs[name] for name in ours]
    generic = set(theirs) == {f"label_{number}" for number in range(len(theirs))}
    if generic and len(theirs) == len(ours):
        return list(range(len(ours)))
    raise ModelError(
        "the fine-tuned teacher's labels differ from the data's",
        path=model,
        found=", ".join(map(str, config.id2label.values())),
        expected=", ".join(label_names),
        remedy="Rename the data's labels to the model's, or give an encoder without a classifier head.",
    )


def fine_tune(
    model: str, recipe: TeacherRecipe, rows: TokenRows, labels: Tensor, label_names: Sequence[str], job: FitJob
) -> EncoderClassifier:
    """Fine-tune an encoder with a new classifier on gold labels.

    Args:
        model: hub id or folder of an encoder.
        recipe: settings of the teacher.
        rows: n rows of tokens.
        labels: [n], int64, gold labels.
        label_names: [c]; they are kept in the encoder's configuration, so that other runs can use this teacher.
        job: see ``fit``.
    """
    torch.manual_seed(job.seed)  # for weights that the checkpoint lacks
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
    """Load the teacher of a run, or another fine-tuned classifier, in evaluation mode.

    Args:
        folder_or_model: the run's teacher folder, or hub id or folder of another classifier.
        pooling: how token states become the embedding, for another classifier.
        label_names: the labels in order.
        attention: the attention implementation, see ``load_encoder``.

    Raises:
        ModelError: the model cannot be loaded, or its labels cannot be matched.
    """
    if not is_ours(folder_or_model):
        return load_fine_tuned(str(folder_or_model), pooling, label_names, attention)
    teacher = EncoderClassifier.load(Path(folder_or_model), attention)
    order = match_labels(str(folder_or_model), teacher.encoder.config, label_names)
    with torch.no_grad():
        for parameter in teacher.classifier.parameters():
            parameter.copy_(parameter[order].clone())
    return teacher
