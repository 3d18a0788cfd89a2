"""The training stage: rows -> teacher -> keys -> student -> tuned blend."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...kb.storage.atomic import sha256_file
from ...runtime.data import Dataset, Split, label_indices
from .. import objectives
from ..modeling.checkpoint import load_config
from ..modeling.encoder import EncoderClassifier
from ..modeling.execution.distributed import from_main, lost_process, processes
from ..modeling.execution.inference import outputs_of
from ..modeling.execution.tokens import TokenRows, save_tokenizer, token_rows
from ..modeling.execution.training_loop import FitJob
from ..modeling.layer_query import fit_layer_query, with_layer_query
from ..modeling.projection import LinearLayer, fit_projection, project
from ..modeling.teacher import fine_tune, is_classifier, load_teacher, pretrained_embeddings
from ..objectives.base import Targets
from ..recipe import Recipe
from ..tuning.build_kb import KbRows
from ..tuning.tune import HeldOut, K, Tuning, tune_blend
from .begin_run import begin_run, require_one_training
from .distill import distil, start_student
from .model_checks import check_models, refuse_pretrained
from .run_folder import RUN_FORMAT, RunFolder, made_from, write_rows
from .splits import RunSplits, assign
from .teacher.outputs import TeacherOutputs, load_outputs
from .teacher.right_answers import require_right_answers

Indices = NDArray[np.int64]

VERSIONS_OF = ("torch", "transformers", "tokenizers", "accelerate", "numpy")


@dataclass(frozen=True)
class TrainJob:
    """The settings of a training.

    Args:
        teacher: hub id or folder.
        recipe: all other settings.
        limit: largest number of train rows; None for all.
        redo: repeat stages whose settings changed; otherwise changed settings are refused.
        shared: a folder in which runs share their teachers; None to share nothing.
    """

    teacher: str
    recipe: Recipe
    limit: int | None = None
    redo: bool = False
    shared: Path | None = None


@lost_process()
def train(dataset: Dataset, job: TrainJob, out: Path) -> Tuning:
    """Train the run at ``out``, or resume it.

    Args:
        dataset: the labelled rows.
        job: teacher, recipe and options.
        out: the run folder, new or of an earlier call.

    Returns:
        The blend, tuned on the float32 student.

    Raises:
        DataError: the rows cannot be split.
        ModelError: a model cannot be loaded or used.
        RecipeError: the recipe does not fit the models, or a fit diverged.
        DistributedError: the processes cannot work together, or one of them ended.
        OutputExistsError: ``out`` is not a run folder, or it is a run with other settings and not ``redo``.
        StorageError: a file cannot be written.
    """
    splits = assign(dataset, job.recipe, job.limit)
    run = RunFolder(out, job.shared)
    fine_tuned = is_classifier(job.teacher)
    if fine_tuned:
        refuse_pretrained(job.recipe, job.teacher, "a fine-tuned classifier")
    models = {"teacher": fingerprint(job.teacher), "student": fingerprint(job.recipe.student.model)}
    description = describe(splits, job, fine_tuned, models)
    require_one_training(description)
    # In the main process: transformers saves no model in another one.
    from_main(partial(check_models, job.teacher, job.recipe, fine_tuned, splits.label_names))
    if fine_tuned:
        require_right_answers(job.teacher, job.recipe, splits.train, splits.label_names)
    begin_run(run, description, job.redo)
    with deterministic():
        return Pipeline(run, splits, job, fine_tuned, models).tuned()


@contextmanager
def deterministic() -> Iterator[None]:
    """Use torch's deterministic operations, where they exist, during the training."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS; no effect on a CPU
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def describe(splits: RunSplits, job: TrainJob, fine_tuned: bool, models: dict[str, str]) -> dict[str, Any]:
    """Return the contents of run.json.

    Args:
        splits: the rows.
        job: teacher, recipe and options.
        fine_tuned: whether the teacher is a fine-tuned classifier.
        models: fingerprints of ``teacher`` and ``student``.
    """
    return {
        "run_format": RUN_FORMAT,
        # A fine-tuned teacher is not copied into the run: `eval --run` must find it from any folder.
        "teacher": str(Path(job.teacher).absolute()) if Path(job.teacher).is_dir() else job.teacher,
        "teacher_is_fine_tuned": fine_tuned,
        "fingerprints": models,
        "recipe": job.recipe.as_dict(),
        "data": {
            "name": splits.name,
            "text_pair": splits.train.pairs is not None,
            "rows": {name: len(split) for name, split in splits.fitted.items()},
            "sha256": made_from(*map(_rows_of, splits.fitted.values())),
        },
        "labels": list(splits.label_names),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS_OF},
    }


def _rows_of(split: Split) -> list[Any]:
    return [split.texts, split.pairs, split.labels]


