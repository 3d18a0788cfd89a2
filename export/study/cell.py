"""Cell of a study: train and quantize a student, then score it with every retrieval variant."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ...errors import OutputExistsError
from ...kb.storage.atomic import atomic_directory
from ...runtime.data import Columns, Dataset, Split, choose_split, label_indices, load_dataset
from ...runtime.decision.blending import softmax_many
from ...runtime.evaluation.fidelity import split_with_typos
from ...runtime.evaluation.metrics import METRICS, ScoredRows
from ...runtime.evaluation.results import (
    BLEND,
    CLEAN,
    DISTILLATION,
    FIDELITY_METRICS,
    RETRIEVAL,
    STUDENT,
    STUDENT_FP32,
    TEACHER,
    TYPOS,
)
from ..bundle.student import StudentJob, write_student
from ..bundle.tuned_kb import KbJob, build_tuned_kb
from ..modeling.encoder import EncoderClassifier
from ..modeling.execution.inference import outputs_of
from ..modeling.execution.tokens import TokenRows, token_rows
from ..onnx.quality import StudentOutputs
from ..onnx.quantization import detect_target
from ..recipe import RetrievalRecipe
from ..recipe_file import retrieval_from_dict
from ..training.evaluate_run import distillation_sample
from ..training.finished_run import FinishedRun
from ..training.run_folder import RunFolder, made_from, read_run_json
from ..training.splits import assign
from ..training.train import TrainJob, train
from ..tuning.build_kb import Blends, blend_many
from ..types import Floats
from .out_of_domain import OtherDomain, out_of_domain_accuracy
from .plan import KB_REST, Cell, Options, Plan, located
from .results import CellResult, SystemResult, metric_on, system_result

Load = Callable[[str, str | None, Columns], Dataset]
"""Reads a data set; arguments are path or hub id, GLUE task or hub subset, and columns."""


def load_local(data: str, task: str | None, columns: Columns) -> Dataset:
    """Read a data set from local files.

    Args:
        data: path.
        task: name of a GLUE task, or None.
        columns: names of the columns.
    """
    return load_dataset(Path(data), columns, task)


def run_cell(cell: Cell, plan: Plan, out: Path, data_dir: Path, load: Load = load_local) -> CellResult:
    """Train a cell's student and score it, alone and with every retrieval variant.

    Args:
        cell: the task, recipe and seed.
        plan: the study.
        out: the study's folder; runs and shared teachers are kept there.
        data_dir: base folder of relative data paths.
        load: reads a data set.
    """
    options = Options.read(plan.options)
    own = asdict(cell.settings.retrieval)
    variants = {variant.name: retrieval_from_dict({**own, **variant.settings}) for variant in plan.variants}
    task = cell.task
    columns = Columns(task.text_column, task.text_pair_column, task.label_column)
    dataset = load(task.located(data_dir), task.task, columns)
    choose_split(dataset, task.split)  # fail before the training if the split is missing
    other = None
    if options.out_of_domain:
        other = OtherDomain.of(load(located(options.out_of_domain, data_dir), None, Columns()))
    run = RunFolder(out / "runs" / task.name / f"{cell.recipe}-{cell.seed}", out / "teachers")
    train(dataset, TrainJob(plan.model, cell.settings, task.limit, redo=True, shared=run.shared), run.path)
    with tempfile.TemporaryDirectory(prefix="reaugkd-") as scratch:
        measured = _Measured(run, dataset, task.split, options, Path(scratch))
        systems = [*measured.models(), *measured.retrieval("", cell.settings.retrieval)]
        for name, recipe in variants.items():
            systems += measured.retrieval(name, recipe)
        if task.kb_rest:
            beyond = assign(dataset, cell.settings, task.limit).beyond
            systems += measured.retrieval(KB_REST, cell.settings.retrieval, beyond)
    if other is not None:
        systems = _with_out_of_domain(systems, run, other)
    return CellResult(tuple(systems))


@dataclass(frozen=True)
class _Rows:
    """Further rows for fidelity: gold labels [n] and the teacher's probabilities [n, c]."""

    split: Split
    gold: NDArray[np.int64]
    teacher: Floats


