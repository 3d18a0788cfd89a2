"""The service behind the routes: the bundles, the queue, the state, and answers to texts."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal, NamedTuple, TypeVar

from ..errors import BundleError, ReaugkdError
from ..runtime.decision.abstention_goal import Abstain
from ..runtime.inference.prediction import Prediction
from ..runtime.inference.retrieval_policy import RetrievalMode
from ..runtime.inference.text.inputs import Text
from ..runtime.monitoring.prometheus import Metric, exposition
from .bundles.open_bundle import OpenBundle
from .bundles.served_bundle import POLL_SECONDS, ServedBundle
from .http.errors import HttpError, of_error, overloaded, too_late, unhealthy
from .metrics import RequestCounts, WorkerCounts, merged
from .settings import ServerSettings
from .work_queue import WorkQueue

Result = TypeVar("Result")

State = Literal["loading", "ready", "draining"]

_MOST_CALLS = 16  # of a thread, that wait for their turn or are made
_log = logging.getLogger("reaugkd.serve")


class Answers(NamedTuple):
    """The answers to the texts of a request.

    Attributes:
        bundle: the bundle that gave them.
        all: an answer or an error for each text.
        waited: seconds in the queue.
    """

    bundle: OpenBundle
    all: list[Prediction | ReaugkdError]
    waited: float

    def predictions(self) -> list[Prediction]:
        """The answers.

        Raises:
            HttpError: there is an error among them.
        """
        found = []
        for number, answer in enumerate(self.all):
            if isinstance(answer, ReaugkdError):
                raise of_error(answer, f"inputs[{number}]" if len(self.all) > 1 else "") from answer
            found.append(answer)
        return found


class Service:
    """What the routes call.

    Args:
        settings: what is served, and its limits.
        counts: the counts of all workers; None for a server of one process.

    Attributes:
        settings: same as the argument.
        state: ``"loading"`` until all bundles are open and checked, ``"draining"`` when it will end soon.
        requests: counts of requests.
        bundles: the bundles by name.
    """

    def __init__(self, settings: ServerSettings, counts: WorkerCounts | None = None) -> None:
        self.settings = settings
        self.state: State = "loading"
        self.requests = RequestCounts()
        self.bundles = {name: ServedBundle(name, path, settings) for name, path in settings.bundles.items()}
        self._counts = counts
        self._queue = WorkQueue(settings.threads, settings.queue)
        self.check_room = self._queue.check_room
        self._editing = ThreadPoolExecutor(1, "reaugkd-edit")
        self._browsing = ThreadPoolExecutor(1, "reaugkd-browse")
        self._reading = ThreadPoolExecutor(1, "reaugkd-read")
        self._swapping = ThreadPoolExecutor(1, "reaugkd-swap")
        self._calls: Counter[ThreadPoolExecutor] = Counter()
        self._opened = False
        self._closing, self._look_now = threading.Event(), threading.Event()
        self._forced = False
        self._watcher = threading.Thread(target=self._watch, name="reaugkd-watch", daemon=True)

    def start(self) -> None:
        """Open the bundles, and begin to answer.

        Raises: same as `Runtime.open`.
        """
        for bundle in self.bundles.values():
            bundle.open()
        self._queue.start()
        self._watcher.start()
        self._opened = True
        if self.state == "loading":
            self.state = "ready"
        _log.info("ready: %s", ", ".join(bundle.current.model for bundle in self.bundles.values()))

    def close(self) -> None:
        """End the threads after the work that they have, fits of new labels included, and close the bundles."""
        self._closing.set()
        self._look_now.set()
        if self._watcher.is_alive():
            self._watcher.join()
        self._editing.shutdown()
        self._browsing.shutdown()
        self._reading.shutdown()
        self._swapping.shutdown()
        self._queue.close()
        if self._opened:
            for bundle in self.bundles.values():
                bundle.close()

    def drain(self) -> None:
        """Report that the server will end soon; texts are still answered."""
        self.state = "draining"

    def look_for_bundles(self) -> None:
        """Open every bundle again soon, also one whose manifest is the same file."""
        self._forced = True
        self._look_now.set()

    def bundle(self, name: object = None) -> ServedBundle:
        """The bundle with a name; None for the first one.

        Raises:
            HttpError: there is none, or the bundles are not open yet.
        """
        if not self._opened:
            raise unhealthy("the bundles are not open yet")
        if name is None:
            return self.bundles[self.settings.default]
        found = self.bundles.get(name.partition("@")[0]) if isinstance(name, str) else None
        if found is None:
            known = ", ".join(self.bundles)
            raise HttpError(404, f"there is no model {name!r}, expected one of {known}", "Validation")
        return found

    async def predict(
        self,
        bundle: ServedBundle,
        texts: Sequence[Text],
        abstain: Abstain | None = None,
        retrieval: RetrievalMode | None = None,
    ) -> Answers:
        """Answer the texts of a request, all with the same bundle.

        Args:
            bundle: which one.
            texts: at least one.
            abstain: same as `Runtime.predict`.
            retrieval: None for the server's.

        Raises:
            HttpError: too many texts, the queue is full, the deadline is over, or the bundle has no gate.
        """
        if len(texts) > self.settings.max_batch:
            message = f"batch size {len(texts)} > maximum allowed batch size {self.settings.max_batch}"
            raise HttpError(422, message, "Validation")
        answers = await self._answers(bundle, texts, abstain, retrieval)
        if any(isinstance(one, BundleError) for one in answers.all) and bundle.changed():
            # The files were replaced a moment ago. The new bundle is taken in, and answers.
            await asyncio.wrap_future(self._swapping.submit(bundle.refresh))
            answers = await self._answers(bundle, texts, abstain, retrieval)
        return answers

    async def _answers(
        self, bundle: ServedBundle, texts: Sequence[Text], abstain: Abstain | None, retrieval: RetrievalMode | None
    ) -> Answers:
        with bundle.use() as opened:
            try:
                runtime = opened.runtime(retrieval)
            except ReaugkdError as error:
                raise of_error(error) from error

            def answer(text: Text, _kept_open: OpenBundle = opened) -> Prediction | ReaugkdError:
                try:
                    return runtime.predict(text, abstain)
                except ReaugkdError as error:
                    return error

            done = await self._queue.run(answer, texts, self.settings.deadline)
            return Answers(opened, done.answers, done.waited)

    async def edit(self, bundle: ServedBundle, call: Callable[[OpenBundle], Result]) -> Result:
        """Call a function that edits the knowledge base, after those that wait.

        Args:
            bundle: which one.
            call: called in the one thread of edits, if it can begin before the deadline; then it is always finished.

        Raises:
            HttpError: too many calls wait, the deadline is over before this one begins, or the function raised a
                `ReaugkdError`.
        """
        return await self._called(self._editing, bundle, call)

    async def browse(self, bundle: ServedBundle, call: Callable[[OpenBundle], Result]) -> Result:
        """`edit` for a function that reads one state of the knowledge base briefly.

        It is called in a thread of its own, so it waits for no edit and no long read, and they do not wait for it.
        """
        return await self._called(self._browsing, bundle, call)

    async def read(self, bundle: ServedBundle, call: Callable[[OpenBundle], Result]) -> Result:
        """`browse` for a function that may take long, and itself looks at the deadline."""
        return await self._called(self._reading, bundle, call)

    async def _called(
        self, thread: ThreadPoolExecutor, bundle: ServedBundle, call: Callable[[OpenBundle], Result]
    ) -> Result:
        if self._calls[thread] >= _MOST_CALLS:
            raise overloaded()

        def work() -> Result:
            if bundle.changed():  # an edit of the old bundle would be lost
                bundle.refresh()
            with bundle.use() as opened:
                return call(opened)

        self._calls[thread] += 1
        waiting = thread.submit(work)
        try:
            done = asyncio.wrap_future(waiting)
            await asyncio.wait([done], timeout=self.settings.deadline)
            if waiting.cancel():  # it has not begun, and will not
                raise too_late(self.settings.deadline, ", nothing was changed: the calls before it took this long")
            return await done
        except ReaugkdError as error:
            raise of_error(error, "the request") from error
        finally:
            waiting.cancel()  # the request itself was cancelled
            self._calls[thread] -= 1

    def metrics(self) -> str:
        """The counts of all workers in Prometheus's text format."""
        own = self._own_metrics()
        return exposition(own if self._counts is None else self._counts.all(own))

    def _own_metrics(self) -> list[Metric]:
        depth = Metric("queue_depth", "gauge", "Texts that wait or are answered now.", [("", {}, self._queue.depth)])
        bundles = [bundle.metrics() for bundle in self.bundles.values()] if self._opened else []
        return merged([self.requests.metrics(), [depth], *bundles])

    def _watch(self) -> None:
        """Look for new bundles, and share the counts, once a second."""
        while not self._closing.is_set():
            self._look_now.wait(POLL_SECONDS)
            self._look_now.clear()
            forced, self._forced = self._forced, False
            try:
                if not self._closing.is_set():
                    for bundle in self.bundles.values():
                        bundle.refresh(forced)
                if self._counts is not None:
                    self._counts.share(self._own_metrics())
            except Exception:  # a fault of this program: the old bundles go on
                _log.exception("the look for new bundles failed")
        with suppress(OSError):
            if self._counts is not None:
                self._counts.share(self._own_metrics())
