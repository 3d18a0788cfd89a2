"""Inverted lists in exported and condensed bundles, with the smallest number of rows set low."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.heldout_bundle import build_heldout_bundle
from support.runs import Finished

from reaugkd import Runtime
from reaugkd.export.bundle.condense import Limit, condense
from reaugkd.export.bundle.write import ExportJob, export
from reaugkd.kb.index import lists as module
from reaugkd.kb.index.lists import LISTS_FILE, Lists
from reaugkd.runtime.opening import base_of

FILE = f"kb/{LISTS_FILE}"


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEWEST_ROWS", 1)
    monkeypatch.setattr(module, "_MOST_SHARE", 1.0)
    monkeypatch.setattr(module, "_ROOM", 8)


@contextmanager
def silent(_label: str, _unit: str) -> Iterator[Callable[[int, int | None], object]]:
    yield lambda _done, _total: None


def lists_of(bundle: Path, rows: int) -> Lists:
    with Runtime.open(bundle) as runtime:
        lists = base_of(runtime.knowledge_base).lists
        assert lists is not None and len(runtime.knowledge_base) == rows
    return lists


def test_an_export_writes_lists_of_all_rows(tiny_run: Finished, tmp_path: Path) -> None:
    job = ExportJob("avx2", "none", allow_quality_loss=True)
    manifest = export(tiny_run[0], tmp_path / "bundle", job).manifest
    assert FILE in manifest.files
    lists = lists_of(tmp_path / "bundle", manifest.kb_rows)
    assert 1 <= lists.probes <= len(lists.table)
    assert export(tiny_run[0], tmp_path / "again", job).manifest.files[FILE] == manifest.files[FILE]


def test_a_condensed_bundle_has_lists_of_its_rows_within_the_limit(tmp_path: Path) -> None:
    full = build_heldout_bundle(tmp_path / "full")
    made = condense(full, tmp_path / "rows", Limit(rows=200), silent)
    lists_of(tmp_path / "rows", 200)
    size = sum(file.stat().st_size for file in (tmp_path / "rows/kb").iterdir())
    assert made.size.bytes == size
    for limit, expected in ((size, True), (size - 1, False)):
        out = tmp_path / str(limit)
        assert condense(full, out, Limit(bytes=limit), silent).size.bytes <= limit
        assert (out / FILE).exists() == expected or limit == size
