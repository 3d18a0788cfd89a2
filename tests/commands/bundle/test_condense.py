"""`reaugkd condense`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from support.command_line import finish, names, ok, ok_json, refused, spawn_python
from support.heldout_bundle import build_heldout_bundle
from support.tiny_bundle import build_tiny_bundle


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 400 rows with held-out rows; read-only."""
    return build_heldout_bundle(tmp_path_factory.mktemp("full") / "bundle")


def test_without_an_output_it_shows_the_quality_of_every_size(full: Path, tmp_path: Path) -> None:
    done = ok("condense", full, "--json", tmp_path / "sizes.json")
    assert done.err == ""
    report = json.loads((tmp_path / "sizes.json").read_text())
    assert report["heldout_rows"] == 60 and len(report["sizes"]) == 14
    for size in report["sizes"]:
        row = next(line for line in done.out.splitlines() if line.startswith(f"{size['rows']:,} rows "))
        kept = f"{size['kept_nll']:.0%} ± {size['kept_nll_error']:.0%}"
        assert [f"{size['nll']:.4f}", kept, f"{size['agreement']:.2%}"] == re.split(r"\s{2,}", row)[-3:]
    alone = next(line for line in done.out.splitlines() if line.startswith("student alone"))
    assert f"{report['student']['accuracy']:.2%}" in alone and f"{report['student']['nll']:.4f}" in alone
    assert done.out.startswith(f"now 400 rows, {report['bytes_now'] / 1e6:.2f} MB; ")
    assert "--max-rows, --max-bytes or --max-loss" in done.out.splitlines()[-1]
    assert json.loads(ok("condense", full, "--json", "-").out) == report


def test_the_bundle_it_makes_answers(full: Path, tmp_path: Path) -> None:
    done = ok("condense", full, "--out", tmp_path / "small", "--max-rows", "150", "--json", "-")
    report = json.loads(done.out)
    assert (report["rows"], report["rows_before"]) == (150, 400)
    assert f"150 of 400 rows, {report['bytes'] / 1e6:.2f} of {report['bytes_before'] / 1e6:.2f} MB" in done.err
    assert f"keeps {report['kept_nll']:.0%} ± {report['kept_nll_error']:.0%} of retrieval's gain" in done.err
    assert f"{report['accuracy']:.2%} with these" in done.err
    assert json.loads(ok_json(tmp_path / "small", "noon"))["retrieved"] is True
    assert "150 rows" in ok("inspect", tmp_path / "small").out


@pytest.mark.parametrize(
    ("given", "most"), [("30000", 30_000), ("25.5kB", 25_500), (".04 mb", 40_000), ("9" * 400 + "G", 10**9)]
)
def test_bytes_in_every_unit(full: Path, given: str, most: int, tmp_path: Path) -> None:
    report = json.loads(ok("condense", full, "--out", tmp_path / "out", "--max-bytes", given, "--json", "-").out)
    assert 0.85 * min(most, 60_000) < report["bytes"] <= most


def test_a_knowledge_base_worse_than_the_student_is_reported(tmp_path: Path) -> None:
    full = build_heldout_bundle(tmp_path / "full", seed=4)
    done = ok("condense", full, "--out", tmp_path / "out", "--max-rows", "3", "--json", "-")
    assert json.loads(done.out)["kept_nll"] < 0
    assert done.err.endswith("this knowledge base is worse than none: keep more rows\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-rows", "9"), "a limit needs an output folder; expected --out NEW"),
        (("--out", "{out}"), "needs exactly one limit; found none; expected --max-rows, --max-bytes or --max-loss"),
        (("--out", "{out}", "--max-rows", "9", "--max-bytes", "1MB"), "found --max-rows and --max-bytes"),
        (("--out", "{out}", "--max-bytes", "2 bananas"), "'2 bananas' is not a size such as"),
        (("--out", "{out}", "--max-bytes", "-1"), "'-1' is not a size such as"),
        (("--out", "{out}", "--max-rows", "0"), "0 is not in the range x>=1"),
        (("--out", "{out}", "--max-loss", "5"), "5.0 is not in the range 0<=x<=1"),
        (("--out", "{out}", "--max-rows", "2"), "room for 2 rows; expected at least 3"),
        (("--out", "{taken}", "--max-rows", "9"), "the output exists already"),
    ],
)
def test_errors_leave_no_output(full: Path, arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    places = {"out": tmp_path / "out", "taken": tmp_path / "taken"}
    assert said in refused("condense", full, *(argument.format(**places) for argument in arguments))
    assert names(tmp_path) == ["taken"] and names(tmp_path / "taken") == []


def test_a_bundle_without_held_out_rows_is_refused(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "old")
    assert "has no held-out rows" in refused("condense", bundle)


def test_altered_held_out_rows_are_refused(full: Path, tmp_path: Path) -> None:
    shutil.copytree(full, tmp_path / "altered")
    content = bytearray((tmp_path / "altered" / "heldout.npz").read_bytes())
    content[200] ^= 1
    (tmp_path / "altered" / "heldout.npz").write_bytes(content)
    assert "the file was altered" in refused("condense", tmp_path / "altered")


@pytest.mark.parametrize(
    ("missing", "code"), [("torch transformers optimum onnx sklearn datasets pandas", 0), ("scipy", 2)]
)
def test_of_the_extra_it_takes_scipy_alone(full: Path, tmp_path: Path, missing: str, code: int) -> None:
    script = f"""
import sys
from reaugkd.cli import main

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {missing.split()}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
main()
"""
    done = finish(spawn_python(script, "condense", full, "--out", tmp_path / "out", "--max-rows", "50"))
    assert done.code == code, done.err
    assert ("50 of 400 rows" if code == 0 else "condensing needs the train extra") in done.err


def test_the_old_name_works_with_a_note(full: Path) -> None:
    done = ok("compact", full, "--json", "-")
    assert "note: `reaugkd compact` is now `reaugkd condense`" in done.err
    assert done.out == ok("condense", full, "--json", "-").out
    assert "compact" not in ok("--help").out
