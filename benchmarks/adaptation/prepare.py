"""Build every system's state before the stream, and open it.

    python prepare.py DATA TASK SEED ENCODER BUNDLE OUT

BUNDLE is the export of a student that was trained on the files of stream.py. OUT gets a copy of it, the pretrained
encoder, its vectors of all texts, the settings that are chosen on a tenth of the train rows, and what each peer saves.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from stream import NEW_CLASSES, Stream, build_stream, new_classes, read_task
from systems import (
    ADAPTIVE,
    OWN_MODEL,
    REAUGKD,
    ROUTER,
    SETFIT,
    SKLEARN,
    STUDENT,
    Adaptive,
    Floats,
    Head,
    Reaugkd,
    Router,
    System,
    Vectors,
)

STRENGTHS = (1.0, 10.0, 100.0)
AGGREGATIONS = ("mean", "max", "sum")
TENTH, ASKED = 10, 300


def load(data: Path, task: str, seed: int) -> tuple[dict[str, str], Stream]:
    """Return the rows that every system starts with, text to label, and the stream."""
    splits = read_task(data, task)
    new = new_classes(splits["train"], NEW_CLASSES[task], seed)
    rows = {text: label for text, label in splits["train"] if label not in new}
    return rows, build_stream(splits, new, seed)


def open_system(name: str, out: Path, scratch: Path, rows: dict[str, str], known: dict[str, Floats]) -> System:
    """Open a system before its first text of the stream.

    Args:
        name: one of ``SYSTEMS``.
        out: the output of this script.
        scratch: a folder for a copy of the bundle, which is edited.
        rows: the rows it starts with.
        known: vectors of texts that the pretrained encoder has already encoded.
    """
    if name in OWN_MODEL:
        copy = scratch / "bundle"
        shutil.copytree(out / "bundle", copy)
        return Reaugkd(copy, "never" if name == STUDENT else "always")
    settings = json.loads((out / "settings.json").read_text())
    if name == ADAPTIVE:
        return Adaptive.fit(out / "encoder", rows, known)
    if name == ROUTER:
        return Router.fit(out / "encoder", rows, known, settings["aggregation"])
    if name == SETFIT:
        return _setfit(out / "encoder", rows, known)
    encode = encoder(out / "encoder", "onnx")
    head = LogisticRegression(C=settings["C"], class_weight="balanced", max_iter=1000, tol=1e-5, warm_start=True)
    vectors = Vectors(known, encode)
    return Head(head, vectors, rows, lambda text: str(head.predict(vectors([text]))[0]))


def encoder(folder: Path, backend: str = "torch") -> Callable[[list[str]], Floats]:
    """Return the pretrained encoder as a function from texts to vectors of length 1."""
    import torch
    from onnxruntime import SessionOptions
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    options: dict[str, Any] = {}
    if backend == "onnx":
        session = SessionOptions()
        session.intra_op_num_threads = 1
        options["model_kwargs"] = {"file_name": "onnx/model.onnx", "session_options": session}
    model = SentenceTransformer(str(folder), device="cpu", backend=backend, **options)

    def encode(texts: list[str]) -> Floats:
        found: Floats = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return found

    return encode


def _setfit(folder: Path, rows: dict[str, str], known: dict[str, Floats]) -> Head:
    """SetFit's model with its default head, whose body stays as it was pretrained."""
    import torch
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel

    torch.set_num_threads(1)
    body = SentenceTransformer(str(folder), device="cpu")
    model = SetFitModel(model_body=body, model_head=LogisticRegression(warm_start=True))
    vectors = Vectors(known, lambda texts: body.encode(texts, show_progress_bar=False))

    def answer(text: str) -> str:
        # Vectors of the stream are known where accuracy is measured, not where time is.
        return str(model.model_head.predict([known[text]])[0] if text in known else model.predict([text])[0])

    return Head(model.model_head, vectors, rows, answer)


SYSTEMS = (REAUGKD, STUDENT, ADAPTIVE, ROUTER, SETFIT, SKLEARN)


