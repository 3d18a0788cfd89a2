from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reaugkd import BundleError, BundleIntegrityError, KnowledgeBase, UsageError
from reaugkd.kb.index.config import IndexConfig

CONFIG = IndexConfig(8)
FILES = ("index.usearch", "soft_labels.npy", "rows.npy", "texts.jsonl")


def parts(rows: int, labels: int = 3, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((rows, 8)).astype(np.float32)
    return keys, rng.dirichlet(np.ones(labels), size=rows).astype(np.float32).reshape(rows, labels)


def saved(folder: Path, rows: int = 20) -> Path:
    keys, soft = parts(rows)
    texts = [f"text {row}" for row in range(rows)]
    gold = np.arange(rows) % 4 - 1
    KnowledgeBase.build(keys, soft, config=CONFIG, gold=gold, texts=texts).save(folder)
    return folder


@pytest.mark.parametrize("rows", [0, 1, 7, 100])
@pytest.mark.parametrize("kind", ["none", "single", "pair"])
def test_save_and_open(tmp_path: Path, rows: int, kind: str) -> None:
    keys, soft = parts(rows)
    single = [f'tëxt {row} \U0001f600 \n\t"x"\u2028' for row in range(rows)]
    texts = {"none": None, "single": single, "pair": [(text, text[::-1]) for text in single]}[kind]
    gold = np.arange(rows) % 4 - 1
    ids = np.arange(rows, dtype=np.uint64) + 2**63
    built = KnowledgeBase.build(keys, soft, config=CONFIG, gold=gold, ids=ids, texts=texts)
    built.save(tmp_path / "kb")
    opened = KnowledgeBase.open(tmp_path / "kb", CONFIG)
    for kb in (built, opened):
        assert (len(kb), kb.ndim, kb.num_labels, kb.config) == (rows, 8, 3, CONFIG)
        np.testing.assert_array_equal(kb.soft_labels.stored, soft.astype(np.float16), strict=True)
        assert [kb.label(row) for row in range(rows)] == gold.tolist()
        assert [kb.id(row) for row in range(rows)] == ids.tolist()
        assert [kb.text(row) for row in range(rows)] == (texts or [None] * rows)
        assert len(kb.search(np.ones(8, np.float32), 5).rows) == min(5, rows)
    assert (tmp_path / "kb" / "texts.jsonl").exists() == (kind != "none" and rows > 0)
    sizes = opened.nbytes()
    assert sizes == built.nbytes()
    assert sizes["index"] == (tmp_path / "kb" / "index.usearch").stat().st_size
    assert (sizes["soft_labels"], sizes["rows"]) == (rows * 3 * 2, rows * 20)


def test_search_gives_rows_by_falling_cosine_and_a_row_finds_itself() -> None:
    keys, soft = parts(50)
    kb = KnowledgeBase.build(3 * keys, soft, config=CONFIG)  # cosine: the length of a key does not matter
    for row in (0, 17, 49):
        rows, similarities = kb.search(keys[row], 5)
        assert rows[0] == row
        assert similarities[0] == pytest.approx(1, abs=2e-3)
        assert (np.diff(similarities) <= 0).all()
    many_rows, many = kb.search_many(keys, 5, threads=2)
    assert many_rows[:, 0].tolist() == list(range(50))
    assert many.shape == (50, 5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text() | st.tuples(st.text(), st.text()), min_size=1, max_size=8))
def test_any_text_comes_back(tmp_path: Path, texts: list[str | tuple[str, str]]) -> None:
    keys, soft = parts(len(texts))
    KnowledgeBase.build(keys, soft, config=CONFIG, texts=texts).save(tmp_path)
    opened = KnowledgeBase.open(tmp_path, CONFIG)
    assert [opened.text(row) for row in range(len(texts))] == texts


