"""A bundle as one file: it gives the bundle's answers, names its bundle, and is written atomically."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.command_line import names, ok, refused
from support.paths import ROOT
from support.tiny_bundle import NDIM, build_tiny_bundle, reseal, tiny_texts

from reaugkd import BundleError, ModelError, OutputExistsError, Runtime, UsageError
from reaugkd.export.onnx import fuse as fused_module
from reaugkd.export.onnx.fuse import MAX_ROWS, fuse
from reaugkd.export.onnx.fused_check import CHECKED_ROWS
from reaugkd.export.onnx.fused_graph import fused_model
from reaugkd.export.onnx.probabilities_output import add_probabilities
from reaugkd.kb.index.config import DTYPES, IndexConfig
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.kb.soft_labels import TopLabels
from reaugkd.runtime.bundle.bundle import KB_FOLDER, MODEL_FILE, TOKENIZER_FILE
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.mixture_weight import BucketWeight, LogisticWeight
from reaugkd.runtime.graph.retrieval import Tables

EXAMPLE = ROOT / "examples" / "fused" / "classify.py"
TEXTS = tiny_texts(30, seed=5)
WEIGHTS = {
    "constant": None,
    "buckets": BucketWeight((0.6, 0.8, 0.95), (0.8, 0.5, 0.3, 0.1)),
    "logistic": LogisticWeight(1.5, (-3.0, 1.0, 2.0, -1.5, 0.5)),
}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """examples/fused/classify.py, which does not import reaugkd."""
    spec = importlib.util.spec_from_file_location("classify", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "reaugkd" not in {name.partition(".")[0] for name in vars(module)}
    return module


@pytest.fixture
def copied(edge_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that tests may change."""
    path = tmp_path / "copied"
    shutil.copytree(edge_bundle, path)
    return path


def with_blend(path: Path, config: BlendConfig) -> None:
    """Another blend for a bundle."""
    reseal(path, blend=json.loads(json.dumps(dataclasses.asdict(config))))


def with_knowledge(path: Path, rows: int, labels: int, config: IndexConfig) -> None:
    """Other rows for a bundle, without texts."""
    rng = np.random.default_rng(rows)
    keys = rng.standard_normal((rows, NDIM)).astype(np.float32)
    kb = KnowledgeBase.build(keys, rng.dirichlet(np.ones(labels), size=rows), config=config)
    shutil.rmtree(path / KB_FOLDER)
    kb.save(path / KB_FOLDER)
    reseal(path, kb=dataclasses.asdict(config), kb_rows=rows)


def require_same_answers(example: ModuleType, bundle: Path, model: Path, texts: list[Any] = TEXTS) -> None:
    classify = example.Classifier(str(model), str(bundle / TOKENIZER_FILE))
    with Runtime.open(bundle) as runtime:
        assert classify.labels == list(runtime.labels)
        for text in texts:
            expected = runtime.predict(text)
            found = classify(text) if isinstance(text, str) else classify(*text)
            assert found["label"] == expected.label
            assert set(found["neighbour_rows"].tolist()) == {near.row for near in expected.neighbours}
            for name, value in {
                "probabilities": expected.probabilities,
                "student_probabilities": expected.student_probabilities,
                "retrieval_probabilities": expected.retrieval_probabilities,
                "student_weight": expected.student_weight,
                "neighbour_similarities": [near.similarity for near in expected.neighbours],
                "neighbour_weights": [near.weight for near in expected.neighbours],
            }.items():
                np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


