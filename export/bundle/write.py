"""Writing a bundle: int8 student, knowledge base, tuned blend and the proof of quality, sealed by hashes."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding

from ...kb.index.exact_search import EfSearchChoice
from ...kb.knowledge_base import KnowledgeBase
from ...kb.storage.atomic import atomic_directory, refuse_existing
from ...runtime.bundle.bundle import KB_FOLDER
from ...runtime.bundle.heldout_rows import HeldOutRows
from ...runtime.bundle.manifest import Golden, Manifest, seal
from ...runtime.data import Split, label_indices
from ...runtime.decision.blend_config import BlendConfig
from ...runtime.decision.gating import Gate
from ...runtime.inference.student import StudentSession
from ...runtime.inference.tokenizer import TextTokenizer
from ..modeling.progress import progress
from ..onnx.export import Target
from ..onnx.probabilities_output import add_probabilities
from ..onnx.quality import Floors, QualityReport, StudentOutputs, answers_of, compare, require
from ..recipe import RetrievalRecipe
from ..training.finished_run import FinishedRun
from ..training.run_folder import RunFolder, read_json
from ..tuning.abstention import abstention_of
from ..tuning.build_kb import KbRows, KbStorageConfig, blend_many, build_kb, tune, tune_ef_search
from ..tuning.gating import Certificate, certify
from ..tuning.groups import related_inputs
from ..tuning.tune import Tuning, soft_labels
from ..vocabulary.slim import VocabularySize
from .row_roles import AskStudent, allocate
from .student import QuantizationChoice, StudentJob, write_student

VERSIONS_OF = ("reaugkd", "torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime", "usearch", "numpy")
GOLDEN_TEXTS = (
    "No.",
    "Where is my parcel? I ordered it on May 3rd, paid $25.90, and it's STILL not here.",
    "The café on the corner of Müller Street, which the two of us had walked past every morning for eleven years "
    "without once going in, turned out to have the best coffee in town; so we sat down, asked for the menu (there was "
    "none) and stayed until they closed at 10:30 p.m. - by then we knew the owner, her dog and most of the regulars.",
)


@dataclass(frozen=True)
class ExportJob:
    """How to export.

    Args:
        target: the processor family whose int8 preset is used.
        quantization: ``dynamic``, ``static``, ``none`` or ``auto`` (`student_folder`).
        floors: of the quality gate.
        allow_quality_loss: write the bundle even below the floors.
        store: how the knowledge base is written.
        retrieval: what it holds and how it is asked; None for the run's own recipe.
        extra: rows for it beside the run's train rows, labelled by the teacher.
        certificate: what the gate must keep to.
        vocabulary: word pieces that the student keeps: ``auto``, ``full``, ``task`` or the least number (`slim`).
    """

    target: Target
    quantization: QuantizationChoice = "dynamic"
    floors: Floors = Floors()
    allow_quality_loss: bool = False
    store: KbStorageConfig = KbStorageConfig()
    retrieval: RetrievalRecipe | None = None
    extra: Split | None = None
    certificate: Certificate = Certificate()
    vocabulary: VocabularySize = "auto"

    @property
    def student(self) -> StudentJob:
        """What of this concerns the student."""
        floors = None if self.allow_quality_loss else self.floors
        return StudentJob(self.target, self.quantization, self.vocabulary, floors, self.extra)


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    Args:
        manifest: as sealed.
        quality: the gate's report.
        tuning: of the blend, on the student that is in the bundle.
    """

    manifest: Manifest
    quality: QualityReport
    tuning: Tuning


def export(run_path: Path, out: Path, job: ExportJob) -> Exported:
    """Make the bundle ``out`` from a finished run; nothing is left there if it fails.

    Raises:
        DataError: the run is not finished.
        OutputExistsError: ``out`` exists.
        QualityError: quantization, or a smaller vocabulary, cost too much.
        ModelError: the student cannot be exported, or its vocabulary not be cut.
        StorageError: the disk refused.
    """
    refuse_existing(out)
    run = RunFolder(run_path)
    source = FinishedRun.read(run)
    recipe = job.retrieval or source.recipe.retrieval
    heldout_gold = label_indices(source.heldout, source.labels)
    max_length = source.recipe.max_length
    with atomic_directory(out) as folder:
        student = folder / "student"
        student.mkdir()
        # Inside, so that a kill leaves one temporary and no more.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            written = write_student(source, source.student(recipe), job.student, student, Path(scratch))
            sessions = {
                "float32": StudentSession(Path(scratch) / "model.onnx"),
                "quantized": StudentSession(student / "model.onnx"),
            }
        tokenizer = TextTokenizer(student / "tokenizer.json", max_length)
        answers = {
            name: ask(session, tokenizer, source.heldout.inputs(), f"quality gate, {name}")
            for name, session in sessions.items()
        }
        quantized = sessions["quantized"]
        made = make_kb(
            source, recipe, job, lambda items, label: ask(quantized, tokenizer, items, label), answers["quantized"]
        )
        tuning = made.tuning
        made.kb.save(folder / KB_FOLDER)
        groups = related_inputs(source.heldout.inputs())
        asked = answers["quantized"]
        heldout = HeldOutRows(asked.logits, asked.queries, heldout_gold, groups, len(made.tuned_on))
        heldout.some().save(folder)
        add_probabilities(student / "model.onnx", tuning.blend.student_temperature)
        report = compare(answers["float32"], answers["quantized"], heldout_gold, made.tuned_on, tuning.blend.k)
        if not job.allow_quality_loss:
            require(report, job.floors)
        manifest = Manifest(
            labels=source.labels,
            max_length=max_length,
            pooling=read_json(run.student / "heads.json", "the student's heads")["pooling"],
            text_pair=source.heldout.pairs is not None,
            blend=tuning.blend,
            kb=made.kb.config,
            kb_rows=len(made.kb),
            gate=made.gate,
            abstention=abstention_of(made.tuned_on, heldout, tuning.blend, made.gate),
            golden=_golden(sessions["quantized"], tokenizer, source.heldout.pairs is not None),
            quantization={"target": job.target, **written.as_dict()},
            quality={
                **report.as_dict(),
                "floors": asdict(job.floors),
                "tuning": tuning.as_dict(),
                "search": None if made.width is None else asdict(made.width),
            },
            versions={name: importlib.metadata.version(name) for name in VERSIONS_OF},
            created_from=_created_from(source, recipe, len(made.kb)),
            format_version=made.kb.format_version,
        )
        manifest = seal(folder, manifest)
    return Exported(manifest, report, tuning)


