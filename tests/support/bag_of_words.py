"""A bundle that is fitted in a tenth of a second: a naive Bayes student, and its training rows as knowledge base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.runtime.bundle.bundle import KB_FOLDER, MODEL_FILE, TOKENIZER_FILE
from reaugkd.runtime.bundle.manifest import Golden, Manifest, seal
from reaugkd.runtime.data import Dataset, label_indices
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.inference.session.student import StudentSession
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer

NDIM, MAX_LENGTH = 16, 64


def write_bag_of_words(data: Dataset, path: Path) -> Path:
    """Fit a bag of words on the single texts of ``train``, and write it as a bundle."""
    train, names = data.splits["train"], data.label_names
    gold = label_indices(train, names)
    words = sorted({word for text in train.texts for word in text.split()})
    numbers = {word: number for number, word in enumerate(["[UNK]", *words])}
    counts = np.full((len(numbers), len(names)), 0.1)
    for text, label in zip(train.texts, gold, strict=True):
        for word in text.split():
            counts[numbers[word], label] += 1
    odds = np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)

    model, tokenizer_path = path / MODEL_FILE, path / TOKENIZER_FILE
    model.parent.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tokenizer_path))
    (model.parent / "config.json").write_text('{"model_type": "tiny"}\n')
    onnx.save(_model(odds), str(model))
    read, student = TextTokenizer(tokenizer_path, MAX_LENGTH), StudentSession(model)

    encodings = [read.encode(text) for text in train.texts]
    keys = np.array([student.run(encoding)[1] for encoding in encodings], np.float32)
    config = IndexConfig(ndim=NDIM, dtype="f16", expansion_add=64, expansion_search=32)
    soft = np.eye(len(names), dtype=np.float32)[gold]
    kb = KnowledgeBase.build(keys, soft, config=config, gold=gold, ids=np.arange(len(gold)), texts=train.inputs())
    kb.save(path / KB_FOLDER)
    logits = tuple(map(float, student.run(encodings[0])[0]))
    blend = BlendConfig(k=4, tau=0.1, student_weight=0.7, student_temperature=1.0, label_temperature=1.0)
    manifest = Manifest(
        labels=names,
        max_length=MAX_LENGTH,
        pooling="mean",
        text_pair=False,
        blend=blend,
        kb=config,
        kb_rows=len(kb),
        golden=(Golden(text=train.texts[0], token_ids=tuple(encodings[0].ids), logits=logits, tolerance=1e-4),),
        quantization={"kind": "none", "target": "test"},
        versions={},
        format_version=kb.format_version,
    )
    seal(path, manifest)
    return path


def _model(odds: np.ndarray) -> onnx.ModelProto:
    """The logits are the sum of the words' log odds, the embedding is their projection."""
    labels = odds.shape[1]
    project = np.random.default_rng(0).normal(size=(labels, NDIM)).astype(np.float32)
    weights = [
        numpy_helper.from_array(odds, "words"),
        numpy_helper.from_array(project, "project"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
    ]
    node = helper.make_node
    nodes = [
        node("Gather", ["words", "input_ids"], ["odds"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "last"], ["mask3"]),
        node("Mul", ["odds", "mask3"], ["kept"]),
        node("ReduceSum", ["kept", "axis"], ["logits"], keepdims=0),
        node("MatMul", ["logits", "project"], ["projected"]),
        node("LpNormalization", ["projected"], ["embedding"], axis=-1, p=2),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in INPUTS]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", NDIM]),
    ]
    graph = helper.make_graph(nodes, "bag_of_words", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


INPUTS = ("input_ids", "attention_mask")
