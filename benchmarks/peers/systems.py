"""The compared systems: each opens from its folder and predicts the label of one text at a time, on one thread."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Ask = Callable[[str], str]

STUDENT, GATED, BLEND = "reaugkd, student alone", "reaugkd, gated", "reaugkd, student + retrieval"
FLOAT32, FAISS = "reaugkd, float32 student", "reaugkd, faiss instead of usearch"
PIPELINE, EAGER = "optimum pipeline, same model", "torch eager, same student"
TEACHER, TEACHER_INT8 = "fine-tuned MiniLM, torch", "fine-tuned MiniLM, int8 ONNX"
SENTENCES, WORDS, STATIC = "sentence embeddings int8 + linear", "TF-IDF + linear", "model2vec + linear"


def open_system(name: str, folder: Path) -> Ask:
    """Open a system: a function from a text to its label.

    Args:
        name: one of ``SYSTEMS``.
        folder: the output of build.py; several systems share the bundle in it.
    """
    return SYSTEMS[name](folder)


def places(name: str, folder: Path) -> list[Path]:
    """Return the files and folders that a system needs for predictions."""
    own = {
        STUDENT: ["bundle/student", "bundle/manifest.json"],
        PIPELINE: ["bundle/student"],
        FLOAT32: ["float32/student"],
        FAISS: ["bundle/student", "bundle/manifest.json", "bundle/kb/soft_labels.npy", "faiss/float32.index"],
    }
    own |= {TEACHER: ["teacher/torch"], TEACHER_INT8: ["teacher/int8"]}
    own |= {EAGER: ["eager"], SENTENCES: ["sentences"], WORDS: ["words"], STATIC: ["static"]}
    return [folder / place for place in own.get(name, ["bundle"])]


def _runtime(retrieval: Any, bundle: str = "bundle") -> Callable[[Path], Ask]:
    def opened(folder: Path) -> Ask:
        from reaugkd import Runtime

        predict = Runtime.open(folder / bundle, threads=1, retrieval=retrieval).predict
        return lambda text: predict(text).label

    return opened


def _faiss(folder: Path) -> Ask:
    from graphs import FLOAT32_GRAPH, on_faiss, pipeline_on

    from reaugkd import Runtime

    runtime = Runtime.open(folder / "bundle", threads=1)
    pipeline = pipeline_on(runtime, on_faiss(runtime, folder / "faiss" / f"{FLOAT32_GRAPH}.index"))
    return lambda text: pipeline.answer(text).label


def _pipeline(folder: Path) -> Ask:
    from onnxruntime import SessionOptions
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = ORTModelForSequenceClassification.from_pretrained(folder / "bundle" / "student", session_options=options)
    tokenizer = AutoTokenizer.from_pretrained(folder / "bundle" / "student")
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, truncation=True)
    return lambda text: str(classify(text)[0]["label"])


def _eager(name: str) -> Callable[[Path], Ask]:
    def opened(folder: Path) -> Ask:
        import torch
        from transformers import AutoTokenizer

        from reaugkd.export.modeling.encoder import EncoderClassifier

        torch.set_num_threads(1)
        labels = json.loads((folder / "labels.json").read_text())
        model = EncoderClassifier.load(folder / name).eval()
        most = json.loads((folder / "bundle" / "manifest.json").read_text())["max_length"]
        tokenizer = AutoTokenizer.from_pretrained(folder / name, model_max_length=most)

        def ask(text: str) -> str:
            with torch.inference_mode():
                found = model(**tokenizer(text, truncation=True, return_tensors="pt"))
            return str(labels[int(found.logits[0].argmax())])

        return ask

    return opened


def _teacher_int8(folder: Path) -> Ask:
    import numpy as np
    from onnxruntime import InferenceSession, SessionOptions
    from tokenizers import Tokenizer

    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    place = folder / "teacher" / "int8"
    session = InferenceSession(str(place / "model.onnx"), options, providers=["CPUExecutionProvider"])
    labels = json.loads((folder / "labels.json").read_text())
    tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(json.loads((folder / "bundle" / "manifest.json").read_text())["max_length"])

    def ask(text: str) -> str:
        row = tokenizer.encode(text)
        feeds = {"input_ids": row.ids, "attention_mask": row.attention_mask, "token_type_ids": row.type_ids}
        logits = session.run(["logits"], {name: np.array([value]) for name, value in feeds.items()})[0]
        return str(labels[int(logits[0].argmax())])

    return ask


def _sentences(folder: Path) -> Ask:
    import joblib
    from onnxruntime import SessionOptions
    from sentence_transformers import SentenceTransformer

    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = SentenceTransformer(
        str(folder / "sentences"),
        backend="onnx",
        device="cpu",
        model_kwargs={"file_name": "onnx/model_qint8.onnx", "session_options": options},
    )
    head = joblib.load(folder / "sentences" / "head.joblib")
    return lambda text: str(head.predict(model.encode([text], show_progress_bar=False))[0])


def _words(folder: Path) -> Ask:
    import joblib

    model = joblib.load(folder / "words" / "model.joblib")
    return lambda text: str(model.predict([text])[0])


def _static(folder: Path) -> Ask:
    import joblib
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(folder / "static")
    head = joblib.load(folder / "static" / "head.joblib")
    return lambda text: str(head.predict(model.encode([text], use_multiprocessing=False))[0])


SYSTEMS: dict[str, Callable[[Path], Ask]] = {
    STUDENT: _runtime("never"),
    GATED: _runtime("gated"),
    BLEND: _runtime("always"),
    FAISS: _faiss,
    FLOAT32: _runtime("never", "float32"),
    PIPELINE: _pipeline,
    EAGER: _eager("eager"),
    TEACHER: _eager("teacher/torch"),
    TEACHER_INT8: _teacher_int8,
    SENTENCES: _sentences,
    WORDS: _words,
    STATIC: _static,
}
"""The systems by name, those of reaugkd first."""
