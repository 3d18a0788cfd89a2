"""Held-out rows in a bundle: round trip, and refusal of damaged files."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaugkd.errors import BundleError, BundleIntegrityError
from reaugkd.runtime.bundle.heldout_rows import HELDOUT_FILE, MOST_ROWS, HeldOutRows

LABELS, NDIM, KB_ROWS = 5, 4, 100


def some_rows(rows: int = 7) -> HeldOutRows:
    rng = np.random.default_rng(rows)
    queries = rng.standard_normal((rows, NDIM)).astype(np.float32)
    return HeldOutRows(
        rng.standard_normal((rows, LABELS)).astype(np.float32),
        queries / np.linalg.norm(queries, axis=1, keepdims=True),
        rng.integers(0, LABELS, size=rows),
        rng.integers(0, rows + 1, size=rows),
        KB_ROWS - rows,
    )


def reopened(folder: Path) -> HeldOutRows:
    return HeldOutRows.open(folder, LABELS, NDIM, KB_ROWS)


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / HELDOUT_FILE) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("packed")
    some_rows().save(folder)
    return (folder / HELDOUT_FILE).read_bytes()


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_they_come_back_in_half_precision(rows: int, tmp_path: Path) -> None:
    put = some_rows(rows)
    put.save(tmp_path)
    got = reopened(tmp_path)
    assert len(got) == rows and got.unrelated == put.unrelated
    np.testing.assert_array_equal(got.logits, put.logits.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(got.queries, put.queries, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(got.queries, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(got.gold, put.gold)
    np.testing.assert_array_equal(got.groups, put.groups)
    assert {array.dtype for array in (got.logits, got.queries)} == {np.dtype(np.float32)}
    assert {array.dtype for array in (got.gold, got.groups)} == {np.dtype(np.int64)}


def test_of_many_some_are_taken_evenly() -> None:
    rows = some_rows(10)
    assert rows.some(4).gold.tolist() == rows.gold[[0, 3, 6, 9]].tolist()
    assert rows.some(4).unrelated == rows.unrelated
    assert len(rows.some()) == 10 and len(some_rows(0).some()) == 0


def test_the_most_rows_there_can_be_fit(tmp_path: Path) -> None:
    put = some_rows(MOST_ROWS + 500).some()
    replace(put, unrelated=3).save(tmp_path)
    assert len(reopened(tmp_path)) == MOST_ROWS


def test_missing_rows_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no held-out rows.*that it was made from"):
        reopened(tmp_path)


@given(data=st.data())
def test_damage_is_reported(data: st.DataObject, packed: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A truncated or altered file is refused, or it is still valid."""
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(packed[: data.draw(st.integers(0, len(packed)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / HELDOUT_FILE).write_bytes(content)
    try:
        rows = reopened(folder)
    except BundleError as error:
        assert str(folder / HELDOUT_FILE) in str(error)
    else:
        assert bytes(content) != packed or len(rows) == 7
        assert np.isfinite(rows.logits).all() and 0 <= rows.unrelated <= KB_ROWS


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"not an archive", b"\x93NUMPY\x01\x00", b"\x80\x04\x95."],
    ids=["empty", "zip", "text", "npy", "pickle"],
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / HELDOUT_FILE).write_bytes(content)
    with pytest.raises(BundleIntegrityError, match="cannot be read"):
        reopened(tmp_path)


def test_an_array_alone_is_refused(tmp_path: Path) -> None:
    with (tmp_path / HELDOUT_FILE).open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(BundleIntegrityError, match="cannot be read"):
        reopened(tmp_path)


def test_pickled_objects_are_not_unpickled(tmp_path: Path) -> None:
    some_rows().save(tmp_path)
    np.savez(tmp_path / HELDOUT_FILE, **{**arrays_of(tmp_path), "gold": np.array([print] * 7, object)})  # type: ignore[arg-type]
    with pytest.raises(BundleIntegrityError, match="cannot be read"):
        reopened(tmp_path)


def test_absurd_sizes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    some_rows().save(tmp_path)
    arrays = arrays_of(tmp_path)
    bomb = np.zeros((20 * MOST_ROWS, LABELS), np.float16)  # 200 kB that take 400 bytes
    np.savez_compressed(tmp_path / HELDOUT_FILE, **{**arrays, "logits": bomb})  # type: ignore[arg-type]
    assert (tmp_path / HELDOUT_FILE).stat().st_size < 4000
    with pytest.raises(BundleIntegrityError, match="200,"):
        reopened(tmp_path)
    # A header that claims a terabyte, with nothing behind it.
    header = io.BytesIO()
    shape = {"descr": "<f2", "fortran_order": False, "shape": (10**11, LABELS)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(tmp_path / HELDOUT_FILE, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                if name == "logits":
                    file.write(header.getvalue())
                else:
                    np.lib.format.write_array(file, array)
    with pytest.raises(BundleIntegrityError, match="cannot be read"):
        reopened(tmp_path)


@pytest.mark.parametrize("name", ["logits", "gold", "unrelated"])
def test_other_members_than_arrays_are_refused(name: str, tmp_path: Path) -> None:
    """NumPy returns the bytes of a member that is not an array."""
    some_rows().save(tmp_path)
    arrays = arrays_of(tmp_path)
    with zipfile.ZipFile(tmp_path / HELDOUT_FILE, "w") as archive:
        for other, array in arrays.items():
            with archive.open(f"{other}.npy", "w") as file:
                if other == name:
                    file.write(b"no array")
                else:
                    np.lib.format.write_array(file, array)
    with pytest.raises(BundleIntegrityError, match=f"{name} is not an array"):
        reopened(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("logits", np.zeros((7, LABELS + 1), np.float16), r"logits float16 \(7, 6\)"),
        ("logits", np.zeros((6, LABELS), np.float16), r"logits float16 \(6, 5\)"),
        ("logits", np.zeros((7, LABELS), np.float32), "logits float32"),
        ("logits", np.full((7, LABELS), np.nan, np.float16), "not finite"),
        ("queries", np.ones((7, NDIM + 1), np.float16), r"queries float16 \(7, 5\)"),
        ("queries", np.zeros((7, NDIM), np.float16), "without a direction"),
        ("queries", np.full((7, NDIM), np.inf, np.float16), "without a direction"),
        ("gold", np.full(7, LABELS, np.int32), "labels out of range"),
        ("gold", np.full(7, -1, np.int32), "labels out of range"),
        ("gold", np.zeros((), np.int32), "logits"),
        ("groups", np.zeros(8, np.int32), "groups"),
        ("groups", np.zeros(7, np.int8), "groups int8"),
        ("unrelated", np.int64(KB_ROWS + 1), "101 of 100 rows"),
        ("unrelated", np.int64(-1), "-1 of 100 rows"),
        ("unrelated", np.float64(3), "unrelated float64"),
    ],
)
def test_arrays_that_do_not_match_are_refused(name: str, value: np.ndarray, found: str, tmp_path: Path) -> None:
    some_rows().save(tmp_path)
    np.savez(tmp_path / HELDOUT_FILE, **{**arrays_of(tmp_path), name: value})  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=rf"do not fit.*{found}.*rows of 5 logits and 4 dimensions"):
        reopened(tmp_path)


def test_a_missing_array_is_refused(tmp_path: Path) -> None:
    some_rows().save(tmp_path)
    arrays = arrays_of(tmp_path)
    del arrays["groups"]
    np.savez(tmp_path / HELDOUT_FILE, **arrays)  # type: ignore[arg-type]
    with pytest.raises(BundleIntegrityError, match="groups"):
        reopened(tmp_path)
