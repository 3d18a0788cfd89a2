"""Scripts in interpreters of their own, with a time limit that ends their children too."""

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
    """A process that leads a group of its own, which is ended whole when the block is left."""
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
    """What a script prints, run as the file ``main.py`` in ``folder`` with the bundle as its argument.

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
