"""`apredict` and `apredict_many`: the answers of `predict`, bounded, in order, cancellable, and no thread is left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.heldout_bundle import add_abstention, build_heldout_bundle
from support.tiny_bundle import Text, tiny_texts

from reaugkd import Prediction, Runtime, TextError, UsageError
from reaugkd.runtime.inference.asynchronous import AnswerThreads, in_order
from reaugkd.runtime.inference.streaming import ITEMS_AHEAD

TEXTS = tiny_texts(40, seed=3)


def own_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("reaugkd-async")}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert own_threads() == set()


class Gate:
    """Answers that wait until the test opens the gate."""

    def __init__(self, threads: int) -> None:
        self.threads, self.opened, self.begun = AnswerThreads(threads), threading.Event(), list[int]()

    def begin(self, item: int) -> asyncio.Future[int]:
        return self.threads.submit(lambda: self._answer(item))

    def _answer(self, item: int) -> int:
        self.begun.append(item)
        assert self.opened.wait(60)
        if item == 13:
            raise ValueError("unlucky")
        return -item


async def until(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        await asyncio.sleep(0)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_answers_are_those_of_predict(edge_bundle: Path, threads: int) -> None:
    async def source() -> AsyncIterator[Text]:
        for text in TEXTS:
            await asyncio.sleep(0)
            yield text

    async def run(runtime: Runtime) -> list[list[Prediction]]:
        at_once = await asyncio.gather(*map(runtime.apredict, TEXTS))
        return [
            list(at_once),
            [answer async for answer in runtime.apredict_many(source())],
            [answer async for answer in runtime.apredict_many(iter(TEXTS))],
        ]

    with Runtime.open(edge_bundle, threads=threads) as runtime:
        expected = list(runtime.predict_many(TEXTS))
        assert asyncio.run(run(runtime)) == [expected] * 3
        assert 1 <= len(own_threads()) <= threads
        assert runtime.stats()["predictions"] == 4 * len(TEXTS)


def test_errors_and_goals_are_those_of_the_methods_that_wait(edge_bundle: Path, tmp_path: Path) -> None:
    async def run(runtime: Runtime, judging: Runtime) -> None:
        with pytest.raises(TextError, match="the text is empty"):
            await runtime.apredict(" ")
        found = [answer async for answer in runtime.apredict_many(["noon", "", "jazz"], on_error="return")]
        assert [isinstance(answer, TextError) for answer in found] == [False, True, False]
        got = []
        with pytest.raises(TextError):
            async for answer in runtime.apredict_many(["noon", "", "", "jazz"]):
                got.append(answer)
        assert got == [runtime.predict("noon")]
        with pytest.raises(UsageError, match="Put a single text into a list"):
            runtime.apredict_many("noon")
        with pytest.raises(UsageError, match="on_error is unknown"):
            runtime.apredict_many([], on_error="skip")  # type: ignore[call-overload]
        with pytest.raises(UsageError, match="no abstention thresholds"):
            runtime.apredict_many([], abstain="error=2%")
        assert await judging.apredict("noon", abstain="coverage=60%") == judging.predict("noon", "coverage=60%")

    with (
        Runtime.open(edge_bundle) as runtime,
        Runtime.open(add_abstention(build_heldout_bundle(tmp_path / "judging"))) as judging,
    ):
        asyncio.run(run(runtime, judging), debug=True)


def test_no_more_than_so_many_items_are_read_ahead_and_answers_do_not_wait_for_the_source() -> None:
    gate, read = Gate(2), list[int]()

    async def source() -> AsyncIterator[int]:
        for item in range(100):
            read.append(item)
            yield item

    async def silent() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async def run() -> None:
        stream = in_order(gate.begin, source(), ahead=2 * ITEMS_AHEAD)
        first = asyncio.ensure_future(anext(stream))
        await until(lambda: len(read) == 2 * ITEMS_AHEAD)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(read) == 2 * ITEMS_AHEAD and not first.done() and len(gate.begun) <= 2
        gate.opened.set()
        assert await first == 0
        with pytest.raises(ValueError, match="unlucky"):
            assert [answer async for answer in stream] == []
        assert await anext(in_order(gate.begin, silent(), ahead=8)) == -1

    asyncio.run(run(), debug=True)
    gate.threads.close()


def test_what_the_source_raises_comes_after_the_answers_before_it() -> None:
    gate = Gate(1)
    gate.opened.set()

    def source() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("the disk")

    async def run() -> None:
        got = []
        with pytest.raises(OSError, match="the disk"):
            async for answer in in_order(gate.begin, source(), ahead=8):
                got.append(answer)
        assert got == [-1, -2]

    asyncio.run(run())
    gate.threads.close()


def test_a_cancelled_text_is_dropped_while_it_waits() -> None:
    gate = Gate(1)

    async def consume() -> None:
        async for _ in in_order(gate.begin, range(100), ahead=8):
            pass

    async def run() -> None:
        held = gate.begin(-1)
        await until(lambda: gate.begun == [-1])
        one, stream = asyncio.ensure_future(gate.begin(1)), asyncio.ensure_future(consume())
        await asyncio.sleep(0)
        for cancelled in (one, stream):
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        last = gate.begin(7)
        gate.opened.set()
        assert (await held, await last) == (1, -7)
        assert gate.begun == [-1, 7]

    asyncio.run(run(), debug=True)
    gate.threads.close()


def test_closing_the_runtime_ends_the_threads_and_answers_what_waits_with_an_error(edge_bundle: Path) -> None:
    async def run(runtime: Runtime) -> list[object]:
        waiting = [asyncio.ensure_future(runtime.apredict(text)) for text in TEXTS]
        await asyncio.sleep(0)
        runtime.close()
        assert own_threads() == set()
        found = await asyncio.gather(*waiting, runtime.apredict("noon"), return_exceptions=True)
        with pytest.raises(UsageError, match="closed"):
            runtime.apredict_many(TEXTS)
        return list(found)

    found = asyncio.run(run(Runtime.open(edge_bundle)))
    assert all(isinstance(one, Prediction) or "the runtime is closed" in str(one) for one in found)
    assert isinstance(found[-1], UsageError)


def test_a_runtime_that_nobody_closes_leaves_no_thread(edge_bundle: Path) -> None:
    asyncio.run(Runtime.open(edge_bundle).apredict("noon"))
    for thread in own_threads():
        thread.join(60)


def test_a_runtime_that_waits_does_not_load_asyncio(edge_bundle: Path) -> None:
    """It takes 20 ms and more."""
    answer = "import sys; from reaugkd import Runtime; Runtime.open(sys.argv[1]).predict('noon')"
    script = f"{answer}; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, edge_bundle], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own(edge_bundle: Path) -> None:
    with Runtime.open(edge_bundle, threads=2) as runtime:
        expected = asyncio.run(runtime.apredict("noon"))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if asyncio.run(runtime.apredict("noon")) == expected else 2
                runtime.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert asyncio.run(runtime.apredict("noon")) == expected
