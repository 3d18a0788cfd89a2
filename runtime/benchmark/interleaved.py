"""Interleaved timing of the benchmark's systems on the same inputs in one process.

``session_run`` is ONNX Runtime on token ids, the lower bound; ``student`` adds everything around it;
``student+retrieval`` adds search and blend. Where these are part of the run, ``student+usearch`` does them after it.
``student+gated`` adds them only if the student is uncertain.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UsageError
from ...kb.index.usearch_import import available
from ..evaluation.metrics import Floats
from ..inference.prediction import Prediction
from ..inference.session.model_session import OUTPUTS
from ..inference.text.inputs import Text, checked_input
from ..runtime import Runtime
from .latency import Clock, Task, interleave, visits

SESSION_RUN, STUDENT, BLEND = "session_run", "student", "student+retrieval"
USEARCH, GATED = "student+usearch", "student+gated"

OWN_TEXTS = "knowledge base"
"""The default source of texts: rows of the knowledge base, which retrieve themselves."""

TEXTS_PER_PASS = 300
"""Texts of one throughput pass; enough that the start of a thread pool does not matter."""


@dataclass(frozen=True)
class RoundTimes:
    """Latencies in microseconds, in the order of visits.

    Attributes:
        total: system -> latencies [m].
        stages: system -> stage -> [m]: ``tokenize``, ``run``, ``search``, ``blend`` (for the student its softmax) and
            ``rest``, the remainder of the total.
        retrieved: share of the visits in which ``student+gated`` retrieved; None without this system.
    """

    total: dict[str, Floats]
    stages: dict[str, dict[str, Floats]]
    retrieved: float | None


class InterleavedTimer:
    """Times a runtime's session, and the runtime without retrieval, with retrieval, and with its gate if it has one.

    Attributes:
        feeds: the inputs of the session, one for each text.

    Args:
        runtime: an open bundle.
        inputs: the texts; all are tokenized at once, so that errors are raised here.
        seed: seed of the order of texts and systems.
        clock: clock in nanoseconds; another one for tests.

    Raises:
        TextError: a text cannot be predicted.
    """

    def __init__(self, runtime: Runtime, inputs: Sequence[Text], seed: int, clock: Clock) -> None:
        self.runtime = runtime
        self.inputs = inputs
        self._seed = seed
        self._clock = clock
        pair = runtime.manifest.text_pair
        encodings = [runtime.tokenizer.encode(*checked_input(text, pair)) for text in inputs]
        self.feeds = [runtime.student.feeds(encoding) for encoding in encodings]
        self._lengths = [len(encoding) for encoding in encodings]
        self._runtimes = {STUDENT: runtime.with_retrieval("never")}
        if len(runtime.knowledge_base):
            self._runtimes[BLEND] = runtime.with_retrieval("always")
            if self._runtimes[BLEND].search == "graph" and available():
                self._runtimes[USEARCH] = runtime.with_retrieval("always", "usearch")
            if runtime.gate is not None:
                self._runtimes[GATED] = runtime.with_retrieval("gated", "auto")

    @property
    def systems(self) -> tuple[str, ...]:
        """The names of the systems; with an empty knowledge base none of them retrieves."""
        return (SESSION_RUN, *self._runtimes)

    def tokens(self) -> dict[str, float]:
        """Return p50, p95 and maximum of the inputs' tokens, special tokens included."""
        p50, p95, most = np.percentile(self._lengths, [50, 95, 100])
        return {"p50": float(p50), "p95": float(p95), "max": float(most)}

    def warm_up(self, count: int) -> float:
        """Visit ``count`` inputs, and return the median microseconds of a visit (all systems together)."""
        order = visits(len(self.inputs), count, self._seed)
        taken = interleave(self.tasks(), order, seed=self._seed, clock=self._clock)
        return float(np.median(taken.sum(axis=1)))

    def run(self, samples: int, done: Callable[[], object]) -> RoundTimes:
        """Visit ``samples`` inputs; ``done`` is called once in each visit."""
        names = self.systems
        timings = np.zeros((samples, len(names), 4))
        retrieved = np.zeros((samples, len(names)), np.bool_)

        def note(visit: int, task: int, result: object) -> None:
            if isinstance(result, Prediction):
                timings[visit, task] = result.timings
                retrieved[visit, task] = result.retrieved
            else:
                done()

        order = visits(len(self.inputs), samples, self._seed)
        taken = interleave(self.tasks(), order, seed=self._seed, clock=self._clock, after=note)
        stages = {name: _stages(timings[:, i], taken[:, i]) for i, name in enumerate(names) if name != SESSION_RUN}
        for name in [STUDENT, *(name for name in (BLEND,) if USEARCH in names)]:
            del stages[name]["search"]  # it has none, or it is part of the run
        share = float(retrieved[:, names.index(GATED)].mean()) if GATED in names else None
        return RoundTimes({name: taken[:, i] for i, name in enumerate(names)}, stages, share)

    def throughput(self, passes: int, done: Callable[[], object]) -> dict[str, float]:
        """Measure the texts per second of ``predict_many``: the median pass, systems interleaved."""
        texts = [self.inputs[i] for i in visits(len(self.inputs), TEXTS_PER_PASS, self._seed)]
        rates: dict[str, list[float]] = {name: [] for name in self._runtimes}
        for number in range(passes + 1):
            turn = list(self._runtimes) if number % 2 else list(reversed(self._runtimes))
            for name in turn:
                began = self._clock()
                deque(self._runtimes[name].predict_many(texts), maxlen=0)
                rate = 1e9 * len(texts) / (self._clock() - began)
                if number:  # not the first pass, which starts threads and may open a second session
                    rates[name].append(rate)
            if number:
                done()
        return {name: statistics.median(found) for name, found in rates.items()}

    def tasks(self) -> list[Task]:
        """Return one callable per system, in the order of ``systems``; its argument is the number of the input."""
        run, feeds, inputs = self.runtime.student.session.run, self.feeds, self.inputs

        def session_run(i: int) -> object:
            return run(OUTPUTS, feeds[i])

        return [session_run, *(_predictor(runtime, inputs) for runtime in self._runtimes.values())]


