from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import tiny_models
from support.short_bench import short_bench
from support.workshop import RECIPE

from reaugkd import Runtime
from reaugkd.export.bundle.write import ExportJob
from reaugkd.export.demo.data import Row
from reaugkd.export.demo.demo import DemoJob, run_demo
from reaugkd.export.demo.page import WIDTH
from reaugkd.runtime.benchmark.bench import BenchSettings

NEW = "weather"


def rows_of(count: int, seed: int) -> list[Row]:
    split = tiny_models.make_split(count, seed)
    return list(dict(zip(split.texts, split.labels or (), strict=True)).items())


@pytest.fixture(scope="module")
def job(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoJob]:
    recipe = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    recipe.write_text(RECIPE + "[student]\nlayers = [0, 3]\n")
    job = DemoJob(
        out=Path("demo"),
        teacher=str(tiny_bert),
        rows={"train": rows_of(360, 0), "test": rows_of(60, 1)},
        recipe=recipe,
        new_intent=NEW,
        rows_per_intent=60,
        bench=BenchSettings(samples=5, warmup=1, inputs=5, passes=1, processes=0),
        export=ExportJob("avx2", allow_quality_loss=True),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("demo"))
        yield job


@pytest.fixture(scope="module")
def said(job: DemoJob) -> list[str]:
    lines: list[str] = []
    with short_bench():
        run_demo(job, lines.append)
    return lines


def figures(lines: list[str]) -> list[str]:
    """The lines that are the same at every run: all but times."""
    return [line for line in lines if not re.search(r"\d m?s\b", line)]


def test_it_shows_every_step(job: DemoJob, said: list[str]) -> None:
    titles = [line for line in said if re.match(r"\d\. ", line)]
    assert [int(line[0]) for line in titles] == list(range(1, 10))
    text = "\n".join(said)
    assert [line for line in text.splitlines() if len(line) > WIDTH or line != line.rstrip()] == []
    for figure in ("TF-IDF", "student + retrieval", "points (95 % interval", " ms ", " bytes", "-> "):
        assert figure in text


def test_it_leaves_bundles_that_answer(job: DemoJob, said: list[str]) -> None:
    with Runtime.open(job.out / "bundle") as runtime:
        assert runtime.labels == ("alarm", "music")
        rows = len(runtime.knowledge_base)
    with Runtime.open(job.out / "bundle-more-texts") as runtime:
        assert len(runtime.knowledge_base) > rows
    with Runtime.open(job.out / "bundle-new-intent") as runtime:
        assert runtime.labels == ("alarm", "music", NEW)
        assert [entry.why for entry in runtime.kb.log() if entry.op != "fit"] == ["a new intent"]


def test_again_it_trains_nothing_and_says_the_same(job: DemoJob, said: list[str]) -> None:
    made = {file: file.stat().st_mtime_ns for file in (job.out / "run").rglob("*.safetensors")}
    (job.out / "bundle" / "left-behind").touch()
    lines: list[str] = []
    with short_bench():
        run_demo(job, lines.append)
    assert figures(lines) == figures(said) and len(figures(said)) > 30
    assert {file: file.stat().st_mtime_ns for file in (job.out / "run").rglob("*.safetensors")} == made
    assert not (job.out / "bundle" / "left-behind").exists()
