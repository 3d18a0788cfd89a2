"""A tiny real bundle, built in less than a second without torch, for tests that read bundles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.kb.texts import TextDigests
from reaugkd.runtime.bundle.bundle import KB_FOLDER, MODEL_FILE, TOKENIZER_FILE
from reaugkd.runtime.bundle.manifest import Golden, Manifest, seal
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.inference.session.onnxruntime_setup import import_onnxruntime
from reaugkd.runtime.inference.session.student import StudentSession
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer

WORDS = (
    "alarm album apple april artist bread bring buy call cancel cheap clock cloud cook door email fan find five green "
    "half heat hour jazz kitchen lamp late light list loud meal milk minute monday morning music night noon note oven"
).split()
HIDDEN = 24
NDIM = 16
MAX_LENGTH = 24

Text = str | tuple[str, str]


def build_tiny_bundle(
    path: Path,
    *,
    rows: int = 64,
    labels: Sequence[str] = ("a", "b", "c"),
    pairs: bool = False,
    texts: bool | Literal["hash"] = True,
    seed: int = 0,
    dtype: str = "f16",
    reduce_range: bool = False,
    label_loss: float = 0.0,
) -> Path:
    """Write a sealed bundle to the folder ``path`` and return it.

    The student is a bag of words with a hidden layer and random weights, quantized dynamically, so that batching it
    would change its answers, as it does for a real one.

    Args:
        path: where to; its parents are made.
        rows: rows of the knowledge base.
        labels: the labels' names.
        pairs: whether the inputs are pairs of texts.
        texts: whether the knowledge base keeps the rows' texts, or digests of them.
        seed: of everything random; other seeds give other weights.
        dtype: of the keys.
        reduce_range: weights of 7 bits, whose products no processor saturates: the same integers everywhere.
        label_loss: same as `KnowledgeBase.build`; above 0, and with more than 16 labels, only the likeliest are kept.
    """
    rng = np.random.default_rng(seed)
    model, tokenizer_path = path / MODEL_FILE, path / TOKENIZER_FILE
    model.parent.mkdir(parents=True)
    _tokenizer().save(str(tokenizer_path))
    (model.parent / "config.json").write_text('{"model_type": "tiny"}\n')
    _write_model(model, len(labels), pairs, rng, reduce_range)
    tokenizer, student = TextTokenizer(tokenizer_path, MAX_LENGTH), StudentSession(model)
    config = IndexConfig(ndim=NDIM, dtype=dtype, expansion_add=64, expansion_search=32)
    inputs = tiny_texts(rows, seed=seed + 1, pairs=pairs)
    kb = _knowledge_base(student, tokenizer, inputs, texts, config, len(labels), rng, label_loss)
    kb.save(path / KB_FOLDER)
    manifest = Manifest(
        labels=tuple(labels),
        max_length=MAX_LENGTH,
        pooling="mean",
        text_pair=pairs,
        blend=BlendConfig(k=8, tau=0.1, student_weight=0.4, student_temperature=1.3, label_temperature=1.5),
        kb=config,
        kb_rows=rows,
        golden=tuple(_golden(student, tokenizer, text) for text in tiny_texts(2, seed=seed + 2, pairs=pairs)),
        quantization={"kind": "dynamic", "target": "test"},
        versions={"onnxruntime": import_onnxruntime().__version__},
        format_version=kb.format_version,
    )
    seal(path, manifest)
    return path


def tiny_texts(count: int, *, seed: int = 0, pairs: bool = False) -> list[Text]:
    """Return texts (or pairs) of 1 to 12 known words."""
    rng = np.random.default_rng(seed)

    def one() -> str:
        return " ".join(rng.choice(WORDS, size=rng.integers(1, 13)))

    return [(one(), one()) if pairs else one() for _ in range(count)]


def reseal(path: Path, **changes: object) -> None:
    """Change fields of a bundle's manifest and seal it again, with the files as they are."""
    file = path / "manifest.json"
    obj = json.loads(file.read_text())
    obj.update(changes)
    seal(path, Manifest.from_json(obj, file))


