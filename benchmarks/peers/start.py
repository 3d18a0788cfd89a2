"""Measure a cold start: milliseconds to the first answer, imports included, and the memory of the process then.

    python start.py SYSTEM BUILT

Apart from json and pathlib, no module that a system imports is imported before the clock starts.
"""

import json
import sys
import time
from pathlib import Path


def main(name: str, built: Path) -> None:
    """Print both figures as JSON."""
    began = time.perf_counter()
    from systems import open_system

    open_system(name, built)("where is my parcel?")
    ms = 1e3 * (time.perf_counter() - began)
    # Not getrusage: its peak includes the parent process before the fork.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    rss = int(status["VmRSS"].split()[0]) * 1024 / 1e6
    sys.stdout.write(f"\n{json.dumps({'ms': ms, 'rss_mb': rss})}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
