"""Export a run as a bundle: int8 student, knowledge base, tuned blend, quality report, and hashes of all files."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding

from ...kb.storage.atomic import atomic_directory, refuse_existing
from ...runtime.bundle.bundle import KB_FOLDER, MODEL_FILE
from ...runtime.bundle.heldout_rows import HeldOutRows
from ...runtime.bundle.manifest import Golden, Manifest, seal
from ...runtime.data import Split, label_indices
from ...runtime.decision.abstention_thresholds import Abstention
from ...runtime.decision.gating import Gate
from ...runtime.hub.card import write_card
from ...runtime.inference.session.student import StudentSession
from ...runtime.inference.text.tokenizer import TextTokenizer
from ..onnx.exporters import Exporter
from ..onnx.probabilities_output import add_probabilities
from ..onnx.quality import Floors, QualityReport, compare
from ..onnx.quantization import Quantization, Target
from ..recipe import RetrievalRecipe
from ..training.finished_run import FinishedRun
from ..training.run_folder import RunFolder, read_run_json
from ..training.teacher.file import TeacherFile
from ..tuning.abstention import abstention_of
from ..tuning.build_kb import KbStorageConfig, blend_many
from ..tuning.gating import Certificate, certify
from ..tuning.groups import related_inputs
from ..tuning.tune import Tuning
from ..vocabulary.prune_vocabulary import VocabularySize
from .student import StudentJob, WrittenStudent, write_student
from .tuned_kb import KbJob, TunedKb, build_tuned_kb

VERSIONS_OF = ("reaugkd", "torch", "transformers", "optimum", "onnx", "onnxruntime", "usearch", "numpy")
GOLDEN_TEXTS = (
    "No.",
    "Where is my parcel? I ordered it on May 3rd, paid $25.90, and it's STILL not here.",
    "The café on the corner of Müller Street, which the two of us had walked past every morning for eleven years "
    "without once going in, turned out to have the best coffee in town; so we sat down, asked for the menu (there was "
    "none) and stayed until they closed at 10:30 p.m. - by then we knew the owner, her dog and most of the regulars.",
)


@dataclass(frozen=True)
class ExportJob:
    """Settings of an export.

    Args:
        target: the processor family, for the int8 preset.
        quantization: ``dynamic`` or ``none``.
        floors: the floors of the quality gate.
        allow_quality_loss: write the bundle even if it misses the floors.
        store: storage of the knowledge base.
        retrieval: settings of knowledge base and blend; None for the run's own.
        extra: extra rows for the knowledge base, labelled by the teacher; None for none.
        answers: the teacher's answers to the extra rows; None to ask it.
        certificate: the largest accuracy loss of the retrieval gate, and its confidence.
        vocabulary: tokens to keep: ``full`` or the smallest number (`plan_pruning`).
        exporter: what writes the float32 graph: ``torch``, or ``optimum`` (needs optimum-onnx).
    """

    target: Target
    quantization: Quantization = "dynamic"
    floors: Floors = Floors()
    allow_quality_loss: bool = False
    store: KbStorageConfig = KbStorageConfig()
    retrieval: RetrievalRecipe | None = None
    extra: Split | None = None
    answers: TeacherFile | None = None
    certificate: Certificate = Certificate()
    vocabulary: VocabularySize = "full"
    exporter: Exporter = "torch"

    @property
    def student(self) -> StudentJob:
        """Return the settings of the student."""
        floors = None if self.allow_quality_loss else self.floors
        return StudentJob(self.target, self.quantization, self.vocabulary, floors, self.extra, self.exporter)

    def kb(self, recipe: RetrievalRecipe) -> KbJob:
        """Return the settings of the knowledge base."""
        return KbJob(recipe, self.store, self.extra)


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        manifest: the manifest of the bundle.
        quality: the report of the quality gate.
        tuning: the tuned blend of the exported student.
    """

    manifest: Manifest
    quality: QualityReport
    tuning: Tuning


@dataclass(frozen=True)
class HeldOutFit:
    """Results on the held-out rows: quality, gate and abstention.

    Args:
        rows: the student's outputs, gold labels and groups.
        quality: the cost of quantization.
        gate: the certified gate; None if no threshold could be certified.
        abstention: the thresholds; None if there are too few rows.
    """

    rows: HeldOutRows
    quality: QualityReport
    gate: Gate | None
    abstention: Abstention | None


@dataclass(frozen=True)
class _Parts:
    """The parts of a bundle."""

    source: FinishedRun
    recipe: RetrievalRecipe
    student: WrittenStudent
    kb: TunedKb
    fit: HeldOutFit


def export(run_path: Path, out: Path, job: ExportJob) -> Exported:
    """Export a finished run as a bundle; ``out`` is not written if the export fails.

    Args:
        run_path: folder of the run.
        out: folder of the new bundle; must not exist.
        job: the settings.

    Raises:
        DataError: the run is not finished.
        ColumnError, RecipeError, UsageError: same as `FinishedRun.require`.
        OutputExistsError: ``out`` exists.
        QualityError: quantization costs too much, or vocabulary pruning changes the tokens of too many texts.
        ModelError: the student cannot be exported, or its vocabulary cannot be pruned.
        StorageError: a file cannot be written.
    """
    refuse_existing(out)
    source = FinishedRun.read(RunFolder(run_path), job.answers)
    recipe = job.retrieval or source.recipe.retrieval
    source.require(recipe, extra=job.extra is not None)
    with atomic_directory(out) as folder:
        student = write_student(source, recipe, job.student, (folder / MODEL_FILE).parent)
        kb = build_tuned_kb(source, job.kb(recipe), student.ask, student.heldout)
        fit = fit_on_heldout_rows(source, student, kb, job)
        manifest = _seal(folder, _Parts(source, recipe, student, kb, fit), job)
    return Exported(manifest, fit.quality, kb.tuning)


