"""`reaugkd bench --sweep`: what it prints and writes, and which options go together."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.command_line import HEAVY, call, finish, names, ok, refused, spawn_python

pytestmark = pytest.mark.slow

QUICK = ("--sweep", "--tokens", "5,9", "--rows", "32,100", "--seconds", "0.01")


def test_table_json_and_plot(edge_bundle: Path, tmp_path: Path) -> None:
    done = ok("bench", edge_bundle, *QUICK, "--json", tmp_path / "s.json", "--plot", tmp_path / "s.svg")
    assert done.err == ""
    assert re.search(r"^5 +alone .*\n +32 .*\n +100 .*\n9 +alone ", done.out, re.MULTILINE)
    found = json.loads((tmp_path / "s.json").read_text())
    assert [(cell["tokens"], cell["rows"]) for cell in found["cells"]] == [(5, 32), (5, 100), (9, 32), (9, 100)]
    assert set(found["cells"][0]) >= {"total", "search", "overhead", "growth", "throughput"}
    assert (tmp_path / "s.svg").read_text().startswith("<?xml")
    assert names(tmp_path) == ["s.json", "s.svg"]


def test_one_thread_is_one_thread(edge_bundle: Path) -> None:
    found = json.loads(ok("bench", edge_bundle, *QUICK, "--threads", 1, "--json", "-").out)
    assert found["setting"]["threads"] == 1 and set(found["cells"][0]["throughput"]["per_s"]) == {"1"}


def test_a_plot_that_fails_leaves_the_figures(
    edge_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken.svg").mkdir()
    assert "taken.svg" in refused("bench", edge_bundle, *QUICK, "--plot", tmp_path / "taken.svg")
    from reaugkd.benchmarks.sweep import plot as sweep_plot

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_plot, "_draw", broken)
    done = call("bench", edge_bundle, *QUICK, "--json", tmp_path / "s.json", "--plot", tmp_path / "s.svg")
    assert done.code == 130 and "growth" in done.out
    assert json.loads((tmp_path / "s.json").read_text())["cells"] and not (tmp_path / "s.svg").exists()


def test_json_to_stdout_sends_the_table_to_stderr(edge_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("noon alarm call music\nbread and milk\n")
    done = ok("bench", edge_bundle, *QUICK, "--threads", 3, "--data", tmp_path / "texts.txt", "--json", "-")
    found = json.loads(done.out)
    assert found["setting"]["threads"] == 3 and set(found["cells"][0]["throughput"]["per_s"]) == {"1", "3"}
    assert found["setting"]["source"] == str(tmp_path / "texts.txt") and "growth" in done.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--tokens", "8"], "--tokens is an option of the sweep. Give --sweep"),
        (["--rows", "8"], "--rows is an option of the sweep. Give --sweep"),
        (["--plot", "s.svg"], "--plot is an option of the sweep. Give --sweep"),
        (["--sweep", "--processes", "1"], "a sweep starts no processes"),
        (["--sweep", "--tokens", "8,x"], "'8,x' is not a list of whole numbers"),
        (["--sweep", "--tokens", "500"], "found 500"),
        (["--sweep", "--rows", "9" * 25], "rows are unusable"),
        (["--sweep", "--rows", "10,0"], "rows are unusable; found 10,0"),
        (["--sweep", "--plot", "sweep.pdf"], "found .pdf"),
    ],
)
def test_what_cannot_be_meant(edge_bundle: Path, options: list[str], told: str) -> None:
    assert told in refused("bench", edge_bundle, *options)


def test_without_the_extras_it_works_but_for_the_plot(edge_bundle: Path, tmp_path: Path) -> None:
    script = f"""
import sys
for name in {(*HEAVY, "matplotlib")}:
    sys.modules[name] = None  # as if not installed
from reaugkd.cli import main
main()
"""
    done = finish(spawn_python(script, "bench", edge_bundle, *QUICK))
    assert (done.code, done.err) == (0, "") and "growth" in done.out
    refusal = finish(spawn_python(script, "bench", edge_bundle, *QUICK, "--plot", tmp_path / "s.svg"))
    assert (refusal.code, refusal.out) == (2, "")
    assert "the plot needs matplotlib" in refusal.err and "reaugkd[plots]" in refusal.err
    assert names(tmp_path) == []