class _Measured:
    """A finished run and the rows to score; results that several variants need are computed once."""

    def __init__(self, run: RunFolder, dataset: Dataset, split: str | None, options: Options, scratch: Path) -> None:
        self.run, self.source, self.scratch = run, FinishedRun.read(run), scratch
        self.split: Split = choose_split(dataset, split)[1]
        self.gold = label_indices(self.split, self.source.labels, unseen=True)
        scored = {CLEAN: self.split, **({TYPOS: split_with_typos(self.split)} if options.typos else {})}
        answers = self._teacher(scored)
        self.teacher = answers[CLEAN]
        self._beside = {kind: _Rows(split, self.gold, answers[kind]) for kind, split in scored.items() if kind != CLEAN}
        self._beside[DISTILLATION] = self._distillation()
        self._students: dict[str, _Quantized] = {}

    def models(self) -> list[SystemResult]:
        """Score the teacher and the float32 student."""
        model = EncoderClassifier.load(self.run.student)
        tokens = self._tokens(self.run.student, self.split, model)
        student = _softmax(outputs_of(model, tokens, "student on scored").logits.numpy())
        beside = self._fidelity({kind: rows.teacher for kind, rows in self._beside.items()})
        return [
            system_result(TEACHER, self.teacher, self.gold, self.teacher, **beside),
            system_result(STUDENT_FP32, student, self.gold, self.teacher),
        ]

    def retrieval(self, variant: str, recipe: RetrievalRecipe, extra: Split | None = None) -> list[SystemResult]:
        """Score the int8 student, its neighbours and the blend with one retrieval variant.

        The student alone is scored once only, because it does not depend on retrieval. For ``extra`` see ``ExportJob``.
        """
        student = self._quantized(recipe)
        made = build_tuned_kb(self.source, KbJob(recipe, extra=extra), student.ask, student.heldout())
        blend = made.tuning.blend
        blends = blend_many(made.kb, blend, student.ask(self.split.inputs(), "scored"))
        beside = {
            kind: blend_many(made.kb, blend, student.ask(rows.split.inputs(), kind))
            for kind, rows in self._beside.items()
        }
        figures = {
            "k": blend.k,
            "tau": blend.tau,
            "student_weight": blend.student_weight,
            "student_temperature": blend.student_temperature,
            "gold_share": blend.gold_share,
            "kb_rows": len(made.kb),
            **{f"heldout_nll_{name}": nll for name, nll in made.tuning.nll.items()},
        }
        return [
            system_result(
                name,
                of(blends),
                self.gold,
                self.teacher,
                variant,
                **(figures if name == BLEND else {}),
                **self._fidelity({kind: of(answers) for kind, answers in beside.items()}),
            )
            for name, of in _SYSTEMS.items()
            if name != STUDENT or not variant
        ]

    def _fidelity(self, answers: Mapping[str, Floats]) -> dict[str, Any]:
        """Score a system's probabilities on the further rows."""
        figures = {}
        for kind, probabilities in answers.items():
            of = self._beside[kind]
            rows = ScoredRows.of(probabilities, of.gold, of.teacher)
            figures.update({metric_on(kind, name): METRICS[name].value(rows) for name in FIDELITY_METRICS})
        return figures

    def _quantized(self, recipe: RetrievalRecipe) -> _Quantized:
        if recipe.query not in self._students:
            self._students[recipe.query] = _Quantized(self.source, recipe, self.scratch / recipe.query)
        return self._students[recipe.query]

    def _distillation(self) -> _Rows:
        """Sample rows that the student was distilled on, as `reaugkd eval --run` does."""
        rows = distillation_sample(len(self.source.train))
        split, logits = self.source.train.take(rows), self.source.outputs["train"].logits.numpy()[rows]
        return _Rows(split, label_indices(split, self.source.labels), _softmax(logits))

    def _teacher(self, splits: Mapping[str, Split]) -> dict[str, Floats]:
        """Compute the teacher's probabilities [n, c] of each split; they are saved for the other recipes."""
        teacher_stage = read_run_json(self.run.teacher_outputs / "stage.json", "a finished stage")["made_from"]
        made = made_from(teacher_stage, {name: split.inputs() for name, split in splits.items()})
        assert self.run.shared is not None
        folder = self.run.shared / f"scored-{made[:24]}"
        if not folder.is_dir():
            teacher = self.source.teacher()
            rows = {name: self._tokens(self.run.teacher, split, teacher) for name, split in splits.items()}
            found = {name: outputs_of(teacher, of, f"teacher on {name} rows").logits for name, of in rows.items()}
            with suppress(OutputExistsError), atomic_directory(folder) as temporary:  # another cell wrote it first
                save_file({name: logits.numpy() for name, logits in found.items()}, temporary / "logits.safetensors")
        return {name: _softmax(logits) for name, logits in load_file(folder / "logits.safetensors").items()}

    def _tokens(self, folder: Path, split: Split, model: Any) -> TokenRows:
        return token_rows(folder, split, model.encoder.config, self.source.recipe.max_length)


def _softmax(logits: NDArray[np.floating]) -> Floats:
    return softmax_many(logits.astype(np.float64)).astype(np.float64, copy=False)


_SYSTEMS: Mapping[str, Callable[[Blends], Floats]] = {
    STUDENT: lambda blends: blends.student,
    RETRIEVAL: lambda blends: blends.retrieval,
    BLEND: lambda blends: blends.blend,
}


class _Quantized:
    """The int8 student, run row by row as in the runtime; outputs are cached."""

    def __init__(self, source: FinishedRun, recipe: RetrievalRecipe, folder: Path) -> None:
        self._source = source
        self._student = write_student(source, recipe, StudentJob(detect_target()), folder)
        self._kept: dict[str, StudentOutputs] = {}

    def ask(self, inputs: Sequence[str | tuple[str, str]], label: str) -> StudentOutputs:
        key = made_from(inputs)
        if key not in self._kept:
            self._kept[key] = self._student.ask(inputs, label)
        return self._kept[key]

    def heldout(self) -> StudentOutputs:
        return self.ask(self._source.heldout.inputs(), "heldout")


def _with_out_of_domain(systems: list[SystemResult], run: RunFolder, other: OtherDomain) -> list[SystemResult]:
    """Add to teacher and float32 student the accuracy of their embeddings on another data set."""
    found = out_of_domain_accuracy(run, other)
    return [
        replace(system, metrics={**system.metrics, "out_of_domain": found[system.system]})
        if system.system in found
        else system
        for system in systems
    ]
