"""Cold start and memory of new processes, and the size of a bundle on disk."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ReaugkdError
from ...kb.index.usearch_import import available
from ...kb.storage.ed25519 import PublicKey
from ..bundle.bundle import KB_FOLDER, MODEL_FILE, Bundle
from ..bundle.manifest import MANIFEST_FILE
from .cold_start_process import COMMAND
from .interleaved import BLEND, GATED, SESSION_RUN, USEARCH, InterleavedTimer

TIMEOUT_S = 300


@dataclass(frozen=True)
class Process:
    """The median measurements of new processes of one system.

    Attributes:
        import_ms: time to import the libraries.
        open_ms: time to open the bundle (or the session): reads, hash checks, golden texts.
        first_answer_ms: time of the first prediction.
        rss_mb: resident memory after some predictions, in 10^6 bytes; None on other systems than Linux.
        peak_rss_mb: peak resident memory, in 10^6 bytes; None on other systems than Linux.
    """

    import_ms: float
    open_ms: float
    first_answer_ms: float
    rss_mb: float | None
    peak_rss_mb: float | None

    @property
    def cold_start_ms(self) -> float:
        """The sum of import, open and first prediction; the start of the interpreter is not included."""
        return self.import_ms + self.open_ms + self.first_answer_ms

    @classmethod
    def of(cls, results: Sequence[Mapping[str, float | None]]) -> Process:
        """Return the medians of the processes' results."""
        return cls(
            import_ms=_median(results, "import_ms") or 0.0,
            open_ms=_median(results, "open_ms") or 0.0,
            first_answer_ms=_median(results, "first_answer_ms") or 0.0,
            rss_mb=_median(results, "rss_bytes", 1e-6),
            peak_rss_mb=_median(results, "peak_rss_bytes", 1e-6),
        )


def measure_process(request: Mapping[str, Any]) -> dict[str, float | None]:
    """Run one measurement in a new interpreter.

    Args:
        request: the request (`cold_start_process.main`).

    Returns:
        The times in milliseconds and the memory in bytes.

    Raises:
        ReaugkdError: the process failed or timed out.
    """
    # -P: a module in the current folder must not shadow a library.
    command = [sys.executable, "-P", "-c", COMMAND]
    try:
        done = subprocess.run(
            command, input=json.dumps(request).encode(), capture_output=True, check=True, timeout=TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        raise ReaugkdError(f"the measuring process failed: {lines[-1] if lines else error}") from error
    except subprocess.TimeoutExpired as error:
        raise ReaugkdError("the measuring process timed out", found=f"{TIMEOUT_S} seconds") from error
    results: dict[str, float | None] = json.loads(done.stdout)
    return results


class BundleChecks(NamedTuple):
    """The key that must have signed a bundle, and whether links that lead out of its folder are followed."""

    require_signature: PublicKey | None
    follow_links: bool


def measure_processes(
    path: Path,
    timer: InterleavedTimer,
    repeats: int,
    answers: int,
    done: Callable[[], object],
    checks: BundleChecks,
) -> dict[str, Process]:
    """Measure ``repeats`` new processes of each system, interleaved.

    Files stay in the operating system's page cache: this is the start of a process, not of a machine.

    Args:
        path: the bundle's folder, absolute.
        timer: the systems and their inputs.
        repeats: processes per system; with 0 the result is empty.
        answers: texts that each process predicts before its memory is measured.
        done: called after each process.
        checks: how each process checks the bundle.

    Raises:
        ReaugkdError: a process failed.
    """
    signer = None if checks.require_signature is None else checks.require_signature.raw.hex()
    checked = {"signer": signer, "follow_links": checks.follow_links}
    results: dict[str, list[dict[str, float | None]]] = {name: [] for name in timer.systems}
    for _ in range(repeats):
        for name, found in results.items():
            found.append(measure_process({**_request(path, timer, name, answers), **checked}))
            done()
    return {name: Process.of(found) for name, found in results.items() if found}


def _request(path: Path, timer: InterleavedTimer, system: str, answers: int) -> dict[str, Any]:
    runtime = timer.runtime
    if system == SESSION_RUN:
        feeds = [{name: ids.tolist() for name, ids in feed.items()} for feed in timer.feeds[:answers]]
        return {"kind": "session", "path": str(runtime.student.path), "threads": runtime.threads, "feeds": feeds}
    search = {USEARCH: "usearch", GATED: "auto"}.get(system, runtime.search or "auto")
    if search == "usearch" and not available():  # the keys are compared in numpy
        search = "auto"
    return {
        "kind": "runtime",
        "path": str(path),
        "threads": runtime.threads,
        "retrieval": {BLEND: "always", USEARCH: "always", GATED: "gated"}.get(system, "never"),
        "search": search,
        "texts": list(timer.inputs[:answers]),
    }


def bundle_bytes(bundle: Bundle) -> dict[str, Any]:
    """Return the bytes on disk of the student's folder, its model, the knowledge base, the bundle, and each file."""
    files = {name: record.bytes for name, record in bundle.manifest.files.items()}
    files[MANIFEST_FILE] = (bundle.path / MANIFEST_FILE).stat().st_size
    return {
        "student": _below(files, Path(MODEL_FILE).parent.as_posix()),
        "model": files[MODEL_FILE],
        "knowledge_base": _below(files, KB_FOLDER),
        "total": sum(files.values()),
        "files": files,
    }


def _below(files: Mapping[str, int], folder: str) -> int:
    return sum(size for name, size in files.items() if name.startswith(f"{folder}/"))


def _median(results: Sequence[Mapping[str, float | None]], name: str, unit: float = 1.0) -> float | None:
    values = [value for one in results if (value := one[name]) is not None]
    return statistics.median(values) * unit if values else None
