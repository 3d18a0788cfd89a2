"""The teacher: fine-tuned from an encoder, or an existing classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from optimum.exporters.tasks import TasksManager
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import PreTrainedModel

from ...errors import ModelError
from ..recipe import Pooling, TeacherRecipe
from .checkpoint import ChosenPooling, load_config, load_encoder, load_pretrained
from .encoder import Detailed, EncoderClassifier, HeadConfig, Outputs, choose_pooling, is_causal, pool
from .execution.distributed import processes
from .execution.inference import outputs_of
from .execution.tokens import TokenRows
from .execution.training_loop import FitJob, Step, fit

_TASK = "text-classification"


class FineTunedTeacher(nn.Module):
    """A classifier that was fine-tuned elsewhere, with outputs in the order of the data's labels.

    Args:
        model: a sequence classifier.
        pooling: how its last token states become the embedding.
        order: the model's output for each of the data's labels.
    """

    def __init__(self, model: PreTrainedModel, pooling: ChosenPooling, order: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.order = list(order)
        # A decoder's classifier finds the last token by the id of the padding, which it may not have.
        self.head = model.score if hasattr(model, "score") and is_causal(self.encoder) else None

    @property
    def encoder(self) -> PreTrainedModel:
        """The encoder of the classifier, without the head."""
        base: PreTrainedModel = self.model.base_model
        return base

    def forward(self, *, detailed: bool = False, **inputs: Any) -> Outputs | Detailed:
        """Same as EncoderClassifier.forward; the embedding is the pooled vector."""
        mask = inputs["attention_mask"]
        if self.head is None:
            with _last_states(self.encoder) as found:
                result = self.model(**inputs, return_dict=True)
            states, logits = found[-1], result.logits
        else:
            result = self.encoder(**inputs, return_dict=True)
            states = result.last_hidden_state
            logits = self.head(pool(states, mask, "last"))
        pooled, logits = pool(states, mask, self.pooling), logits[:, self.order]
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
    return is_ours(model) or any(_is_for_classification(name) for name in load_config(model).architectures or [])


def _is_for_classification(architecture: str) -> bool:
    found = getattr(transformers, architecture, None)
    if found is None:
        return architecture.endswith("ForSequenceClassification")
    try:
        return bool(TasksManager.infer_task_from_model(found) == _TASK)
    except ValueError:  # a class for no task, such as BertModel
        return False


def is_ours(folder_or_model: Path | str) -> bool:
    """Whether a run wrote this folder."""
    return (Path(folder_or_model) / "heads.json").is_file()


def load_fine_tuned(
    model: str, recipe: TeacherRecipe, label_names: Sequence[str], attention: str | None = None
) -> FineTunedTeacher:
    """Load a fine-tuned classifier and match its labels with the data's; for the arguments see ``load_teacher``.

    Raises:
        ModelError: the labels cannot be matched, or the model cannot be loaded.
    """
    order = match_labels(model, load_config(model), label_names, recipe.labels).order
    classifier = load_pretrained(TasksManager.get_model_class_for_task(_TASK), model, attention)
    pooling = choose_pooling(recipe.pooling, model, classifier.base_model)
    return FineTunedTeacher(classifier.eval(), pooling, order).eval()


@dataclass(frozen=True)
class MatchedLabels:
    """A fine-tuned teacher's outputs for the data's labels.

    Args:
        order: the model's output for each of the data's labels.
        by_position: whether the model's names say nothing, so that its outputs were taken in the order of the labels.
        unused: the model's labels that the data does not have.
    """

    order: tuple[int, ...]
    by_position: bool = False
    unused: tuple[str, ...] = ()


def match_labels(
    model: str, config: Any, label_names: Sequence[str], teacher_labels: Sequence[str] = ()
) -> MatchedLabels:
    """Find the model's output for each of the data's labels.

    They are matched by name, ignoring case, or by position if the model's names are ``LABEL_0``, ``LABEL_1``, ...

    Args:
        model: hub id or folder, for the error.
        config: the model's configuration.
        label_names: the data's labels in order.
        teacher_labels: names of the model's outputs in order; empty for those of its configuration.

    Raises:
        ModelError: the labels cannot be matched, or the model is no classifier with one label per text.
    """
    named = [str(config.id2label[number]) for number in sorted(config.id2label)]
    _require_one_label_per_text(model, config, named)
    if teacher_labels and not len(teacher_labels) == len(set(teacher_labels)) == len(named):
        raise ModelError(
            "--teacher-labels does not name each of the teacher's outputs",
            path=model,
            found=f"{len(teacher_labels)} names, {len(set(teacher_labels))} of them different",
            expected=f"{len(named)}, in the order of the teacher's outputs",
        )
    theirs = list(teacher_labels) or named
    for fold in (str, str.casefold):
        positions = {fold(name): number for number, name in enumerate(theirs)}
        ours = [fold(name) for name in label_names]
        # The number of names must stay the same, so that names that differ only in case are never confused.
        if set(ours) <= set(positions) and len(positions) == len(theirs) and len(set(ours)) == len(ours):
            unused = tuple(name for name in theirs if fold(name) not in set(ours))
            return MatchedLabels(tuple(positions[name] for name in ours), unused=unused)
    if [name.casefold() for name in theirs] == [f"label_{number}" for number in range(len(label_names))]:
        return MatchedLabels(tuple(range(len(label_names))), by_position=True)
    folded = {name.casefold() for name in theirs}
    others = [name for name in label_names if name not in theirs]  # all in another case, if several are one label then
    unknown = [name for name in others if name.casefold() not in folded] or others
    raise ModelError(
        "the fine-tuned teacher does not know a label of the data",
        path=model,
        found=f"outputs {', '.join(theirs)}; no output for {', '.join(unknown)}",
        expected=", ".join(label_names),
        remedy="Name its outputs in their order as the data does: --teacher-labels a,b,c. Or give a model without a "
        "classifier.",
    )


def _require_one_label_per_text(model: str, config: Any, named: Sequence[str]) -> None:
    kind = getattr(config, "problem_type", None)
    if kind in (None, "single_label_classification") and len(named) > 1:
        return
    raise ModelError(
        "the teacher does not choose one label per text",
        path=model,
        found=kind or f"{len(named)} output",
        expected="a classifier with a softmax over two or more labels",
        remedy="Distillation and blend need probabilities that sum to one. Give another teacher, or a model without a "
        "classifier, which is then fine-tuned on the data.",
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
    pooling = choose_pooling(recipe.pooling, model, encoder)
    teacher = EncoderClassifier(encoder, HeadConfig(len(label_names), pooling, None, recipe.dropout))

    def loss(step: Step) -> Tensor:
        return cross_entropy(step.forward(**step.inputs).logits, targets[step.rows])

    targets = labels.to(processes().device)
    fit(teacher, rows, loss, job)
    return teacher


def pretrained_embeddings(model: str, pooling: Pooling, rows: TokenRows) -> Tensor:
    """Compute the sentence embeddings of an encoder as it is, before any fine-tuning.

    Args:
        model: hub id or folder of the encoder.
        pooling: of the teacher's recipe.
        rows: n rows of tokens.

    Returns:
        [n, hidden], L2-normalised.
    """
    encoder = load_encoder(model)
    reader = EncoderClassifier(encoder, HeadConfig(1, choose_pooling(pooling, model, encoder)))
    return normalize(outputs_of(reader, rows, "pretrained encoder on train").embedding, dim=-1)


def load_teacher(
    folder_or_model: Path | str, recipe: TeacherRecipe, label_names: Sequence[str], attention: str | None = None
) -> nn.Module:
    """Load the teacher of a run, or another fine-tuned classifier, in evaluation mode.

    Args:
        folder_or_model: the run's teacher folder, or hub id or folder of another classifier.
        recipe: pooling, and names of the outputs, of another classifier.
        label_names: the labels in order.
        attention: the attention implementation, see ``load_encoder``.

    Raises:
        ModelError: the model cannot be loaded, or its labels cannot be matched.
    """
    if not is_ours(folder_or_model):
        return load_fine_tuned(str(folder_or_model), recipe, label_names, attention)
    teacher = EncoderClassifier.load(Path(folder_or_model), attention)
    order = list(match_labels(str(folder_or_model), teacher.encoder.config, label_names, recipe.labels).order)
    for name, parameter in list(teacher.classifier.named_parameters()):
        setattr(teacher.classifier, name, nn.Parameter(parameter.detach()[order].clone()))
    return teacher
