"""Build all compared systems on the same rows.

    python build.py TEACHER RUN OUT

Hyperparameters are chosen on the held-out rows of the run: C of the linear heads. Each head is then fitted on all rows,
because the held-out rows are in reaugkd's knowledge base too.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from graphs import write_graphs
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from reaugkd import Runtime
from reaugkd.export.bundle.write import ExportJob, export
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.onnx.export import export_float32
from reaugkd.export.onnx.quantization import detect_target, quantize
from reaugkd.export.training.finished_run import FinishedRun
from reaugkd.export.training.run_folder import RunFolder

STRENGTHS = (0.1, 1.0, 10.0, 100.0)


def main(teacher: str, run: Path, out: Path) -> None:
    """Build the systems that are not built yet."""
    source = FinishedRun.read(RunFolder(run))
    assert source.train.labels is not None and source.heldout.labels is not None
    rows = _Rows(source.train.texts, source.train.labels, source.heldout.texts, source.heldout.labels)
    steps = {
        "bundle": lambda folder: export(run, folder, ExportJob(detect_target())),
        "float32": lambda folder: export(run, folder, ExportJob(detect_target(), "none")),
        "faiss": lambda folder: write_graphs(Runtime.open(out / "bundle"), folder),
        "eager": lambda folder: _eager(run, folder),
        "teacher": lambda folder: _teacher(run, source, folder),
        "words": lambda folder: _words(rows, folder),
        "sentences": lambda folder: _sentences(teacher, rows, folder),
        "static": lambda folder: _static(run, rows, folder),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "labels.json").write_text(json.dumps(source.labels))
    for name, step in steps.items():
        if not (out / name).is_dir():
            sys.stderr.write(f"building {name}\n")
            try:
                step(out / name)
            except BaseException:
                shutil.rmtree(out / name, ignore_errors=True)
                raise


class _Rows:
    def __init__(
        self, texts: Sequence[str], labels: Sequence[str], heldout: Sequence[str], heldout_labels: Sequence[str]
    ) -> None:
        self.texts, self.labels, self.heldout, self.heldout_labels = texts, labels, heldout, heldout_labels

    @property
    def all_labels(self) -> list[str]:
        """The labels of the train rows and the held-out rows."""
        return [*self.labels, *self.heldout_labels]

    def best_head(self, train: Any, heldout: Any) -> LogisticRegression:
        """Return an unfitted logistic regression with the best C on the held-out rows."""
        heads = [LogisticRegression(C=strength, max_iter=2000).fit(train, self.labels) for strength in STRENGTHS]
        best = max(heads, key=lambda head: float(head.score(heldout, self.heldout_labels)))
        return LogisticRegression(C=best.C, max_iter=2000)


def _eager(run: Path, folder: Path) -> None:
    folder.mkdir()
    student = RunFolder(run).student
    EncoderClassifier.load(student).save(folder)
    shutil.copy(student / "tokenizer.json", folder)  # the bundle's may have fewer tokens


def _teacher(run: Path, source: FinishedRun, folder: Path) -> None:
    """Save the fine-tuned teacher for PyTorch, and in int8 as exported and quantized by optimum."""
    teacher = EncoderClassifier.load(RunFolder(run).teacher)
    for form in ("torch", "int8"):
        (folder / form).mkdir(parents=True)
        shutil.copy(RunFolder(run).teacher / "tokenizer.json", folder / form)
    teacher.save(folder / "torch")
    with tempfile.TemporaryDirectory() as scratch:
        float32 = export_float32(teacher, source.labels, source.recipe.max_length, Path(scratch))
        quantize(float32, detect_target(), "dynamic", folder / "int8")


def _words(rows: _Rows, folder: Path) -> None:
    folder.mkdir()
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    train = vectorizer.fit_transform(rows.texts)
    head = rows.best_head(train, vectorizer.transform(rows.heldout))
    model = make_pipeline(vectorizer, head).fit([*rows.texts, *rows.heldout], rows.all_labels)
    joblib.dump(model, folder / "model.joblib")


def _sentences(teacher: str, rows: _Rows, folder: Path) -> None:
    """Save the pretrained sentence encoder in int8, with a linear classifier on its embeddings."""
    from optimum.onnxruntime import AutoQuantizationConfig
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    model = SentenceTransformer(teacher, backend="onnx", device="cpu", model_kwargs={"export": True})
    model.save_pretrained(str(folder))
    preset = getattr(AutoQuantizationConfig, detect_target())(is_static=False, per_channel=True)
    export_dynamic_quantized_onnx_model(model, preset, str(folder), file_suffix="qint8")
    (folder / "onnx" / "model.onnx").unlink()
    made = SentenceTransformer(
        str(folder), backend="onnx", device="cpu", model_kwargs={"file_name": "onnx/model_qint8.onnx"}
    )
    vectors = [np.stack([made.encode(text) for text in texts]) for texts in (rows.texts, rows.heldout)]
    joblib.dump(rows.best_head(*vectors).fit(np.concatenate(vectors), rows.all_labels), folder / "head.joblib")


def _static(run: Path, rows: _Rows, folder: Path) -> None:
    from model2vec.distill import distill

    model = distill(str(RunFolder(run).teacher), device="cpu", pca_dims=256)
    model.save_pretrained(str(folder))
    vectors = [model.encode(list(texts)) for texts in (rows.texts, rows.heldout)]
    joblib.dump(rows.best_head(*vectors).fit(np.concatenate(vectors), rows.all_labels), folder / "head.joblib")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
