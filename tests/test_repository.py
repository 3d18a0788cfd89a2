"""The repository's files and the distributions that are built from them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.command_line import labelled_rows
from support.paths import ROOT
from support.server_process import server
from support.tiny_bundle import build_tiny_bundle

import reaugkd

FILE_BYTES = 500_000
CHECKOUT_BYTES = 5_450_000
LARGER_FILES: frozenset[str] = frozenset()
"""Files that need more than ``FILE_BYTES``."""


@pytest.fixture(scope="module")
def files() -> list[str]:
    """The files that git tracks or would add."""
    if not (ROOT / ".git").exists():
        pytest.skip("the sources are no git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())


def test_files_are_small(files: list[str]) -> None:
    """Git keeps every version for ever: large results and models belong outside the repository."""
    assert {name for name in files if (ROOT / name).stat().st_size > FILE_BYTES} == LARGER_FILES


def test_the_checkout_is_small(files: list[str]) -> None:
    assert sum((ROOT / name).stat().st_size for name in files) < CHECKOUT_BYTES


@pytest.fixture(scope="module")
def distributions(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a source distribution and of the wheel built from it; the checkout's name is no identifier."""
    checkout = copy_checkout(files, tmp_path_factory.mktemp("build") / "re-aug.kd")
    run(sys.executable, "-m", "build", cwd=checkout)
    return checkout / "dist"


def copy_checkout(files: list[str], folder: Path) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(*command: str | Path, cwd: Path) -> str:
    """The standard output of a command, which must succeed; nothing of this environment is visible to its Python."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_metadata_are_accepted(distributions: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *distributions.iterdir(), cwd=distributions)


@pytest.mark.slow
def test_the_source_distribution_holds_the_checkout(files: list[str], distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    assert set(files) <= found


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(files: list[str], distributions: Path) -> None:
    packages = {name.rpartition("/")[0] for name in files if name.endswith("__init__.py")}
    tops = {folder.partition("/")[0] for folder in packages} - {"", "tests"}
    expected = {name for name in files if name.partition("/")[0] in tops or name == "py.typed"}
    expected |= {name for name in files if "/" not in name and name.endswith(".py")} - {"setup.py"}
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == {f"reaugkd/{name}" for name in expected}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_alone_predicts(distributions: Path, tmp_path: Path) -> None:
    """In an empty environment, with the dependencies that it declares."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python, command = (tmp_path / "venv" / "bin" / name for name in ("python", "reaugkd"))
    (wheel,) = distributions.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    installed = {
        entry["name"].lower() for entry in json.loads(run(python, "-m", "pip", "list", "--format=json", cwd=tmp_path))
    }
    assert "reaugkd" in installed and not installed & {"torch", "transformers", "pandas"}
    assert run(command, "--version", cwd=tmp_path).split()[-1] == reaugkd.__version__
    bundles = ROOT / "tests" / "data" / "bundles"
    shutil.copytree(bundles / "v1", tmp_path / "bundle")
    expected = json.loads((bundles / "v1.json").read_text())[0]
    assert isinstance(expected["text"], str)
    record = json.loads(run(command, "predict", "bundle", expected["text"], "--format", "jsonl", cwd=tmp_path))
    assert record["label"] == expected["label"]
    found = run(python, "-c", SHAPES, "bundle", expected["text"], cwd=tmp_path)
    assert found.strip() == expected["label"]


SHAPES = """
import sys
import reaugkd
print(reaugkd.pipeline(sys.argv[1])(sys.argv[2])[0]["label"])
try:
    reaugkd.ReaugkdClassifier
except reaugkd.DependencyError as error:
    assert "reaugkd[sklearn]" in str(error)
else:
    raise AssertionError
"""
INSTALLED = "from importlib.metadata import distributions; print(*(one.name.lower() for one in distributions()))"
MINIMAL_BYTES = 165_000_000
MINIMAL = """
import sys
from importlib.metadata import distributions
from reaugkd import DependencyError, Runtime
with Runtime.open(sys.argv[1]) as runtime:
    before = runtime.predict("jazz at noon").label
    new = "abc".replace(before, "")[0]
    runtime.kb.add("jazz at noon", new, why="a test")
    assert runtime.predict("jazz at noon").label == new
    assert [answer.retrieved for answer in runtime.predict_many(["noon", "cheap milk"])] == [True, True]
    try:
        runtime.kb.compact()
    except DependencyError as error:
        assert "usearch" in str(error)
    else:
        raise AssertionError
absent = {"usearch", "numkong", "sympy", "mpmath", "huggingface_hub", "hf_xet", "google", "flatbuffers", "tqdm"}
assert not absent & {name.partition(".")[0] for name in sys.modules}
print(*sorted(distribution.name.lower() for distribution in distributions()))
"""