def _created_from(source: FinishedRun, recipe: RetrievalRecipe, kb_rows: int) -> dict[str, Any]:
    """Where the bundle comes from, without the layout of the disk it was made on."""
    description = source.description
    extra_rows = kb_rows - len(source.train) - (len(source.heldout) if recipe.keep_heldout else 0)
    teacher = description["teacher"]
    name = Path(teacher).name if Path(teacher).is_absolute() else teacher
    run = {key: description[key] for key in ("data", "versions")}
    retrieval = json.loads(json.dumps(asdict(recipe)))  # as it is read again: lists in place of tuples
    made = {**description["recipe"], "retrieval": retrieval}
    return {"teacher": name, "recipe": made, **run, "extra_rows": extra_rows}


def ask(
    session: StudentSession, tokenizer: TextTokenizer, inputs: Sequence[str | tuple[str, str]], label: str
) -> StudentOutputs:
    """A student's answers to rows, with progress."""
    with progress(label, len(inputs), "row") as advance:
        return answers_of(session, tokenizer, inputs, advance)


@dataclass(frozen=True)
class MadeKb:
    """A knowledge base with its blend.

    Args:
        kb: as it goes into the bundle.
        tuned_on: as it was when the blend was tuned: without the rows that it was tuned on.
        tuning: the blend.
        gate: certified on the held-out rows; None where none could be.
        width: of its searches, chosen on what the blend was tuned on; None where there was nothing to choose on.
    """

    kb: KnowledgeBase
    tuned_on: KnowledgeBase
    tuning: Tuning
    gate: Gate | None
    width: EfSearchChoice | None


def make_kb(
    source: FinishedRun,
    recipe: RetrievalRecipe,
    job: ExportJob,
    ask_student: AskStudent,
    heldout_answers: StudentOutputs,
) -> MadeKb:
    """The knowledge base of a run, and the blend tuned on what the bundle's student finds in it.

    Args:
        source: the run.
        recipe: what is stored and chosen from.
        job: how it is stored; extra rows.
        ask_student: asks the exported student.
        heldout_answers: the exported student's to the held-out rows.
    """
    parts = allocate(source, recipe, job.extra, ask_student, heldout_answers)
    rows = parts.searched
    plain = BlendConfig(1, 1.0, 1.0)
    with _building(rows) as report:
        kb = build_kb(rows, recipe, plain, job.store, progress=report)
    tuning = tune(kb, rows, parts.asking, parts.answers, recipe, true=len(source.heldout))
    blend = tuning.blend
    width = None
    if len(rows) and len(parts.asking):
        width = tune_ef_search(kb, rows, parts.answers.queries, recipe, blend.k)
    # The search depends on the keys alone, so what the labels were tuned to is put in afterwards.
    labels = soft_labels(rows.logits, rows.gold, blend.label_temperature, blend.gold_share)
    kb = kb.with_soft_labels(labels, job.store.label_loss)
    answers, heldout = blend_many(kb, blend, heldout_answers), source.heldout.inputs()
    gold = parts.asking.gold[: len(heldout)]
    gate = certify(answers.student, answers.blend, gold, related_inputs(heldout), job.certificate)
    if not len(parts.later):
        return MadeKb(kb, kb, tuning, gate, width)
    everything = rows.joined(parts.later)
    with _building(everything) as report:
        whole = build_kb(everything, recipe, blend, job.store, kb.config.expansion_search, report)
    return MadeKb(whole, kb, tuning, gate, width)


@contextmanager
def _building(rows: KbRows) -> Iterator[Callable[[int, int], bool]]:
    with progress("knowledge base", len(rows), "row") as advance:
        done = 0

        def report(count: int, _total: int) -> bool:
            nonlocal done
            advance(count - done)
            done = count
            return True

        yield report


def _golden(session: StudentSession, tokenizer: TextTokenizer, pair: bool) -> tuple[Golden, ...]:
    """What this machine computes for texts that are nobody's data, a short one, a middling one and a long one.

    The tolerance is a twentieth of the logits' spread: rounding moves a logit by far less, the saturation of u8s8
    on a processor without VNNI by more.
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
