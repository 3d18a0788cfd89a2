from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.study_cells import CLASSES, ROWS, gold_of, make_result, probabilities, write_study

from reaugkd.errors import DataError
from reaugkd.export.study.fingerprints import CELL_FORMAT, Inputs, finished, settings_key
from reaugkd.export.study.plan import Plan, load_plan
from reaugkd.export.study.results import (
    CellNotes,
    CellResult,
    cell_file,
    read_cell,
    read_notes,
    system_result,
    write_cell,
    write_results,
)
from reaugkd.runtime.evaluation.metrics import METRICS, score


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return load_plan(write_study(tmp_path / "study"))


def assert_same(found: CellResult, expected: CellResult) -> None:
    for one, other in zip(found.systems, expected.systems, strict=True):
        assert (one.system, one.variant, dict(one.metrics)) == (other.system, other.variant, dict(other.metrics))
        for name in ("gold", "predicted", "gold_probability", "confidence"):
            assert getattr(one, name).dtype == getattr(other, name).dtype
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


class TestSystemResult:
    def test_scores_and_answers(self) -> None:
        gold, p, teacher = gold_of("one"), probabilities(40, 1), probabilities(40, 2)
        one = system_result("student+retrieval", p, gold, teacher, "k8", k=8, where="here")
        assert one.metrics == {"n": 40, **score(p, gold, teacher), "k": 8, "where": "here"}
        for row in range(40):
            assert one.predicted[row] == max(range(CLASSES), key=p[row].tolist().__getitem__)
            assert one.gold_probability[row] == np.float32(p[row, gold[row]])
            assert one.confidence[row] == np.float32(p[row].max())
            assert one.correct[row] == (one.predicted[row] == gold[row])

    def test_metrics_that_were_not_measured_are_none(self) -> None:
        one = system_result("student", probabilities(40, 1), gold_of("one"), where="here")
        assert one.metric("teacher_kl") is None and one.metric("where") is None and one.metric("colour") is None
        assert one.metric("n") == 40.0
        assert set(METRICS) <= set(one.metrics)

    def test_find(self) -> None:
        result = make_result("one", "kd", 0)
        found = result.find("student+retrieval", "k8")
        assert found is result.systems[-1]
        assert result.find("student+retrieval") is result.systems[-2]
        assert result.find("retrieval") is None and result.find("student", "k8") is None