class TestAnswers:
    @pytest.mark.parametrize("kind", WEIGHTS)
    @pytest.mark.parametrize("pairs", [False, True])
    def test_they_are_the_bundles(
        self, example: ModuleType, edge_bundle: Path, pair_bundle: Path, tmp_path: Path, kind: str, pairs: bool
    ) -> None:
        bundle = tmp_path / "bundle"
        shutil.copytree(pair_bundle if pairs else edge_bundle, bundle)
        with_blend(bundle, BlendConfig(6, 0.1, 0.3, 1.3, weight=WEIGHTS[kind]))
        done = fuse(bundle, tmp_path / "model.onnx")
        compared = done.comparison
        assert (done.rows, compared.texts) == (64, 2 + CHECKED_ROWS)
        assert compared.difference < 1e-5
        require_same_answers(example, bundle, done.path, tiny_texts(30, seed=6, pairs=pairs))

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(("rows", "k"), [(1, 8), (5, 5), (150, 1), (150, 9)])
    def test_whatever_the_keys_are_stored_as(
        self, example: ModuleType, copied: Path, tmp_path: Path, dtype: str, rows: int, k: int
    ) -> None:
        with_knowledge(copied, rows, 3, IndexConfig(NDIM, dtype=dtype, expansion_search=200))
        with_blend(copied, BlendConfig(k, 0.2, 0.5))
        done = fuse(copied, tmp_path / "model.onnx")
        assert done.comparison.texts == 2  # the golden ones
        require_same_answers(example, copied, done.path)

    def test_neighbours_without_a_weight(self, copied: Path, tmp_path: Path) -> None:
        with_blend(copied, BlendConfig(6, 0.1, student_weight=1.0))
        assert fuse(copied, tmp_path / "model.onnx").comparison.difference < 1e-5

    @pytest.mark.parametrize("labels", [2, 150])
    def test_however_many_labels_and_with_calibrated_students(
        self, example: ModuleType, tmp_path: Path, labels: int
    ) -> None:
        bundle = build_tiny_bundle(tmp_path / "bundle", labels=[f"läbel {number}" for number in range(labels)])
        add_probabilities(bundle / MODEL_FILE, 1.3)
        reseal(bundle)
        require_same_answers(example, bundle, fuse(bundle, tmp_path / "model.onnx").path)

    def test_where_neighbours_have_no_weight(self, copied: Path, tmp_path: Path) -> None:
        with_blend(copied, BlendConfig(6, 0.1, 1.0, 1.3))  # the bundle does not search
        assert fuse(copied, tmp_path / "model.onnx").comparison.difference < 1e-5

    def test_with_the_likeliest_labels_alone(self, example: ModuleType, tmp_path: Path) -> None:
        bundle = build_tiny_bundle(tmp_path / "bundle", labels=[f"l{number}" for number in range(40)])
        with Runtime.open(bundle) as runtime:
            kb = runtime.knowledge_base
            small = kb.with_soft_labels(np.asarray(kb.soft_labels), label_loss=0.2)
        assert isinstance(small.soft_labels, TopLabels)
        small.save(bundle / KB_FOLDER)
        reseal(bundle)
        require_same_answers(example, bundle, fuse(bundle, tmp_path / "model.onnx").path)

    def test_texts_are_cut_as_the_bundle_does(self, example: ModuleType, edge_bundle: Path, tmp_path: Path) -> None:
        long = [" ".join(TEXTS[:5]), " ".join(TEXTS)]
        require_same_answers(example, edge_bundle, fuse(edge_bundle, tmp_path / "model.onnx").path, long)

    def test_the_example_prints_json_lines(self, edge_bundle: Path, tmp_path: Path) -> None:
        model = fuse(edge_bundle, tmp_path / "model.onnx").path
        command = [sys.executable, str(EXAMPLE), str(model), str(edge_bundle / TOKENIZER_FILE)]
        typed = subprocess.run([*command, "noon"], capture_output=True, text=True, check=True, timeout=60)
        piped = subprocess.run(command, input='"noon"\n', capture_output=True, text=True, check=True, timeout=60)
        assert typed.stdout == piped.stdout and typed.stderr == ""
        with Runtime.open(edge_bundle) as runtime:
            answer = runtime.predict("noon")
        found = json.loads(typed.stdout)
        assert found["label"] == answer.label
        np.testing.assert_allclose(found["probabilities"], answer.probabilities, atol=1e-5)