def test_a_lone_surrogate_comes_back_too(tmp_path: Path) -> None:
    keys, soft = parts(2)
    KnowledgeBase.build(keys, soft, config=CONFIG, texts=["\ud800", "ä"]).save(tmp_path)
    assert KnowledgeBase.open(tmp_path, CONFIG).text(0) == "\ud800"
    (tmp_path / "texts.jsonl").read_text(encoding="utf-8")  # and the file is valid UTF-8


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two")
    for name in FILES:
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "harm"),
    [(name, "short") for name in FILES] + [(FILES[0], harm) for harm in ("missing", "empty", "nonsense")],
)
def test_a_missing_or_broken_file_is_named(tmp_path: Path, name: str, harm: str) -> None:
    file = saved(tmp_path) / name
    content = file.read_bytes()
    file.unlink()
    if harm != "missing":
        file.write_bytes({"empty": b"", "short": content[:-5], "nonsense": b"nonsense" * 40}[harm])
    with pytest.raises(BundleError) as caught:
        KnowledgeBase.open(tmp_path, CONFIG)
    assert caught.value.path == str(file)
    if harm == "missing":
        assert isinstance(caught.value, BundleIntegrityError)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_knowledge_base_is_refused(tmp_path: Path, name: str) -> None:
    one, other = saved(tmp_path / "one"), saved(tmp_path / "other", rows=21)
    (one / name).write_bytes((other / name).read_bytes())
    with pytest.raises(BundleError):
        KnowledgeBase.open(one, CONFIG)


@pytest.mark.parametrize("content", [np.zeros((20, 3), np.float32), np.zeros(20, np.float16)])
def test_soft_labels_of_another_type_or_shape_are_refused(tmp_path: Path, content: NDArray[np.generic]) -> None:
    np.save(saved(tmp_path) / "soft_labels.npy", content)
    with pytest.raises(BundleError, match="soft_labels"):
        KnowledgeBase.open(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"}", b" "),
        (b"(20, 3)", b"(True, 3)"),
        (b"(20, 3)", b"(9" + 60 * b"9" + b", 3)"),
        (b"(20, 3)", 40 * b"-" + b"1"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    """NumPy's reader raises a TokenError, a TypeError, an OverflowError."""
    path = saved(tmp_path) / "soft_labels.npy"
    content = path.read_bytes()
    assert old in content
    header = content.index(b"\n")
    start = content.index(old)
    rest = content[start + len(old) : header].rstrip()
    room = header - start - len(new) - len(rest)
    changed = content[:start] + new + rest + b" " * room + content[header:]
    path.write_bytes(changed)
    with pytest.raises(BundleError, match="soft_labels"):
        KnowledgeBase.open(tmp_path, CONFIG)


def test_no_pickle_is_ever_loaded(tmp_path: Path) -> None:
    np.save(saved(tmp_path) / "rows.npy", np.array([{"a": 1}] * 20, object), allow_pickle=True)
    with pytest.raises(BundleError, match="rows"):
        KnowledgeBase.open(tmp_path, CONFIG)


def test_gold_labels_out_of_range_are_refused_when_opened(tmp_path: Path) -> None:
    rows = np.load(saved(tmp_path) / "rows.npy")
    rows["label"][4] = 3
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(BundleError, match="gold"):
        KnowledgeBase.open(tmp_path, CONFIG)


def test_a_damaged_text_is_an_error(tmp_path: Path) -> None:
    file = saved(tmp_path) / "texts.jsonl"
    file.write_bytes(b"{" + file.read_bytes()[1:])
    kb = KnowledgeBase.open(tmp_path, CONFIG)
    with pytest.raises(BundleError, match="row 1"):
        kb.text(0)
    assert kb.text(1) == "text 1"


def test_texts_that_the_rows_do_not_know_of_are_ignored(tmp_path: Path) -> None:
    keys, soft = parts(3)
    KnowledgeBase.build(keys, soft, config=CONFIG).save(tmp_path)
    (tmp_path / "texts.jsonl").write_text('"left over"\n')
    assert KnowledgeBase.open(tmp_path, CONFIG).text(0) is None


def test_parts_that_do_not_fit_are_refused_when_building() -> None:
    keys, soft = parts(5)
    with pytest.raises(UsageError, match="soft labels"):
        KnowledgeBase.build(keys[:4], soft, config=CONFIG)
    with pytest.raises(UsageError, match="gold"):
        KnowledgeBase.build(keys, soft, config=CONFIG, gold=np.zeros(4, np.int64))
    with pytest.raises(UsageError, match="row 5"):
        KnowledgeBase.build(keys, soft, config=CONFIG, gold=np.array([0, 1, 2, -1, 3]))
    with pytest.raises(UsageError, match="ids"):
        KnowledgeBase.build(keys, soft, config=CONFIG, ids=np.zeros((5, 1), np.int64))
    with pytest.raises(UsageError, match="texts"):
        KnowledgeBase.build(keys, soft, config=CONFIG, texts=["a"])
    for bad in (2 * soft, -soft, soft * np.nan):
        with pytest.raises(UsageError, match="distribution"):
            KnowledgeBase.build(keys, bad, config=CONFIG)
