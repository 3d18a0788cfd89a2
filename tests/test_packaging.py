"""The package: public names, layers, folders, and the imports of the edge."""

from __future__ import annotations

import ast
import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

import reaugkd

LAYERS = ("kb", "runtime", "serve", "batch", "export", "commands", "integrations")
EDGE = {"numpy", "onnxruntime", "usearch", "tokenizers", "click"}
OF_EXTRAS = {"ReaugkdClassifier"}
"""Public names that need an extra: they are not part of ``from reaugkd import *``."""
OF_SCIKIT_LEARN = {"scikit_learn.py", "scikit_learn_columns.py"}
LONGEST = 400


def sources() -> list[Path]:
    folders = [ROOT, *(ROOT / layer for layer in LAYERS)]
    files = (file for folder in folders for file in (folder.glob("*.py") if folder == ROOT else folder.rglob("*.py")))
    return sorted(file for file in files if file != ROOT / "setup.py")


def layer_of(file: Path) -> str:
    """Return kb, runtime, serve, batch, export, commands or integrations; "" for the files at the root."""
    first = file.relative_to(ROOT).parts[0]
    return first if first in LAYERS else ""


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Yield every module that a file imports, by its absolute name, and whether only for the type checker."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = ["reaugkd", *file.relative_to(ROOT).parts[:-1]]
    only_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in only_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, id(node) in only_types
            yield from ((f"{module}.{alias.name}", id(node) in only_types) for alias in node.names)


def test_there_are_files_to_look_at() -> None:
    assert {layer_of(file) for file in sources()} == {"", *LAYERS}
    assert ("reaugkd.kb.storage.atomic", False) in list(imports(ROOT / "export" / "training" / "run_folder.py"))
    assert ("reaugkd.errors", True) in list(imports(ROOT / "__init__.py"))


def test_all_names_can_be_imported_and_no_other() -> None:
    for name in reaugkd.__all__:
        assert getattr(reaugkd, name) is not None
    assert dir(reaugkd) == sorted([*reaugkd.__all__, *OF_EXTRAS])
    assert all(getattr(reaugkd, name) is not None for name in OF_EXTRAS)
    with pytest.raises(AttributeError, match="nonsense"):
        reaugkd.nonsense  # noqa: B018


def test_every_error_is_public_and_has_an_exit_code() -> None:
    errors = importlib.import_module("reaugkd.errors")
    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert tree <= set(reaugkd.__all__)
    for name in tree:
        assert issubclass(getattr(reaugkd, name), reaugkd.ReaugkdError)
        assert getattr(reaugkd, name).exit_code in (1, 2)


def test_the_type_checker_sees_the_exported_names() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    typed = next(node for node in tree.body if isinstance(node, ast.If))
    names = {alias.name for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == (set(reaugkd.__all__) | OF_EXTRAS) - {"__version__"}


def test_the_edge_imports_nothing_but_its_five_libraries() -> None:
    """The contracts in pyproject.toml hold the layers and forbid some libraries; this allows five and no other."""
    allowed = EDGE | {"reaugkd", "__future__"} | set(sys.stdlib_module_names)
    edge = (file for file in sources() if layer_of(file) != "export")
    wrong = {
        (str(file.relative_to(ROOT)), name.partition(".")[0])
        for file in edge
        for name, _ in imports(file)
        if name.partition(".")[0] not in allowed | ({"sklearn"} if file.name in OF_SCIKIT_LEARN else set())
    }
    assert {file for file, name in wrong if name == "uvicorn"} == {  # the extra `serve`
        "commands/prediction/serve.py",
        "serve/process/connections.py",
        "serve/process/server.py",
    }
    assert {file.partition("/")[0] for file, name in wrong if name == "pyarrow"} == {"batch"}  # the extra `batch`
    assert {file for file, name in wrong if name == "ray"} == {"batch/engines/ray_tasks.py"}  # the extra `ray`
    assert {file for file, name in wrong if name == "orjson"} == {"serve/http/messages.py"}  # the extra `serve-fast`
    assert {name for _, name in wrong} == {"uvicorn", "pyarrow", "ray", "orjson"}


def test_no_import_is_hidden_in_a_string_but_those_of_extras() -> None:
    hidden: dict[str, set[str]] = {}
    for file in sources():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
                hidden.setdefault(str(file.relative_to(ROOT)), set()).add(ast.unparse(node.args[0]))
    hidden.pop("__init__.py")  # its own names, loaded on first use
    assert hidden == {
        "runtime/data/formats/columnar.py": {"'pyarrow.parquet'", "'pyarrow.ipc'"},
        "runtime/data/formats/decoding/compression.py": {
            "'gzip'",
            "'bz2'",
            "'lzma'",
            "'compression.zstd'",
            "'pyarrow'",
        },
        "runtime/data/formats/excel.py": {"'openpyxl'"},
        "runtime/hub/client.py": {f"'huggingface_hub{name}'" for name in ("", ".constants", ".errors")},
        "kb/storage/ed25519.py": {"f'cryptography.hazmat.primitives.{name}'", "'cryptography.exceptions'"},
    }


def test_every_folder_of_code_is_a_package() -> None:
    folders = {file.parent for file in sources()}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_the_edge_depends_on_five_libraries_and_the_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {entry.partition(">")[0] for entry in project["dependencies"]} == EDGE
    assert project["version"] == reaugkd.__version__
    assert project["scripts"] == {"reaugkd": "reaugkd.cli:main"}


def test_the_minimal_requirements_are_the_edge_without_usearch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements-edge-minimal.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert listed == [entry for entry in project["dependencies"] if not entry.startswith("usearch")]


def test_no_file_is_too_long() -> None:
    """Neither of the package, nor of the tests, benchmarks and examples."""
    others = [file for folder in ("tests", "benchmarks", "examples") for file in (ROOT / folder).rglob("*.py")]
    texts = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in [*sources(), *others]}
    lines = {file: len(text.splitlines()) for file, text in texts.items()}
    assert {file: count for file, count in lines.items() if count > LONGEST} == {}
