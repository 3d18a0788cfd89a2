"""Threads, forks and worker processes: equal predictions within a time limit."""

from __future__ import annotations

import copy
import json
import os
import pickle
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gunicorn_server import connect, gunicorn
from support.own_process import LIMIT, run_script
from support.tiny_bundle import tiny_texts

from reaugkd import Runtime

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LIMIT)]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

# What every script begins with: a runtime, its answers, and threads that keep it busy until the block ends.
BEGINNING = """
import multiprocessing, os, sys, threading
from contextlib import contextmanager
from reaugkd import Runtime, UsageError

TEXTS = ["noon", "alarm call", "jazz", "cheap green lamp at half five", "meal"] * 2

@contextmanager
def busy(runtime, count=3):
    over = threading.Event()
    def work():
        while not over.is_set():
            runtime.predict("music at night")
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()

def answers(runtime):
    return [*runtime.predict_many(TEXTS), *map(runtime.predict, TEXTS)]

def in_child(work):
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_many_python_threads_share_one_runtime(edge_bundle: Path, tmp_path: Path, threads: int) -> None:
    script = f"""{BEGINNING}
runtime = Runtime.open(sys.argv[1], threads={threads})
expected, wrong = answers(runtime), []
def work(sibling):
    for _ in range(4):
        if answers(sibling) != expected:
            wrong.append(threading.get_ident())