def vectors_of(out: Path, texts: Sequence[str] | None = None) -> dict[str, Floats]:
    """Return the stored vectors of all texts, or of some."""
    stored = np.load(out / "vectors.npz", allow_pickle=False)
    known = dict(zip(stored["texts"].tolist(), stored["vectors"], strict=True))
    return known if texts is None else {text: known[text] for text in texts}


def _write_encoder(encoder_folder: str, out: Path) -> None:
    """Save the encoder in float32 as sentence-transformers does, for PyTorch and for ONNX Runtime."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    body = Transformer(encoder_folder)
    pooling = Pooling(body.get_word_embedding_dimension(), pooling_mode="mean")
    SentenceTransformer(modules=[body, pooling, Normalize()], device="cpu").save(str(out))
    onnx = SentenceTransformer(str(out), device="cpu", backend="onnx", model_kwargs={"export": True})
    onnx.save_pretrained(str(out))


def _choose(rows: dict[str, str], known: dict[str, Floats], out: Path) -> dict[str, Any]:
    """Choose the settings of the peers on a tenth of the train rows, the others being stored or fitted."""
    texts = np.random.default_rng(0).permutation(np.array(list(rows))).tolist()
    heldout, train = texts[: len(texts) // TENTH], texts[len(texts) // TENTH :]
    keys, labels = np.stack([known[text] for text in train]), np.array([rows[text] for text in train])
    asked, right = np.stack([known[text] for text in heldout]), np.array([rows[text] for text in heldout])
    found = {}
    head = LogisticRegression(class_weight="balanced", max_iter=1000, warm_start=True)
    for strength in STRENGTHS:
        head.set_params(C=strength).fit(keys, labels)
        found[strength] = float(head.score(asked, right))
    routers = {}
    for aggregation in AGGREGATIONS:
        router = Router.fit(out / "encoder", {text: rows[text] for text in train}, known, aggregation)
        routers[aggregation] = float(np.mean([router.answer(text) == rows[text] for text in heldout[:ASKED]]))
    best = max(found, key=lambda strength: found[strength])
    chosen = max(routers, key=lambda aggregation: routers[aggregation])
    return {
        "C": best,
        "aggregation": chosen,
        "heldout": {**{f"C {key}": value for key, value in found.items()}, **routers},
    }


def _save(out: Path, rows: dict[str, str], known: dict[str, Floats]) -> None:
    """Save what each peer needs to start again."""
    adaptive = open_system(ADAPTIVE, out, out, rows, known)
    adaptive.model.save(str(out / "adaptive"))  # type: ignore[attr-defined]
    router = open_system(ROUTER, out, out, rows, known)
    routes = [{"name": route.name, "utterances": route.utterances} for route in router.router.routes]  # type: ignore[attr-defined]
    (out / "routes.json").write_text(json.dumps(routes))
    np.savez(out / "rows.npz", vectors=np.stack([known[text] for text in rows]), labels=list(rows.values()))
    for name, file in ((SETFIT, "setfit"), (SKLEARN, "sklearn")):
        head = open_system(name, out, out, rows, known)
        joblib.dump(head.head, out / f"{file}.joblib")  # type: ignore[attr-defined]


def main(data: Path, task: str, seed: int, pretrained: str, bundle: Path, out: Path) -> None:
    """Build what is not built yet."""
    rows, stream = load(data, task, seed)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "encoder").exists():
        _write_encoder(pretrained, out / "encoder")
    if not (out / "vectors.npz").exists():
        kept = [text for text, _ in (*stream.old, *stream.new)]
        texts = list(dict.fromkeys([*rows, *(event.text for event in stream.events), *kept]))
        np.savez(out / "vectors.npz", texts=texts, vectors=encoder(out / "encoder")(texts))
    known = vectors_of(out)
    if not (out / "settings.json").exists():
        (out / "settings.json").write_text(json.dumps(_choose(rows, known, out)))
    if not (out / "bundle").exists():
        shutil.copytree(bundle, out / "bundle")
    if not (out / "rows.npz").exists():
        _save(out, rows, known)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]), Path(sys.argv[6]))
