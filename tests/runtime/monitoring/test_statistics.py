"""Statistics against the predictions themselves, from several threads, and read by an independent parser."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.heldout_bundle import add_abstention, build_heldout_bundle
from support.tiny_bundle import tiny_texts

from reaugkd import Prediction, Runtime, Stats
from reaugkd.errors import TextError
from reaugkd.runtime.decision.histogram import (
    AGREEMENT_EDGES,
    LATENCY_EDGES,
    SIMILARITY_EDGES,
    Histogram,
    population_stability,
)
from reaugkd.runtime.inference.prediction import Timings
from reaugkd.runtime.monitoring.statistics import Statistics

TEXTS = tiny_texts(60, seed=31)
KEYS = (
    *("seconds", "predictions", "truncated", "errors", "retrieved", "not_retrieved", "judged", "abstained"),
    *("abstentions", "labels", "similarity", "agreement", "latency_us", "drift"),
)


@pytest.fixture(autouse=True)
def _few_texts_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reaugkd.runtime.monitoring.statistics._LEAST_DRIFT", 1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_abstention(build_heldout_bundle(tmp_path_factory.mktemp("counted") / "bundle"))


def an_answer(label: str = "a", late: float = 50.0) -> Prediction:
    half = np.array([0.5, 0.5], np.float32)
    return Prediction(label, 0.5, half, half, None, "never", 1.0, Timings(late, 0.0, 0.0, 0.0), ("a", "b"))


class TestCounts:
    def test_they_are_those_of_the_answers(self, path: Path) -> None:
        with Runtime.open(path) as runtime:
            answers = [runtime.predict(text) for text in TEXTS]
            answers += list(runtime.predict_many(TEXTS, abstain="coverage=50%"))
            found = runtime.stats()
        assert tuple(found) == KEYS and isinstance(found, dict)
        assert (found["predictions"], found["retrieved"], found["judged"]) == (120, 120, 60)
        assert found["labels"] == dict(sorted(Counter(answer.label for answer in answers).items()))
        assert found["abstained"] == sum(answer.abstained for answer in answers) > 5
        signals = Counter(answer.abstention for answer in answers if answer.abstained)
        assert found["abstentions"] == dict(sorted(signals.items(), key=str))
        near = np.array([float(answer.similarities[0]) for answer in answers])
        alike = [float(answer.student_probabilities @ answer.retrieval_probabilities) for answer in answers]
        late = np.array([sum(answer.timings) for answer in answers])
        for name, values, edges in (
            ("similarity", near, SIMILARITY_EDGES),
            ("agreement", np.array(alike), AGREEMENT_EDGES),
            ("latency_us", late, LATENCY_EDGES),
        ):
            assert tuple(found[name]["counts"]) == Histogram.of(values, edges).counts
            assert tuple(found[name]["edges"]) == edges
            assert found[name]["sum"] == pytest.approx(values.sum(), rel=1e-6)
        assert found["latency_us"]["p50"] == pytest.approx(sorted(late)[59], rel=0.07)
        assert found["seconds"] > 0
        json.dumps(found, allow_nan=False)

    def test_reasons_without_retrieval_and_errors(self, path: Path) -> None:
        with Runtime.open(path, retrieval="never") as runtime:
            list(runtime.predict_many([*TEXTS[:5], "", " "], on_error="return"))
            with pytest.raises(TextError):
                runtime.predict("")
        found = runtime.stats()  # a closed one still tells
        assert (found["predictions"], found["retrieved"], found["not_retrieved"]) == (5, 0, {"never": 5})
        assert found["errors"] == {"TextError": 3}
        assert sum(found["similarity"]["counts"]) == 0 and found["drift"] == {"similarity": None, "agreement": None}

    def test_before_the_first_answer(self, path: Path) -> None:
        with Runtime.open(path) as runtime:
            found = runtime.stats()
        assert (found["predictions"], found["labels"], found["latency_us"]["p99"]) == (0, {}, None)

    def test_a_reset_starts_anew(self, path: Path) -> None:
        with Runtime.open(path) as runtime:
            runtime.predict(TEXTS[0])
            began = time.monotonic()
            before, after = runtime.stats(reset=True), runtime.stats()
            assert (before["predictions"], after["predictions"], after["labels"]) == (1, 0, {})
            assert after["seconds"] <= time.monotonic() - began and not sum(after["latency_us"]["counts"])

    def test_siblings_and_copies_count_apart(self, path: Path) -> None:
        with Runtime.open(path) as runtime, runtime.with_retrieval("never") as sibling:
            runtime.predict(TEXTS[0])
            again: Runtime = pickle.loads(pickle.dumps(runtime))
            assert [one.stats()["predictions"] for one in (runtime, sibling, again)] == [1, 0, 0]

    def test_a_child_counts_from_zero_even_while_the_parent_counts(self, path: Path) -> None:
        with Runtime.open(path) as runtime:
            runtime.predict(TEXTS[0])
            read, write = os.pipe()
            with runtime._statistics._lock:  # as if another thread were counting at this very moment
                child = os.fork()
                if child == 0:
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    signal.alarm(20)  # one that waits for the parent's lock waits for ever
                    runtime.predict(TEXTS[1])
                    os.write(write, str(runtime.stats()["predictions"]).encode())
                    os._exit(0)
            os.close(write)
            with os.fdopen(read) as told:
                assert told.read() == "1"
            os.waitpid(child, 0)
            assert runtime.stats()["predictions"] == 1

    def test_from_several_threads_nothing_is_lost_or_counted_twice(self) -> None:
        statistics, seen = Statistics(), []

        def work() -> None:
            for number in range(2000):
                statistics.count(an_answer("ab"[number % 2]))
                if number % 500 == 0:
                    seen.append(statistics.stats(reset=True))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen.append(statistics.stats())
        assert sum(one["predictions"] for one in seen) == 8000
        assert sum(one["labels"].get("a", 0) for one in seen) == 4000
        assert all(one["predictions"] == sum(one["labels"].values()) for one in seen)


class TestDrift:
    def test_it_is_the_index_against_the_held_out_rows(self, path: Path) -> None:
        with Runtime.open(path) as runtime:
            for text in TEXTS:
                runtime.predict(text)
            found = runtime.stats()
            abstention = runtime.manifest.abstention
        assert abstention is not None
        for name in ("similarity", "agreement"):
            reference = getattr(abstention.reference, name)
            assert found["drift"][name] == population_stability(reference, found[name]["counts"])

    def test_foreign_texts_raise_it(self, path: Path) -> None:
        with Runtime.open(path) as runtime:
            for text in TEXTS:
                runtime.predict(text)
            known = runtime.stats(reset=True)["drift"]["similarity"]
            for text in ["oven " * 20, "clock clock", "zzz"] * 20:
                runtime.predict(text)
            foreign = runtime.stats()["drift"]["similarity"]
        assert known < 0.6 and foreign > 2 * known

    def test_a_reference_counted_between_other_edges_is_none(self, path: Path) -> None:
        with Runtime.open(path) as runtime:
            answer, abstention = runtime.predict(TEXTS[0]), runtime.manifest.abstention
        assert abstention is not None
        edges = tuple(edge + 0.001 for edge in SIMILARITY_EDGES)
        other = Histogram(edges, abstention.reference.similarity.counts)
        statistics = Statistics(replace(abstention.reference, similarity=other))
        statistics.count(answer)
        found = statistics.stats()["drift"]
        assert found["similarity"] is None and found["agreement"] is not None

    def test_no_drift_from_few_or_selected_texts(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        none = {"similarity": None, "agreement": None}
        with Runtime.open(path, budget_ms=1e-6) as hurried, Runtime.open(path) as runtime:
            for text in TEXTS:
                hurried.predict(text)
                runtime.predict(text)
            assert hurried.stats()["drift"] == none
            assert runtime.stats()["drift"]["similarity"] is not None
            monkeypatch.setattr("reaugkd.runtime.monitoring.statistics._LEAST_DRIFT", len(TEXTS) + 1)
            assert runtime.stats()["drift"] == none

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_counts_from_zero_without_a_lock(self) -> None:
        statistics = Statistics(None)
        statistics.count(an_answer())
        with statistics._lock:  # as another thread of the parent may hold it
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                os._exit(int(statistics.stats()["predictions"] != 0))
        assert os.waitpid(child, 0)[1] == 0

    def test_without_a_reference_there_is_none(self, edge_bundle: Path) -> None:
        with Runtime.open(edge_bundle) as runtime:
            runtime.predict(TEXTS[0])
            assert runtime.stats()["drift"] == {"similarity": None, "agreement": None}


SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)')
PAIR = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> tuple[dict[str, str], Samples]:
    """Return types and samples of a text in format 0.0.4, by its specification; any other text fails."""
    assert text.endswith("\n")
    types: dict[str, str] = {}
    samples: Samples = {}
    told = None
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            told = line.split(" ", 3)[2]
            assert len(line.split(" ", 3)) == 4
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == told and name not in types and kind in ("counter", "gauge", "histogram")
            types[name] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found is not None, line
            family = re.sub("_(bucket|sum|count)$", "", found[1]) if types.get(str(told)) == "histogram" else found[1]
            assert family == told, "samples of one metric must stand together, under its type"
            pairs = tuple((name, unescaped(value)) for name, value in PAIR.findall(found[2] or ""))
            assert (found[1], pairs) not in samples
            samples[found[1], pairs] = float(found[3])
    return types, samples


def unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], value)


class TestPrometheus:
    def test_another_reader_finds_the_counts(self, path: Path) -> None:
        with Runtime.open(path) as runtime:
            list(runtime.predict_many([*TEXTS, ""], "return", "coverage=50%"))
            stats = runtime.stats()
        types, samples = parsed(stats.prometheus())
        assert set(types.values()) == {"counter", "gauge", "histogram"}
        assert sum(value for (name, _), value in samples.items() if name == "reaugkd_answers_total") == 60
        for label, count in stats["labels"].items():
            assert samples["reaugkd_answers_total", (("label", label),)] == count
        assert samples["reaugkd_errors_total", (("error", "TextError"),)] == 1
        abstained = [value for (name, _), value in samples.items() if name == "reaugkd_abstained_total"]
        assert sum(abstained) == stats["abstained"]
        assert samples["reaugkd_drift", (("histogram", "similarity"),)] == stats["drift"]["similarity"]
        for name, record, unit in (
            ("reaugkd_top_similarity", "similarity", 1),
            ("reaugkd_agreement", "agreement", 1),
            ("reaugkd_latency_seconds", "latency_us", 1e-6),
        ):
            buckets = [(pairs[0][1], value) for (one, pairs), value in samples.items() if one == f"{name}_bucket"]
            edges, counts = [float(edge) for edge, _ in buckets], [count for _, count in buckets]
            assert edges == sorted(set(edges)) and counts == sorted(counts) and buckets[-1][0] == "+Inf"
            assert counts[-1] == samples[f"{name}_count", ()] == 60
            assert samples[f"{name}_sum", ()] == pytest.approx(stats[record]["sum"] * unit)
            every = np.cumsum(stats[record]["counts"])
            for edge, count in zip(edges[:-1], counts[:-1], strict=True):
                (place,) = [
                    i for i, one in enumerate(stats[record]["edges"]) if math.isclose(one * unit, edge, rel_tol=1e-5)
                ]
                assert count == every[place]

    @given(st.text())
    def test_labels_come_through_whatever_is_in_them(self, label: str) -> None:
        statistics = Statistics()
        statistics.count(an_answer(label))
        _, samples = parsed(statistics.stats().prometheus())
        assert samples["reaugkd_answers_total", (("label", label),)] == 1

    def test_the_last_bucket_has_the_values_above_every_edge(self) -> None:
        statistics = Statistics()
        statistics.count(an_answer(late=1.0))
        statistics.count(an_answer(late=1e9))
        _, samples = parsed(statistics.stats().prometheus())
        assert samples["reaugkd_latency_seconds_bucket", (("le", "10"),)] == 1
        assert samples["reaugkd_latency_seconds_bucket", (("le", "+Inf"),)] == 2

    def test_without_answers_it_is_valid_too(self) -> None:
        types, samples = parsed(Statistics().stats().prometheus())
        assert len(types) == 11 and samples["reaugkd_retrieved_total", ()] == 0
        assert isinstance(Statistics().stats(), Stats)
