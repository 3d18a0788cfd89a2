"""What a bundle costs besides time: the start of a process, its memory, and the bytes on the disk."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ReaugkdError
from ...kb.storage.ed25519 import PublicKey
from ..bundle.bundle import KB_FOLDER, MODEL_FILE, Bundle
from ..bundle.manifest import MANIFEST_FILE
from .cold_start_probe import COMMAND
from .interleaved import BLEND, GATED, SESSION_RUN, InterleavedTimer

TIMEOUT_S = 300


@dataclass(frozen=True)
class Process:
    """Fresh processes of one kind, the median of each figure.

    Attributes:
        import_ms: importing the libraries.
        open_ms: opening the bundle (or the session): reading, checking sums, golden texts.
        first_answer_ms: the first text.
        rss_mb: resident memory after some answers, in 10^6 bytes; None on other systems than Linux.
        peak_rss_mb: the highest it was.
    """

    import_ms: float
    open_ms: float
    first_answer_ms: float
    rss_mb: float | None
    peak_rss_mb: float | None

    @property
    def cold_start_ms(self) -> float:
        """Import, open and the first answer together; the interpreter's own start is not in it."""
        return self.import_ms + self.open_ms + self.first_answer_ms

    @classmethod
    def of(cls, findings: Sequence[Mapping[str, float | None]]) -> Process:
        """The medians of what the processes found."""
        return cls(
            import_ms=_median(findings, "import_ms") or 0.0,
            open_ms=_median(findings, "open_ms") or 0.0,
            first_answer_ms=_median(findings, "first_answer_ms") or 0.0,
            rss_mb=_median(findings, "rss_bytes", 1e-6),
            peak_rss_mb=_median(findings, "peak_rss_bytes", 1e-6),
        )


def probe(orders: Mapping[str, Any]) -> dict[str, float | None]:
    """Start one fresh interpreter, let it follow ``orders`` (see ``probe.main``) and return its findings.

    Raises:
        ReaugkdError: the process failed or did not end.
    """
    # -P: a folder that happens to be the current one must not shadow a library.
    command = [sys.executable, "-P", "-c", COMMAND]
    try:
        done = subprocess.run(
            command, input=json.dumps(orders).encode(), capture_output=True, check=True, timeout=TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        raise ReaugkdError(f"the measuring process failed: {lines[-1] if lines else error}") from error
    except subprocess.TimeoutExpired as error:
        raise ReaugkdError("the measuring process did not end", found=f"{TIMEOUT_S} seconds") from error
    findings: dict[str, float | None] = json.loads(done.stdout)
    return findings


def measure_processes(
    path: Path,
    race: InterleavedTimer,
    repeats: int,
    answers: int,
    done: Callable[[], object],
    require_signature: PublicKey | None = None,
) -> dict[str, Process]:
    """Start ``repeats`` fresh processes for each system of the race, in turns.

    What the operating system keeps of files in memory stays there: this is the start of a process, not of a machine.

    Args:
        path: the bundle's folder, absolute.
        race: the systems and their inputs.
        repeats: processes a system; 0 gives no systems.
        answers: texts that each process answers before its memory is looked at.
        done: called after each process.
        require_signature: whose signature the bundle must have in each.

    Raises:
        ReaugkdError: a process failed.
    """
    signer = None if require_signature is None else require_signature.raw.hex()
    findings: dict[str, list[dict[str, float | None]]] = {name: [] for name in race.systems}
    for _ in range(repeats):
        for name, found in findings.items():
            found.append(probe({**_orders(path, race, name, answers), "signer": signer}))
            done()
    return {name: Process.of(found) for name, found in findings.items() if found}


def _orders(path: Path, race: InterleavedTimer, system: str, answers: int) -> dict[str, Any]:
    runtime = race.runtime
    if system == SESSION_RUN:
        feeds = [{name: ids.tolist() for name, ids in feed.items()} for feed in race.feeds[:answers]]
        return {"kind": "session", "path": str(runtime.student.path), "threads": runtime.threads, "feeds": feeds}
    return {
        "kind": "runtime",
        "path": str(path),
        "threads": runtime.threads,
        "retrieval": {BLEND: "always", GATED: "gated"}.get(system, "never"),
        "texts": list(race.inputs[:answers]),
    }


def bundle_bytes(bundle: Bundle) -> dict[str, Any]:
    """Bytes on the disk: of the student's folder, its model, the knowledge base, all, and each file."""
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


def _median(findings: Sequence[Mapping[str, float | None]], name: str, unit: float = 1.0) -> float | None:
    values = [value for one in findings if (value := one[name]) is not None]
    return statistics.median(values) * unit if values else None
