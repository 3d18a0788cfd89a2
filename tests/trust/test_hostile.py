"""Bundles that were made to do harm, with hashes that are right: refused by the file's name, soon, in little memory.

Each is opened in a process of its own that may not take more than a gigabyte of address space beyond what an honest
bundle takes, and is ended when it takes too long.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from heldoutbundle import TEXTS, add_heldout
from onnx import TensorProto, helper
from tinybundle import build_tiny_bundle, reseal

from reaugkd import BundleError, BundleIntegrityError, Runtime
from reaugkd.kb.index_file import read_index_file
from reaugkd.kb.npy_file import array_of
from reaugkd.runtime.bundle import MOST_MANIFEST_BYTES, Bundle
from reaugkd.runtime.manifest import MANIFEST_FILE, FileRecord, Manifest, seal_entry
from reaugkd.runtime.tokenizer_limits import MOST_BYTES

MODEL, TOKENIZER, INDEX = "student/model.onnx", "student/tokenizer.json", "kb/index.usearch"
SOFT, ROWS, HELDOUT = "kb/soft_labels.npy", "kb/rows.npy", "heldout.npz"
OPENER = Path(__file__).with_name("opener.py")

Make = Callable[[Path], object]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = build_tiny_bundle(tmp_path_factory.mktemp("honest") / "bundle", rows=40)
    add_heldout(path, TEXTS[:20], 40)
    return path


@pytest.fixture
def bundle(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "bundle"))


def written(bundle: Path, raw: bytes) -> None:
    """Make ``raw``, a JSON object, the manifest, with its seal."""
    head = raw.rstrip().removesuffix(b"}").rstrip() + b",\n  "
    (bundle / MANIFEST_FILE).write_bytes(head + seal_entry(head))


def plain(bundle: Path) -> dict[str, Any]:
    obj: dict[str, Any] = json.loads((bundle / MANIFEST_FILE).read_text())
    obj.pop("seal")
    return obj


def with_field(bundle: Path, place: str, value: object) -> None:
    """A manifest with another value at a place such as ``blend.k``, sealed."""
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
    "deep": (lambda b: (b / MANIFEST_FILE).write_bytes(b'{"a":' * 100_000), "no JSON"),
    "deeply nested in a free section": (
        lambda b: written(
            b, json.dumps({**plain(b), "quality": {}}).encode().replace(b'"quality": {}', b'"quality": ' + DEEP)
        ),
        "no JSON",
    ),
    "a name twice": (
        lambda b: written(b, json.dumps(plain(b)).encode().replace(b'"kb_rows": 40', b'"kb_rows": 40, "kb_rows": 41')),
        "'kb_rows' twice",
    ),
    "NaN": (lambda b: with_field(b, "blend.tau", float("nan")), "NaN is no JSON"),
    "Infinity": (lambda b: with_field(b, "quality.x", float("inf")), "Infinity is no JSON"),
    "a number beyond all": (
        lambda b: written(b, json.dumps(plain(b)).encode().replace(b'"tau": 0.1', b'"tau": 1e999')),
        "too large",
    ),
    "a number of 5,000 digits": (
        lambda b: written(b, json.dumps(plain(b)).encode().replace(b'"tau": 0.1', b'"tau": ' + b"9" * 5000)),
        "no JSON",
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
    """A small archive of an endless array; ``claimed``, it says that it is this small."""
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
    """One special token that stands for two million."""
    tokenizer = json.loads((bundle / TOKENIZER).read_text())
    named = tokenizer["post_processor"]["special_tokens"]["[CLS]"]
    named["ids"], named["tokens"] = [2] * 2_000_000, ["[CLS]"] * 2_000_000
    tokenizer_with(bundle, post_processor=tokenizer["post_processor"])


def words_of_any_length(bundle: Path) -> None:
    vocab = json.loads((bundle / TOKENIZER).read_text())["model"]["vocab"]
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": vocab}
    tokenizer_with(bundle, model={**model, "max_input_chars_per_word": 10**9})


REGEX = {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}


def slow_pattern(bundle: Path) -> None:
    tokenizer_with(bundle, pre_tokenizer=REGEX)
    with_field(bundle, "golden", [{**plain(bundle)["golden"][0], "text": "a" * 5000}])


def model_of(bundle: Path, *nodes: onnx.NodeProto, tensors: list[TensorProto] | None = None) -> None:
    """A model with a part before the honest one's."""
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
    """Each calls the one before it twice: loaded, they would be a thousand million nodes."""
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
    """A node that asks for 256 GB, which only running it tells."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [2**36])
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["much"])]
    nodes.append(helper.make_node("ReduceSum", ["much"], ["sum"], keepdims=0))
    model_of(bundle, *nodes, tensors=[shape])
    model = onnx.load(str(bundle / MODEL))
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, None))
    with_file(bundle, MODEL, model.SerializeToString())


def deep_model(bundle: Path) -> None:
    """A graph in a node in a graph, 60,000 times, which a reader that calls itself would not survive."""
    size, starts = 0, []
    for _ in range(60_000):
        for field in (6, 5, 1):
            starts.append(bytes([field << 3 | 2]) + varint(size))
            size += len(starts[-1])
    with_file(bundle, MODEL, b"\x08\x08\x3a" + varint(size) + b"".join(reversed(starts)))


def varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def many_fields(bundle: Path) -> None:
    content = (bundle / MODEL).read_bytes()
    with_file(bundle, MODEL, content + b"\x28\x01" * 5_000_000)  # model_version, again and again


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
    "a pattern that tries for ever": (TOKENIZER, slow_pattern),
    "a loop": (MODEL, endless_loop),
    "tensors elsewhere": (MODEL, external),
    "a tensor of terabytes": (MODEL, absurd_tensor),
    "functions of functions": (MODEL, functions_of_functions),
    "memory of its own, within a limit": (MODEL, memory_of_its_own),
    "a deep model": (MODEL, deep_model),
    "five million fields": (MODEL, many_fields),
    "a text for a model": (MODEL, lambda b: with_file(b, MODEL, b"hello")),
    "a bomb": (HELDOUT, bomb),
    "a bomb that says it is none": (HELDOUT, lambda b: bomb(b, claimed=9)),
    "an array of terabytes in an archive": (HELDOUT, huge_shape_archive),
}


@pytest.fixture(scope="module")
def opened(honest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of opening every hostile bundle, each after the other in few processes, by its case."""
    folder = tmp_path_factory.mktemp("hostile")
    cases = {f"manifest: {name}": make for name, (make, _) in MANIFESTS.items()}
    cases |= {f"file: {name}": make for name, (_, make) in FILES.items()}
    for number, make in enumerate(cases.values()):
        make(Path(shutil.copytree(honest, folder / str(number))))
    # The honest one first: it loads the libraries.
    command = [sys.executable, "-P", OPENER, honest, *(folder / str(number) for number in range(len(cases)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    names = ["honest", *cases]
    assert len(results) == len(names), f"ended with {done.returncode} at {names[len(results)]}: {done.stderr[-2000:]}"
    return dict(zip(names, results, strict=True))


def test_the_honest_bundle_is_opened(opened: dict[str, dict[str, Any]]) -> None:
    assert opened["honest"]["error"] is None


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_hostile_manifest_is_refused(opened: dict[str, dict[str, Any]], name: str) -> None:
    result = opened[f"manifest: {name}"]
    assert result["bundle_error"], result
    assert re.search(MANIFESTS[name][1], result["error"]), result["error"][:500]
    assert len(result["error"]) < 2000
    check_cost(result)


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_and_named(opened: dict[str, dict[str, Any]], name: str) -> None:
    result = opened[f"file: {name}"]
    assert result["bundle_error"], result
    assert result["path"] == str(Path(result["folder"]) / FILES[name][0]), result
    check_cost(result)


def test_a_pattern_is_given_up(opened: dict[str, dict[str, Any]]) -> None:
    assert "retry-limit" in opened["file: a pattern that tries for ever"]["error"]


def check_cost(result: dict[str, Any]) -> None:
    """Not seconds by the clock, which a busy machine stretches, but of the processor."""
    assert result["cpu_s"] < 5, result
    assert result["grown_mb"] < 500, result


# What is no plain file.


def linked(bundle: Path, name: str) -> Path:
    """The file or folder ``name`` moved out of the bundle, with a link in its place."""
    there = bundle.parent / "elsewhere"
    (bundle / name).rename(there)
    (bundle / name).symlink_to(there)
    return bundle / name


@pytest.mark.parametrize(
    "name", [MANIFEST_FILE, MODEL, TOKENIZER, SOFT, "student/config.json", HELDOUT, "kb", "student"]
)
@pytest.mark.parametrize("verify", [True, False])
def test_a_link_is_refused_and_named(bundle: Path, name: str, verify: bool) -> None:
    link = linked(bundle, name)
    with pytest.raises(BundleError, match=r"link.*cp -RL") as caught:
        Runtime.open(bundle, verify=verify)
    assert caught.value.path == str(link)


def test_a_link_that_leads_nowhere_is_one_too(bundle: Path) -> None:
    (bundle / MODEL).unlink()
    (bundle / MODEL).symlink_to(MODEL)
    with pytest.raises(BundleError, match="link"):
        Runtime.open(bundle)


def test_the_folder_itself_may_be_a_link(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    with Runtime.open(tmp_path / "link") as runtime:
        assert runtime.predict("call").label


@pytest.mark.parametrize("name", [MANIFEST_FILE, MODEL, INDEX, "student/config.json"])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("verify", [True, False])
def test_what_is_no_file_is_refused_without_waiting(
    bundle: Path, name: str, kind: str, verify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle / name).unlink()
    if kind == "pipe":
        os.mkfifo(bundle / name)
    else:
        monkeypatch.chdir((bundle / name).parent)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(Path(name).name)
    with pytest.raises(BundleError, match=r"no file.*pipe, socket or device") as caught:
        Bundle.open(bundle, verify=verify)
    assert caught.value.path == str(bundle / name)


@pytest.mark.parametrize("name", ["kb/texts.jsonl", HELDOUT])
@pytest.mark.parametrize("verify", [True, False])
def test_what_is_read_where_it_is_must_be_listed(bundle: Path, name: str, verify: bool) -> None:
    """Or a link to any file of the reader's would have its lines shown as a neighbour's text."""
    files = plain(bundle)["files"]
    files.pop(name)
    with_field(bundle, "files", files)
    linked(bundle, name)
    with pytest.raises(BundleIntegrityError, match="does not list") as caught:
        Runtime.open(bundle, verify=verify)
    assert caught.value.path == str(bundle / name)


# The readers by themselves.


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 3)])
def test_an_honest_array_is_read(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    out = io.BytesIO()
    np.save(out, array)
    found = array_of(np.frombuffer(out.getvalue(), np.uint8), (np.dtype(np.int32),))
    assert found.dtype == np.int32 and found.shape == shape and (found == array).all()
    with pytest.raises(ValueError, match="bytes for"):
        array_of(np.frombuffer(out.getvalue() + b"\0", np.uint8), (np.dtype(np.int32),))
    with pytest.raises(ValueError, match="an array of '<i4'"):
        array_of(np.frombuffer(out.getvalue(), np.uint8), (np.dtype(np.float32),))


@pytest.mark.parametrize("shape", [f"(0, {10**30})", f"({10**30}, 0)", f"(0, {2**63})"])
def test_nothing_times_too_much_is_no_array(shape: str) -> None:
    with pytest.raises(ValueError, match="the shape"):
        array_of(np.frombuffer(npy("'<f2'", shape), np.uint8), (np.dtype(np.float16),))


def test_rows_of_ever_more_levels_are_no_index(tmp_path: Path) -> None:
    """One row on all of 20,000 levels above very many rows: to look at each level would take minutes."""
    rows, levels = 200_000, np.zeros(200_000, "<i2")
    levels[0] = 20_000
    head = struct.pack("<7s3H4B3QB", b"usearch", 2, 0, 0, 99, 23, 14, 15, rows, 0, 1, 0).ljust(64, b"\0")
    graph = struct.pack("<5Q", rows, 2, 4, 20_000, 0)
    first = struct.pack("<Qh", 0, 20_000) + bytes(20 + 20_000 * 12)
    nodes = np.zeros(rows - 1, [("key", "<u8"), ("level", "<i2"), ("edges", "V20")])
    nodes["key"] = np.arange(1, rows)
    (tmp_path / "index").write_bytes(
        struct.pack("<2I", rows, 1) + bytes(rows) + head + graph + levels.tobytes() + first + nodes.tobytes()
    )
    with pytest.raises(BundleIntegrityError, match="levels 0 to 20000"):
        read_index_file(tmp_path / "index")


def test_a_large_sealed_manifest_with_thousands_of_labels_is_read(bundle: Path) -> None:
    obj = {**plain(bundle), "labels": [f"label {number}" for number in range(5000)]}
    manifest = Manifest.from_json(obj, bundle)
    assert len(manifest.labels) == 5000 and isinstance(manifest.files[MODEL], FileRecord)