class Pipeline:
    """The stages of a training. Each stage reads the results of earlier stages from the run folder.

    Args:
        run: the run folder.
        splits: the rows.
        job: teacher, recipe and options.
        fine_tuned: whether the teacher is a fine-tuned classifier.
        models: fingerprints of ``teacher`` and ``student``.
    """

    def __init__(
        self, run: RunFolder, splits: RunSplits, job: TrainJob, fine_tuned: bool, models: dict[str, str]
    ) -> None:
        self.run, self.splits, self.recipe, self.model = run, splits, job.recipe, job.teacher
        self.fine_tuned, self.told = fine_tuned, False
        recipe = job.recipe
        self.rows_hash = made_from(_rows_of(splits.train), _rows_of(splits.heldout), splits.label_names)
        self.teacher_hash = made_from(
            self.rows_hash,
            models["teacher"],
            asdict(recipe.teacher),
            recipe.seed,
            recipe.max_length,
            recipe.precision,
        )
        self.pretrained_hash = made_from(self.rows_hash, models["teacher"], recipe.teacher.pooling, recipe.max_length)
        self.projection_hash = made_from(self.teacher_hash, asdict(recipe.projection))
        self.student_hash = made_from(
            self.projection_hash,
            models["student"],
            asdict(recipe.student),
            [asdict(item) for item in recipe.objectives],
        )
        self.query_hash = made_from(self.student_hash, recipe.projection.embedding_dim)
        self.tuning_hash = made_from(self.query_hash, asdict(recipe.retrieval))

    def tuned(self) -> Tuning:
        """Run all stages that are not done yet."""
        self.rows()
        self.teacher()
        outputs = self.teacher_outputs()
        head = self.projection(outputs["train"])
        student = self.student(outputs["train"], head, self.pretrained())
        query = self.query(student)
        if self.recipe.retrieval.query == "layers":
            student = with_layer_query(student, query)
        return self.tuning(student, outputs["train"].logits, project(outputs["train"].embeddings, head))

    def rows(self) -> None:
        """Write the rows of train and heldout."""
        with self.run.stage(self.run.data, self.rows_hash) as folder:
            if folder:
                for name, split in self.splits.fitted.items():
                    write_rows(split, folder / f"{name}.jsonl")

    def teacher(self) -> None:
        """Fine-tune the teacher, or write the tokenizer of a fine-tuned one."""
        with self.run.stage(self.run.teacher, self.teacher_hash) as folder:
            if folder:
                save_tokenizer(self.model, folder)
                if not self.fine_tuned:
                    rows = self._tokens(folder, self.splits.train, load_config(self.model))
                    labels = torch.from_numpy(label_indices(self.splits.train, self.splits.label_names))
                    job = self._fit_job("teacher", self.recipe.teacher.fit)
                    names = self.splits.label_names
                    fine_tune(self.model, self.recipe.teacher, rows, labels, names, job).save(folder)

    def load_teacher(self, attention: str | None = None) -> nn.Module:
        """Load the teacher; ``attention`` is its attention implementation."""
        source = self.model if self.fine_tuned else self.run.teacher
        return load_teacher(source, self.recipe.teacher, self.splits.label_names, attention)

    def teacher_outputs(self) -> dict[str, TeacherOutputs]:
        """Compute and cache the teacher's outputs."""
        with self.run.stage(self.run.teacher_outputs, self.teacher_hash) as folder:
            if folder:
                for name, tensors in self.ask_teacher().items():
                    save_file(tensors, str(folder / f"{name}.safetensors"))
        return load_outputs(self.run)

    def ask_teacher(self) -> dict[str, dict[str, Tensor]]:
        """Return the fields of the teacher's outputs for ``train`` and ``heldout``."""
        teacher, found = self.load_teacher(), {}
        for name, split in self.splits.fitted.items():
            rows = self._tokens(self.run.teacher, split, teacher.encoder.config)  # type: ignore[union-attr]
            result = outputs_of(teacher, rows, f"teacher on {name}")
            found[name] = {"logits": result.logits, "embeddings": result.embedding}
        return found

    def projection(self, outputs: TeacherOutputs) -> LinearLayer:
        """Fit the head that makes the teacher's keys."""
        with self.run.stage(self.run.projection, self.projection_hash) as folder:
            if folder:
                labels = torch.from_numpy(label_indices(self.splits.train, self.splits.label_names))
                fit_projection(outputs.embeddings, labels, self.recipe.projection, self.recipe.seed).save(folder)
        return LinearLayer.load(self.run.projection)

    def pretrained(self) -> Tensor | None:
        """Embed the train rows by the encoder before its fine-tuning; None if no objective needs it.

        The hash has no seed and no setting of the fine-tuning, so runs that differ in these share the embeddings.
        """
        if "pretrained" not in objectives.build(self.recipe.objectives).needs:
            return None
        with self.run.stage(self.run.teacher_pretrained, self.pretrained_hash) as folder:
            if folder:
                rows = self._tokens(self.run.teacher, self.splits.train, load_config(self.model))
                found = pretrained_embeddings(self.model, self.recipe.teacher.pooling, rows)
                save_file({"embeddings": found}, str(folder / "train.safetensors"))
        return load_file(str(self.run.teacher_pretrained / "train.safetensors"))["embeddings"]

    def student(self, outputs: TeacherOutputs, head: LinearLayer, pretrained: Tensor | None) -> EncoderClassifier:
        """Distil the student."""
        with self.run.stage(self.run.student, self.student_hash) as folder:
            if folder:
                attention = objectives.build(self.recipe.objectives).attention
                load = partial(self.load_teacher, attention)
                torch.manual_seed(self.recipe.seed)
                names = self.splits.label_names
                general_dim = None if pretrained is None else pretrained.shape[1]
                student = start_student(load(), head, len(names), self.recipe.student, attention, general_dim)
                if self.recipe.student.model:
                    save_tokenizer(self.recipe.student.model, folder)
                else:
                    shutil.copyfile(self.run.teacher / "tokenizer.json", folder / "tokenizer.json")
                rows = self._tokens(folder, self.splits.train, student.encoder.config)
                labels = torch.from_numpy(label_indices(self.splits.train, names))
                keys = project(outputs.embeddings, head)
                targets = Targets(outputs.logits, outputs.embeddings, keys, labels, pretrained)
                job = self._fit_job("student", self.recipe.student.fit)
                distil(student, load, rows, targets, self.recipe, job)
                student.save(folder)
        return EncoderClassifier.load(self.run.student)

    def query(self, student: EncoderClassifier) -> LinearLayer:
        """Fit the query head by layers."""
        with self.run.stage(self.run.query, self.query_hash) as folder:
            if folder:
                rows = self._tokens(self.run.student, self.splits.train, student.encoder.config)
                fit_layer_query(student, rows, self.recipe.projection.embedding_dim).save(folder)
        return LinearLayer.load(self.run.query)

    def tuning(self, student: EncoderClassifier, labels: Tensor, teacher_keys: Tensor) -> Tuning:
        """Tune the blend on the float32 student and exact neighbours; export tunes it again on the int8 student."""
        with self.run.stage(self.run.tuning, self.tuning_hash) as folder:
            if folder:
                tuning = self._tune(student, labels, teacher_keys)
                (folder / "tuning.json").write_text(json.dumps(tuning.as_dict(), indent=1), encoding="utf-8")
        return Tuning.read(self.run.tuning / "tuning.json")

    def _tune(self, student: EncoderClassifier, labels: Tensor, teacher_keys: Tensor) -> Tuning:
        names, config, recipe = self.splits.label_names, student.encoder.config, self.recipe.retrieval
        answers = outputs_of(student, self._tokens(self.run.student, self.splits.heldout, config), "student on heldout")
        queries = teacher_keys
        if recipe.keys != "teacher":
            queries = outputs_of(
                student, self._tokens(self.run.student, self.splits.train, config), "student on train"
            ).embedding
        gold = self.gold()
        knowledge = KbRows(self.splits.train.inputs(), labels.numpy(), teacher_keys.numpy(), queries.numpy(), gold)
        keys = torch.from_numpy(knowledge.keys(recipe))
        similarities, nearest = exact_neighbours(answers.embedding, keys, min(K, len(keys)))
        return tune_blend(
            HeldOut(
                answers.logits.numpy(),
                similarities.numpy(),
                labels[nearest].numpy(),
                label_indices(self.splits.heldout, names),
                gold[nearest.numpy()],
            ),
            recipe.gold_shares,
        )

    def gold(self) -> Indices:
        """Return the gold labels of the train rows, -1 for none."""
        return label_indices(self.splits.train, self.splits.label_names)

    def _tokens(self, folder: Path, split: Split, config: Any) -> TokenRows:
        rows, longest = token_rows(folder, split, config, self.recipe.max_length), self.recipe.max_length
        if split is self.splits.train and rows.truncated and not self.told and processes().is_main_process:
            self.told = True
            click.echo(f"{rows.truncated:,} of {len(rows):,} train rows truncated to {longest:,} tokens", err=True)
        return rows

    def _fit_job(self, stage: str, fit_recipe: Any) -> FitJob:
        return FitJob(stage, fit_recipe, self.recipe.seed, self.recipe.precision, self.run.checkpoint(stage))


def fingerprint(model: str) -> str:
    """Identify a model by its hub id, or by the hash of its folder's files, so that a changed folder is noticed."""
    folder = Path(model)
    if not model or not folder.is_dir():
        return model
    return made_from({file.name: sha256_file(file) for file in sorted(folder.iterdir()) if file.is_file()})


def exact_neighbours(queries: Tensor, keys: Tensor, k: int, chunk: int = 512) -> tuple[Tensor, Tensor]:
    """Find the k nearest keys of each query by exact search.

    Args:
        queries: [n, d], L2-normalised.
        keys: [m, d], L2-normalised.
        k: number of neighbours, at most m.
        chunk: number of queries per matrix product.

    Returns:
        Similarities [n, k], descending, and rows [n, k].
    """
    found = [torch.topk(part @ keys.T, k, dim=1) for part in torch.split(queries, chunk)]
    return torch.cat([item.values for item in found]), torch.cat([item.indices for item in found])
