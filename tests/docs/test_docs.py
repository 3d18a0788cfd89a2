"""The documentation holds: links, paths, commands and options exist, and blocks of README, tutorials, guides run."""

from __future__ import annotations

import contextlib
import csv
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from support.command_line import ok
from support.paths import ROOT
from support.short_bench import short_bench

from reaugkd import __all__, errors
from reaugkd.cli import cli

DOCS = ROOT / "docs"
README, TUTORIAL = ROOT / "README.md", DOCS / "tutorial.md"
RUN = {
    "readme": README,
    "tutorial": TUTORIAL,
    "llm": DOCS / "tutorial" / "llm-answers.md",
    **{name: DOCS / "how-to" / f"{name}.md" for name in ("asynchronous", "pipeline", "scikit-learn")},
}
PAGES = sorted(page for page in (*ROOT.glob("*.md"), *DOCS.rglob("*.md")) if DOCS / "results" not in page.parents)
FOLDERS = (
    "batch",
    "benchmarks",
    "commands",
    "docs",
    "examples",
    "export",
    "integrations",
    "kb",
    "recipes",
    "runtime",
    "tests",
)
OF_A_BUNDLE = (".npy", ".jsonl", ".usearch", "kb/shards/")  # kb/ is a folder of bundles too
DEMO = ROOT / "demo"

# Banking77's names, so that the blocks find the labels that they name; each with words of a tiny class.
LABELS = {"alarm": "card_arrival", "music": "exchange_rate", "weather": "lost_or_stolen_card"}
TINY_RECIPE = """
max_length = 24
precision = "fp32"
heldout_share = 0.2
[teacher.fit]
batch_size = 16
learning_rate = 2e-3
head_learning_rate = 5e-3
freeze_word_embeddings = false
[projection]
embedding_dim = 16
batch_size = 64
[student.fit]
batch_size = 16
learning_rate = 2e-3
head_learning_rate = 5e-3
freeze_word_embeddings = false
"""
# What a model of 32 dimensions needs beside the options of the blocks.
TINY = {
    "train": ["--recipe", "tiny.toml"],
    "answers": ["--max-length", "24", "--embedding-dim", "16"],
    "export": ["--target", "avx2", "--allow-quality-loss"],
    "bench": ["--seconds", "0.01"],
}


class Block(NamedTuple):
    """A fenced block: its language, its text, its first line's number, and why it is not run."""

    language: str
    text: str
    line: int
    skipped: str | None


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if line.startswith("```") and opened is None:
            opened = number
        elif line.startswith("```") and opened is not None:
            before = re.fullmatch(r"<!-- not run: (.+) -->", lines[opened - 1])
            text = "\n".join(lines[opened + 1 : number])
            yield Block(lines[opened][3:], text, opened + 2, before[1] if before else None)
            opened = None


def prose(page: Path) -> str:
    """A page without its blocks, fenced or indented."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"^ {4}.*$", "", text, flags=re.M)


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    words = re.findall(r"^#+ (.+)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in words}


def test_readme_is_read_in_three_minutes() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= 700


def dead_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not target.startswith(("https:", "http:")) and not (place.exists() and anchor in {"", *anchors(place)}):
            yield target


def missing_paths(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(rf"(?<![\w/.~-])((?:{'|'.join(FOLDERS)})/[\w./*-]*)", text):
        of_a_bundle = path.startswith("kb/") and path.endswith(OF_A_BUNDLE)
        if not of_a_bundle and not list(ROOT.glob(path.rstrip("/."))):
            yield path
    for path, test in re.findall(r"(tests/[\w/]+\.py)::([\w:]+)", text):
        source = (ROOT / path).read_text(encoding="utf-8")
        if not all(re.search(rf"(class|def) {name}\b", source) for name in test.split("::")):
            yield f"{path}::{test}"


def calls(page: Path) -> Iterator[str]:
    """What a page's code calls `reaugkd` with: in blocks, in indented lines and in backticks."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(page) for line in block.text.splitlines()]
    for line in (*lines, *re.findall(r"^ {4}(.*)$", text, flags=re.M), *re.findall(r"`([^`\n]+)`", text)):
        found = re.match(r"(?:\$ )?reaugkd ([^#]+)", line)
        if found:
            yield found[1].strip()


