"""Comparisons computed by hand, exact tables, and the elements of plots."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.study_cells import make_result, write_study

from reaugkd.export.study import tables
from reaugkd.export.study.compare import BLEND, STUDENT, Analysis, Who
from reaugkd.export.study.plan import Plan, load_plan
from reaugkd.export.study.plots import draw
from reaugkd.export.study.results import CellResult, SystemResult
from reaugkd.export.study.statistics import Spread, resampled, seed_test
from reaugkd.export.study.toml_checks import AVERAGE

KD, BETTER = Who("kd", STUDENT), Who("better", STUDENT)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return load_plan(write_study(tmp_path / "study"))


@pytest.fixture
def analysis(plan: Plan) -> Analysis:
    return Analysis(plan, {key(cell): make_result(*key(cell)) for cell in plan.cells()})


def key(cell: object) -> tuple[str, str, int]:
    return cell.task.name, cell.recipe, cell.seed  # type: ignore[attr-defined]


def of(analysis: Analysis, task: str, who: Who, seed: int) -> SystemResult:
    found = analysis.found[task, who.recipe, seed].find(who.system, who.variant)
    assert found is not None
    return found


class TestComparisons:
    def test_one_task(self, analysis: Analysis) -> None:
        one = analysis.compare("one", BETTER, KD, "nll")
        assert one is not None and one.over_seeds is not None
        differences = [
            of(analysis, "one", BETTER, s).metrics["nll"] - of(analysis, "one", KD, s).metrics["nll"] for s in range(3)
        ]  # type: ignore[operator]
        assert one.value == pytest.approx(sum(differences) / 3)
        assert one.over_seeds == seed_test(differences)
        # The interval again, from draws of single systems.
        draws = {}
        for who in (BETTER, KD):
            systems = {seed: of(analysis, "one", who, seed) for seed in range(3)}
            draws[who] = sum(resampled("one", systems, {}, "nll").values()) / 3
        assert one.over_rows == pytest.approx(tuple(np.quantile(draws[BETTER] - draws[KD], [0.025, 0.975])))
        assert one.over_rows is not None and one.over_rows[0] < one.value < one.over_rows[1]
        rights = {who: np.concatenate([of(analysis, "one", who, s).correct for s in range(3)]) for who in (BETTER, KD)}
        assert one.predictions is not None
        assert one.predictions.first_only == int(np.sum(rights[BETTER] & ~rights[KD]))
        assert one.predictions.second_only == int(np.sum(rights[KD] & ~rights[BETTER]))

    def test_each_task_has_its_metric(self, analysis: Analysis) -> None:
        first, second = (analysis.compare(task, BETTER, KD) for task in ("one", "two"))
        assert first == replace(analysis.compare("one", BETTER, KD, "accuracy"), metric="main")  # type: ignore[type-var]
        assert second == replace(analysis.compare("two", BETTER, KD, "mcc"), metric="main")  # type: ignore[type-var]
        assert second is not None and second.over_seeds is not None
        assert second.over_rows is not None and second.over_seeds.interval is None  # one seed

    def test_the_average_gives_every_task_the_same_weight(self, analysis: Analysis) -> None:
        parts = [analysis.compare(task, BETTER, KD) for task in ("one", "two")]
        average = analysis.compare(AVERAGE, BETTER, KD)
        assert average is not None and average.predictions is None
        assert average.value == pytest.approx(sum(part.value for part in parts if part) / 2)
        assert average.over_seeds is None  # no seed that both tasks have
        draws = 0.0
        for task, seeds, metric in (("one", range(3), "accuracy"), ("two", [5], "mcc")):
            systems = {(who, seed): of(analysis, task, who, seed) for who in (BETTER, KD) for seed in seeds}
            found = resampled(task, systems, {}, metric)
            for who, sign in ((BETTER, 1), (KD, -1)):
                draws += sign * np.mean([found[who, seed] for seed in seeds], axis=0) / 2
        assert average.over_rows == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))

    def test_seeds_that_all_tasks_have_are_averaged_too(self, analysis: Analysis) -> None:
        again = Analysis(
            analysis.plan,
            {
                ("two" if task == "two" else task, recipe, 0 if task == "two" else seed): cell
                for (task, recipe, seed), cell in analysis.found.items()
            },
        )
        average = again.compare(AVERAGE, BETTER, KD)
        assert average is not None and average.over_seeds is not None and average.over_seeds.n == 1
        parts = [again.values(task, who)[0] for task in ("one", "two") for who in (BETTER, KD)]
        assert average.over_seeds.mean == pytest.approx((parts[0] - parts[1] + parts[2] - parts[3]) / 2)

    def test_means(self, analysis: Analysis) -> None:
        accuracies = [float(of(analysis, "one", KD, seed).metrics["accuracy"]) for seed in range(3)]  # type: ignore[arg-type]
        found = analysis.spread("one", KD)
        assert found == Spread(3, pytest.approx(np.mean(accuracies)), pytest.approx(np.std(accuracies, ddof=1)))  # type: ignore[arg-type]
        mcc = of(analysis, "two", KD, 5).metrics["mcc"]
        average = analysis.spread(AVERAGE, KD)
        assert average is not None and average.mean == pytest.approx((np.mean(accuracies) + mcc) / 2)  # type: ignore[operator]

    def test_missing_seeds_are_reported(self, analysis: Analysis) -> None:
        found = {
            key: cell
            for key, cell in analysis.found.items()
            if key[:2] != ("two", "better") and key != ("one", "kd", 1)
        }
        part = Analysis(analysis.plan, found)
        one = part.compare("one", BETTER, KD)
        assert one is not None and one.over_seeds is not None and one.over_seeds.n == 2
        assert part.compare("two", BETTER, KD) is None and part.compare(AVERAGE, BETTER, KD) is None
        assert part.spread(AVERAGE, BETTER) is None and part.spread(AVERAGE, KD) is not None
        assert part.compare("one", Who("kd", BLEND, "other"), KD) is None
        assert part.compare("one", BETTER, KD, "colour") is None

    def test_kl_has_no_interval_over_rows(self, analysis: Analysis) -> None:
        one = analysis.compare("one", BETTER, KD, "teacher_kl")
        assert one is not None and one.over_rows is None and one.over_seeds is not None

    def test_other_rows_have_no_interval(self, analysis: Analysis) -> None:
        found = {**analysis.found, ("one", "kd", 0): make_result("two", "kd", 0)}
        one = Analysis(analysis.plan, found).compare("one", BETTER, KD)
        assert one is not None and one.over_rows is None and one.predictions is None


def fixed(accuracy: float, nll: float, answers: str, system: str, variant: str = "") -> SystemResult:
    """A system with figures chosen for the tables; its rows' labels are all 0."""
    predicted = np.array([int(answer) for answer in answers], np.int16)
    metrics = {"n": len(answers), "accuracy": accuracy, "nll": nll, "ece": 0.02, "teacher_agreement": 0.9}
    half = np.full(len(answers), 0.5, np.float32)
    return SystemResult(system, variant, metrics, np.zeros(len(answers), np.int16), predicted, half, half)


