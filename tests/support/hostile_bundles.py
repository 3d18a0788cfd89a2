"""Hostile bundles with valid hashes: a modification of a valid bundle for each case."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from reaugkd.runtime.bundle.bundle import MOST_MANIFEST_BYTES
from reaugkd.runtime.bundle.manifest import MANIFEST_FILE, seal_entry
from reaugkd.runtime.bundle.tokenizer_safety import MOST_BYTES
from support.tiny_bundle import reseal

MODEL, TOKENIZER, INDEX = "student/model.onnx", "student/tokenizer.json", "kb/index.usearch"
SOFT, ROWS, LISTS, HELDOUT = "kb/soft_labels.npy", "kb/rows.npy", "kb/lists.npy", "heldout.npz"

Make = Callable[[Path], object]


def written(bundle: Path, raw: bytes) -> None:
    """Write ``raw``, a JSON object, as the manifest, with its seal."""
    head = raw.rstrip().removesuffix(b"}").rstrip() + b",\n  "
    (bundle / MANIFEST_FILE).write_bytes(head + seal_entry(head))


def plain(bundle: Path) -> dict[str, Any]:
    obj: dict[str, Any] = json.loads((bundle / MANIFEST_FILE).read_text())
    obj.pop("seal")
    return obj


def with_field(bundle: Path, place: str, value: object) -> None:
    """Write a manifest with another value at a path such as ``blend.k``, sealed."""
    obj = inner = plain(bundle)
    *sections, name = place.split(".")
    for section in sections:
        inner = inner[section]
    inner[name] = value
    written(bundle, json.dumps(obj).encode())


def with_file(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    reseal(bundle)


# The manifest: what is made of it, and what the message tells.
DEEP = b"[" * 100_000
MANIFESTS: dict[str, tuple[Make, str]] = {
    "deep": (lambda b: (b / MANIFEST_FILE).write_bytes(b'{"a":' * 100_000), "not valid JSON"),
    "deeply nested in a free section": (
        lambda b: written(
            b, json.dumps({**plain(b), "quality": {}}).encode().replace(b'"quality": {}', b'"quality": ' + DEEP)
        ),
        "not valid JSON",
    ),
    "a name twice": (
        lambda b: written(b, json.dumps(plain(b)).encode().replace(b'"kb_rows": 40', b'"kb_rows": 40, "kb_rows": 41')),
        "'kb_rows' twice",
    ),
    "NaN": (lambda b: with_field(b, "blend.tau", float("nan")), "NaN is not JSON"),
    "Infinity": (lambda b: with_field(b, "quality.x", float("inf")), "Infinity is not JSON"),
    "a number beyond all": (
        lambda b: written(b, json.dumps(plain(b)).encode().replace(b'"tau": 0.1', b'"tau": 1e999')),
        "too large",
    ),
    "a number of 5,000 digits": (
        lambda b: written(b, json.dumps(plain(b)).encode().replace(b'"tau": 0.1', b'"tau": ' + b"9" * 5000)),
        "not valid JSON",
    ),
    "k of the wrong type": (lambda b: with_field(b, "blend.k", [8]), "blend.k"),
    "an absurd k": (lambda b: with_field(b, "blend.k", 10**30), "blend.k"),
    "absurd dimensions": (lambda b: with_field(b, "kb.ndim", 10**15), "ndim"),
    "dimensions not of the index": (lambda b: with_field(b, "kb.ndim", 10**6), "index.usearch.*dimensions"),
    "an absurd width": (lambda b: with_field(b, "kb.expansion_search", 10**12), "expansion_search"),
    "an absurd number of edges": (lambda b: with_field(b, "kb.connectivity", 10**12), "connectivity"),
    "edges not of the index": (lambda b: with_field(b, "kb.connectivity", 10**6), "index.usearch.*edges"),
    "absurd rows": (lambda b: with_field(b, "kb_rows", 2**62), "kb: .*rows"),
    "an absurd length": (lambda b: with_field(b, "max_length", 2**62), "max_length"),
    "no length": (lambda b: with_field(b, "max_length", 0), "max_length"),
    "a label twice": (lambda b: with_field(b, "labels", ["a", "b", "a"]), "labels.*every label once"),
    "labels that are numbers": (lambda b: with_field(b, "labels", [1, 2, 3]), "labels"),
    "a label that is no Unicode": (lambda b: with_field(b, "labels", ["a", "b", "\ud800"]), "labels.*Unicode"),
    "an endless label": (lambda b: with_field(b, "labels", ["a", "b", "c" * 10**6]), "labels"),
    "100,000 labels": (lambda b: with_field(b, "labels", [str(n) for n in range(100_000)]), "labels.*65,536"),
    "5,000 labels": (lambda b: with_field(b, "labels", [str(n) for n in range(5_000)]), "soft_labels.npy"),
    "a long golden text": (
        lambda b: with_field(b, "golden", [{**plain(b)["golden"][0], "text": "a " * 10_000}]),
        r"golden\.text",
    ),
    "1,000 golden texts": (lambda b: with_field(b, "golden", plain(b)["golden"][:1] * 1000), "golden.*1,000"),
    "100,000 files": (
        lambda b: with_field(b, "files", {str(n): {"bytes": 0, "sha256": ""} for n in range(100_000)}),
        "files.*100,000",
    ),
    "files of terabytes": (
        lambda b: with_field(b, "files", {name: {"bytes": 2**50, "sha256": "0"} for name in plain(b)["files"]}),
        "truncated",
    ),
    "a file outside": (lambda b: with_field(b, "files", {"../x": {"bytes": 0, "sha256": ""}}), "below the bundle"),
    "a file at the root": (lambda b: with_field(b, "files", {"/etc/hosts": {"bytes": 0, "sha256": ""}}), "below"),
    "a file by another name": (lambda b: with_field(b, "files", {"kb//x": {"bytes": 0, "sha256": ""}}), "below"),
    "itself": (lambda b: with_field(b, "files", {MANIFEST_FILE: {"bytes": 0, "sha256": ""}}), "below"),
    "nine megabytes of lists": (lambda b: (b / MANIFEST_FILE).write_bytes(b"[" + b"[]," * 3_000_000), "too large"),
    "as much as is read, of lists": (
        lambda b: (b / MANIFEST_FILE).write_bytes(b"[" + b"[]," * ((MOST_MANIFEST_BYTES - 10) // 3) + b"1]"),
        "no manifest",
    ),
    "as much as is read, of names": (
        lambda b: (b / MANIFEST_FILE).write_bytes(b"{" + b",".join(b'"%d":1' % n for n in range(600_000)) + b',"0":2}'),
        "'0' twice",
    ),
}


def npy(descr: str, shape: str, body: bytes = b"", order: str = "False", pad: int = 0) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode() + b" " * pad + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def pickled(bundle: Path, name: str) -> None:
    out = io.BytesIO()
    np.save(out, np.array([os.getcwd] * 40, object), allow_pickle=True)
    with_file(bundle, name, out.getvalue())


def bomb(bundle: Path, claimed: int | None = None) -> None:
    """Return a small archive of a huge array; with ``claimed`` its header states a small size."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("logits", "queries", "gold", "groups", "unrelated"):
            archive.writestr(f"{name}.npy", npy("'<f2'", "(1000000,)") + bytes(2_000_000))
    content = out.getvalue()
    if claimed is not None:
        content = content.replace(struct.pack("<I", len(npy("'<f2'", "(1000000,)")) + 2_000_000), struct.pack("<I", 9))
    with_file(bundle, HELDOUT, content)