workers = [threading.Thread(target=work, args=(runtime.with_retrieval("always"),)) for _ in range(12)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(wrong)
"""
    assert run_script(script, edge_bundle, tmp_path) == "[]\n"


@forks
@pytest.mark.parametrize("threads", [1, 2])
def test_a_fork_in_the_middle_of_other_threads_predictions(edge_bundle: Path, tmp_path: Path, threads: int) -> None:
    """The parent's locks stay held in the child and its own child: neither may use them."""
    script = f"""{BEGINNING}
runtime = Runtime.open(sys.argv[1], threads={threads})
expected = answers(runtime)
def child():
    if answers(runtime) != expected:
        return 3
    with busy(runtime, 1):
        return in_child(lambda: 0 if answers(runtime) == expected else 4)
with busy(runtime):
    print([in_child(child) for _ in range(8)])
    assert answers(runtime) == expected
with runtime.knowledge_base.index._lock:  # for certain, and not by the draw
    print(in_child(child))
"""
    assert run_script(script, edge_bundle, tmp_path) == f"{[0] * 8}\n0\n"


@forks
@pytest.mark.parametrize("threads", [1, 3])
def test_a_child_that_continues_its_parents_stream_gets_an_error(
    edge_bundle: Path, tmp_path: Path, threads: int
) -> None:
    """No thread works on the stream in the child, which would wait forever."""
    script = f"""{BEGINNING}
import gc, itertools
runtime = Runtime.open(sys.argv[1], threads={threads})
expected = runtime.predict("noon")
stream = runtime.predict_many(itertools.repeat("noon"))
begun = next(stream), next(stream)
unbegun = runtime.predict_many(["noon"])
def child():
    said = []
    for taken in (stream, unbegun):
        try:
            next(taken)
        except UsageError as error:
            said.append(str(error))
    print(*said, sep="\\n", flush=True)
    globals().pop("stream")
    gc.collect()
    return 0 if list(runtime.predict_many(["noon"] * 9)) == [expected] * 9 else 3
print(in_child(child), in_child(lambda: 0))
print({{*begun, *itertools.islice(stream, 20), *unbegun}} == {{expected}})
"""
    *said, codes, same = run_script(script, edge_bundle, tmp_path).splitlines()
    assert len(said) == 2 and all("forked process" in line and "Call predict_many again" in line for line in said)
    assert (codes, same) == ("0 0", "True")


@forks
def test_a_closed_runtime_is_closed_in_the_child_too(edge_bundle: Path, tmp_path: Path) -> None:
    script = f"""{BEGINNING}
runtime = Runtime.open(sys.argv[1], threads=2)
sibling = runtime.with_retrieval("never")
expected = answers(sibling)
runtime.close()
def child():
    try:
        runtime.predict("noon")
    except UsageError:
        return 0 if answers(sibling) == expected else 3
    return 4
print(in_child(child))
"""
    assert run_script(script, edge_bundle, tmp_path) == "0\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_workers_while_the_parent_answers(edge_bundle: Path, tmp_path: Path, method: str) -> None:
    """The runtime is inherited or pickled, and several threads predict in both processes."""
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    script = f"""{BEGINNING}
def start(given):
    global runtime
    runtime = given

def work(part):
    with busy(runtime, 1):
        return os.getpid(), [runtime.predict(text) for text in part]

if __name__ == "__main__":
    runtime = Runtime.open(sys.argv[1], threads=2)
    expected = [runtime.predict(text) for text in TEXTS]
    with busy(runtime, 1), multiprocessing.get_context({method!r}).Pool(2, start, (runtime,)) as pool:
        done = pool.map(work, [TEXTS[:5], TEXTS[5:]], 1)
    assert os.getpid() not in [pid for pid, _ in done]
    print([*done[0][1], *done[1][1]] == expected)
"""
    assert run_script(script, edge_bundle, tmp_path) == "True\n"


def test_a_copy_by_pickle_answers_the_same_and_lives_alone(edge_bundle: Path) -> None:
    texts = tiny_texts(20, seed=11)
    with Runtime.open(edge_bundle, threads=2, budget_ms=1e4) as runtime:
        expected = list(runtime.predict_many(texts))
        copies: list[Runtime] = [pickle.loads(pickle.dumps(runtime, protocol)) for protocol in range(2, 6)]
        copies += [copy.copy(runtime), copy.deepcopy(runtime), pickle.loads(pickle.dumps(copies[0]))]
    for other in copies:
        with other:
            assert repr(other) == repr(runtime).replace(", closed", "")
            assert list(other.predict_many(texts)) == expected == pickle.loads(pickle.dumps(expected))


# A WSGI application as one writes it for --preload: the bundle is opened, and asked, before the workers are forked.
APPLICATION = """
import json, os
from urllib.parse import parse_qs
from reaugkd import Runtime

runtime = Runtime.open(os.environ["BUNDLE"], threads=2)
master = os.getpid()
first = runtime.predict("noon")

def application(environ, start_response):
    text = parse_qs(environ["QUERY_STRING"])["text"][0]
    answer, alone = runtime.predict(text), runtime.with_retrieval("never").predict(text)
    body = json.dumps({
        "pid": os.getpid(), "master": master, "probabilities": answer.probabilities.tobytes().hex(),
        "alone": alone.probabilities.tobytes().hex(), "label": answer.label,
        "as_master": runtime.predict("noon") == first,
    }).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture
def served(edge_bundle: Path, tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "served.py").write_text(APPLICATION)
    with gunicorn(["--preload", "--workers", "2", "served:application"], tmp_path, edge_bundle) as path:
        yield path


def ask(channel: socket.socket, text: str) -> dict[str, Any]:
    """Return the application's answer to a text."""
    query = text.replace(" ", "+")
    channel.sendall(f"GET /?text={query} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
    with channel, channel.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    answer: dict[str, Any] = json.loads(body)
    return answer


def test_gunicorn_opens_the_bundle_before_it_forks(edge_bundle: Path, served: Path) -> None:
    texts = [str(text) for text in tiny_texts(12, seed=21)]
    answers: dict[str, list[dict[str, Any]]] = {text: [] for text in texts}
    until = time.monotonic() + LIMIT
    while len({answer["pid"] for some in answers.values() for answer in some}) < 2:
        assert time.monotonic() < until, "one of the two workers answers nothing"
        for text in texts:
            with connect(served):  # a worker that waits for a request leaves the next one to the other
                answers[text].append(ask(connect(served), text))
    with Runtime.open(edge_bundle) as runtime:
        for text, some in answers.items():
            expected, alone = runtime.predict(text), runtime.with_retrieval("never").predict(text)
            for answer in some:
                assert answer["probabilities"] == expected.probabilities.tobytes().hex()
                assert answer["alone"] == alone.probabilities.tobytes().hex()
                assert answer["label"] == expected.label and answer["as_master"]
                assert answer["pid"] != answer["master"]
