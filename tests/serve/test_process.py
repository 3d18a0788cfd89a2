"""The command as a process: signals, bundles that are replaced, workers, slow clients, overload."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.command_line import refused
from support.server_process import LIMIT, Load, Server, replace_folder, server
from support.tiny_bundle import build_tiny_bundle, tiny_texts

from reaugkd import Runtime

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the server needs a system with fork")
WORKERS = ["1", pytest.param("2", marks=pytest.mark.slow)]
TEXTS = [str(text) for text in tiny_texts(12, seed=31)]


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with other weights and other answers; read-only."""
    return build_tiny_bundle(tmp_path_factory.mktemp("served") / "other", seed=9)


def answers(bundle: Path) -> dict[str, dict[str, float]]:
    """The probabilities that the bundle gives to the texts."""
    with Runtime.open(bundle) as runtime:
        found = [runtime.predict(text) for text in TEXTS]
        return {
            text: dict(zip(one.labels, one.probabilities.tolist(), strict=True))
            for text, one in zip(TEXTS, found, strict=True)
        }


def ask(one: Server, number: int, connection: Any = None) -> tuple[int, str, Any]:
    """The code, the text and the probabilities of an answer."""
    text = TEXTS[number % len(TEXTS)]
    status, value = one.post("/predict", {"inputs": text}, connection)
    return status, text, {each["label"]: each["score"] for each in value} if status == 200 else value


