"""An open bundle of a server: its runtimes, one for each way to retrieve, and who uses it."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

from ...errors import ReaugkdError
from ...runtime.bundle.files import OPEN_FILES
from ...runtime.inference.retrieval_policy import RetrievalMode
from ...runtime.monitoring.prometheus import Metric, metrics_of
from ...runtime.runtime import Runtime
from ..metrics import labelled, merged
from ..settings import ServerSettings


class OpenBundle:
    """A bundle that answers until it is retired; it can be closed when nobody uses it any more.

    Args:
        name: its name in requests.
        runtime: the open runtime with the server's way to retrieve.

    Attributes:
        name: same as the argument.
        main: the runtime of the argument.
        seal: the hash of its manifest.
        model: the name and the first twelve digits of the seal, for answers.
    """

    def __init__(self, name: str, runtime: Runtime) -> None:
        self.name, self.main = name, runtime
        self.seal = runtime.kb.seal
        self.model = f"{name}@{self.seal[:12]}"
        self._runtimes: dict[RetrievalMode, Runtime] = {runtime.retrieval: runtime}
        self._lock, self._users, self._retired = threading.Lock(), 0, False

    @classmethod
    def open(cls, name: str, path: Path, settings: ServerSettings) -> OpenBundle:
        """Open a bundle: its files and its golden texts are checked, and one text is answered.

        Raises: same as `Runtime.open`.
        """
        pinned, file = _pinned(path)
        try:
            runtime = Runtime.open(
                pinned,
                retrieval=settings.retrieval,
                require_signature=settings.require_signature,
                follow_links=settings.follow_links,
            )
            opened = cls(name, runtime)
        except ReaugkdError as error:
            if file is None:
                raise
            os.close(file)
            said = {field: str(getattr(error, field)) for field in ("path", "remedy") if getattr(error, field)}
            raise error.at(**{field: text.replace(str(pinned), str(path)) for field, text in said.items()}) from error
        if file is not None:
            weakref.finalize(opened, os.close, file)
        if runtime.manifest.golden:
            with runtime.with_retrieval(settings.retrieval) as uncounted:  # the first run of a session is the slowest
                uncounted.predict(runtime.manifest.golden[0].text)
        return opened

    def runtime(self, retrieval: RetrievalMode | None = None) -> Runtime:
        """The runtime with a way to retrieve; None for the server's.

        Raises:
            UsageError: ``"gated"``, and the bundle has no gate.
        """
        if retrieval is None:
            return self.main
        with self._lock:
            found = self._runtimes.get(retrieval)
            if found is None:
                found = self._runtimes[retrieval] = self.main.with_retrieval(retrieval)
            return found

    def enter(self) -> bool:
        """Keep the bundle open until `leave`; False if it is retired."""
        with self._lock:
            self._users += not self._retired
            return not self._retired

    def leave(self) -> None:
        """End what `enter` began."""
        with self._lock:
            self._users -= 1

    def retire(self) -> None:
        """Let nobody enter any more."""
        with self._lock:
            self._retired = True

    @property
    def idle(self) -> bool:
        """Whether it is retired and nobody uses it."""
        with self._lock:
            return self._retired and not self._users

    def close(self) -> None:
        """Close the runtimes; waits for a running fit of new labels, so the event loop must not call it."""
        with self._lock:
            runtimes = list(self._runtimes.values())
        for runtime in runtimes:
            runtime.close()

    def metrics(self) -> list[Metric]:
        """The counts of all its answers; they stay after it is closed."""
        with self._lock:
            runtimes = list(self._runtimes.values())
        return labelled(merged([metrics_of(runtime.stats()) for runtime in runtimes]), model=self.name)


def _pinned(path: Path) -> tuple[Path, int | None]:
    """A path that stays with the folder, and the open folder; where the system has no such paths, the resolved path.

    A deployment may rename the folder and put another one into its place at any moment. With the path itself, an edit
    that is being made could then be written into the other bundle.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # `Runtime.open` says what is wrong
        return path, None
    pinned = OPEN_FILES / str(file)
    if pinned.exists():
        return pinned, file
    os.close(file)
    return path.resolve(), None
