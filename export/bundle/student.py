"""A bundle's student folder: the model in ONNX, quantized as asked for or as is fastest, with its tokenizer."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Encoding

from ...errors import QualityError
from ...runtime.data import Split, label_indices
from ...runtime.inference.student import StudentSession
from ...runtime.inference.tokenizer import TextTokenizer
from ..modeling.encoder import EncoderClassifier
from ..modeling.progress import progress
from ..modeling.tokens import token_rows
from ..onnx.attention_fusion import fuse_attention
from ..onnx.export import (
    Quantization,
    QuantizedNodes,
    Target,
    detect_target,
    export_float32,
    quantize,
    require_same_answers,
)
from ..onnx.quality import Floors
from ..onnx.quantization import CANDIDATES, Choice, choose, runs
from ..training.finished_run import FinishedRun
from ..vocabulary.slim import Slim, VocabularySize, slim

QuantizationChoice = Quantization | Literal["auto"]

CALIBRATION_ROWS = 200
_PROOF_ROWS = 8


@dataclass(frozen=True)
class StudentJob:
    """How a student is written.

    Args:
        target: the processor family whose int8 preset is used.
        quantization: ``dynamic``, ``static``, ``none`` or, on a processor of the target's family, ``auto``
            (`quantization_choice`); on another ``auto`` is ``dynamic``, since speed there cannot be measured here.
        vocabulary: word pieces that the student keeps: ``auto``, ``full``, ``task`` or the least number (`slim`).
        floors: what quantization and fewer pieces may cost; None: whatever they do.
        extra: rows beside the run's whose pieces are kept too.
    """

    target: Target
    quantization: QuantizationChoice = "dynamic"
    vocabulary: VocabularySize = "auto"
    floors: Floors | None = None
    extra: Split | None = None


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        kind: of the quantization.
        nodes: what it did to the graph.
        slim: what became of the vocabulary.
        choice: how ``auto`` came to the kind; None where it was given.
    """

    kind: Quantization
    nodes: QuantizedNodes
    slim: Slim
    choice: Choice | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, for the manifest."""
        chosen = {} if self.choice is None else {"choice": asdict(self.choice)}
        return {"kind": self.kind, **asdict(self.nodes), **self.slim.as_dict(), **chosen}


def write_student(
    source: FinishedRun, model: EncoderClassifier, job: StudentJob, student: Path, scratch: Path
) -> Written:
    """The float32 model into ``scratch`` (model.onnx), the quantized one and what belongs to it into ``student``.

    Raises:
        ModelError: the student cannot be exported, or its vocabulary not be cut.
        QualityError: quantization skipped most of the graph, or fewer pieces cost too much.
    """
    slimmed = slim(source, model, job.vocabulary, scratch, job.extra, job.floors)
    models = _Float32.export(source, slimmed.student, scratch)
    choice = None
    if job.quantization == "auto" and job.target == detect_target():
        folders = {kind: scratch / kind for kind in CANDIDATES}
        nodes: dict[Quantization, QuantizedNodes] = {}
        refused: dict[str, list[str]] = {}
        for kind, folder in folders.items():
            try:
                nodes[kind] = models.quantized(kind, job.target, folder)
            except QualityError as error:
                refused[kind] = [str(error)]
        sessions = {kind: StudentSession(folders[kind] / "model.onnx") for kind in nodes}
        rows, gold = models.encode(source.heldout), label_indices(source.heldout, source.labels)
        with progress("choose the quantization", runs(len(rows)), "run") as advance:
            choice = choose(
                StudentSession(models.plain), sessions, rows, gold, job.floors, refused=refused, advance=advance
            )
        kind = choice.kind
        shutil.copytree(folders[kind], student, dirs_exist_ok=True)
        counted = nodes[kind]
    else:
        kind = "dynamic" if job.quantization == "auto" else job.quantization
        counted = models.quantized(kind, job.target, student)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(scratch / name, student / name)
    return Written(kind, counted, slimmed, choice)


@dataclass(frozen=True)
class _Float32:
    """The student before quantization.

    Args:
        source: the run it is of.
        plain: its model.onnx, tokenizer and configuration beside it.
        fused: the same with attention as one node, where that can be; for dynamic quantization.
    """

    source: FinishedRun
    plain: Path
    fused: Path

    @classmethod
    def export(cls, source: FinishedRun, student: EncoderClassifier, folder: Path) -> _Float32:
        """Export it, and prove that it answers as torch does."""
        max_length, config = source.recipe.max_length, student.encoder.config
        plain = export_float32(student, source.labels, max_length, folder)
        some = source.heldout.take(range(min(_PROOF_ROWS, len(source.heldout))))
        shown = token_rows(folder, some, config, max_length)
        batch = shown.batch(range(len(shown)))
        require_same_answers(student, plain, batch)
        fused = folder / "fused.onnx"
        if not fuse_attention(plain, config, fused):
            return cls(source, plain, plain)
        require_same_answers(student, fused, batch)
        return cls(source, plain, fused)

    def encode(self, split: Split) -> list[Encoding]:
        """Rows as token ids."""
        tokenizer = TextTokenizer(self.plain.parent / "tokenizer.json", self.source.recipe.max_length)
        return [tokenizer.encode(*((item,) if isinstance(item, str) else item)) for item in split.inputs()]

    def quantized(self, kind: Quantization, target: Target, folder: Path) -> QuantizedNodes:
        """Write the quantized model into ``folder``."""
        folder.mkdir(exist_ok=True)
        calibration = []
        if kind == "static":
            train, session = self.source.train, StudentSession(self.plain)
            chosen = np.linspace(0, len(train) - 1, min(CALIBRATION_ROWS, len(train))).astype(int)
            for encoding in self.encode(train.take(chosen)):
                feeds = session.feeds(encoding)
                calibration.append({name: value[0].tolist() for name, value in feeds.items()})
        return quantize(self.fused if kind == "dynamic" else self.plain, target, kind, calibration, folder)
