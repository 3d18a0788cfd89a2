from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts

from reaugkd import BundleError, Runtime
from reaugkd.export.onnx.probabilities_output import add_probabilities
from reaugkd.runtime.bundle.bundle import MODEL_FILE
from reaugkd.runtime.inference.session.model_session import OUTPUTS, PROBABILITIES
from reaugkd.runtime.inference.session.student import StudentSession

TEXTS = tiny_texts(30, seed=4)
TEMPERATURE = 1.3  # the tiny bundle's


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("plain") / "tiny", labels=[f"l{n}" for n in range(9)])


@pytest.fixture(scope="module")
def calibrated(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibrated") / "tiny"
    shutil.copytree(plain, path)
    add_probabilities(path / MODEL_FILE, TEMPERATURE)
    reseal(path)
    return path


@pytest.mark.parametrize("temperature", [0.05, 1.0, 1.3, 40.0])
def test_the_model_computes_them_itself(plain: Path, tmp_path: Path, temperature: float) -> None:
    model = tmp_path / "model.onnx"
    shutil.copyfile(plain / MODEL_FILE, model)
    add_probabilities(model, temperature)
    onnx.checker.check_model(str(model), full_check=True)
    before, after = StudentSession(plain / MODEL_FILE), StudentSession(model)
    with Runtime.open(plain) as runtime:
        for text in TEXTS:
            encoding = runtime.tokenizer.encode(text)
            old = before.run(encoding)
            logits, embedding, found = after.session.run([*OUTPUTS, PROBABILITIES], after.feeds(encoding))
            assert logits[0].tobytes() == old[0].tobytes() and embedding[0].tobytes() == old[1].tobytes()
            exponents = np.exp((old[0].astype(np.float64) - old[0].max()) / temperature)
            np.testing.assert_allclose(found[0], exponents / exponents.sum(), atol=1e-5)


def test_a_bundle_answers_as_before(plain: Path, calibrated: Path) -> None:
    with Runtime.open(plain) as before, Runtime.open(calibrated) as after:
        for text in TEXTS:
            old, new = before.predict(text), after.predict(text)
            assert new.label == old.label and [n.row for n in new.neighbours] == [n.row for n in old.neighbours]
            np.testing.assert_allclose(new.probabilities, old.probabilities, atol=1e-6)
            np.testing.assert_allclose(new.student_probabilities, old.student_probabilities, atol=1e-6)


def test_one_run_equals_two(plain: Path, calibrated: Path) -> None:
    for path in (plain, calibrated):
        with Runtime.open(path) as runtime:
            for text in TEXTS[:5]:
                encoding = runtime.tokenizer.encode(text)
                logits, embedding, probabilities = runtime.student.everything(encoding)
                for found, wanted in zip((logits, embedding), runtime.student.run(encoding), strict=True):
                    assert found.tobytes() == wanted.tobytes()
                assert probabilities.tobytes() == runtime.student.answer(encoding).probabilities.tobytes()


def test_the_same_bytes_every_time(plain: Path, calibrated: Path, tmp_path: Path) -> None:
    again = tmp_path / "model.onnx"
    shutil.copyfile(plain / MODEL_FILE, again)
    add_probabilities(again, TEMPERATURE)
    assert again.read_bytes() == (calibrated / MODEL_FILE).read_bytes()


def test_another_temperature_than_the_manifests_is_refused(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny"
    shutil.copytree(plain, path)
    add_probabilities(path / MODEL_FILE, 2 * TEMPERATURE)
    reseal(path)
    with pytest.raises(BundleError, match="do not fit the manifest's student_temperature"):
        Runtime.open(path)