def huge_shape_archive(bundle: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("logits", "queries", "gold", "groups", "unrelated"):
            archive.writestr(f"{name}.npy", npy("'<f2'", f"({2**36},)"))
    with_file(bundle, HELDOUT, out.getvalue())


def tokenizer_with(bundle: Path, **parts: object) -> None:
    with_file(bundle, TOKENIZER, json.dumps({**json.loads((bundle / TOKENIZER).read_text()), **parts}).encode())


def replaces(*steps: tuple[str, str]) -> dict[str, object]:
    inner = [{"type": "Replace", "pattern": {"String": old}, "content": new} for old, new in steps]
    return {"type": "Sequence", "normalizers": inner}


def many_special(bundle: Path) -> None:
    """Write one special token that stands for two million."""
    tokenizer = json.loads((bundle / TOKENIZER).read_text())
    named = tokenizer["post_processor"]["special_tokens"]["[CLS]"]
    named["ids"], named["tokens"] = [2] * 2_000_000, ["[CLS]"] * 2_000_000
    tokenizer_with(bundle, post_processor=tokenizer["post_processor"])


def words_of_any_length(bundle: Path) -> None:
    vocab = json.loads((bundle / TOKENIZER).read_text())["model"]["vocab"]
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": vocab}
    tokenizer_with(bundle, model={**model, "max_input_chars_per_word": 10**9})


def token_of_nothing(bundle: Path) -> None:
    """Write two added tokens; the normalized text of the first is empty. `encode("x")` then takes endless memory."""
    tokens = [{"content": content, "normalized": True} for content in ("\u200d", "xy")]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
    tokenizer = json.loads((bundle / TOKENIZER).read_text())
    added = [*tokenizer["added_tokens"], *({"id": 10_000 + at, **flags, **one} for at, one in enumerate(tokens))]
    steps = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    tokenizer_with(bundle, added_tokens=added, normalizer={"type": "BertNormalizer", **steps})


REGEX = {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}


def slow_pattern(bundle: Path) -> None:
    tokenizer_with(bundle, pre_tokenizer=REGEX)
    with_field(bundle, "golden", [{**plain(bundle)["golden"][0], "text": "a" * 5000}])


def model_of(bundle: Path, *nodes: onnx.NodeProto, tensors: list[TensorProto] | None = None) -> None:
    """Write a model with a part before the original graph."""
    model = onnx.load(str(bundle / MODEL))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    model.graph.initializer.extend(tensors or [])
    with_file(bundle, MODEL, model.SerializeToString())


def endless_loop(bundle: Path) -> None:
    condition = helper.make_tensor_value_info("again", TensorProto.BOOL, [])
    count = helper.make_tensor_value_info("count", TensorProto.INT64, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["was"], ["again"])],
        "body",
        [count, helper.make_tensor_value_info("was", TensorProto.BOOL, [])],
        [condition],
    )
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [2**62])
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    model_of(bundle, helper.make_node("Loop", ["trips", "true"], [], body=body), tensors=[trips, true])