def unknown_calls(page: Path) -> Iterator[str]:
    for call in calls(page):
        command: click.Command | None = cli
        words = call.split()
        while words and isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(0))
        options = re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(words))
        known = (
            [] if command is None else [name for part in command.params for name in (*part.opts, *part.secondary_opts)]
        )
        if command is None or not set(options) <= set(known):
            yield f"reaugkd {call}"


def unknown_targets(page: Path) -> Iterator[str]:
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    named = re.findall(r"(?:`|^)make ([a-z0-9-]+)", page.read_text(encoding="utf-8"), flags=re.M)
    yield from (f"make {target}" for target in named if target not in targets)


@pytest.mark.parametrize("wrong", [dead_links, missing_paths, unknown_calls, unknown_targets])
def test_what_pages_name_is_there(wrong: Callable[[Path], Iterator[str]]) -> None:
    assert [(str(page.relative_to(ROOT)), name) for page in PAGES for name in wrong(page)] == []


def test_pages_that_the_code_names_are_there() -> None:
    sources = [
        file for folder in FOLDERS for kind in ("py", "toml", "sh") for file in (ROOT / folder).rglob(f"*.{kind}")
    ]
    assert len(sources) > 300
    for file in sources:
        for page in re.findall(r"docs/[\w/-]+\.md", file.read_text(encoding="utf-8")):
            assert (ROOT / page).is_file(), f"{file}: {page}"


def test_the_api_page_has_every_public_name() -> None:
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    missing = [name for name in __all__ if not (hasattr(errors, name) or re.search(rf"reaugkd\.{name}\b", page))]
    assert missing == ["__version__"]


def test_few_blocks_are_not_run() -> None:
    skipped = [block for page in RUN.values() for block in blocks(page) if block.skipped]
    assert len(skipped) <= 4
    assert all(block.language == "bash" for block in skipped)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the blocks expect it, all tiny: tickets.csv, the teacher's hub name, and what the demo leaves."""
    from support import tiny_models

    folder = tmp_path_factory.mktemp("kitchen")
    splits = tiny_models.make_dataset().splits
    (folder / "demo" / "banking77").mkdir(parents=True)
    for name, place in (
        ("train", "tickets.csv"),
        ("train", "demo/banking77/train.csv"),
        ("test", "demo/banking77/test.csv"),
    ):
        with (folder / place).open("w", encoding="utf-8", newline="") as file:
            rows = zip(splits[name].texts, splits[name].labels or (), strict=True)
            csv.writer(file).writerows([("text", "label"), *((text, LABELS[label]) for text, label in rows)])
    tiny_models.write_bert(folder / "sentence-transformers" / "all-MiniLM-L6-v2")
    (folder / "tiny.toml").write_text(TINY_RECIPE)
    with contextlib.chdir(folder):
        call("train --data demo/banking77 --teacher sentence-transformers/all-MiniLM-L6-v2 --out demo/run".split())
        call("export demo/run --out demo/bundle".split())
    return folder


def call(words: list[str]) -> None:
    ok(*words, *TINY.get("answers" if "--teacher-outputs" in words else words[0], ()))


def run(page: Path, folder: Path) -> None:
    """Every block of a page, in order, in one folder; `reaugkd` in this process, where its libraries are loaded."""
    with contextlib.chdir(folder):
        for block in blocks(page):
            if block.skipped:
                continue
            if block.language == "python":
                exec(compile(block.text, f"{page.name}:{block.line}", "exec"), {"__name__": "__main__"})
            for line in block.text.splitlines() if block.language == "bash" else ():
                words = shlex.split(line, comments=True)
                if words[:1] == ["reaugkd"]:
                    call(words[1:])
                elif words:
                    subprocess.run(words, check=True)


@pytest.mark.parametrize("page", RUN.values(), ids=RUN)
def test_blocks_run(page: Path, kitchen: Path, tmp_path: Path) -> None:
    shutil.copytree(kitchen, tmp_path, dirs_exist_ok=True)
    with short_bench():
        run(page, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN.values(), ids=RUN)
def test_blocks_run_on_the_demo(page: Path, kitchen: Path, tmp_path: Path) -> None:
    if not (DEMO / "bundle" / "manifest.json").is_file():
        pytest.skip("make demo has not run")
    shutil.copytree(kitchen, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "demo")
    shutil.copytree(DEMO, tmp_path / "demo")
    run(page, tmp_path)