def choose_inputs(runtime: Runtime, texts: Sequence[Text] | None, most: int, seed: int) -> tuple[list[Text], str]:
    """Draw at most ``most`` texts to measure.

    Args:
        runtime: an open bundle.
        texts: the user's texts. Default: the texts of the knowledge base, or the golden texts if it keeps none.
        most: the largest number of texts.
        seed: seed of the random draw.

    Returns:
        The texts, and their source in words.

    Raises:
        UsageError: there are no texts.
    """
    kb = runtime.knowledge_base
    rng = np.random.default_rng(seed)
    if texts is not None:
        chosen, source = [texts[i] for i in _some(len(texts), most, rng)], "given texts"
    elif len(kb) and kb.text(0) is not None:
        stored = [kb.text(i) for i in _some(len(kb), most, rng)]
        chosen, source = [text for text in stored if text is not None], OWN_TEXTS
    else:
        chosen, source = [golden.text for golden in runtime.manifest.golden], "golden texts"
    if not chosen:
        raise UsageError(
            "there are no texts to measure on", found=source, expected="at least one", remedy="Give texts with --data."
        )
    return chosen, source


def _some(n: int, most: int, rng: np.random.Generator) -> list[int]:
    return sorted(rng.choice(n, size=min(n, most), replace=False).tolist())


def _predictor(runtime: Runtime, inputs: Sequence[Text]) -> Task:
    predict = runtime.predict
    return lambda i: predict(inputs[i])


def _stages(timings: Floats, total: Floats) -> dict[str, Floats]:
    """Split timings [m, 4] and totals [m] into stages: stage -> [m]."""
    stages: dict[str, Any] = dict(zip(("tokenize", "run", "search", "blend"), timings.T, strict=True))
    return {**stages, "rest": total - timings.sum(axis=1)}