def fit_on_heldout_rows(source: FinishedRun, student: WrittenStudent, kb: TunedKb, job: ExportJob) -> HeldOutFit:
    """Measure the cost of quantization, certify the retrieval gate and fit the abstention thresholds.

    Args:
        source: the run.
        student: the exported student.
        kb: the knowledge base and its blend.
        job: the settings.

    Raises:
        QualityError: a quality floor is missed.
    """
    gold = label_indices(source.heldout, source.labels)
    blend, outputs = kb.tuning.blend, student.heldout
    quality = compare(student.float32_heldout, outputs, gold, kb.tuned_on, blend.k)
    if not job.allow_quality_loss:
        quality.require(job.floors)
    groups = related_inputs(source.heldout.inputs())
    answers = blend_many(kb.tuned_on, blend, outputs)
    gate = certify(answers.student, answers.blend, gold, groups, job.certificate)
    rows = HeldOutRows(outputs.logits, outputs.queries, gold, groups, len(kb.tuned_on))
    return HeldOutFit(rows, quality, gate, abstention_of(kb.tuned_on, rows, blend, gate))


def _seal(folder: Path, parts: _Parts, job: ExportJob) -> Manifest:
    """Write the knowledge base, the held-out rows and the manifest with the hash of every file."""
    source, student, kb, fit = parts.source, parts.student, parts.kb, parts.fit
    pairs = source.heldout.pairs is not None
    kb.kb.save(folder / KB_FOLDER)
    fit.rows.some().save(folder)
    add_probabilities(folder / MODEL_FILE, kb.tuning.blend.student_temperature)
    manifest = Manifest(
        labels=source.labels,
        max_length=source.recipe.max_length,
        pooling=read_run_json(source.run.student / "heads.json", "the student's heads")["pooling"],
        text_pair=pairs,
        blend=kb.tuning.blend,
        kb=kb.kb.config,
        kb_rows=len(kb.kb),
        gate=fit.gate,
        abstention=fit.abstention,
        golden=_golden(student.session, student.tokenizer, pairs),
        quantization={"target": job.target, **student.as_dict()},
        quality={
            **fit.quality.as_dict(),
            "floors": asdict(job.floors),
            "tuning": kb.tuning.as_dict(),
            "search": None if kb.ef_search is None else asdict(kb.ef_search),
        },
        versions=_versions(job.exporter),
        created_from=_created_from(source, parts.recipe, len(kb.kb)),
        format_version=kb.kb.format_version,
    )
    sealed = seal(folder, manifest)
    write_card(folder, sealed)
    return sealed


def _versions(exporter: Exporter) -> dict[str, str]:
    """Return the versions of the packages that made the bundle."""
    names = (*VERSIONS_OF, "optimum-onnx") if exporter == "optimum" else VERSIONS_OF
    return {name: importlib.metadata.version(name) for name in names}


def _created_from(source: FinishedRun, recipe: RetrievalRecipe, kb_rows: int) -> dict[str, Any]:
    """Describe the bundle's origin, without paths of the machine that made it."""
    description = source.description
    extra_rows = kb_rows - len(source.train) - (len(source.heldout) if recipe.keep_heldout else 0)
    teacher, student = (_without_folder(name) for name in (description["teacher"], source.recipe.student.model))
    kept: tuple[str, ...] = ("data", "versions", "teacher_file")
    run = {key: description[key] for key in kept if key in description}
    retrieval = json.loads(json.dumps(asdict(recipe)))  # with lists for tuples, as in a manifest that was read
    made = {**description["recipe"], "retrieval": retrieval}
    made["student"] = {**made["student"], "model": student}
    return {"teacher": teacher, "recipe": made, **run, "extra_rows": extra_rows}


def _without_folder(model: str) -> str:
    return Path(model).name if Path(model).is_absolute() else model


def _golden(session: StudentSession, tokenizer: TextTokenizer, pair: bool) -> tuple[Golden, ...]:
    """Compute this machine's logits for three fixed texts: a short one, a medium one and a long one.

    The tolerance is a twentieth of the range of the logits. Rounding changes a logit by much less, and the saturation
    of u8s8 on a processor without VNNI by more.
    """
    found = []
    for number, text in enumerate(GOLDEN_TEXTS):
        item = (text, GOLDEN_TEXTS[number - 1]) if pair else text
        encoding = _encode(tokenizer, item)
        logits = session.run(encoding)[0]
        found.append(Golden(item, tuple(encoding.ids), tuple(logits.tolist()), 0.05 * float(np.ptp(logits))))
    return tuple(found)


def _encode(tokenizer: TextTokenizer, item: str | tuple[str, str]) -> Encoding:
    return tokenizer.encode(item) if isinstance(item, str) else tokenizer.encode(*item)
