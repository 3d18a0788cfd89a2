"""Check teacher and student before any training: they load, fit the recipe and can be exported."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...errors import ModelError, RecipeError
from ...kb.storage.atomic import storage_errors
from .. import objectives
from ..modeling.checkpoint import ChosenPooling, load_config, load_encoder, sentence_modules
from ..modeling.encoder import EncoderClassifier, HeadConfig, choose_pooling, require_usable
from ..modeling.execution.tokens import save_tokenizer
from ..modeling.layers import copy_layers, default_layers
from ..modeling.projection import require_reducible
from ..modeling.teacher import MatchedLabels, load_teacher, match_labels
from ..onnx.export import export_float32, require_same_answers
from ..onnx.exporters import input_names
from ..recipe import Recipe

_exportable: set[str] = set()  # architectures that passed `require_exportable`
_TOKENS = 8  # length of the text on which attention maps are checked


def check_models(teacher: str, recipe: Recipe, fine_tuned: bool, label_names: Sequence[str]) -> None:
    """Check teacher and student before the run folder is made, so that no training is wasted.

    Messages on stderr say how the teacher's labels were matched, and which tokens and modules are left out.

    Args:
        teacher: hub id or folder.
        recipe: the recipe of the run.
        fine_tuned: whether the teacher is a fine-tuned classifier.
        label_names: the labels in order.

    Raises:
        ModelError: a model cannot be loaded, used as the recipe asks, or exported.
        RecipeError: max_length, embedding_dim, an objective or --teacher-labels does not fit the models.
        StorageError: the folder for temporary files is full.
    """
    loss = objectives.build(recipe.objectives)
    if recipe.teacher.labels and not fine_tuned:
        raise RecipeError(
            "--teacher-labels names the outputs of a fine-tuned classifier",
            path=teacher,
            found="a model without a classifier",
            remedy="Leave --teacher-labels out.",
        )
    if fine_tuned:
        _tell_labels(match_labels(teacher, load_config(teacher), label_names, recipe.teacher.labels), label_names)
    _check_files(teacher, recipe.max_length)
    taught: Any
    if fine_tuned:
        taught = load_teacher(teacher, recipe.teacher, label_names, loss.attention).encoder
    else:
        taught = load_encoder(teacher, loss.attention)
    require_usable(taught, teacher, recipe.max_length)
    pooling = choose_pooling(recipe.teacher.pooling, teacher, taught)
    if recipe.projection.method == "pca":
        require_reducible(recipe.projection.embedding_dim, taught.config.hidden_size)
    if recipe.student.model:
        student = load_own_student(recipe, label_names)
    else:
        encoder = copy_layers(taught, recipe.student.layers or default_layers(taught))
        student = _student(encoder, pooling, recipe, label_names)
    model = recipe.student.model or teacher
    if "attentions" in loss.needs:
        require_attention_maps(taught, teacher)
        require_attention_maps(student.encoder, model)
    loss.check(student.encoder, taught, recipe)
    del taught  # a large teacher need not be in memory beside the copies of the student
    require_student(student, model, recipe)


def refuse_pretrained(recipe: Recipe, teacher: str, found: str) -> None:
    """Refuse objectives that need the teacher's encoder before its fine-tuning.

    Args:
        recipe: the recipe of the run.
        teacher: a teacher whose pretrained encoder is not known: hub id, folder or file.
        found: what it is, for the error.

    Raises:
        RecipeError: the recipe has such an objective.
    """
    for item in recipe.objectives:
        if "pretrained" in objectives.build([item]).needs:
            raise RecipeError(
                f"objective {item.name!r} needs the teacher's encoder before its fine-tuning",
                path=teacher,
                found=found,
                expected="a pretrained encoder, which is then fine-tuned on the data",
                remedy="Give the encoder that the teacher was made from as --teacher, or use recipes/kd.toml.",
            )


def load_own_student(recipe: Recipe, label_names: Sequence[str]) -> EncoderClassifier:
    """Load the model that the student starts from, and check its files.

    Args:
        recipe: the recipe of the run, with the student's model.
        label_names: the labels in order.

    Raises:
        ModelError: it cannot be loaded.
        RecipeError: max_length does not fit it.
    """
    model = recipe.student.model
    _check_files(model, recipe.max_length)
    encoder = load_encoder(model, objectives.build(recipe.objectives).attention)
    return _student(encoder, choose_pooling(recipe.student.pooling, model, encoder), recipe, label_names)


def _student(
    encoder: PreTrainedModel, pooling: ChosenPooling, recipe: Recipe, label_names: Sequence[str]
) -> EncoderClassifier:
    return EncoderClassifier(encoder, HeadConfig(len(label_names), pooling, recipe.projection.embedding_dim))


def require_student(student: EncoderClassifier, model: str, recipe: Recipe) -> None:
    """Check that a student can be trained, saved and exported; for the arguments see `require_exportable`.

    Raises:
        ModelError: it cannot.
    """
    require_usable(student.encoder, model, recipe.max_length)
    require_exportable(student, model)


def _tell_labels(matched: MatchedLabels, label_names: Sequence[str]) -> None:
    if matched.by_position:
        click.echo(
            f"the teacher's labels have no names; its outputs are taken to be, in order: {', '.join(label_names)}. "
            "If the order is another: --teacher-labels",
            err=True,
        )
    if matched.unused:
        click.echo(f"labels of the teacher that no row has, left out: {', '.join(matched.unused)}", err=True)


def _check_files(model: str, max_length: int) -> None:
    """Check the tokenizer, and tell of modules that are not used."""
    _check_tokenizer(model, max_length)
    kinds = [module["type"].rsplit(".", 1)[-1] for module in sentence_modules(model)]
    unused = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if unused:
        click.echo(f"{model}: its modules after the pooling are left out: {', '.join(unused)}", err=True)


def _check_tokenizer(model: str, max_length: int) -> None:
    positions = getattr(load_config(model), "max_position_embeddings", None) or -1  # XLNet's -1: any number
    if 0 < positions < max_length:
        raise RecipeError(
            "max_length exceeds the model's number of positions",
            path=model,
            found=max_length,
            expected=f"at most {positions}",
            remedy="Lower --max-length.",
        )
    with tempfile.TemporaryDirectory() as folder:
        beyond = save_tokenizer(model, Path(folder))
    if beyond:
        click.echo(
            f"{model}: the model has no embedding for {len(beyond)} added tokens of its tokenizer, which are split as "
            f"ordinary text: {', '.join(beyond[:5])}{', ...' if len(beyond) > 5 else ''}",
            err=True,
        )


def require_exportable(student: EncoderClassifier, model: str) -> None:
    """Check that a student is the same after it is saved and loaded, and after it is exported to ONNX.

    Students of the same architecture are checked once in a process: a study trains many of them.

    Args:
        student: the student before its distillation; not changed.
        model: the hub id or folder that it starts from, for the error.

    Raises:
        ModelError: it cannot be loaded or exported, or it then gives other outputs (if the kind of a layer depends on
            its position, as in ModernBERT).
    """
    architecture = _architecture(student)
    if architecture in _exportable:
        return
    count = student.encoder.config.vocab_size
    ids = (torch.arange(3 * _TOKENS).reshape(3, _TOKENS) * 7) % (count - 1) + 1
    mask = torch.ones_like(ids)
    mask[1, 2:] = mask[2, 1:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    batch = {name: batch[name] for name in input_names(student.encoder.config)}
    student = student.eval()
    with tempfile.TemporaryDirectory() as name, storage_errors(Path(name), Path(name)):
        if not _same_after_loading(student, Path(name), batch):
            raise ModelError(
                "the model's layers do not work in other positions",
                path=model,
                found=f"{type(student.encoder).__name__} cut to {student.encoder.config.num_hidden_layers} layers",
                expected="layers of the same kind in all positions",
                remedy="Keep other --student-layers, or start from another model: --student MODEL.",
            )
        labels = [str(number) for number in range(student.head.num_labels)]
        require_same_answers(student, export_float32(student, labels, _TOKENS, Path(name)), batch)
    _exportable.add(architecture)


def _architecture(student: EncoderClassifier) -> str:
    config = {name: value for name, value in student.encoder.config.to_dict().items() if name != "_name_or_path"}
    return repr((config, student.head, [(name, value.shape) for name, value in student.state_dict().items()]))


@torch.inference_mode()
def _same_after_loading(student: EncoderClassifier, folder: Path, batch: dict[str, Tensor]) -> bool:
    student.save(folder)
    try:
        again = EncoderClassifier.load(folder)
    except ModelError:
        return False
    return all(map(partial(torch.allclose, atol=1e-5), again(**batch), student(**batch)))


@torch.inference_mode()
def require_attention_maps(encoder: PreTrainedModel, model: str) -> None:
    """Check that every layer of an encoder returns its attention maps, [rows, heads, tokens, tokens].

    Args:
        encoder: loaded with eager attention.
        model: its hub id or folder, for the error.

    Raises:
        ModelError: a layer does not.
    """
    ids = torch.arange(_TOKENS).unsqueeze(0) % encoder.config.vocab_size
    try:
        states = encoder.eval()(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True, return_dict=True
        )
        found = [tuple(maps.shape) for maps in states.get("attentions") or ()]
    except TypeError:  # the model has no option output_attentions
        found = []
    maps = [shape for shape in found if len(shape) == 4 and shape[2:] == (_TOKENS, _TOKENS)]
    if not len(maps) == len(found) == encoder.config.num_hidden_layers:
        raise ModelError(
            "the model does not return its attention maps",
            path=model,
            found=f"shapes {found}" if found else "none",
            expected="attention maps of every layer of student and teacher",
            remedy="Leave out the objective that needs them, or use other models.",
        )
