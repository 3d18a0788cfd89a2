"""Scripts in new interpreters, with a time limit that also ends their children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LIMIT = 60  # seconds; what runs here takes two


@contextmanager
def group(command: list[str], folder: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process with its own group, and end the whole group at the end of the block."""
    process = subprocess.Popen(
        command,
        env={**os.environ, "HOME": str(folder), "PYTHONWARNINGS": "ignore::DeprecationWarning", **more},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run_script(script: str, bundle: Path, folder: Path) -> str:
    """Run a script as ``main.py`` in ``folder`` with the bundle as its argument, and return its output.

    Raises:
        TimeoutExpired: it hangs, or a child of it does.
        AssertionError: it fails.
    """
    (folder / "main.py").write_text(script)
    with group([sys.executable, "-P", "main.py", str(bundle)], folder) as process:
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert err == ""
    return out