class TestTheFile:
    def test_the_file_is_reproducible_and_names_its_bundle(self, edge_bundle: Path, tmp_path: Path) -> None:
        done = [fuse(edge_bundle, tmp_path / name) for name in ("a.onnx", "deep/b.onnx")]
        assert done[0].path.read_bytes() == done[1].path.read_bytes()
        assert done[0].bytes == done[0].path.stat().st_size
        props = {entry.key: entry.value for entry in onnx.load(str(done[0].path)).metadata_props}
        found = {key: json.loads(value) for key, value in props.items() if key.startswith("reaugkd.")}
        manifest = json.loads((edge_bundle / "manifest.json").read_text())
        assert found == {
            "reaugkd.labels": ["a", "b", "c"],
            "reaugkd.format_version": 1,
            "reaugkd.max_length": 24,
            "reaugkd.text_pair": False,
            "reaugkd.kb_rows": 64,
            "reaugkd.bundle_seal": manifest["seal"],
            "reaugkd.quantization": {"kind": "dynamic", "target": "test"},
        }

    def test_it_holds_no_texts(self, edge_bundle: Path, tmp_path: Path) -> None:
        with Runtime.open(edge_bundle) as runtime:
            text = runtime.knowledge_base.text(0)
        assert isinstance(text, str) and len(text) > 20
        assert text.encode() in (edge_bundle / KB_FOLDER / "texts.jsonl").read_bytes()
        assert text.encode() not in fuse(edge_bundle, tmp_path / "model.onnx").path.read_bytes()


def with_other(**changes: Any) -> Callable[..., onnx.ModelProto]:
    """`fused_model` with a wrong blend."""

    def misled(student: Any, knowledge: Any, config: BlendConfig, *rest: Any) -> onnx.ModelProto:
        return fused_model(student, knowledge, dataclasses.replace(config, **changes), *rest)

    return misled


def with_other_knowledge(change: Callable[[Tables], dict[str, Any]]) -> Callable[..., onnx.ModelProto]:
    """`fused_model` with wrong rows."""

    def misled(student: Any, knowledge: Tables, *rest: Any) -> onnx.ModelProto:
        return fused_model(student, dataclasses.replace(knowledge, **change(knowledge)), *rest)

    return misled


def with_other_labels(student: Any, knowledge: Any, config: Any, labels: Any, *rest: Any) -> onnx.ModelProto:
    return fused_model(student, knowledge, config, labels[::-1], *rest)


WRONG = {
    "tau": (with_other(tau=0.11), "neighbour_weights"),
    "temperature": (with_other(student_temperature=1.4), "student_probabilities"),
    "weight": (with_other(student_weight=0.41), "student_weight"),
    "keys": (with_other_knowledge(lambda tables: {"keys": np.roll(tables.keys, 1, 0)}), "neighbour_rows"),
    "soft labels": (
        with_other_knowledge(lambda tables: {"soft_labels": tables.soft_labels[::-1]}),
        "retrieval_probabilities",
    ),
    "no number": (
        with_other_knowledge(lambda tables: {"soft_labels": tables.soft_labels * np.float16(np.nan)}),
        "retrieval_probabilities",
    ),
    "labels": (with_other_labels, "label"),
}


