"""Write the student folder of a bundle: the ONNX model, optionally quantized, its tokenizer and its configuration."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...runtime.data import Split
from ...runtime.inference.session.student import StudentSession
from ...runtime.inference.text.tokenizer import TextTokenizer
from ..modeling.execution.progress import progress
from ..modeling.execution.tokens import token_rows
from ..onnx.attention_fusion import fuse_attention
from ..onnx.export import export_float32, require_same_answers
from ..onnx.exporters import Exporter
from ..onnx.quality import Floors, StudentOutputs, answers_of
from ..onnx.quantization import Quantization, QuantizedNodes, Target, quantize
from ..recipe import RetrievalRecipe
from ..training.finished_run import FinishedRun
from ..vocabulary.prune_vocabulary import VocabularySize, plan_pruning

_MODEL = "model.onnx"
_TOKENIZER = "tokenizer.json"
_CONFIG_FILES = ("config.json", _TOKENIZER, "tokenizer_config.json")
_PROOF_ROWS = 8


@dataclass(frozen=True)
class StudentJob:
    """Settings for writing a student.

    Args:
        target: the processor family, for the int8 preset.
        quantization: ``dynamic`` or ``none``.
        vocabulary: tokens to keep: ``full`` or the smallest number (`plan_pruning`).
        floors: the share of texts that vocabulary pruning may split into other tokens; None for no limit.
        extra: further rows whose tokens are kept; None for none.
        exporter: what writes the float32 graph: ``torch``, or ``optimum`` (needs optimum-onnx).
    """

    target: Target
    quantization: Quantization = "dynamic"
    vocabulary: VocabularySize = "full"
    floors: Floors | None = None
    extra: Split | None = None
    exporter: Exporter = "torch"


@dataclass(frozen=True)
class WrittenStudent:
    """The student of a bundle, and the float32 student before quantization.

    Args:
        kind: kind of quantization.
        nodes: counts of quantized nodes and bytes.
        vocabulary: report of the vocabulary pruning, as JSON values.
        session: runs the quantized model.
        float32: runs the model before quantization.
        tokenizer: the tokenizer of both.
        heldout_inputs: the run's held-out texts or pairs.
    """

    kind: Quantization
    nodes: QuantizedNodes
    vocabulary: dict[str, Any]
    session: StudentSession
    float32: StudentSession
    tokenizer: TextTokenizer
    heldout_inputs: Sequence[str | tuple[str, str]]

    def ask(self, inputs: Sequence[str | tuple[str, str]], label: str) -> StudentOutputs:
        """Compute the quantized student's outputs for rows; ``label`` labels the progress bar."""
        return ask(self.session, self.tokenizer, inputs, label)

    @cached_property
    def float32_heldout(self) -> StudentOutputs:
        """The float32 student's outputs for the held-out rows."""
        return ask(self.float32, self.tokenizer, self.heldout_inputs, "quality gate, float32")

    @cached_property
    def heldout(self) -> StudentOutputs:
        """The quantized student's outputs for the held-out rows."""
        return self.ask(self.heldout_inputs, "quality gate, quantized")

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for the manifest."""
        return {"kind": self.kind, **asdict(self.nodes), "vocabulary": self.vocabulary}


def write_student(source: FinishedRun, recipe: RetrievalRecipe, job: StudentJob, folder: Path) -> WrittenStudent:
    """Prune, export and quantize a run's student into a new folder.

    Args:
        source: the run.
        recipe: the kind of query that the student computes.
        job: the settings.
        folder: the new folder; must not exist.

    Raises:
        ModelError: the student cannot be exported, or its vocabulary cannot be pruned.
        QualityError: quantization skipped most of the graph, or pruning changes the tokens of too many texts.
    """
    folder.mkdir(parents=True)
    # In the bundle's temporary folder, so that a killed export leaves only one temporary folder.
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        scratch = Path(name)
        model = source.student(recipe)
        plan = plan_pruning(source, model, job.vocabulary, scratch, job.extra, job.floors)
        student = plan.apply(model)
        (scratch / _TOKENIZER).write_bytes(plan.tokenizer)
        float32 = export_float32(student, source.labels, source.recipe.max_length, scratch, job.exporter)
        proof = source.heldout.take(range(min(_PROOF_ROWS, len(source.heldout))))
        tokens = token_rows(scratch, proof, student.encoder.config, source.recipe.max_length)
        batch = tokens.batch(range(len(tokens)))
        require_same_answers(student, float32, batch)
        fused = scratch / "fused.onnx"
        if is_fused := fuse_attention(float32, student.encoder.config, fused):
            require_same_answers(student, fused, batch)
        quantizable = fused if is_fused and job.quantization == "dynamic" else float32
        nodes = quantize(quantizable, job.target, job.quantization, folder)
        for name in _CONFIG_FILES:
            shutil.copyfile(scratch / name, folder / name)
        return WrittenStudent(
            job.quantization,
            nodes,
            plan.as_dict(),
            StudentSession(folder / _MODEL),
            StudentSession(float32),
            TextTokenizer(folder / _TOKENIZER, source.recipe.max_length),
            source.heldout.inputs(),
        )


def ask(
    session: StudentSession, tokenizer: TextTokenizer, inputs: Sequence[str | tuple[str, str]], label: str
) -> StudentOutputs:
    """Compute a student's outputs for rows, with a progress bar.

    Args:
        session: runs the student.
        tokenizer: its tokenizer.
        inputs: texts or pairs.
        label: label of the progress bar.
    """
    with progress(label, len(inputs), "row") as advance:
        return answers_of(session, tokenizer, inputs, advance)