def image(files: list[str], dockerfile: str, folder: Path) -> Path:
    """The environment that the build stage of a Dockerfile makes, run without docker on the files that docker gets."""
    environment, context = folder / "environment", folder / "context"
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), flags=re.M)
    for pattern in allowed:
        assert any(Path(name.partition("/")[0]).match(pattern) for name in files), pattern
    sent = [name for name in files if any(Path(name.partition("/")[0]).match(pattern) for pattern in allowed)]
    copy_checkout(sent, context)
    text = (ROOT / dockerfile).read_text().replace("\\\n", " ").replace("/opt/reaugkd", str(environment))
    text = text.replace("python3.13", f"python{sys.version_info.major}.{sys.version_info.minor}")
    commands = re.findall(r"^RUN (.+)$", text, flags=re.M)
    assert len(commands) == text.count("\nRUN ") >= 2
    for line in commands:
        run("env", f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}", "sh", "-ec", line, cwd=context)
    return environment


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_image_serves(files: list[str], tmp_path: Path) -> None:
    """With a bundle and a root that nobody can write to, as far as this can be tried without docker."""
    environment = image(files, "examples/serve/Dockerfile", tmp_path)
    bundle = build_tiny_bundle(tmp_path / "bundle")
    script = "from reaugkd.cli import main; main()"
    with server(bundle, "--workers", "2", python=(environment / "bin" / "python", "-P", "-c", script)) as one:
        assert one.get("/livez")[0] == one.get("/health")[0] == 200
        assert one.post("/predict", {"inputs": "jazz at noon"})[0] == 200
    installed = run(environment / "bin" / "python", "-c", INSTALLED, cwd=tmp_path).split()
    assert "httptools" in installed and not {"torch", "starlette", "huggingface-hub"} & set(installed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_image_predicts_with_four_libraries(files: list[str], tmp_path: Path) -> None:
    environment = image(files, "Dockerfile", tmp_path)
    bundle = build_tiny_bundle(tmp_path / "bundle")
    python, command = (environment / "bin" / name for name in ("python", "reaugkd"))
    record = json.loads(run(command, "predict", "bundle", "jazz at noon", "--format", "jsonl", cwd=tmp_path))
    assert record["label"] in {"a", "b", "c"} and record["retrieved"]
    assert "every file matches its hash" in run(command, "inspect", "bundle", cwd=tmp_path)
    run(command, "eval", "bundle", "--data", labelled_rows(tmp_path / "rows.jsonl"), cwd=tmp_path)
    installed = run(python, "-c", MINIMAL, bundle, cwd=tmp_path).split()
    assert installed == ["click", "numpy", "onnxruntime", "reaugkd", "tokenizers"]
    done = subprocess.run([command, "kb", "compact", "bundle"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "needs usearch" in done.stderr and "pip install" in done.stderr
    (packages,) = environment.glob("lib/python*/site-packages")
    assert sum(file.stat().st_size for file in packages.rglob("*") if not file.is_dir()) < MINIMAL_BYTES


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_make_test_passes_under_any_folder_name(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder's name is no identifier and holds a space; ``make test`` lints everything and runs one test file."""
    checkout = copy_checkout(files, tmp_path / "re-aug.kd (copy)")
    environment = checkout / ".venv"
    (environment / "types").mkdir(parents=True)
    (environment / "types" / "reaugkd").symlink_to("../..")
    (environment / "bin").symlink_to(Path(sys.executable).parent)
    (environment / "installed").touch()
    monkeypatch.setenv("PYTHONPATH", str(environment / "types"))  # comes before the installed package: the original
    monkeypatch.setenv("PYTEST_ADDOPTS", "tests/runtime/evaluation/test_metrics.py")
    done = subprocess.run(["make", "test"], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
