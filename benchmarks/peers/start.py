"""A fresh process's start: milliseconds to its first answer, imports included, and its memory then.

    python start.py SYSTEM BUILT

But for json and pathlib, nothing is imported before the clock starts that a system would have to import itself.
"""

import json
import sys
import time
from pathlib import Path


def main(name: str, built: Path) -> None:
    """Print both as JSON."""
    began = time.perf_counter()
    from systems import open_system

    open_system(name, built)("where is my parcel?")
    ms = 1e3 * (time.perf_counter() - began)
    # Not getrusage: its peak is that of the process this one was forked from.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    rss = int(status["VmRSS"].split()[0]) * 1024 / 1e6
    sys.stdout.write(f"\n{json.dumps({'ms': ms, 'rss_mb': rss})}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