def external(bundle: Path) -> None:
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../etc/hosts")
    model_of(bundle, tensors=[tensor])


def absurd_tensor(bundle: Path) -> None:
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[2**20, 2**20], raw_data=b"")
    model_of(bundle, helper.make_node("Identity", ["far"], ["near"]), tensors=[tensor])


def functions_of_functions(bundle: Path) -> None:
    """Each function calls the previous one twice: inlined, they are a thousand million nodes."""
    model = onnx.load(str(bundle / MODEL))
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for number in range(30):
        before = [(f"F{number - 1}", "own")] * 2 if number else [("Identity", "")] * 2
        ways = (("x", "t"), ("t", "y"))
        nodes = [helper.make_node(op, [a], [b], domain=of) for (op, of), (a, b) in zip(before, ways, strict=True)]
        model.functions.append(helper.make_function("own", f"F{number}", ["x"], ["y"], nodes, sets))
    model.opset_import.append(sets[1])
    model.graph.node.insert(0, helper.make_node("F29", ["attention_mask"], ["again"], domain="own"))
    with_file(bundle, MODEL, model.SerializeToString())


def memory_of_its_own(bundle: Path) -> None:
    """A node that allocates 256 GB when it runs."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [2**36])
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["much"])]
    nodes.append(helper.make_node("ReduceSum", ["much"], ["sum"], keepdims=0))
    model_of(bundle, *nodes, tensors=[shape])
    model = onnx.load(str(bundle / MODEL))
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, None))
    with_file(bundle, MODEL, model.SerializeToString())


def deep_model(bundle: Path) -> None:
    """A graph in a node in a graph, 60,000 levels deep, which overflows a recursive reader."""
    size, starts = 0, []
    for _ in range(60_000):
        for field in (6, 5, 1):
            starts.append(bytes([field << 3 | 2]) + varint(size))
            size += len(starts[-1])
    with_file(bundle, MODEL, b"\x08\x08\x3a" + varint(size) + b"".join(reversed(starts)))


def varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def add_to_model(bundle: Path, fields: bytes) -> None:
    with_file(bundle, MODEL, (bundle / MODEL).read_bytes() + fields)


def index_with(bundle: Path, offset: int, kind: str, value: int) -> None:
    content = bytearray((bundle / INDEX).read_bytes())
    struct.pack_into(f"<{kind}", content, offset, value)
    with_file(bundle, INDEX, bytes(content))


HEAD = 8 + 40 * 32  # of the index: behind 40 keys of 16 float16
FILES: dict[str, tuple[str, Make]] = {
    "an array of terabytes": (SOFT, lambda b: with_file(b, SOFT, npy("'<f2'", f"({2**40}, 3)"))),
    "an array of more than there are addresses": (
        SOFT,
        lambda b: with_file(b, SOFT, npy("'<f2'", f"({2**32}, {2**32})")),
    ),
    "an array of a number of 900 digits": (SOFT, lambda b: with_file(b, SOFT, npy("'<f2'", f"({'9' * 900}, 3)"))),
    "negative rows": (SOFT, lambda b: with_file(b, SOFT, npy("'<f2'", "(-40, -3)", bytes(240)))),
    "rows that are truths": (SOFT, lambda b: with_file(b, SOFT, npy("'<f2'", "(True, 3)", bytes(6)))),
    "dates": (SOFT, lambda b: with_file(b, SOFT, npy("'<M8[ns]'", "(40, 3)", bytes(960)))),
    "strings of a gigabyte": (SOFT, lambda b: with_file(b, SOFT, npy("'<U268435456'", "(40, 3)"))),
    "a header in parentheses": (SOFT, lambda b: with_file(b, SOFT, npy("(" * 900, "(40, 3)"))),
    "a header of minus signs": (SOFT, lambda b: with_file(b, SOFT, npy("-" * 900 + "1", "(40, 3)"))),
    "a header of 60 kB": (SOFT, lambda b: with_file(b, SOFT, npy("'<f2'", "(40, 3)", bytes(240), pad=60_000))),
    "an order of columns": (SOFT, lambda b: with_file(b, SOFT, npy("'<f2'", "(40, 3)", bytes(240), order="True"))),
    "a pickle of labels": (SOFT, lambda b: pickled(b, SOFT)),
    "a pickle of rows": (ROWS, lambda b: pickled(b, ROWS)),
    "rows of another table": (ROWS, lambda b: with_file(b, ROWS, npy("[('id', '<u8'), ('label', '|O')]", "(40,)"))),
    "an archive for an array": (ROWS, lambda b: with_file(b, ROWS, (b / HELDOUT).read_bytes())),
    "lists of terabytes": (LISTS, lambda b: with_file(b, LISTS, npy("'<i4'", f"({2**34}, 64)"))),
    "lists with ten million places": (
        LISTS,
        lambda b: with_file(b, LISTS, npy("'<i4'", "(2, 10000000)", b"\1\0\0\0" + bytes(79_999_996))),
    ),
    "a pickle of lists": (LISTS, lambda b: pickled(b, LISTS)),
    "4,294,967,295 keys": (INDEX, lambda b: index_with(b, 0, "I", 2**32 - 1)),
    "keys of 4 GB": (INDEX, lambda b: index_with(b, 4, "I", 2**32 - 1)),
    "absurd dimensions": (INDEX, lambda b: index_with(b, HEAD + 33, "Q", 2**62)),
    "absurd nodes": (INDEX, lambda b: index_with(b, HEAD + 64, "Q", 2**62)),
    "absurd edges": (INDEX, lambda b: index_with(b, HEAD + 72, "Q", 2**62)),
    "an absurd level": (INDEX, lambda b: index_with(b, HEAD + 88, "Q", 2**62)),
    "an absurd start": (INDEX, lambda b: index_with(b, HEAD + 96, "Q", 2**62)),
    "a tokenizer too large": (TOKENIZER, lambda b: with_file(b, TOKENIZER, b" " * (MOST_BYTES + 1))),
    "a deep tokenizer": (TOKENIZER, lambda b: with_file(b, TOKENIZER, b'{"normalizer":' * 100_000)),
    "no tokenizer": (TOKENIZER, lambda b: with_file(b, TOKENIZER, b'{"version": "1.0"}')),
    "a text that explodes": (TOKENIZER, lambda b: tokenizer_with(b, normalizer=replaces(*[("e", "e" * 100)] * 8))),
    "nothing that becomes much": (
        TOKENIZER,
        lambda b: tokenizer_with(
            b, normalizer={"type": "Replace", "pattern": {"Regex": "x*"}, "content": "e" * 1_000_000}
        ),
    ),
    "bytes of bytes of bytes": (
        TOKENIZER,
        lambda b: tokenizer_with(b, normalizer={"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 40}),
    ),
    "two million special tokens": (TOKENIZER, many_special),
    "words of any length": (TOKENIZER, words_of_any_length),
    "a token of nothing": (TOKENIZER, token_of_nothing),
    "a pattern that tries for ever": (TOKENIZER, slow_pattern),
    "a loop": (MODEL, endless_loop),
    "tensors elsewhere": (MODEL, external),
    "a tensor of terabytes": (MODEL, absurd_tensor),
    "functions of functions": (MODEL, functions_of_functions),
    "memory of its own, within a limit": (MODEL, memory_of_its_own),
    "a deep model": (MODEL, deep_model),
    "five million fields": (MODEL, lambda b: add_to_model(b, b"\x28\x01" * 5_000_000)),
    "an output without an end": (MODEL, lambda b: add_to_model(b, b"\x3a\x04\x62\x02\x0a\x7f")),
    "an output whose name is no text": (MODEL, lambda b: add_to_model(b, b"\x3a\x05\x62\x03\x0a\x01\xff")),
    "operators without an end": (MODEL, lambda b: add_to_model(b, b"\x42\x02\x0a\x7f")),
    "a text for a model": (MODEL, lambda b: with_file(b, MODEL, b"hello")),
    "a bomb": (HELDOUT, bomb),
    "a bomb that says it is none": (HELDOUT, lambda b: bomb(b, claimed=9)),
    "an array of terabytes in an archive": (HELDOUT, huge_shape_archive),
}