def _tokenizer() -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # A file with padding and another truncation in it, as exporters leave behind: neither must have an effect.
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(4)
    return tokenizer


def _write_model(path: Path, labels: int, pairs: bool, rng: np.random.Generator, reduce_range: bool) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = path.with_suffix(".fp32")
    onnx.save(_model(labels, pairs, rng), str(plain))
    quantize_dynamic(str(plain), str(path), ["MatMul"], weight_type=QuantType.QInt8, reduce_range=reduce_range)
    plain.unlink()


def _model(labels: int, pairs: bool, rng: np.random.Generator) -> onnx.ModelProto:
    def weight(name: str, *shape: int, scale: float = 1.0) -> onnx.TensorProto:
        return numpy_helper.from_array((scale * rng.standard_normal(shape)).astype(np.float32), name)

    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if pairs else [])]
    weights = [
        weight("words", 4 + len(WORDS), HIDDEN),
        weight("types", 2, HIDDEN),
        weight("mix", HIDDEN, HIDDEN, scale=HIDDEN**-0.5),
        weight("head", HIDDEN, labels, scale=2.0),
        weight("project", HIDDEN, NDIM),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
    ]
    node = helper.make_node
    typed = [
        node("Gather", ["types", "token_type_ids"], ["of_type"]),
        node("Add", ["of_word", "of_type"], ["token"]),
    ]
    nodes = [
        node("Gather", ["words", "input_ids"], ["of_word"]),
        *(typed if pairs else [node("Identity", ["of_word"], ["token"])]),
        node("MatMul", ["token", "mix"], ["mixed"]),
        node("Tanh", ["mixed"], ["active"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "last"], ["mask3"]),
        node("Mul", ["active", "mask3"], ["kept"]),
        node("ReduceSum", ["kept", "axis"], ["sum"], keepdims=0),
        node("ReduceSum", ["mask", "axis"], ["count"], keepdims=1),
        node("Div", ["sum", "count"], ["mean"]),
        node("MatMul", ["mean", "head"], ["logits"]),
        node("MatMul", ["mean", "project"], ["projected"]),
        node("LpNormalization", ["projected"], ["embedding"], axis=-1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in inputs],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", NDIM]),
        ],
        weights if pairs else [tensor for tensor in weights if tensor.name != "types"],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _run(student: StudentSession, tokenizer: TextTokenizer, text: Text) -> tuple[list[int], list[NDArray[np.float32]]]:
    encoding = tokenizer.encode(*((text, None) if isinstance(text, str) else text))
    return encoding.ids, list(student.run(encoding))


def _knowledge_base(
    student: StudentSession,
    tokenizer: TextTokenizer,
    inputs: list[Text],
    keep_texts: bool | Literal["hash"],
    config: IndexConfig,
    labels: int,
    rng: np.random.Generator,
    label_loss: float,
) -> KnowledgeBase:
    rows = len(inputs)
    answers = [_run(student, tokenizer, text)[1] for text in inputs]
    logits = np.array([logits for logits, _ in answers], np.float32).reshape(rows, labels)
    keys = np.array([embedding for _, embedding in answers], np.float32).reshape(rows, NDIM)
    keys += 0.1 * rng.standard_normal(keys.shape).astype(np.float32)
    # A teacher that mostly agrees with the student, and a gold label that mostly agrees with the teacher.
    exponents = np.exp(logits + rng.standard_normal(logits.shape).astype(np.float32))
    soft = exponents / exponents.sum(axis=1, keepdims=True)
    gold = np.where(rng.random(rows) < 0.1, -1, soft.argmax(axis=1))
    ids = np.arange(rows) + 1000
    texts = TextDigests.of(inputs) if keep_texts == "hash" else inputs if keep_texts else None
    return KnowledgeBase.build(keys, soft, config=config, gold=gold, ids=ids, texts=texts, label_loss=label_loss)


def _golden(student: StudentSession, tokenizer: TextTokenizer, text: Text) -> Golden:
    ids, (logits, _) = _run(student, tokenizer, text)
    return Golden(text=text, token_ids=tuple(ids), logits=tuple(map(float, logits)), tolerance=1e-4)