class TestCellFiles:
    def test_round_trip(self, plan: Plan, tmp_path: Path) -> None:
        cell, result, notes = plan.cells()[1], make_result("one", "better", 0), CellNotes("s", "i", 1.5, 3)
        path = cell_file(tmp_path, cell)
        assert path == tmp_path / "cells" / "one.better.0.parquet"
        write_cell(path, cell, result, notes)
        assert read_notes(path) == notes
        assert_same(read_cell(path), result)

    def test_numbers_of_numpy_and_systems_of_other_lengths(self, plan: Plan, tmp_path: Path) -> None:
        gold = gold_of("one")
        mixed = CellResult(
            (
                system_result("student", probabilities(40, 1), gold, seconds=np.float32(0.5)),  # type: ignore[arg-type]
                system_result("typos", probabilities(25, 1), gold_of("two"), bytes=np.int64(7)),  # type: ignore[arg-type]
            )
        )
        write_cell(tmp_path / "x.parquet", plan.cells()[0], mixed, CellNotes("s", "i", 0.0, 3))
        assert_same(read_cell(tmp_path / "x.parquet"), mixed)

    @pytest.mark.parametrize("content", [None, b"", b"PAR1 and more", b"{}"])
    def test_a_file_that_is_not_parquet(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "x.parquet"
        if content is not None:
            path.write_bytes(content)
        assert read_notes(path) is None
        with pytest.raises(DataError, match="cannot be read"):
            read_cell(path)

    def test_a_parquet_file_of_another_program(self, tmp_path: Path) -> None:
        import pyarrow as pa

        pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
        assert read_notes(tmp_path / "x.parquet") is None
        with pytest.raises(DataError, match="cannot be read"):
            read_cell(tmp_path / "x.parquet")

    @pytest.mark.parametrize("rows", [80, 119, 121])
    def test_a_file_whose_rows_are_not_those_of_its_systems(self, plan: Plan, tmp_path: Path, rows: int) -> None:
        """A file that lacks the rows of a system but has its metrics."""
        path = tmp_path / "x.parquet"
        write_cell(path, plan.cells()[0], make_result("one", "kd", 0, ()), CellNotes("s", "i", 0.0, 3))
        table = pq.read_table(path)
        assert len(table) == 120
        pq.write_table(table.take([row % 120 for row in range(rows)]), path)
        assert read_notes(path) is None
        with pytest.raises(DataError, match=f"{rows} rows, and systems with 120 rows"):
            read_cell(path)

    def test_finished(self, plan: Plan, tmp_path: Path) -> None:
        cells, inputs = plan.cells()[:4], Inputs(plan, plan.folder)
        keys = [(settings_key(plan, cell), inputs.key(cell)) for cell in cells]
        notes = [
            CellNotes(*keys[0], 1.0, CELL_FORMAT),
            CellNotes("other settings", keys[1][1], 2.0, CELL_FORMAT),
            CellNotes(keys[2][0], "other data", 3.0, CELL_FORMAT),
            CellNotes(*keys[3], 4.0, CELL_FORMAT - 1),
        ]
        for cell, note in zip(cells, notes, strict=True):
            write_cell(cell_file(tmp_path, cell), cell, make_result("one", "kd", 0), note)
        assert finished(plan, tmp_path, inputs) == {cells[0].name: notes[0]}
        # A report asks for the settings alone: an earlier version's cells are shown too.
        assert finished(plan, tmp_path) == {cells[number].name: notes[number] for number in (0, 2, 3)}


class TestResults:
    def test_every_figure_and_every_answer(self, plan: Plan, tmp_path: Path) -> None:
        done = [(cell, make_result(cell.task.name, cell.recipe, cell.seed)) for cell in plan.cells()]
        write_results(tmp_path, done)
        metrics = pq.read_table(tmp_path / "results.parquet").to_pylist()
        rows = pq.read_table(tmp_path / "rows.parquet")
        expected = [
            {"task": cell.task.name, "recipe": cell.recipe, "seed": cell.seed, "system": one.system}
            | {"variant": one.variant, **one.metrics}
            for cell, result in done
            for one in result.systems
        ]
        assert metrics == expected
        names = ["task", "recipe", "seed", "system", "variant", "row", "gold", "predicted", "gold_probability"]
        assert rows.column_names == [*names, "confidence"]
        records = iter(rows.to_pylist())
        for cell, result in done:
            for one in result.systems:
                for row in range(ROWS[cell.task.name]):
                    record = next(records)
                    assert [record[name] for name in names] == [
                        *(cell.task.name, cell.recipe, cell.seed, one.system, one.variant, row, one.gold[row]),
                        *(one.predicted[row], one.gold_probability[row]),
                    ]
        assert next(records, None) is None

    def test_a_metric_that_only_some_have(self, plan: Plan, tmp_path: Path) -> None:
        gold = gold_of("one")
        systems = (
            system_result("student", probabilities(40, 1), gold),
            system_result("x", probabilities(40, 2), gold, k=8),
        )
        write_results(tmp_path, [(plan.cells()[0], CellResult(systems))])
        metrics = pq.read_table(tmp_path / "results.parquet").to_pylist()
        assert [record["k"] for record in metrics] == [None, 8]
        assert [record["teacher_kl"] for record in metrics] == [None, None]

    def test_the_files_are_small(self, plan: Plan, tmp_path: Path) -> None:
        write_results(tmp_path, [(plan.cells()[0], make_result("one", "kd", 0))])
        file = pq.ParquetFile(tmp_path / "rows.parquet")
        kinds = {field.name: str(field.type) for field in file.schema_arrow}
        assert kinds["gold"] == kinds["predicted"] == "int16" and kinds["gold_probability"] == "float"
        assert "dictionary" in kinds["task"] and "dictionary" in kinds["system"]
        group = file.metadata.row_group(0)
        assert {group.column(number).compression for number in range(group.num_columns)} == {"ZSTD"}
