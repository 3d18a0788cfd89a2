"""The bundle of an estimator: its folder, its open runtimes, and how it travels in a pickle."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
import weakref
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..kb.storage.atomic import atomic_directory
from ..runtime.bundle.bundle import Bundle
from ..runtime.inference.retrieval_policy import RetrievalMode
from ..runtime.runtime import Runtime


class StoredBundle:
    """A bundle at a place of the caller's, or in a temporary folder that lives as long as this object.

    A pickle holds the path of the caller's bundle and its seal, and the whole content of a temporary one.

    Args:
        path: the folder of the bundle; None for a temporary one, which the caller of this class writes.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.temporary = path is None
        self.path = _temporary_folder(self) / "bundle" if path is None else path.absolute()
        self._seal: str | None = None
        self._runtimes: dict[tuple[RetrievalMode, int | None], Runtime] = {}

    def runtime(self, retrieval: RetrievalMode, threads: int | None) -> Runtime:
        """The open runtime with these settings (`Runtime.open`).

        Raises:
            BundleError: same as `Runtime.open`; or it is not the bundle that was pickled.
        """
        found = self._runtimes.get((retrieval, threads))
        if found is None:
            found = Runtime.open(self.path, threads, retrieval)
            seal = Bundle.open(self.path, verify=False).seal
            if self._seal not in (None, seal):
                remedy = "Use ReaugkdClassifier.from_bundle with the new bundle."
                raise BundleError("the bundle was replaced after it was pickled", path=self.path, remedy=remedy)
            self._runtimes[retrieval, threads] = found
        return found

    def save(self, path: Path) -> None:
        """Copy the bundle to a new folder.

        Raises:
            OutputExistsError: the folder exists.
            StorageError: it cannot be written.
        """
        with atomic_directory(path) as folder:
            shutil.copytree(self.path, folder, dirs_exist_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        if not self.temporary:
            return {"path": self.path, "seal": Bundle.open(self.path, verify=False).seal}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(self.path, "bundle")
        return {"content": packed.getvalue()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state.get("path"))  # type: ignore[misc]
        self._seal = state.get("seal")
        if "content" in state:
            with tarfile.open(fileobj=io.BytesIO(state["content"])) as archive:
                archive.extractall(self.path.parent, filter="data")


def _temporary_folder(owner: object) -> Path:
    """A new folder that is removed with its owner."""
    folder = tempfile.mkdtemp(prefix="reaugkd-")
    weakref.finalize(owner, _remove, folder, os.getpid())
    return Path(folder)


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child ends before its parent
        shutil.rmtree(folder, ignore_errors=True)
