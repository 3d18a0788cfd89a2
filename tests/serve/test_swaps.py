"""Bundles that are replaced while a server has them open, in this process."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.http_client import HELD, LIMIT, Client, Gate, serving, until_depth
from support.server_process import replace_folder
from support.tiny_bundle import build_tiny_bundle

from reaugkd import Runtime
from reaugkd.kb.edits.journal import Entry
from reaugkd.runtime.editing.writer import KnowledgeWriter
from reaugkd.serve.bundles import served_bundle


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("served") / "other", seed=9)


@pytest.fixture
def place(edge_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a bundle that a test may replace; servers do not look for new bundles by themselves."""
    monkeypatch.setattr("reaugkd.serve.service.POLL_SECONDS", 1000.0)
    return Path(shutil.copytree(edge_bundle, tmp_path / "place"))


def answer(client: Client, text: str = "noon") -> dict[str, float]:
    return {one["label"]: one["score"] for one in client.post("/predict", {"inputs": text}).value}


def expected(bundle: Path, text: str = "noon") -> dict[str, float]:
    with Runtime.open(bundle) as runtime:
        found = runtime.predict(text)
        return dict(zip(found.labels, found.probabilities.tolist(), strict=True))


def test_a_request_ends_with_the_bundle_that_it_began_with(
    place: Path, other_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = expected(place, HELD), expected(other_bundle, HELD)
    shutil.copytree(other_bundle, tmp_path / "new")
    gate = Gate(monkeypatch)
    with serving(place) as client:
        served = client.service.bundles["place"]
        old = served.current

        async def swap() -> bytes:
            body = json.dumps({"inputs": [[HELD]] * 4}).encode()
            headers = {"content-type": "application/json"}
            task = asyncio.create_task(client.send_async("POST", "/predict", body, headers))
            await until_depth(client, 4)
            replace_folder(tmp_path / "new", place)
            await asyncio.to_thread(served.refresh)
            assert served.current is not old and not old.idle
            gate.open.set()
            return (await task).body

        values = json.loads(asyncio.run(swap()))
        assert all({one["label"]: one["score"] for one in value} == before for value in values)
        assert old.idle
        served.refresh()
        assert "closed" in repr(old.main)
        assert answer(client, HELD) == after


def test_what_is_not_complete_is_refused_once_and_taken_when_it_is(
    place: Path, other_bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = expected(place), expected(other_bundle)
    now = [0.0]
    monkeypatch.setattr(served_bundle.time, "monotonic", lambda: now[0])
    with serving(place) as client, caplog.at_level(logging.INFO, "reaugkd.serve"):
        served = client.service.bundles["place"]
        files = sorted(file.relative_to(other_bundle) for file in other_bundle.rglob("*") if file.is_file())
        for file in sorted(files, key=lambda one: one.name != "manifest.json"):  # the manifest first, file by file
            (place / file).with_suffix(".part").write_bytes((other_bundle / file).read_bytes())
            (place / file).with_suffix(".part").replace(place / file)
            served.refresh()
            assert answer(client) == before
            now[0] += 0.1
        assert sum("is refused" in one.message for one in caplog.records) >= 1
        now[0] += 60.0
        served.refresh()
        assert answer(client) == after
        metrics = client.get("/metrics").body.decode()
        assert 'reaugkd_bundle_swaps_total{model="place",result="taken"} 1' in metrics
        assert sum("in place of" in one.message for one in caplog.records) == 1


@pytest.mark.parametrize("edited", ["old", "new", "both", "neither"])
def test_between_the_replacement_and_the_swap_no_answer_is_wrong(
    place: Path, other_bundle: Path, tmp_path: Path, edited: str
) -> None:
    """The old bundle's edits, or the new one's, are at the path where the old runtime looks for edits."""
    new = Path(shutil.copytree(other_bundle, tmp_path / "new"))
    for bundle, which in ((place, "old"), (new, "new")):
        if edited in (which, "both"):
            with Runtime.open(bundle) as runtime:
                runtime.kb.add(f"jazz of the {which} one", "c")
    texts = ["noon", "jazz of the old one", "jazz of the new one"]
    before, after = [expected(place, text) for text in texts], [expected(new, text) for text in texts]
    with serving(place) as client:
        replace_folder(new, place)
        for _ in range(3):
            found = [answer(client, text) for text in texts]
            assert found in (before, after)
        client.service.bundles["place"].refresh()
        assert [answer(client, text) for text in texts] == after


def test_an_edit_waits_for_the_new_bundle(place: Path, other_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(other_bundle, tmp_path / "new")
    with serving(place, key="key", allow_edits=True) as client:
        replace_folder(tmp_path / "new", place)
        assert client.post("/kb/add", {"texts": "noon", "label": "a"}).status == 200
        assert max(answer(client), key=answer(client).__getitem__) == "a"
    with Runtime.open(place) as runtime:
        assert len(runtime.kb.log()) == 1 and runtime.predict("noon").label == "a"


def test_the_folder_is_gone(place: Path, tmp_path: Path) -> None:
    before = expected(place)
    with serving(place) as client:
        place.rename(tmp_path / "gone")
        client.service.bundles["place"].refresh(force=True)
        assert answer(client) == before and client.get("/health").status == 200


def test_the_same_bundle_again_by_force(place: Path) -> None:
    with serving(place) as client:
        served = client.service.bundles["place"]
        old = served.current
        served.refresh()
        assert served.current is old
        served.refresh(force=True)
        assert served.current is not old and "closed" in repr(old.main) and answer(client) == expected(place)


def test_the_metrics_do_not_wait_for_a_bundle_that_is_being_opened(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are answered in the event loop, which must not stop for the seconds of a swap."""
    opening = served_bundle.OpenBundle.open
    with serving(place) as client, ThreadPoolExecutor(1) as threads:

        def opened(*arguments: Any) -> served_bundle.OpenBundle:
            assert threads.submit(client.get, "/metrics").result(LIMIT).status == 200
            return opening(*arguments)

        monkeypatch.setattr(served_bundle.OpenBundle, "open", opened)
        client.service.bundles["place"].refresh(force=True)
        assert client.service.bundles["place"]._swaps["taken"] == 1


def test_an_edit_never_gets_into_another_bundle(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is replaced by a copy in the middle of an edit: after its checks, before it writes."""
    shutil.copytree(place, tmp_path / "new")
    append = KnowledgeWriter._append
    with serving(place, key="key", allow_edits=True) as client:
        assert client.post("/kb/add", {"texts": "late", "label": "a"}).status == 200

        def replaced(writer: KnowledgeWriter, entry: Entry) -> None:
            replace_folder(tmp_path / "new", place)
            append(writer, entry)

        with monkeypatch.context() as patch:
            patch.setattr(KnowledgeWriter, "_append", replaced)
            assert client.post("/kb/add", {"texts": "noon", "label": "a"}).status == 200
        client.service.bundles["place"].refresh()
        assert client.get("/kb/log").value["edits"] == []
        assert client.post("/kb/add", {"texts": "noon", "label": "b"}).value["seq"] == 1
    for folder, edits in ((tmp_path / "place.old-new", 2), (place, 1)):
        with Runtime.open(folder) as runtime:
            assert runtime.kb.verify().edits == edits


def test_closed_bundles_leave_no_open_folder(place: Path) -> None:
    files = Path("/proc/self/fd")
    if not files.is_dir():
        pytest.skip("this system does not list open files")

    def folders() -> int:
        return sum(file.is_dir() for file in files.iterdir())

    before = folders()
    with serving(place) as client:
        for _ in range(3):
            client.service.bundles["place"].refresh(force=True)
            assert answer(client) == expected(place)
        client.service.bundles["place"].refresh()
        gc.collect()
        assert folders() <= before + 2
