"""A process that opens bundles one after another, and reports the outcome and cost of each.

    python opener.py BUNDLE...

One JSON object a line. It may take a gigabyte more of address space than the first bundle, an honest one, and a bundle
that takes too long ends it.
"""

from __future__ import annotations

import gc
import json
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from reaugkd import BundleError, Runtime
from reaugkd.runtime.bundle.heldout_rows import HeldOutRows

MOST_SECONDS = 60
MORE_BYTES = 1 << 30


def resident_mb() -> float:
    """Return the peak resident memory, since the last reset if the system supports it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def attempt(folder: str) -> dict[str, object]:
    """Open a bundle with its held-out rows, and predict one text."""
    gc.collect()
    with suppress(OSError):  # not every kernel has it: then the mark only rises
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before, began = resident_mb(), time.process_time()
    error = None
    try:
        with Runtime.open(folder) as runtime:
            runtime.predict("call")
            manifest = runtime.manifest
            HeldOutRows.open(Path(folder), len(manifest.labels), manifest.kb.ndim, manifest.kb_rows)
    except BaseException as caught:
        error = caught
    return {
        "folder": folder,
        "error": None if error is None else str(error),
        "kind": type(error).__name__,
        "bundle_error": isinstance(error, BundleError),
        "path": getattr(error, "path", None),
        "cpu_s": time.process_time() - began,
        "grown_mb": resident_mb() - before,
    }


def address_space() -> int:
    """Return the bytes of address space in use."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main(folders: list[str]) -> None:
    """Open all bundles."""
    for number, folder in enumerate(folders):
        signal.alarm(MOST_SECONDS)  # unheeded, it ends the process
        print(json.dumps(attempt(folder)), flush=True)  # noqa: T201
        if number == 0:
            limit = address_space() + MORE_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main(sys.argv[1:])
