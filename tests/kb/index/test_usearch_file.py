"""The check of usearch's file: it agrees with usearch, and refuses invalid files before usearch maps them."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_bundle import build_tiny_bundle, reseal

from reaugkd import BundleError, BundleIntegrityError, Runtime
from reaugkd.kb.index.config import DTYPES, IndexConfig
from reaugkd.kb.index.hnsw import VectorIndex
from reaugkd.kb.index.usearch_file import read_index_file
from reaugkd.kb.index.usearch_import import compiled

NDIM, EDGES = 6, 3


def built(path: Path, rows: int = 300, dtype: str = "f16", edges: int = EDGES, ndim: int = NDIM) -> Path:
    keys = np.random.default_rng(rows).standard_normal((rows, ndim)).astype(np.float32)
    VectorIndex.build(keys, IndexConfig(ndim, dtype=dtype, connectivity=edges)).save(path)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "edges", "ndim"), [(0, 3, 6), (1, 2, 1), (300, 3, 6), (1100, 16, 33)])
def test_it_agrees_with_usearch(dtype: str, rows: int, edges: int, ndim: int, tmp_path: Path) -> None:
    path = built(tmp_path / "index", rows, dtype, edges, ndim)
    file = read_index_file(path)
    file.check()
    assert (file.rows, file.ndim, file.dtype, file.connectivity) == (rows, ndim, dtype, edges)
    theirs = compiled("this test").index_dense_metadata_from_path(str(path))
    assert (theirs["dimensions"], theirs["count_present"]) == (ndim, rows)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return built(tmp_path_factory.mktemp("index") / "index").read_bytes()


class Places:
    """Byte offsets in the file of 300 rows, computed from its end, unlike in the code."""

    def __init__(self, content: bytes) -> None:
        self.head = 8 + 300 * NDIM * 2
        self.graph = self.head + 64
        self.levels = self.graph + 40
        levels = np.frombuffer(content, "<i2", 300, self.levels)
        self.upper = int(np.flatnonzero(levels > 0)[0])
        self.low = int(np.flatnonzero(levels == 0)[5])
        sizes = [14 + 8 * EDGES + int(level) * (4 + 4 * EDGES) for level in levels]
        self.nodes = [len(content) - sum(sizes[row:]) for row in range(300)]


def changed(content: bytes, place: int, kind: str, value: int) -> bytes:
    new = struct.pack(f"<{kind}", value)
    return content[:place] + new + content[place + len(new) :]


@pytest.mark.parametrize(
    ("where", "offset", "kind", "value", "told"),
    [
        ("file", 0, "I", 299, "no usearch header"),
        ("file", 0, "I", 2**32 - 1, "bytes"),
        ("file", 4, "I", 2**32 - 1, "bytes"),
        ("head", 0, "B", 0, "no usearch header"),
        ("head", 7, "H", 3, "format 3"),
        ("head", 13, "B", 105, "metric 105"),
        ("head", 14, "B", 11, "keys of 12 bytes"),
        ("head", 15, "B", 13, "kinds 13 and 15"),
        ("head", 17, "Q", 299, "299 of 6 dimensions"),
        ("head", 25, "Q", 1, "1 rows deleted"),
        ("head", 33, "Q", 5, "of 5 dimensions"),
        ("graph", 0, "Q", 301, "301 nodes"),
        ("graph", 8, "Q", 2**40, "edges"),
        ("graph", 16, "Q", 7, "3 and 7 edges"),
        ("graph", 24, "Q", 9, "9 and row"),
        ("graph", 32, "Q", 300, "row 300 in its header"),
        ("levels", 0, "h", -1, "levels -1"),
        ("node", 0, "Q", 300, "not 0 to 299"),
        ("node", 0, "Q", 1, "not 0 to 299"),
        ("node", 8, "h", 1, "nodes of other levels"),
        ("node", 10, "I", 7, "7 edges with room for 6"),
        ("node", 14, "I", 300, "to row 300 of 300"),
        ("upper", 14 + 8 * EDGES, "I", 4, "4 edges with room for 3"),
    ],
)
def test_invalid_values_are_refused(
    index: bytes, where: str, offset: int, kind: str, value: int, told: str, tmp_path: Path
) -> None:
    places = Places(index)
    starts = {"file": 0, "head": places.head, "graph": places.graph, "levels": places.levels}
    starts |= {
        "node": places.nodes[places.low],
        "upper": places.nodes[places.upper],
    }
    path = tmp_path / "index"
    path.write_bytes(changed(index, starts[where] + offset, kind, value))
    with pytest.raises(BundleIntegrityError, match=told) as caught:
        read_index_file(path).check()
    assert str(path) in str(caught.value)


def test_an_edge_of_a_level_leads_to_rows_that_have_it(index: bytes, tmp_path: Path) -> None:
    places = Places(index)
    start = places.nodes[places.upper] + 14 + 8 * EDGES
    (count,) = struct.unpack_from("<I", index, start)
    assert count > 0
    (tmp_path / "index").write_bytes(changed(index, start + 4, "I", places.low))
    with pytest.raises(BundleIntegrityError, match="an edge of level 1 to a row that has none"):
        read_index_file(tmp_path / "index").check()


@pytest.mark.parametrize("cut", [1, 40, 2000, 10_000])
def test_too_much_and_too_little_are_refused(index: bytes, cut: int, tmp_path: Path) -> None:
    for content in (index[:-cut], index + bytes(cut), index[cut:]):
        (tmp_path / "index").write_bytes(content)
        with pytest.raises(BundleIntegrityError):
            read_index_file(tmp_path / "index").check()


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_no_bytes_are_too_odd(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("odd") / "index"
    path.write_bytes(content)
    with pytest.raises(BundleIntegrityError):
        read_index_file(path).check()


FUZZ = """
import sys
import numpy as np
from pathlib import Path
from reaugkd.errors import BundleError
from reaugkd.kb.index.config import IndexConfig
from reaugkd.kb.index.hnsw import VectorIndex
source, path, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
content = np.frombuffer(source.read_bytes(), np.uint8)
rng = np.random.default_rng(0)
queries = rng.standard_normal((5, 6)).astype(np.float32)
refused = 0
for _ in range(count):
    harmed = content.copy()
    # Not the keys: any bytes are some keys.
    for place in rng.integers(8 + 300 * 12 - 8, len(content), rng.integers(1, 4)):
        harmed[place] = rng.integers(256) if rng.random() < 0.5 else rng.choice([0, 1, 127, 128, 255])
    path.write_bytes(harmed.tobytes())
    try:
        index = VectorIndex.view(path, IndexConfig(6, dtype="f16", connectivity=3))
        index.load()
    except BundleError as error:
        assert str(path) in str(error)
        refused += 1
        continue
    for query in queries:
        rows, _ = index.search(query, 10)
        assert len(set(rows.tolist())) == 10 and 0 <= rows.min() and rows.max() < 300, rows
print(refused)
"""


@pytest.mark.slow
def test_whatever_is_changed_nothing_crashes(index: bytes, tmp_path: Path) -> None:
    """Thousands of damaged graphs are refused, or searches in them return existing rows."""
    (tmp_path / "source").write_bytes(index)
    command = [sys.executable, "-P", "-c", FUZZ, tmp_path / "source", tmp_path / "index", "3000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1000 < int(done.stdout) < 3000  # some harm is none: an edge to another row, room that is not used


def test_a_hostile_bundle_with_the_right_hashes_is_refused(tmp_path: Path) -> None:
    path = build_tiny_bundle(tmp_path / "bundle")
    file = path / "kb" / "index.usearch"
    content = file.read_bytes()
    (rows,) = struct.unpack_from("<I", content)
    # The last node is of level 0, with 32 places: all in use, and the last edge leads beyond the rows.
    node = len(content) - (14 + 4 * 32)
    harmed = changed(changed(content, node + 10, "I", 32), len(content) - 4, "I", rows)
    file.write_bytes(harmed)
    reseal(path)
    with pytest.raises(BundleError, match=rf"to row {rows} of {rows}"):
        Runtime.open(path, search="usearch")
    Runtime.open(path).predict("noon")  # which does not read the edges
