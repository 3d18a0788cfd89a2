"""Flipped bytes, truncated, missing and swapped files: a damaged bundle is refused with the file's name, or still
answers.

Each kind of harm is done in one process of its own (`damage.py`), which may not die, hang, or raise anything but the
package's errors.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.heldout_bundle import TEXTS, add_heldout
from support.listed_bundle import add_lists
from support.paths import SUPPORT
from support.tiny_bundle import build_tiny_bundle, reseal

from reaugkd import BundleError, BundleIntegrityError, ModelError, Runtime
from reaugkd.kb.soft_labels import DenseLabels, TopLabels
from reaugkd.runtime.inference.session.student import StudentAnswer, StudentSession
from reaugkd.runtime.inference.text.tokenizer import TextTokenizer

HARMER = SUPPORT / "damage.py"
KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "top": {"labels": [f"label {number}" for number in range(20)], "label_loss": 0.05},
    "lists": {"dtype": "i8"},
}
ROWS = 40
ALL_SECONDS = 200

Work = list[list[object]]


@pytest.fixture(params=KINDS)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = build_tiny_bundle(tmp_path / "bundle", rows=ROWS, **KINDS[request.param])
    if request.param == "lists":
        add_lists(path)
    add_heldout(path, TEXTS[:20], ROWS)
    return path


def files(bundle: Path) -> list[str]:
    return sorted(file.relative_to(bundle).as_posix() for file in bundle.rglob("*") if file.is_file())


def done(bundle: Path, work: Work, how: str) -> dict[str, Any]:
    """The counted outcomes of all damages."""
    todo, log = bundle.parent / "work.json", bundle.parent / "log"
    todo.write_text(json.dumps(work))
    command = [sys.executable, "-P", HARMER, bundle, todo, log, how]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ALL_SECONDS)
    if process.returncode:
        last = int((log.read_text().split() or ["0"])[-1])
        pytest.fail(f"the process ended with {process.returncode} at {work[last]}: {process.stderr[-2000:]}")
    assert process.stdout == "", "a library wrote where answers go"
    counts: dict[str, Any] = json.loads(log.read_text())
    assert counts.pop("wrong") == []
    assert sum(counts.values()) == len(work)
    return counts


def flips(bundle: Path, name: str, count: int) -> Work:
    rng, size = random.Random(name), (bundle / name).stat().st_size
    return [[name, "flip", rng.randrange(size), rng.randrange(1, 256)] for _ in range(count)]


def cuts(bundle: Path, name: str) -> Work:
    size = (bundle / name).stat().st_size
    lengths = {0, 1, 2, 7, 8, 63, 64, 127, 128, size // 3, size // 2, size - 8, size - 2, size - 1}
    return [[name, "cut", length] for length in sorted(lengths) if 0 <= length < size]


def losses_and_swaps(bundle: Path) -> Work:
    names = files(bundle)
    work: Work = [[name, harm] for name in names for harm in ("gone", "folder")]
    return work + [[name, "swap", other] for name in names for other in names if other != name]


def test_the_bundles_are_of_these_kinds(bundle: Path) -> None:
    with Runtime.open(bundle) as runtime:
        kind = TopLabels if len(runtime.labels) > 3 else DenseLabels
        assert isinstance(runtime.knowledge_base.soft_labels, kind)
    assert {"heldout.npz", "kb/texts.jsonl", "manifest.json"} < set(files(bundle))


@pytest.mark.slow
def test_verified_every_harm_is_refused_by_the_files_name(bundle: Path) -> None:
    names = files(bundle)
    work = [entry for name in names for entry in flips(bundle, name, 300) + cuts(bundle, name)]
    assert set(done(bundle, work + losses_and_swaps(bundle), "verify")) == {"refused"}


@pytest.mark.slow
def test_unverified_losses_cuts_and_swaps_are_refused_all_the_same(bundle: Path) -> None:
    sized = [name for name in files(bundle) if name != "manifest.json"]
    work = [entry for name in sized for entry in cuts(bundle, name)]
    work += [entry for entry in losses_and_swaps(bundle) if entry[0] != "manifest.json"]
    assert set(done(bundle, work, "trust")) == {"refused"}


@pytest.mark.slow
def test_unverified_a_flipped_byte_is_refused_or_the_answer_is_a_distribution(bundle: Path) -> None:
    counts = done(bundle, [entry for name in files(bundle) for entry in flips(bundle, name, 40)], "trust")
    assert counts["refused"] > 70 and counts["answered"] > 35


@pytest.mark.parametrize("value", [-0.25, np.nan, np.inf])
def test_soft_labels_that_are_none_are_no_answer(tmp_path: Path, value: float) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle", rows=ROWS)
    name = "kb/soft_labels.npy"
    content = bytearray((bundle / name).read_bytes())
    begin = len(content) - ROWS * 3 * 2
    content[begin:] = np.full(ROWS * 3, value, np.float16).tobytes()
    if value < 0:  # so that their sum is one, and a share is not
        content[begin:] = np.tile(np.array([1, value, -value], np.float16), ROWS).tobytes()
    (bundle / name).write_bytes(content)
    with np.errstate(all="ignore"), pytest.raises(BundleError, match="soft label is not a distribution") as caught:
        Runtime.open(bundle, verify=False)
    assert caught.value.path == "soft_labels.npy"
    with Runtime.open(bundle, verify=False, search="usearch") as runtime, np.errstate(all="ignore"):
        with pytest.raises(BundleError, match="soft label is not a distribution") as caught:
            runtime.predict("call the artist")
        assert caught.value.path == "soft_labels.npy"
        assert runtime.with_retrieval("never").predict("call").reason == "never"


@pytest.mark.parametrize("retrieval", ["never", "always"])
@pytest.mark.parametrize("own", [[9, -4, -4], [5, 5, 5], [0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 0]])
def test_a_student_that_gives_no_distribution_has_no_answer(
    edge_bundle: Path, monkeypatch: pytest.MonkeyPatch, own: list[float], retrieval: Any
) -> None:
    """Golden texts check the model's probabilities for these texts only."""
    with Runtime.open(edge_bundle, retrieval=retrieval, search="usearch") as runtime, np.errstate(all="ignore"):
        answer = runtime.student.answer
        said = np.array(own, np.float32)
        top = float(said.max())
        monkeypatch.setattr(
            StudentSession, "answer", lambda _, given: StudentAnswer(top, 0, said, answer(given).embedding)
        )
        with pytest.raises(ModelError, match="output is not a distribution") as caught:
            runtime.predict("call the artist")
        assert caught.value.path == str(edge_bundle / "student/model.onnx")


