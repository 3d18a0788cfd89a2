"""The readers of a bundle's files: valid files are read, hostile files are refused early."""

from __future__ import annotations

import base64
import io
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support.hostile_bundles import HELDOUT, MODEL, TOKENIZER, npy, plain
from tokenizers import Regex, normalizers, pre_tokenizers, processors

from reaugkd import BundleError, BundleIntegrityError
from reaugkd.kb.index.usearch_file import read_index_file
from reaugkd.kb.storage.npy import array_of
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.bundle.manifest import FileRecord, Manifest
from reaugkd.runtime.bundle.onnx_safety import read_onnx_file
from reaugkd.runtime.bundle.tokenizer_safety import MOST_BYTES, _growth
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer


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
    """One row on all 20,000 levels above very many rows: a check of each level would take minutes."""
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


def test_an_index_of_very_many_edges_is_looked_at_bit_by_bit(tmp_path: Path) -> None:
    """Only a part of a valid index of 24 MB is in memory at once."""
    rows, edges = 150, 20_000
    head = struct.pack("<7s3H4B3QB", b"usearch", 2, 0, 0, 99, 23, 14, 15, rows, 0, 1, 0).ljust(64, b"\0")
    graph = struct.pack("<5Q", rows, edges, 2 * edges, 0, 0) + bytes(2 * rows)
    nodes = np.zeros(rows, [("key", "<u8"), ("level", "<i2"), ("edges", f"V{4 * (1 + 2 * edges)}")])
    nodes["key"] = np.arange(rows)
    (tmp_path / "index").write_bytes(struct.pack("<2I", rows, 1) + bytes(rows) + head + graph + nodes.tobytes())
    del nodes
    tracemalloc.start()
    try:
        assert read_index_file(tmp_path / "index").rows == rows
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("loop", ["Loop", "Scan", "SequenceMap"])
def test_a_loop_is_refused_at_any_place(tmp_path: Path, loop: str, inside: bool) -> None:
    node = helper.make_node(loop, ["x"], ["y"])
    if inside:
        branch = helper.make_graph([node], "then", [], [])
        node = helper.make_node("If", ["x"], ["y"], then_branch=branch)
    model = helper.make_model(helper.make_graph([helper.make_node("Gather", ["x"], ["y"]), node], "g", [], []))
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(BundleError, match=f"the model has a loop; found {loop}"):
        read_onnx_file(tmp_path / "model.onnx")


def sparse_file(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_files_beyond_all_measure_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="2,147,483,648 bytes"):
        read_onnx_file(sparse_file(tmp_path / "model.onnx", 2**31))
    with pytest.raises(BundleError, match=f"{MOST_BYTES + 1:,} bytes"):
        TextTokenizer(sparse_file(tmp_path / "tokenizer.json", MOST_BYTES + 1), 10)


def charsmap(*texts: bytes) -> str:
    return base64.b64encode(struct.pack("<I", 8) + b"\1" * 8 + b"".join(text + b"\0" for text in texts)).decode()


@pytest.mark.parametrize(
    ("step", "growth"),
    [
        (normalizers.Lowercase(), 1),
        (normalizers.BertNormalizer(), 3),
        (normalizers.Replace("ab", "c"), 1),
        (normalizers.Replace("ab", "c" * 10), 5),
        (normalizers.Replace("", "c" * 10), 11),
        (normalizers.Replace(Regex(" {2,}"), " "), 2),
        (normalizers.Sequence([normalizers.Replace("a", "aa")] * 3), 8),
        (pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(), pre_tokenizers.Whitespace()]), 4),
        (processors.TemplateProcessing(single="$A", pair="$A $B"), 1),
        (processors.TemplateProcessing(single=["$A"] * 7, pair="$A $B"), 7),
        (processors.TemplateProcessing(single="$A", pair=["$A", "$B"] * 9), 9),
        (processors.Sequence([processors.TemplateProcessing(single=["$A"] * 7, pair="$A $B")] * 2), 49),
        ({"type": "Precompiled", "precompiled_charsmap": charsmap(b"a", "é".encode() * 18, b"bb")}, 18),
        ({"type": "Precompiled", "precompiled_charsmap": None}, 1),
    ],
)
def test_how_much_longer_a_step_can_make_a_text(step: Any, growth: float) -> None:
    state = step if isinstance(step, dict) else json.loads(step.__getstate__())
    assert _growth(state) == growth


def test_a_manifest_with_thousands_of_labels_is_read(edge_bundle: Path) -> None:
    obj = {**plain(edge_bundle), "labels": [f"label {number}" for number in range(5000)]}
    manifest = Manifest.from_json(obj, edge_bundle)
    assert len(manifest.labels) == 5000 and isinstance(manifest.files[MODEL], FileRecord)


def test_special_tokens_are_counted(edge_bundle: Path, tmp_path: Path) -> None:
    tokenizer = json.loads((edge_bundle / TOKENIZER).read_text())
    named = tokenizer["post_processor"]["special_tokens"]["[CLS]"]
    named["ids"], named["tokens"] = [2] * 50, ["[CLS]"] * 50
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BundleError, match="adds more special tokens than a text may have"):
        TextTokenizer(tmp_path / "tokenizer.json", 24).encode("call")


def test_held_out_rows_are_weighed_before_they_are_read(tmp_path: Path) -> None:
    with pytest.raises(BundleIntegrityError, match="found 100,000,000 bytes"):
        HeldOutRows.open(sparse_file(tmp_path / HELDOUT, 100_000_000).parent, 3, 16, 40)
    with zipfile.ZipFile(tmp_path / HELDOUT, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("logits", "queries", "gold", "groups", "unrelated"):
            archive.writestr(f"{name}.npy", bytes(5_000_000))
    assert (tmp_path / HELDOUT).stat().st_size < 40_000
    with pytest.raises(BundleIntegrityError, match="found 25,000,000 bytes"):
        HeldOutRows.open(tmp_path, 3, 16, 40)
