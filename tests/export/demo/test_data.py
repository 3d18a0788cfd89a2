from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest
from support.paths import ROOT

from reaugkd.errors import DataError
from reaugkd.export.demo import data
from reaugkd.export.demo.data import (
    MORE_TEXTS,
    NEW_INTENT,
    NEW_INTENT_ROWS,
    ROWS_PER_INTENT,
    DemoData,
    Row,
    choose_rows,
    read_banking77,
    write_demo_data,
)

TRAIN_SHA256 = "8c66c446c2619641f321a13191786efdb3d4ea961ade7627eb799eb3c36e29b2"


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    return read_banking77()


@pytest.fixture(scope="module")
def demo_data(rows: dict[str, list[Row]], tmp_path_factory: pytest.TempPathFactory) -> DemoData:
    return write_demo_data(rows, tmp_path_factory.mktemp("demo") / "banking77", seed=0)


def test_banking77_is_whole(rows: dict[str, list[Row]]) -> None:
    assert {name: len(split) for name, split in rows.items()} == {"train": 10_003, "test": 3_080}
    for split in rows.values():
        assert len({intent for _, intent in split}) == 77
        assert len({text for text, _ in split}) == len(split)
    assert rows["train"][0] == ("I am still waiting on my card?", "card_arrival")
    assert sum("\n" in text for text, _ in rows["train"]) == 10
    assert [sum(intent == NEW_INTENT for _, intent in split) for split in rows.values()] == [126, 40]


def test_it_is_the_published_data_set(rows: dict[str, list[Row]], shared: Path) -> None:
    for name, split in rows.items():
        with (shared / "data" / "banking77" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            assert [(row["text"], row["category"]) for row in csv.DictReader(file)] == split


def test_the_installed_files_are_small_and_come_with_their_licence() -> None:
    folder = ROOT / "export" / "demo"
    assert (folder / data.FILE).stat().st_size < 500_000
    licence = (folder / "banking77-LICENSE.md").read_text(encoding="utf-8")
    assert all(word in licence for word in ("CC BY 4.0", "PolyAI-LDN/task-specific-datasets", "Casanueva", "Changes"))


@pytest.mark.parametrize("damage", [b"", b"not gzip", None], ids=["empty", "not gzip", "cut"])
def test_a_damaged_file_is_refused(damage: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (ROOT / "export" / "demo" / data.FILE).read_bytes()
    (tmp_path / data.FILE).write_bytes(whole[:-100] if damage is None else damage)
    monkeypatch.setattr(data.resources, "files", lambda _package: tmp_path)
    with pytest.raises(DataError, match="missing or damaged"):
        read_banking77()


def test_the_choice_of_rows_is_the_same_everywhere(rows: dict[str, list[Row]]) -> None:
    chosen = choose_rows(rows["train"], 30, seed=0)
    assert chosen == sorted(set(chosen)) and len(chosen) == 77 * 30
    assert hashlib.sha256(repr(chosen).encode()).hexdigest() == TRAIN_SHA256
    assert choose_rows(rows["train"], 30, seed=1) != chosen


def test_an_intent_with_fewer_rows_gives_all_of_them() -> None:
    assert choose_rows([("a", "x"), ("b", "y"), ("c", "x"), ("d", "x")], 2, seed=0)[-1] in (2, 3)
    assert len(choose_rows([("a", "x"), ("b", "y"), ("c", "x"), ("d", "x")], 2, seed=0)) == 3


def test_every_row_is_in_one_split(rows: dict[str, list[Row]], demo_data: DemoData) -> None:
    train, test = demo_data.dataset.splits["train"], demo_data.dataset.splits["test"]
    assert len(train) == 76 * ROWS_PER_INTENT and len(test) == 3_040
    assert len(demo_data.dataset.label_names) == 76 and NEW_INTENT not in demo_data.dataset.label_names
    assert len(demo_data.more) == 10_003 - 126 - len(train) and demo_data.more.labels is None
    assert not set(train.texts) & set(demo_data.more.texts)
    new = {text for text, intent in rows["train"] if intent == NEW_INTENT}
    assert not new & {*train.texts, *demo_data.more.texts}
    assert set(demo_data.new_rows.texts) <= new and len(demo_data.new_rows) == NEW_INTENT_ROWS
    assert demo_data.new_test.labels == [NEW_INTENT] * 40


def test_the_commands_can_read_the_files(demo_data: DemoData) -> None:
    from reaugkd.commands.data_source import load_rows
    from reaugkd.runtime.data import Columns

    folder = Path(demo_data.more.source).parent
    assert load_rows(str(folder / MORE_TEXTS), Columns(), pair=False).texts == demo_data.more.texts
    assert demo_data.dataset.name == "banking77"