def test_keys_that_are_no_numbers_are_no_answer(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle", rows=ROWS)
    file = bundle / "kb/index.usearch"
    content = bytearray(file.read_bytes())
    content[8 : 8 + ROWS * 16 * 2] = np.full(ROWS * 16, np.nan, np.float16).tobytes()
    file.write_bytes(content)
    with pytest.raises(BundleIntegrityError, match="a key that is not a number"):
        Runtime.open(bundle, verify=False)
    with Runtime.open(bundle, verify=False, search="usearch") as runtime, np.errstate(all="ignore"):  # noqa: SIM117
        with pytest.raises(BundleError, match="similarity is not a number"):
            runtime.predict("call the artist")


@pytest.mark.parametrize("line", ["[]", '["a"]', '["a", 1]', "7", "null", "{}", "[" * 3000, '"\xff'])
def test_a_damaged_stored_text_is_an_error_at_access(tmp_path: Path, line: str) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle", rows=1)
    rows = np.load(bundle / "kb/rows.npy")
    rows["text_end"] = len(line.encode("latin-1"))
    np.save(bundle / "kb/rows.npy", rows)
    (bundle / "kb/texts.jsonl").write_bytes(line.encode("latin-1"))
    reseal(bundle)
    with Runtime.open(bundle) as runtime:
        answer = runtime.predict("call")
        with pytest.raises(BundleError, match="text cannot be read") as caught:
            _ = answer.neighbours[0]
        assert (caught.value.path, caught.value.row) == ("texts.jsonl", 1)


def test_a_panic_of_the_tokenizers_library_is_an_error_like_others(tmp_path: Path) -> None:
    bundle = build_tiny_bundle(tmp_path / "bundle", rows=ROWS)
    file = bundle / "student/tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["post_processor"]["special_tokens"] = {}
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(BundleError) as caught:
        TextTokenizer(file, 24).encode("call")
    assert caught.value.path == str(file)
