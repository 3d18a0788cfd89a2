from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from support import tiny_models as tinymodels
from support.tiny_models import LABELS

from reaugkd import Runtime
from reaugkd.errors import DataError, OutputExistsError, QualityError, StorageError
from reaugkd.export.bundle import write as exporting
from reaugkd.export.bundle.write import GOLDEN_TEXTS, Exported, ExportJob, export
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.modeling.projection import LinearLayer
from reaugkd.export.onnx.quality import Floors
from reaugkd.export.recipe import RetrievalRecipe
from reaugkd.export.training.run_folder import RunFolder, read_rows
from reaugkd.export.training.train import TrainJob, train
from reaugkd.export.tuning import build_kb as retrieving
from reaugkd.export.tuning.abstention import abstention_of
from reaugkd.export.tuning.build_kb import KbStorageConfig
from reaugkd.export.tuning.gating import Certificate, certify
from reaugkd.export.tuning.tune import Tuning
from reaugkd.kb.knowledge_base import KnowledgeBase
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows
from reaugkd.runtime.data import Dataset, label_indices
from reaugkd.runtime.decision.blend_config import BlendConfig

JOB = ExportJob("avx2", allow_quality_loss=True)
Finished = tuple[Path, Tuning, TrainJob]
Made = tuple[Path, Exported]


