from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.tiny_bundle import build_tiny_bundle, reseal

from reaugkd import BundleError, BundleIntegrityError, BundleVersionError, Runtime
from reaugkd.runtime.bundle.bundle import Bundle

FILES = (
    "manifest.json",
    "student/model.onnx",
    "student/tokenizer.json",
    "student/config.json",
    "kb/index.usearch",
    "kb/soft_labels.npy",
    "kb/rows.npy",
    "kb/texts.jsonl",
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def test_the_parts_are_where_they_should_be(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle.parent)
    opened = Bundle.open("copy")
    assert opened.path == bundle and opened.path.is_absolute()
    assert set(opened.manifest.files) == set(FILES) - {"manifest.json"}
    for part in (opened.model_path, opened.tokenizer_path, opened.kb_folder / "rows.npy"):
        assert part.is_file()


def harmed(content: bytes, harm: str) -> bytes | None:
    middle = len(content) // 2
    return {
        "deleted": None,
        "emptied": b"",
        "truncated": content[:middle],
        "a byte short": content[:-1],
        "extended": content + b"\n",
        "a bit flipped": content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
    }[harm]


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("manifest.json", "truncated"),
        ("student/model.onnx", "deleted"),
        ("student/tokenizer.json", "emptied"),
        ("kb/rows.npy", "a byte short"),
        ("kb/texts.jsonl", "extended"),
        ("kb/index.usearch", "a bit flipped"),
    ],
)
def test_a_damaged_file_is_found_and_named(bundle: Path, name: str, harm: str) -> None:
    """``trust/test_damage.py`` damages every file in every way."""
    file = bundle / name
    content = harmed(file.read_bytes(), harm)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    for entry in (Bundle.open, Runtime.open):
        with pytest.raises(BundleError) as caught:
            entry(bundle)
        assert caught.value.path == str(file)
        assert caught.value.found is not None or "missing" in caught.value.message
        if name != "manifest.json":
            assert isinstance(caught.value, BundleIntegrityError)
            assert caught.value.expected is not None and caught.value.remedy is not None


@pytest.mark.parametrize(
    ("name", "harm"),
    [("student/model.onnx", "deleted"), ("kb/rows.npy", "a byte short"), ("kb/texts.jsonl", "extended")],
)
def test_without_verification_sizes_are_still_checked(bundle: Path, name: str, harm: str) -> None:
    file = bundle / name
    content = harmed(file.read_bytes(), harm)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BundleIntegrityError) as caught:
        Bundle.open(bundle, verify=False)
    assert caught.value.path == str(file)


def test_without_verification_contents_are_not_hashed(bundle: Path) -> None:
    file = bundle / "student/config.json"
    file.write_bytes(file.read_bytes().replace(b"tiny", b"TINY"))
    manifest = bundle / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"pooling": "mean"', b'"pooling": "MEAN"'))
    assert Bundle.open(bundle, verify=False).manifest.pooling == "MEAN"
    with pytest.raises(BundleIntegrityError, match="altered"):
        Bundle.open(bundle)


def test_a_newer_bundle_is_not_reported_as_damaged(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"format_version": 1', b'"format_version": 4'))
    for verify in (True, False):
        with pytest.raises(BundleVersionError, match="format version 4"):
            Runtime.open(bundle, verify=verify)


def test_extra_files_are_ignored(bundle: Path) -> None:
    (bundle / "README.md").write_text("mine")
    (bundle / "kb" / "notes").write_text("mine")
    assert Runtime.open(bundle).predict("call").label


@pytest.mark.parametrize("name", ["student/model.onnx", "kb/index.usearch", "kb/rows.npy"])
def test_a_manifest_must_list_the_required_files(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    reseal(bundle)
    with pytest.raises(BundleError, match=name):
        Bundle.open(bundle)


def test_a_folder_in_a_files_place_is_no_file(bundle: Path) -> None:
    (bundle / "student/config.json").unlink()
    (bundle / "student/config.json").mkdir()
    with pytest.raises(BundleIntegrityError, match=r"config\.json"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_a_missing_file(bundle: Path, name: str) -> None:
    manifest = bundle / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"][name] = {"bytes": 1, "sha256": "0"}
    manifest.write_text(json.dumps(content))
    with pytest.raises(BundleIntegrityError, match="missing"):
        Bundle.open(bundle, verify=False)


@pytest.mark.parametrize("place", ["nothing", "file", "folder"])
def test_other_folders_are_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BundleError) as caught:
        Runtime.open(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b"\xff\xfe", b"[" * 2000])
def test_another_file_as_manifest_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle, verify=False)
    assert caught.value.path == str(bundle / "manifest.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["a", "b"]}, "labels"),
        ({"kb_rows": 63}, "rows"),
        ({"max_length": 3}, "tokens"),
        ({"text_pair": True}, "pairs"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(bundle: Path, changes: dict[str, object], message: str) -> None:
    reseal(bundle, **changes)
    with pytest.raises(BundleError, match=message):
        Runtime.open(bundle)


def test_an_index_of_other_parameters_is_refused(bundle: Path) -> None:
    kb = json.loads((bundle / "manifest.json").read_text())["kb"]
    reseal(bundle, kb={**kb, "ndim": kb["ndim"] + 1})
    with pytest.raises(BundleError, match="dimensions"):
        Runtime.open(bundle)


def test_other_answers_than_the_exporting_machine_gave_are_refused(bundle: Path) -> None:
    golden = json.loads((bundle / "manifest.json").read_text())["golden"]
    golden[1]["logits"][0] += 0.01
    reseal(bundle, golden=golden)
    with pytest.raises(BundleError, match=r"this CPU computes other outputs.*test.*--target"):
        Runtime.open(bundle)
    golden[1]["tolerance"] = 0.02
    reseal(bundle, golden=golden)
    Runtime.open(bundle)
    golden[1]["logits"] = golden[1]["logits"][:-1]
    reseal(bundle, golden=golden)
    with pytest.raises(BundleError, match="golden"):
        Runtime.open(bundle)


def test_other_tokens_than_at_export_are_refused(bundle: Path) -> None:
    file = bundle / "student/tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["vocab"] = {word: number ^ 1 for word, number in tokenizer["model"]["vocab"].items()}
    file.write_text(json.dumps(tokenizer))
    reseal(bundle)
    with pytest.raises(BundleError, match="other tokens") as caught:
        Runtime.open(bundle)
    assert caught.value.path == str(file)
