"""Streams of texts: lazy, in order, on several threads, and stopped by errors."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.tiny_bundle import WORDS, Text, build_tiny_bundle, reseal, tiny_texts

from reaugkd import ModelError, Prediction, ReaugkdError, Runtime, TextError, UsageError
from reaugkd.runtime.bundle.bundle import TOKENIZER_FILE


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_text_stops_a_stream_or_takes_its_place_in_it(path: Path, threads: int) -> None:
    texts = [*["alarm"] * 20, "", "noon", ("a", "b"), *["call"] * 20]
    with Runtime.open(path, threads=threads) as runtime:
        got: list[Prediction | ReaugkdError] = list(runtime.predict_many(texts, on_error="return"))  # type: ignore[arg-type]
        assert [at for at, answer in enumerate(got) if isinstance(answer, TextError)] == [20, 22]
        assert got[21] == runtime.predict("noon") and got[42] == runtime.predict("call")
        stream = runtime.predict_many(texts)  # type: ignore[arg-type]
        assert list(itertools.islice(stream, 20)) == [runtime.predict("alarm")] * 20
        with pytest.raises(TextError, match="empty"):
            next(stream)
        assert workers() == []


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("reaugkd")]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_stream_is_lazy_and_looks_ahead_a_bounded_way(path: Path, threads: int) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield WORDS[taken % len(WORDS)]

    with Runtime.open(path, threads=threads) as runtime:
        stream = runtime.predict_many(endless())
        assert taken == 0
        for count in range(1, 50):
            next(stream)
            assert count <= taken <= count + 8 * threads
        stream.close()  # type: ignore[attr-defined]
        assert workers() == []


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_an_interrupt_or_an_error_in_the_source_passes_through_and_stops_the_threads(
    path: Path, threads: int, kind: type[BaseException]
) -> None:
    def source() -> Iterator[str]:
        yield from ["alarm"] * 30
        raise kind

    answered = 0
    with Runtime.open(path, threads=threads) as runtime:
        with pytest.raises(kind):
            for _ in runtime.predict_many(source(), on_error="return"):
                answered += 1
        assert workers() == []
        assert answered == 30 if kind is OSError else 30 - 8 * threads <= answered <= 30
        assert runtime.predict("alarm").label  # still usable


def test_predict_from_several_python_threads(runtime: Runtime) -> None:
    texts = tiny_texts(40, seed=6)
    expected = [runtime.predict(text) for text in texts]
    wrong: list[Text] = []

    def work() -> None:
        for _ in range(5):
            wrong.extend(text for text, answer in zip(texts, expected, strict=True) if runtime.predict(text) != answer)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_one_text_is_no_stream_of_letters(runtime: Runtime) -> None:
    with pytest.raises(UsageError, match="a stream takes several texts; found str 'alarm at noon'"):
        runtime.predict_many("alarm at noon")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_text_that_the_student_cannot_run_does_not_stop_a_stream(tmp_path: Path, threads: int) -> None:
    path = build_tiny_bundle(tmp_path / "tiny")
    tokenizer = path / TOKENIZER_FILE
    content = json.loads(tokenizer.read_text())
    content["model"]["vocab"]["zzz"] = 9999  # a token without an embedding
    tokenizer.write_text(json.dumps(content))
    reseal(path)
    with Runtime.open(path, threads=threads) as runtime:
        first, bad, last = runtime.predict_many(["noon", "zzz", "noon"], on_error="return")
    assert first == last
    assert isinstance(bad, ModelError)
    assert "the student cannot run" in str(bad)


@pytest.mark.parametrize(
    ("texts", "threads", "chunks"),
    [(4, 4, [1] * 4), (4, 2, [2, 2]), (8, 4, [2] * 4), (9, 4, [3, 3, 3]), (40, 2, [4] * 10), (1, 3, [1]), (0, 2, [])],
)
def test_a_short_stream_leaves_no_thread_without_work(
    path: Path, texts: int, threads: int, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from reaugkd.runtime.inference import streaming as stream

    seen: list[int] = []
    real = stream._answered

    def noted(answer: Any, some: Any) -> Any:
        seen.append(len(some))
        return real(answer, some)

    monkeypatch.setattr(stream, "_answered", noted)
    with Runtime.open(path, threads=threads) as runtime:
        assert len(list(runtime.predict_many(WORDS[:1] * texts))) == texts
        assert sorted(seen) == sorted(chunks)
        seen.clear()
        assert len(list(runtime.predict_many(iter(tuple(WORDS[:1]) * texts)))) == texts  # a tuple's iterator knows too
        assert sorted(seen) == sorted(chunks)
        seen.clear()
        assert len(list(runtime.predict_many(word for word in WORDS[:1] * texts))) == texts  # a generator does not
        assert all(count <= 4 for count in seen) and sum(seen) == texts