class TestSignals:
    def test_sigterm_drains_and_loses_no_request(self, edge_bundle: Path) -> None:
        """Clients that go away when they see code 503, as a load balancer does, get an answer to every request."""
        expected = answers(edge_bundle)
        with server(edge_bundle, "--drain-seconds", "1000") as one:
            with Load(3, lambda _, number: ask(one, number)) as load:
                load.wait_for_more(20)
                one.signal(signal.SIGTERM)
                one.wait_for("draining")
                assert [one.get(path)[0] for path in ("/health", "/livez")] == [503, 200]
                load.wait_for_more(20)
            one.signal(signal.SIGTERM)
            assert one.end() == 0
            assert load.faults == []
            assert all(status == 200 and got == expected[text] for status, text, got in load.results)

    @pytest.mark.parametrize("workers", WORKERS)
    def test_who_has_connected_is_answered_before_the_end(self, edge_bundle: Path, workers: str) -> None:
        with server(edge_bundle, "--drain-seconds", "0", "--workers", workers) as one:
            waiting = [socket.create_connection(("127.0.0.1", one.port), LIMIT) for _ in range(8)]
            one.signal(signal.SIGTERM)
            for channel in waiting:
                channel.sendall(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n")
                assert channel.recv(1000).startswith(b"HTTP/1.1 200 ")
                channel.close()
            assert one.end() == 0

    @pytest.mark.parametrize("workers", WORKERS)
    def test_sigint_does_not_wait(self, edge_bundle: Path, workers: str) -> None:
        with server(edge_bundle, "--drain-seconds", "1000", "--workers", workers) as one:
            one.signal(signal.SIGINT)
            assert one.end() == 0

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_a_signal_before_anything_is_open(self, edge_bundle: Path, workers: str) -> None:
        """It is not lost between the start of a worker and its own handlers."""
        with server(edge_bundle, "--workers", workers, "--drain-seconds", "1000", ready=False) as one:
            one.wait_for("listening on")
            one.signal(signal.SIGTERM)
            assert one.end() in (0, 143)  # 143 before the server has handlers of its own

    @pytest.mark.slow
    def test_a_second_sigterm_does_not_wait(self, edge_bundle: Path) -> None:
        with server(edge_bundle, "--drain-seconds", "1000", "--workers", "2") as one:
            one.signal(signal.SIGTERM)
            one.wait_for("draining", 2)
            assert ask(one, 0)[0] == 200
            one.signal(signal.SIGTERM)
            assert one.end() == 0


class TestSwap:
    @pytest.mark.parametrize("workers", WORKERS)
    def test_a_new_bundle_is_taken_in_without_a_lost_or_wrong_answer(
        self, edge_bundle: Path, other_bundle: Path, tmp_path: Path, workers: str
    ) -> None:
        old, new = answers(edge_bundle), answers(other_bundle)
        place = Path(shutil.copytree(edge_bundle, tmp_path / "bundle"))
        shutil.copytree(other_bundle, tmp_path / "new")
        with server(place, "--workers", workers) as one, Load(3, lambda _, number: ask(one, number)) as load:
            load.wait_for_more(10)
            replace_folder(tmp_path / "new", place)
            one.signal(signal.SIGHUP)
            one.wait_for("in place of", int(workers))
            load.wait_for_more(10)
            shutil.copytree(edge_bundle, tmp_path / "newer")
            replace_folder(tmp_path / "newer", place)
            one.wait_for("in place of", 2 * int(workers))  # without a signal
            load.wait_for_more(10)
            assert old[TEXTS[0]] != new[TEXTS[0]] == ask(one, 0)[2] or ask(one, 0)[2] == old[TEXTS[0]]
        assert load.faults == []
        assert all(status == 200 and got in (old[text], new[text]) for status, text, got in load.results)

    def test_a_broken_bundle_is_refused_and_a_repaired_one_taken(
        self, edge_bundle: Path, other_bundle: Path, tmp_path: Path
    ) -> None:
        old, new = answers(edge_bundle), answers(other_bundle)
        link = tmp_path / "current"
        shutil.copytree(other_bundle, tmp_path / "new")
        (tmp_path / "new" / "student" / "model.onnx").write_bytes(b"broken")
        link.symlink_to(edge_bundle)
        with server(link) as one:
            (tmp_path / "link").symlink_to(tmp_path / "new")
            (tmp_path / "link").replace(link)
            assert "model.onnx" in one.wait_for("the new bundle is refused, .* stays")
            assert ask(one, 0)[2] == old[TEXTS[0]] and one.get("/health")[0] == 200
            shutil.copy(other_bundle / "student" / "model.onnx", tmp_path / "new" / "student" / "model.onnx")
            one.signal(signal.SIGHUP)
            one.wait_for("in place of")
            assert ask(one, 0)[2] == new[TEXTS[0]]
            assert b'reaugkd_bundle_swaps_total{model="current",result="refused"} 1' in one.get("/metrics")[1]


@pytest.mark.slow
class TestWorkers:
    def pids(self, one: Server) -> set[int]:
        children = Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children")
        if not children.exists():
            pytest.skip("this system does not list the children of a process")
        return set(map(int, children.read_text().split()))

    def test_a_dead_worker_is_replaced_and_the_counts_go_on(self, edge_bundle: Path) -> None:
        def counted() -> float:
            found = re.search(rb'http_requests_total\{route="/predict",code="200"\} (\d+)', one.get("/metrics")[1])
            return int(found[1]) if found else 0

        with server(edge_bundle, "--workers", "2") as one:
            for number in range(20):
                assert ask(one, number)[0] == 200
            wait_until(lambda: counted() >= 20)  # the other worker's counts come once a second
            before = self.pids(one)
            os.kill(min(before), signal.SIGKILL)
            one.wait_for("worker . ended with code -9")
            one.wait_for("ready: ", 3)
            assert len(self.pids(one) - before) == 1
            assert ask(one, 0)[0] == 200
            wait_until(lambda: counted() >= 21)

    def test_a_replacement_takes_no_request_before_it_can_answer(self, edge_bundle: Path) -> None:
        with server(edge_bundle, "--workers", "2") as one:
            with Load(2, lambda _, number: ask(one, number)[0]) as load:
                os.kill(min(self.pids(one)), signal.SIGKILL)
                one.wait_for("ready: ", 3)
                load.wait_for_more(20)
            assert 503 not in load.results

    def test_a_worker_ends_after_its_fit_of_new_labels(self, edge_bundle: Path, tmp_path: Path) -> None:
        bundle = Path(shutil.copytree(edge_bundle, tmp_path / "bundle"))
        with server(bundle, "--workers", "2", "--allow-edits") as one:
            rows = {"texts": ["noon late", "late jazz"], "label": "new", "new_labels": True}
            assert one.post("/kb/add", rows)[0] == 200
            one.signal(signal.SIGINT)
            assert one.end() == 0
        with Runtime.open(bundle) as runtime:
            assert [entry.op for entry in runtime.kb.log()] == ["add", "fit"]

    def test_they_end_with_their_parent(self, edge_bundle: Path) -> None:
        with server(edge_bundle, "--workers", "2") as one:
            workers = self.pids(one)
            one.process.kill()
            wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").is_file() and running(pid) for pid in workers))

    def test_a_bundle_that_cannot_be_opened_ends_them_with_code_2(self, edge_bundle: Path, tmp_path: Path) -> None:
        with server(tmp_path / "nothing", "--workers", "2", ready=False) as one:
            assert one.end() == 2
            assert any("nothing" in line for line in one.lines) and not any("Traceback" in line for line in one.lines)


def running(pid: int) -> bool:
    """Whether a process has not ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Any) -> None:
    """Wait for a condition, with short pauses."""
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


class TestLoad:
    def test_overload_gets_only_200_and_429(self, edge_bundle: Path) -> None:
        """Many more texts than the queue has places: each request is answered in whole, or refused with Retry-After."""
        expected = answers(edge_bundle)
        batch = [[text] for text in TEXTS[:8]]

        def request(_thread: int, _number: int) -> Any:
            connection = one.connect()
            body = json.dumps({"inputs": batch})
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            value = json.loads(response.read())
            connection.close()
            if response.status == 429:
                assert response.headers["Retry-After"] == "1" and value["error_type"] == "Overloaded"
            else:
                got = [{each["label"]: each["score"] for each in answer} for answer in value]
                assert got == [expected[text] for text in TEXTS[:8]]
            return response.status

        options = ("--queue", "16", "--max-batch", "8", "--threads", "1")
        with server(edge_bundle, *options) as one, Load(24, request) as load:
            load.wait_for_more(300)
            wait_until(lambda: {200, 429} <= set(load.results))
        assert load.faults == [] and set(Counter(load.results)) == {200, 429}

    @pytest.mark.slow
    def test_edits_under_load_reach_every_worker(self, edge_bundle: Path, tmp_path: Path) -> None:
        bundle = Path(shutil.copytree(edge_bundle, tmp_path / "bundle"))
        with Runtime.open(bundle) as runtime:
            before = runtime.predict("jazz oven noon").label
        label = next(one for one in "abc" if one != before)
        with server(bundle, "--workers", "2", "--allow-edits") as one:
            with Load(3, lambda _, number: ask(one, number)) as load:
                for number, text in enumerate(tiny_texts(20, seed=32)):
                    status, done = one.post("/kb/add", {"texts": f"{text} late", "label": "a"})
                    assert status == 200 and done["seq"] == number + 1
                status, done = one.post("/kb/add", {"texts": "jazz oven noon", "label": label, "why": "a test"})
                assert (status, done["seq"], done["added"]) == (200, 21, 1)

                def reached() -> bool:
                    found = [one.post("/v1/predict", {"inputs": "jazz oven noon"})[1] for _ in range(20)]
                    return {each["predictions"][0]["label"] for each in found} == {label}

                wait_until(reached)  # a worker that takes an edit in answers other threads with the state before
            assert load.faults == [] and {result[0] for result in load.results} == {200}
            log = json.loads(one.get("/kb/log")[1])["edits"]
            assert [entry["seq"] for entry in log] == list(range(1, 22)) and log[-1]["why"] == "a test"
        with Runtime.open(bundle) as runtime:
            assert len(runtime.kb.log()) == 21

    def slow(self, one: Server) -> list[socket.socket]:
        """Hundreds of connections that have sent a part of a head, or of a body, and send no more."""
        head = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 20\r\n"
        found = []
        for number in range(200):
            channel = socket.create_connection(("127.0.0.1", one.port), LIMIT)
            channel.sendall((b"", head[: number % len(head)], head + b"\r\n", head + b"\r\n{")[number % 4])
            found.append(channel)
        return found

    def test_slow_clients_hold_nobody_up(self, edge_bundle: Path) -> None:
        with server(edge_bundle) as one:
            slow = self.slow(one)
            for number in range(40):
                assert ask(one, number)[0] == 200
            channel = slow[3]  # it wakes up: its request is as good as any
            channel.sendall(b'"inputs": "noon"  }')
            assert channel.recv(100).startswith(b"HTTP/1.1 200 ")
            for channel in slow:
                channel.close()

    def test_slow_clients_do_not_hold_up_the_end(self, edge_bundle: Path) -> None:
        with server(edge_bundle, "--drain-seconds", "0", "--deadline", "1") as one:
            slow = self.slow(one)
            one.signal(signal.SIGTERM)
            assert one.end() == 0
            for channel in slow:
                channel.close()

    def test_clients_beyond_the_limit_wait_for_a_place(self, edge_bundle: Path) -> None:
        with server(edge_bundle, "--max-connections", "3") as one:
            channels = [socket.create_connection(("127.0.0.1", one.port), LIMIT) for _ in range(5)]
            for channel in channels:
                channel.sendall(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n")
            for channel in channels[:3]:
                assert channel.recv(1000).startswith(b"HTTP/1.1 200 ")
            one.wait_for("3 connections are open")
            assert not select.select(channels[3:], [], [], 0)[0]
            for channel, waiting in zip(channels[:2], channels[3:], strict=True):
                channel.close()
                assert waiting.recv(1000).startswith(b"HTTP/1.1 200 ")
            for channel in channels[2:]:
                channel.close()

    @pytest.mark.parametrize(
        ("first", "later", "said"),
        [(64, 64, "at most 32 connections, .* only 64 files"), (1000, 40, "cannot be accepted: Too many open files")],
    )
    def test_too_few_files(self, edge_bundle: Path, first: int, later: int, said: str) -> None:
        """On the event loop of the standard library, whose own server fills the log."""
        resource = pytest.importorskip("resource")
        if not hasattr(resource, "prlimit"):
            pytest.skip("this system cannot set the limits of another process")
        code = f"import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({first}, {first})); "
        code += "sys.modules['uvloop'] = None; from reaugkd.cli import main; main()"
        with server(edge_bundle, python=(sys.executable, "-P", "-c", code)) as one:
            resource.prlimit(one.process.pid, resource.RLIMIT_NOFILE, (later, later))
            channels = [socket.create_connection(("127.0.0.1", one.port), LIMIT) for _ in range(100)]
            one.wait_for(said)
            for channel in channels:
                channel.sendall(b"GET /livez HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            for channel in channels:
                assert channel.recv(1000).startswith(b"HTTP/1.1 200 ")
                channel.close()
            assert len(one.lines) < 10

    def test_a_head_without_end_is_cut_off(self, edge_bundle: Path) -> None:
        with server(edge_bundle) as one, socket.create_connection(("127.0.0.1", one.port), LIMIT) as channel:
            channel.sendall(b"GET /health HTTP/1.1\r\n")
            with pytest.raises(OSError):  # a reset, or an end of the file
                while True:
                    channel.sendall(b"X-Header: " + b"x" * 8192 + b"\r\n")
            assert one.get("/health")[0] == 200


class TestCommand:
    def test_wrong_calls(self, edge_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        empty = tmp_path / "keys"
        empty.write_text("\n")
        port = ("--port", "0")
        assert "network need a key" in refused("serve", edge_bundle, "--allow-edits", "--host", "0.0.0.0", *port)
        assert "origins need a key" in refused("serve", edge_bundle, "--allow-edits", "--cors-origin", "*", *port)
        assert "keys is empty" in refused("serve", edge_bundle, "--api-key-file", empty, *port)
        assert "cannot be read" in refused("serve", edge_bundle, "--api-key-file", tmp_path / "none", *port)
        assert "one name" in refused("serve", edge_bundle, edge_bundle, *port)
        assert "shorter than a request" in refused("serve", edge_bundle, "--queue", "8", *port)
        assert "--drain-seconds" in refused("serve", edge_bundle, "--drain-seconds", "nan", *port)
        assert "cannot listen" in refused("serve", edge_bundle, "--host", "192.0.2.1", *port)
        monkeypatch.setenv("REAUGKD_API_KEY", "a b")
        error = refused("serve", edge_bundle, *port)
        assert "key cannot be used" in error and "a b" not in error
        monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
        assert "pip install 'reaugkd[serve]'" in refused("serve", edge_bundle)

    def test_a_bundle_that_cannot_be_opened(self, tmp_path: Path) -> None:
        with server(tmp_path / "nothing", ready=False) as one:
            assert one.end() == 2
            assert sum("error: " in line for line in one.lines) == 1 and not any("Trace" in line for line in one.lines)

    def test_a_key_is_needed_and_never_logged(self, edge_bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "keys").write_text("first-secret\nsecond-secret\n")
        with server(edge_bundle, "--api-key-file", tmp_path / "keys", REAUGKD_API_KEY="third-secret") as one:
            for key, status in (("first-secret", 200), ("second-secret", 200), ("third-secret", 200), ("fourth", 401)):
                connection = one.connect()
                headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
                connection.request("POST", "/predict", '{"inputs": "a private text"}', headers)
                assert connection.getresponse().status == status
                connection.close()
            assert one.get("/health")[0] == 200 and one.get("/info")[0] == 401
            one.signal(signal.SIGINT)
            assert one.end() == 0
            assert not any("secret" in line or "private" in line for line in one.lines)


def test_threads_of_this_test_are_ended() -> None:
    assert threading.active_count() < 20