class TestRefusals:
    @pytest.mark.parametrize("name", WRONG)
    def test_a_file_with_other_answers_is_not_written(
        self, edge_bundle: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong, reported = WRONG[name]
        monkeypatch.setattr(fused_module, "fused_model", wrong)
        with pytest.raises(ModelError, match=reported):
            fuse(edge_bundle, tmp_path / "model.onnx")
        assert names(tmp_path) == []

    def test_a_knowledge_base_that_is_too_large(self, copied: Path, tmp_path: Path) -> None:
        out = tmp_path / "model.onnx"
        with pytest.raises(
            UsageError, match=r"found 64 rows; expected at most 63.*reaugkd condense .* --out NEW --max-rows 63"
        ):
            fuse(copied, out, max_rows=63)
        assert not out.exists()
        assert fuse(copied, out, max_rows=64).rows == 64

    def test_a_student_with_branches(self, copied: Path, tmp_path: Path) -> None:
        """As optimum-onnx exports DeBERTa."""
        model = onnx.load(str(copied / MODEL_FILE))
        (last,) = (node for node in model.graph.node if "logits" in node.output)
        last.output[:] = ["before" if name == "logits" else name for name in last.output]
        output = next(one for one in model.graph.output if one.name == "logits")
        branches = {}
        for branch in ("then_branch", "else_branch"):
            inner = onnx.ValueInfoProto()
            inner.CopyFrom(output)
            inner.name = branch
            same = helper.make_node("Identity", ["before"], [branch])
            branches[branch] = helper.make_graph([same], branch, [], [inner])
        model.graph.initializer.append(helper.make_tensor("condition", TensorProto.BOOL, [], [True]))
        model.graph.node.append(helper.make_node("If", ["condition"], ["logits"], **branches))
        onnx.save(model, str(copied / MODEL_FILE))
        reseal(copied)
        assert fuse(copied, tmp_path / "model.onnx").comparison.texts > 2

    def test_a_file_that_would_be_too_large(
        self, edge_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fused_module, "_LARGEST_FILE", 1000)
        with pytest.raises(UsageError, match="larger than the limit of an ONNX file"):
            fuse(edge_bundle, tmp_path / "model.onnx")

    def test_an_empty_knowledge_base(self, tmp_path: Path) -> None:
        bundle = build_tiny_bundle(tmp_path / "bundle", rows=0)
        with pytest.raises(UsageError, match=r"nothing to fuse.*student/model\.onnx"):
            fuse(bundle, tmp_path / "model.onnx")
        assert names(tmp_path) == ["bundle"]

    def test_a_place_that_is_taken(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_text("mine")
        with pytest.raises(OutputExistsError):
            fuse(edge_bundle, tmp_path / "model.onnx")
        assert (tmp_path / "model.onnx").read_text() == "mine"

    def test_a_bundle_that_was_altered(self, copied: Path, tmp_path: Path) -> None:
        with (copied / MODEL_FILE).open("ab") as file:
            file.write(b"\0")
        with pytest.raises(BundleError):
            fuse(copied, tmp_path / "model.onnx")
        assert not (tmp_path / "model.onnx").exists()


class TestCommand:
    def test_the_command_describes_the_file(self, edge_bundle: Path, tmp_path: Path) -> None:
        done = ok("fuse", edge_bundle, "--out", tmp_path / "model.onnx")
        assert done.out == ""
        assert (
            f"{tmp_path / 'model.onnx'}: " in done.err
            and "64 rows; 34 texts have the bundle's probabilities" in done.err
        )
        assert done.err.count("\n") == 1 and names(tmp_path) == ["model.onnx"]

    def test_its_limit_is_the_functions(self) -> None:
        assert f"[default: {MAX_ROWS}]" in " ".join(ok("fuse", "--help").out.split())

    def test_errors_are_one_line(self, edge_bundle: Path, tmp_path: Path) -> None:
        said = refused("fuse", edge_bundle, "--out", tmp_path / "model.onnx", "--max-rows", 10)
        assert "64 rows" in said and "reaugkd condense" in said and "--max-rows" in said

    def test_without_onnx_the_error_names_the_extra(
        self, edge_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in [name for name in sys.modules if name.startswith("reaugkd.export.onnx.fuse")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, "onnx", None)
        said = refused("fuse", edge_bundle, "--out", tmp_path / "model.onnx")
        assert "fusing needs the train extra" in said and "pip install 'reaugkd[train]'" in said

    def test_it_needs_no_torch(self, edge_bundle: Path, tmp_path: Path) -> None:
        script = """
import sys
from pathlib import Path
from reaugkd.export.onnx.fuse import fuse
fuse(Path(sys.argv[1]), Path(sys.argv[2]))
print(*sys.modules)
"""
        command = [sys.executable, "-c", script, str(edge_bundle), str(tmp_path / "model.onnx")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        loaded = {name.partition(".")[0] for name in done.stdout.split()}
        assert "onnx" in loaded and not loaded & {"torch", "transformers", "optimum", "scipy", "sklearn", "pandas"}
