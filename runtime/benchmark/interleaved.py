"""The systems of the benchmark, taking turns on the same inputs in one process.

``session_run`` is ONNX Runtime on ready token ids, the floor that nothing here can go below; ``student`` tokenizes,
runs and takes the softmax; ``student+retrieval`` searches and blends as well, ``student+gated`` only where the student
is not sure. All use the one session of one runtime, so that none has a copy of the weights to itself in the
processor's cache.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UsageError
from ..evaluation.metrics import Floats
from ..inference.inputs import Text, checked_input
from ..inference.prediction import Prediction
from ..inference.student import OUTPUTS
from ..runtime import Runtime
from .latency import Clock, Task, interleave, visits

SESSION_RUN, STUDENT, BLEND, GATED = "session_run", "student", "student+retrieval", "student+gated"

OWN_TEXTS = "knowledge base"
"""Where texts come from unless others are given: rows of the knowledge base, which find themselves."""

TEXTS_PER_PASS = 300
"""For the throughput: enough that starting a pool of threads does not count."""


@dataclass(frozen=True)
class RoundTimes:
    """Latencies in microseconds, in the order of visits.

    Attributes:
        total: system -> [m].
        stages: system -> stage -> [m]: ``tokenize``, ``run``, ``search``, ``blend`` (for the student its softmax) and
            ``rest``, what the total has beyond them.
        retrieved: share of the visits for which ``student+gated`` retrieved; None without it.
    """

    total: dict[str, Floats]
    stages: dict[str, dict[str, Floats]]
    retrieved: float | None


class InterleavedTimer:
    """The contestants: a runtime's session, the runtime without retrieval, with it, and with a gate where it has one.

    Args:
        runtime: an open bundle.
        inputs: the texts; all are tokenized here, so that a bad one shows now.
        seed: of the order of the texts and of the systems' turns.
        clock: for tests.

    Raises:
        TextError: a text that cannot be answered.
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
            if runtime.gate is not None:
                self._runtimes[GATED] = runtime.with_retrieval("gated")

    @property
    def systems(self) -> tuple[str, ...]:
        """The contestants' names; without a row in the knowledge base nothing retrieves."""
        return (SESSION_RUN, *self._runtimes)

    def tokens(self) -> dict[str, float]:
        """Tokens of the inputs, special ones counted: p50, p95 and most."""
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
        del stages[STUDENT]["search"]
        share = float(retrieved[:, names.index(GATED)].mean()) if GATED in names else None
        return RoundTimes({name: taken[:, i] for i, name in enumerate(names)}, stages, share)

    def throughput(self, passes: int, done: Callable[[], object]) -> dict[str, float]:
        """Texts per second of ``predict_many`` with the runtime's threads: the median pass, the systems in turn."""
        texts = [self.inputs[i] for i in visits(len(self.inputs), TEXTS_PER_PASS, self._seed)]
        rates: dict[str, list[float]] = {name: [] for name in self._runtimes}
        for lap in range(passes + 1):
            turn = list(self._runtimes) if lap % 2 else list(reversed(self._runtimes))
            for name in turn:
                began = self._clock()
                deque(self._runtimes[name].predict_many(texts), maxlen=0)
                rate = 1e9 * len(texts) / (self._clock() - began)
                if lap:  # the first pass starts threads and, above one, a second session
                    rates[name].append(rate)
            if lap:
                done()
        return {name: statistics.median(found) for name, found in rates.items()}

    def tasks(self) -> list[Task]:
        """One callable a system, in the order of ``systems``, that takes the input's number."""
        run, feeds, inputs = self.runtime.student.session.run, self.feeds, self.inputs

        def session_run(i: int) -> object:
            return run(OUTPUTS, feeds[i])

        return [session_run, *(_predictor(runtime, inputs) for runtime in self._runtimes.values())]


def choose_inputs(runtime: Runtime, texts: Sequence[Text] | None, most: int, seed: int) -> tuple[list[Text], str]:
    """At most ``most`` texts to measure on, drawn at random, and where they came from.

    Args:
        runtime: an open bundle, asked for its knowledge base's texts, else its golden texts, where ``texts`` is None.
        texts: the user's own.
        most: the number to draw.
        seed: of the drawing.

    Raises:
        UsageError: there are none.
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
            "there are no texts to measure on", found=source, expected="at least one", remedy="Give some with --data."
        )
    return chosen, source


def _some(n: int, most: int, rng: np.random.Generator) -> list[int]:
    return sorted(rng.choice(n, size=min(n, most), replace=False).tolist())


def _predictor(runtime: Runtime, inputs: Sequence[Text]) -> Task:
    predict = runtime.predict
    return lambda i: predict(inputs[i])


def _stages(timings: Floats, total: Floats) -> dict[str, Floats]:
    """[m, 4] timings and [m] totals -> stage -> [m]."""
    stages: dict[str, Any] = dict(zip(("tokenize", "run", "search", "blend"), timings.T, strict=True))
    return {**stages, "rest": total - timings.sum(axis=1)}