class TestTables:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Analysis:
        text = (
            'teacher = "bert"\nseeds = [0, 1]\nrecipes = ["kd", "better"]\n[[tasks]]\nname = "one"\ndata = "one.csv"\n'
        )
        plan = load_plan(write_study(tmp_path / "small", text))
        found = {}
        for recipe, gain in (("kd", 0.0), ("better", 0.01)):
            for seed in (0, 1):
                accuracy = 0.8 + gain + 0.01 * seed
                systems = (
                    fixed(0.9, 0.25, "0000", "teacher"),
                    fixed(accuracy, 0.5, "0000", "student"),
                    fixed(accuracy + 0.005, 0.475, "0000", "student+retrieval"),
                )
                found["one", recipe, seed] = CellResult(systems)
        del found["one", "better", 1]
        return Analysis(plan, found)

    def test_means(self, small: Analysis) -> None:
        assert tables.means(small).splitlines() == [
            "| recipe | system | one (accuracy, 4 rows, 2 seeds) | average |",
            "| --- | --- | --- | --- |",
            "| - | teacher | 90.00 ± 0.00 | 90.00 |",
            "| kd | student | 80.50 ± 0.71 | 80.50 |",
            "| kd | student+retrieval | 81.00 ± 0.71 | 81.00 |",
            "| better | student | 81.00 (n = 1) | 81.00 |",
            "| better | student+retrieval | 81.50 (n = 1) | 81.50 |",
        ]

    def test_differences(self, small: Analysis) -> None:
        zero = "[+0.00, +0.00] (1 seed missing)"
        assert tables.differences(small).splitlines() == [
            "| recipe | minus the baseline | one (accuracy, 4 rows, 2 seeds) | average |",
            "| --- | --- | --- | --- |",
            "| kd | with retrieval, baseline without | +0.50 [+0.00, +0.00] | +0.50 [+0.00, +0.00] |",
            f"| better | student alone | +1.00 {zero} | +1.00 {zero} |",
            f"| better | both with retrieval | +1.00 {zero} | +1.00 {zero} |",
            f"| better | with retrieval, baseline without | +1.50 {zero} | +1.50 {zero} |",
        ]

    def test_gain_of_retrieval(self, small: Analysis) -> None:
        zero = "[+0.00, +0.00]"
        added = f"+0.50 {zero} | -0.0250 [+0.0000, +0.0000] | +0.00 {zero} | +0.00 {zero} |"
        assert tables.added_on_average(small).splitlines() == [
            "| recipe | retrieval | metric | NLL | ECE | agreement |",
            "| --- | --- | --- | --- | --- | --- |",
            f"| kd | the recipe's own | {added}",
            f"| better | the recipe's own | {added.replace(' |', ' (1 seed missing) |')}",
        ]

    def test_held_out_nll(self, small: Analysis) -> None:
        assert "## Held-out NLL" not in tables.report(small)
        found = {}
        for (task, recipe, seed), cell in small.found.items():
            nll = {"kd": 0.5, "better": 0.47}[recipe] + 0.02 * seed
            systems = (replace(one, metrics={**one.metrics, "heldout_nll_blend": nll}) for one in cell.systems)
            found[task, recipe, seed] = CellResult(tuple(systems))
        analysis = Analysis(small.plan, found)
        table = [
            "| recipe | one (2 seeds) | average | minus the baseline |",
            "| --- | --- | --- | --- |",
            "| kd | 0.5100 ± 0.0141 | 0.5100 | - |",
            "| better | 0.4700 (n = 1) | 0.4700 (1 seed missing) | -0.0300 (1 seed missing) |",
        ]
        assert tables.heldout(analysis).splitlines() == table
        assert "\n".join(table) in tables.report(analysis)

    def test_fidelity_on_each_kind_of_rows(self, small: Analysis) -> None:
        def with_kinds(one: SystemResult, seed: int) -> SystemResult:
            more = {"typos_teacher_agreement": 0.8, "typos_ece": 0.05, "distillation_teacher_agreement": 1.0}
            if one.system == "student":
                more["distillation_teacher_kl"] = 0.01 + 0.02 * seed
            return replace(one, metrics={**one.metrics, "teacher_kl": 0.125, **more})

        found = {}
        for where, cell in small.found.items():
            neighbours = fixed(0.7, 0.6, "0000", "retrieval")
            found[where] = CellResult(tuple(with_kinds(one, where[2]) for one in (*cell.systems, neighbours)))
        reported, table = tables.fidelity(Analysis(small.plan, found))
        assert reported.startswith("Mean of the tasks' means; KL(teacher || system) in nats. Rows: clean, the rows as")
        assert "; typos, the same rows" in reported and "; distillation, up to 1,000 training rows" in reported
        complete = "90.00 | 80.00 | 100.00 | 0.1250 | - | 2.00 | 5.00 |"
        missing = complete.replace("0 |", "0 (1 seed missing) |")
        assert table.splitlines() == [
            "| recipe | system | retrieval | agreement, clean | agreement, typos | agreement, distillation "
            "| KL, clean | KL, distillation | ECE, clean | ECE, typos |",
            "|" + " --- |" * 10,
            f"| - | teacher | - | {complete}",
            f"| kd | student | - | {complete.replace('-', '0.0200')}",
            f"| kd | retrieval | the recipe's own | {complete}",
            f"| kd | student+retrieval | the recipe's own | {complete}",
            f"| better | student | - | {missing.replace('-', '0.0100 (1 seed missing)')}",
            f"| better | retrieval | the recipe's own | {missing}",
            f"| better | student+retrieval | the recipe's own | {missing}",
        ]

    def test_fidelity_is_a_mean_over_tasks(self, analysis: Analysis) -> None:
        reported, table = tables.fidelity(analysis)
        assert "clean" in reported and "typos" not in reported and "distillation" not in reported
        lines = {tuple(line.split(" | ")[:3]): line.split(" | ")[3:] for line in table.splitlines()}
        kls = [analysis.spread(task, Who("kd", STUDENT), "teacher_kl") for task in ("one", "two")]
        assert lines["| kd", "student", "-"][1] == f"{np.mean([kl.mean for kl in kls if kl]):.4f}"
        assert ("| better", "student+retrieval", "k8") in lines

    def test_fidelity_that_one_task_lacks_has_no_mean(self, analysis: Analysis) -> None:
        found = {}
        for where, cell in analysis.found.items():
            more = {"typos_teacher_agreement": 0.8, "typos_teacher_kl": 0.1} if where[0] == "one" else {}
            found[where] = CellResult(tuple(replace(one, metrics={**one.metrics, **more}) for one in cell.systems))
        _, table = tables.fidelity(Analysis(analysis.plan, found))
        header, _, *lines = (line.strip("| ").split(" | ") for line in table.splitlines())
        assert lines and all(line[header.index("KL, typos")] == "-" for line in lines)

    def test_tests(self, small: Analysis) -> None:
        lines = tables.tests(small).splitlines()
        assert lines[0] == (
            "| recipe | comparison | task | seeds | over seeds | interval | t p | flip p "
            "| interval over rows | predictions | p |"
        )
        assert lines[2] == (
            "| kd | with retrieval, baseline without, over the baseline | one | 2 | +0.50 ± 0.00 | - | - | - | "
            "[+0.00, +0.00] | 0 : 0 | 1.000 |"
        )
        assert lines[3].endswith("| average | 2 | +0.50 ± 0.00 | - | - | - | [+0.00, +0.00] | - | - |")

    def test_the_report_holds_every_variant_and_metric(self, analysis: Analysis) -> None:
        text = tables.report(analysis)
        assert text.startswith(tables.summary(analysis).rstrip())
        assert "8 of 8 cells; baseline kd; teacher teacher" in text
        for name in ("the task's metric", "NLL", "ECE", "agreement"):
            assert f"by task: {name}\n" in text
        assert "\n\n".join(["## Fidelity to the teacher", *tables.fidelity(analysis)]) in text
        assert text.count("| better | k8 |") == 5 and text.count("| better | student+retrieval | k8 |") == 1
        for block in text.split("\n\n"):
            lines = block.splitlines()
            if lines[0].startswith("|"):
                assert len({line.count("|") for line in lines}) == 1
        assert tables.report(Analysis(analysis.plan, analysis.found)) == text

    @pytest.mark.parametrize(
        ("value", "metric", "signed", "text"),
        [
            (0.88149, "accuracy", False, "88.15"),
            (-0.001, "mcc", True, "-0.10"),
            (0.001, "ece", True, "+0.10"),
            (-0.00001, "accuracy", True, "+0.00"),
            (0.0, "accuracy", True, "+0.00"),
            (0.30961, "nll", False, "0.3096"),
            (-0.00003, "nll", True, "+0.0000"),
            (0.30961, "teacher_kl", False, "0.3096"),
        ],
    )
    def test_numbers(self, value: float, metric: str, signed: bool, text: str) -> None:
        assert tables.number(value, metric, signed) == text

    def test_p_values(self) -> None:
        assert [tables.p_value(value) for value in (1.0, 0.0312, 0.0004, None)] == ["1.000", "0.031", "<0.001", "-"]


class TestPlots:
    def test_a_mark_for_every_figure(self, analysis: Analysis, tmp_path: Path) -> None:
        written = draw(analysis, tmp_path)
        assert [path.name for path in written] == ["retrieval.svg", "variants.kd.svg", "variants.better.svg"]
        for path in written:
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        text = written[0].read_text()
        assert all(f">{word}<" in text for word in ("kd", "better", "one (accuracy)", "two (MCC)", "average", "points"))
        text = written[1].read_text()
        assert all(f">{word}<" in text for word in ("the recipe's own", "k8", "points over the student alone"))

    def test_the_same_figures_give_the_same_bytes(self, analysis: Analysis, tmp_path: Path) -> None:
        first, second = ([path.read_bytes() for path in draw(analysis, tmp_path / name)] for name in ("a", "b"))
        assert first == second

    def test_a_study_half_done(self, plan: Plan, tmp_path: Path) -> None:
        half = Analysis(plan, {("one", "kd", 0): make_result("one", "kd", 0)})
        assert len(draw(half, tmp_path)) == 3
        assert "1 of 8 cells" in tables.report(half)