def softmax(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    exponents = np.exp((scores - scores.max(axis=-1, keepdims=True)) / temperature)
    return exponents / exponents.sum(axis=-1, keepdims=True)


def test_the_bundle_opens_and_answers(tiny_bundle: Made, tiny_dataset: Dataset) -> None:
    """Opening runs the golden texts and checks every hash."""
    path, made = tiny_bundle
    test = tiny_dataset.splits["test"]
    with Runtime.open(path) as runtime:
        assert runtime.labels == LABELS
        assert runtime.manifest == made.manifest
        found = [runtime.predict(text) for text in test.inputs()]
    assert np.mean([one.label == label for one, label in zip(found, test.labels or (), strict=True)]) > 0.8


def test_the_runtime_answers_with_the_tuned_blend(tiny_run: Finished, tmp_path: Path) -> None:
    """Except for float16 labels and keys; the knowledge base does not contain the held-out rows."""
    without = replace(tiny_run[2].recipe.retrieval, keep_heldout=False)
    made = export(tiny_run[0], tmp_path / "bundle", replace(JOB, retrieval=without))
    heldout = read_rows(RunFolder(tiny_run[0]).data / "heldout.jsonl")
    gold = label_indices(heldout, LABELS)
    with Runtime.open(tmp_path / "bundle") as runtime:
        found = [runtime.predict(text) for text in heldout.inputs()]
    nll = -np.log([max(float(one.probabilities[label]), 1e-12) for one, label in zip(found, gold, strict=True)]).mean()
    assert nll == pytest.approx(made.tuning.nll["blend"], rel=0.01)


def test_the_gate_is_certified_on_the_runtimes_answers(tiny_run: Finished, tmp_path: Path) -> None:
    without = replace(tiny_run[2].recipe.retrieval, keep_heldout=False)
    job = replace(JOB, retrieval=without, certificate=Certificate(0.2, 0.2))
    made = export(tiny_run[0], tmp_path / "bundle", job)
    heldout = read_rows(RunFolder(tiny_run[0]).data / "heldout.jsonl")
    gold = label_indices(heldout, LABELS)
    with Runtime.open(tmp_path / "bundle") as runtime:
        always = [runtime.predict(text) for text in heldout.inputs()]
        gated = [runtime.with_retrieval("gated").predict(text) for text in heldout.inputs()]
    student = np.array([one.student_probabilities for one in always])
    blend = np.array([one.probabilities for one in always])
    found, gate = certify(student, blend, gold, None, job.certificate), made.manifest.gate
    assert found is not None and gate is not None
    assert (gate.epsilon, gate.delta) == (0.2, 0.2)
    assert gate.threshold == pytest.approx(found.threshold, abs=1e-3)
    assert np.mean([one.retrieved for one in gated]) == pytest.approx(gate.retrieved, abs=0.05)


def rows_of(run: RunFolder, *names: str) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Texts, gold labels, teacher logits and teacher keys of the splits, read from the files."""
    splits = [read_rows(run.data / f"{name}.jsonl") for name in names]
    outputs = [load_file(str(run.teacher_outputs / f"{name}.safetensors")) for name in names]
    gold = np.concatenate([label_indices(split, LABELS) for split in splits])
    logits, states = (
        np.concatenate([item[name] for item in outputs]).astype(np.float64) for name in ("logits", "embeddings")
    )
    keys = states @ LinearLayer.load(run.projection).weight.double().numpy().T
    return (
        [text for split in splits for text in split.texts],
        gold,
        logits,
        keys / np.linalg.norm(keys, axis=1, keepdims=True),
    )


def require_found_by(runtime: Runtime, keys: np.ndarray) -> None:
    """Assert that the rows of the knowledge base have these float64 keys, up to i8 rounding."""
    kb = runtime.knowledge_base
    # Each key finds itself (or its equal).
    _, similarities = kb.search_many(keys.astype(np.float32), 1)
    np.testing.assert_allclose(similarities[:, 0], 1.0, atol=5e-3)
    rows, similarities = kb.search_many(keys[:5].astype(np.float32), 4)
    for key, found, of in zip(keys, rows, similarities, strict=False):
        np.testing.assert_allclose(keys[found] @ key, of, atol=1e-2)


def require_soft_labels(runtime: Runtime, gold: np.ndarray, logits: np.ndarray, blend: BlendConfig) -> None:
    """Assert that they are the teacher's labels with the blend's share of gold."""
    expected = (1 - blend.gold_share) * softmax(logits, 1.0) + blend.gold_share * np.eye(3)[gold]
    np.testing.assert_allclose(runtime.knowledge_base.soft_labels, expected, atol=1e-3)


def test_the_knowledge_base_is_the_train_and_then_the_held_out_rows(tiny_bundle: Made, tiny_run: Finished) -> None:
    path, made = tiny_bundle
    texts, gold, logits, _ = rows_of(RunFolder(tiny_run[0]), "train", "heldout")
    with Runtime.open(path) as runtime:
        kb = runtime.knowledge_base
        assert len(kb) == len(texts) == made.manifest.kb_rows
        assert kb.ndim == 16 and kb.num_labels == 3
        assert [kb.text(row) for row in range(len(kb))] == texts
        assert [kb.label(row) for row in range(len(kb))] == gold.tolist()
        require_soft_labels(runtime, gold, logits, made.tuning.blend)
        # The keys come from the bundle's student.
        keys = np.array([runtime.student.run(runtime.tokenizer.encode(text))[1] for text in texts], np.float64)
        require_found_by(runtime, keys / np.linalg.norm(keys, axis=1, keepdims=True))


def test_the_paper_s_knowledge_base_is_the_train_rows_by_the_teachers_keys(tiny_run: Finished, tmp_path: Path) -> None:
    papers = RetrievalRecipe("distilled", "teacher", gold_shares=(0.0,), keep_heldout=False)
    made = export(tiny_run[0], tmp_path / "bundle", replace(JOB, retrieval=papers))
    run = RunFolder(tiny_run[0])
    texts, gold, logits, keys = rows_of(run, "train")
    with Runtime.open(tmp_path / "bundle") as runtime:
        kb = runtime.knowledge_base
        assert [kb.text(row) for row in range(len(kb))] == texts
        assert [kb.label(row) for row in range(len(kb))] == gold.tolist()
        assert made.tuning.blend.gold_share == 0.0 and made.tuning.blend.weight is None
        require_soft_labels(runtime, gold, logits, made.tuning.blend)
        require_found_by(runtime, keys)
    held = set(read_rows(run.data / "heldout.jsonl").texts)
    assert not held & set(texts)
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["created_from"]["recipe"]["retrieval"] == json.loads(json.dumps(asdict(papers)))


@pytest.mark.slow
def test_keeping_held_out_rows_changes_no_choice(tiny_run: Finished, tmp_path: Path) -> None:
    """They are added after the tuning: otherwise each would retrieve itself."""
    left = replace(tiny_run[2].recipe.retrieval, keep_heldout=False)
    kept, without = (
        export(tiny_run[0], tmp_path / str(number), replace(JOB, retrieval=recipe))
        for number, recipe in enumerate((None, left))
    )
    assert without.tuning == kept.tuning and without.quality == kept.quality
    assert kept.manifest.kb_rows - without.manifest.kb_rows == kept.tuning.rows
    assert kept.manifest.abstention == without.manifest.abstention is not None


def test_abstention_can_be_fitted_again_from_the_bundle(tiny_bundle: Made) -> None:
    """Except for the half precision of the stored rows."""
    path, made = tiny_bundle
    written = made.manifest.abstention
    with Runtime.open(path) as runtime:
        kb = runtime.knowledge_base
        heldout = HeldOutRows.open(path, len(LABELS), kb.ndim, len(kb))
        again = abstention_of(kb, heldout, made.manifest.blend, made.manifest.gate)
        assert written is not None and again is not None
        answers = [runtime.predict(text, "coverage=90%") for text in GOLDEN_TEXTS]
    assert (again.rows, again.blend.coverages) == (written.rows, written.blend.coverages)
    assert again.tails.distance.values == pytest.approx(written.tails.distance.values, abs=5e-3)
    assert again.tails.uncertainty.values == pytest.approx(written.tails.uncertainty.values, rel=5e-3)
    assert again.sets.blend.least == pytest.approx(written.sets.blend.least, abs=5e-3)
    assert all(answer.rejection_score is not None for answer in answers)


@pytest.mark.parametrize("keep_heldout", [True, False])
def test_soft_labels_are_as_they_were_tuned(
    tiny_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_heldout: bool
) -> None:
    blend = BlendConfig(k=4, tau=0.2, student_weight=0.5, student_temperature=1.5, gold_share=0.25)
    monkeypatch.setattr(retrieving, "tune_blend", lambda rows, _: Tuning(blend, len(rows.gold), {"blend": 1.0}, {}))
    recipe = replace(tiny_run[2].recipe.retrieval, keep_heldout=keep_heldout)
    made = export(tiny_run[0], tmp_path / "bundle", replace(JOB, retrieval=recipe))
    assert made.manifest.blend == blend and made.quality.k == 4
    _, gold, logits, _ = rows_of(RunFolder(tiny_run[0]), "train", *(["heldout"] if keep_heldout else []))
    with Runtime.open(tmp_path / "bundle") as runtime:
        require_soft_labels(runtime, gold, logits, blend)
        assert np.abs(runtime.knowledge_base.soft_labels - softmax(logits, 1.0)).max() > 0.1


def test_the_manifest_describes_the_export(tiny_bundle: Made, tiny_run: Finished) -> None:
    path, made = tiny_bundle
    manifest = json.loads((path / "manifest.json").read_text())
    description = RunFolder(tiny_run[0]).describe()
    assert manifest["labels"] == list(LABELS)
    assert manifest["max_length"] == tinymodels.MAX_LENGTH and manifest["text_pair"] is False
    assert manifest["pooling"] == "mean"
    assert manifest["quantization"]["kind"] == "dynamic" and manifest["quantization"]["target"] == "avx2"
    # Of each of two layers attention and three products, and the two heads.
    assert manifest["quantization"]["int8"] == 10 and manifest["quantization"]["float32"] == 0
    created = {name: description[name] for name in ("recipe", "data", "versions")}
    assert Path(description["teacher"]).is_absolute()  # no paths of this machine
    assert manifest["created_from"] == {"teacher": Path(description["teacher"]).name, **created, "extra_rows": 0}
    assert manifest["created_from"]["recipe"]["retrieval"]["keys"] == "student"
    assert set(exporting.VERSIONS_OF) <= set(manifest["versions"])
    assert manifest["quality"]["rows"] == description["data"]["rows"]["heldout"]
    assert manifest["quality"]["label_agreement"] == made.quality.label_agreement
    assert manifest["quality"]["tuning"]["blend"] == manifest["blend"]
    assert manifest["quality"]["floors"] == {
        "agreement": 0.95,
        "accuracy_loss": 0.01,
        "accuracy_loss_rows": 3,
        "neighbour_overlap": 0.3,
        "split_otherwise": 0.04,
    }
    assert set(manifest["files"]) == {
        str(item.relative_to(path)) for item in path.rglob("*") if item.is_file() and item.name != "manifest.json"
    } - {"README.md", "config.json"}  # for the Hub: anyone may edit them
    assert "held-out rows" in (path / "README.md").read_text()
    assert list(json.loads((path / "config.json").read_text())["label2id"]) == manifest["labels"]


def test_golden_texts_are_fixed_texts_of_three_lengths(tiny_bundle: Made, tiny_run: Finished) -> None:
    _, made = tiny_bundle
    golden = made.manifest.golden
    assert [one.text for one in golden] == list(GOLDEN_TEXTS)
    rows = {
        text for name in ("train", "heldout") for text in read_rows(RunFolder(tiny_run[0]).data / f"{name}.jsonl").texts
    }
    assert not rows & set(GOLDEN_TEXTS)
    lengths = [len(one.token_ids) for one in golden]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1] <= made.manifest.max_length
    for one in golden:
        assert 0 < one.tolerance < 0.06 * float(np.ptp(one.logits))


def test_the_float32_student_is_torchs(tiny_run: Finished, tmp_path: Path) -> None:
    """Without quantization the bundle's student equals the run's and passes every floor."""
    made = export(tiny_run[0], tmp_path / "bundle", ExportJob("avx2", "none"))
    assert made.quality.label_agreement == made.quality.neighbour_overlap == 1.0
    assert made.quality.accuracy == made.quality.accuracy_float32
    assert made.tuning.nll["student"] == pytest.approx(tiny_run[1].nll["student"], rel=1e-3)
    assert made.manifest.quantization["int8"] == 0
    student = EncoderClassifier.load(RunFolder(tiny_run[0]).student)
    texts = tinymodels.make_split(10, 8).texts
    rows = tinymodels.tokens_of(texts, RunFolder(tiny_run[0]).student)
    with Runtime.open(tmp_path / "bundle", retrieval="never") as runtime:
        for row, text in enumerate(texts):
            logits = student(**rows.batch([row])).logits[0].detach().double().numpy()
            expected = softmax(logits, made.manifest.blend.student_temperature)
            np.testing.assert_allclose(runtime.predict(text).probabilities, expected, atol=1e-3)


@pytest.mark.parametrize("target", ["avx512_vnni", "arm64"])
@pytest.mark.slow
def test_other_targets(tiny_run: Finished, tmp_path: Path, target: Any) -> None:
    made = export(tiny_run[0], tmp_path / "bundle", replace(JOB, target=target))
    assert made.manifest.quantization["target"] == target
    with Runtime.open(tmp_path / "bundle") as runtime:
        assert runtime.predict("please play the song").label in LABELS


def test_other_programs_load_the_student(tiny_bundle: Made) -> None:
    path, _ = tiny_bundle
    optimum = pytest.importorskip("optimum.onnxruntime", reason="needs optimum-onnx: make test-optimum")
    model = optimum.ORTModelForSequenceClassification.from_pretrained(path / "student")
    assert model.config.id2label == dict(enumerate(LABELS))
    with Runtime.open(path) as runtime:
        for text in ("the song", "please tell me the forecast for tomorrow evening"):
            encoding = runtime.tokenizer.encode(text)
            ids, types = torch.tensor([encoding.ids]), torch.tensor([encoding.type_ids])
            theirs = model(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=types).logits
            np.testing.assert_allclose(theirs[0].numpy(), runtime.student.run(encoding)[0], atol=1e-5)


def test_an_existing_output_is_refused(tiny_run: Finished, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("here")
    for name in ("folder", "file"):
        with pytest.raises(OutputExistsError) as caught:
            export(tiny_run[0], tmp_path / name, JOB)
        assert caught.value.path == str(tmp_path / name)
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "here"


@pytest.mark.parametrize("function", ["write_student", "build_tuned_kb", "compare", "_golden", "seal"])
def test_a_failure_on_the_way_leaves_nothing_behind(
    tiny_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def fails(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, function, fails)
    with pytest.raises(KeyboardInterrupt):
        export(tiny_run[0], tmp_path / "bundle", ExportJob("avx2"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(tiny_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(KnowledgeBase, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        export(tiny_run[0], tmp_path / "bundle", JOB)
    assert list(tmp_path.iterdir()) == []


def test_a_student_below_the_floor_is_refused_unless_allowed(tiny_run: Finished, tmp_path: Path) -> None:
    floors = Floors(neighbour_overlap=1.01)
    with pytest.raises(QualityError, match=r"neighbour overlap .* is below 1\.01"):
        export(tiny_run[0], tmp_path / "bundle", ExportJob("avx2", floors=floors))
    assert list(tmp_path.iterdir()) == []
    made = export(tiny_run[0], tmp_path / "bundle", ExportJob("avx2", floors=floors, allow_quality_loss=True))
    assert made.quality.failures(floors)


@pytest.mark.parametrize("damage", ["tuning", "run.json"])
def test_a_run_that_is_not_finished_is_refused(tiny_run: Finished, tmp_path: Path, damage: str) -> None:
    run = Path(shutil.copytree(tiny_run[0], tmp_path / "run"))
    shutil.rmtree(run / damage) if (run / damage).is_dir() else (run / damage).unlink()
    with pytest.raises(DataError, match=r"not finished|is missing"):
        export(run, tmp_path / "bundle", JOB)
    assert not (tmp_path / "bundle").exists()


def test_the_same_run_gives_the_same_bundle(tiny_bundle: Made, tiny_run: Finished, tmp_path: Path) -> None:
    path, made = tiny_bundle
    again = export(tiny_run[0], tmp_path / "bundle", JOB)
    assert again.manifest == made.manifest  # every file's hash among it
    for name in ("index.usearch", "soft_labels.npy", "rows.npy", "texts.jsonl"):
        assert (tmp_path / "bundle" / "kb" / name).read_bytes() == (path / "kb" / name).read_bytes()


def test_texts_can_be_left_out(tiny_run: Finished, tmp_path: Path) -> None:
    export(tiny_run[0], tmp_path / "bundle", replace(JOB, store=KbStorageConfig(texts="none")))
    assert not (tmp_path / "bundle" / "kb" / "texts.jsonl").exists()
    rows = [
        text for name in ("train", "heldout") for text in read_rows(RunFolder(tiny_run[0]).data / f"{name}.jsonl").texts
    ]
    texts = [text for text in rows if len(text.split()) > 3]
    for file in (item for item in (tmp_path / "bundle").rglob("*") if item.is_file()):
        content = file.read_bytes()
        assert not any(text.encode() in content for text in texts), file.name
    with Runtime.open(tmp_path / "bundle") as runtime:
        assert runtime.predict("please play the song").neighbours[0].text is None


@pytest.mark.parametrize("dtype", ["f32", "f16", "i8"])
@pytest.mark.slow
def test_how_keys_are_stored(tiny_run: Finished, tmp_path: Path, dtype: str) -> None:
    made = export(tiny_run[0], tmp_path / "bundle", replace(JOB, store=KbStorageConfig(dtype, 8), quantization="none"))
    assert (made.manifest.kb.dtype, made.manifest.kb.connectivity) == (dtype, 8)
    with Runtime.open(tmp_path / "bundle") as runtime:
        assert runtime.knowledge_base.config == made.manifest.kb


def make_run(tmp_path: Path, write: Callable[[Path], Path], pairs: bool = False) -> Path:
    start = write(tmp_path / "start")
    recipe = tinymodels.tiny_recipe(
        teacher=replace(tinymodels.tiny_recipe().teacher, fit=tinymodels.fast_fit(1)),
        student=replace(tinymodels.tiny_recipe().student, layers=(1,), fit=tinymodels.fast_fit(1)),
    )
    train(tinymodels.make_dataset(84, 9, pairs=pairs), TrainJob(str(start), recipe), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
def test_pairs(tmp_path: Path) -> None:
    run = make_run(tmp_path, tinymodels.write_bert, pairs=True)
    made = export(run, tmp_path / "bundle", JOB)
    assert made.manifest.text_pair is True
    assert all(isinstance(one.text, tuple) for one in made.manifest.golden)
    with Runtime.open(tmp_path / "bundle") as runtime:
        answer = runtime.predict(("the song", "play it again"))
        assert answer.label in LABELS
        assert isinstance(answer.neighbours[0].text, tuple)
