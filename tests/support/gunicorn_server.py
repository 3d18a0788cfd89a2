"""A gunicorn that serves a WSGI application of a test."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from .own_process import LIMIT, group


@contextmanager
def gunicorn(arguments: Sequence[str], folder: Path, bundle: Path) -> Iterator[Path]:
    """Start gunicorn in a folder with BUNDLE in its environment, yield its socket, and stop it."""
    if sys.platform != "linux" or find_spec("gunicorn") is None:
        pytest.skip("gunicorn is not here")
    program = [sys.executable, "-m", "gunicorn"]
    options = ["--timeout", str(LIMIT), "--log-level", "error"]
    known = subprocess.run([*program, "--help"], capture_output=True, text=True, timeout=LIMIT, check=True).stdout
    if "--no-control-socket" in known:  # newer ones put a socket into the user's home
        options.append("--no-control-socket")
    with tempfile.TemporaryDirectory(prefix="reaugkd") as short:  # the name of a socket ends after 107 bytes
        path = Path(short) / "socket"
        with group([*program, *options, "--bind", f"unix:{path}", *arguments], folder, BUNDLE=str(bundle)) as master:
            yield path
            master.terminate()
            assert master.wait(LIMIT) == 0


def connect(path: Path) -> socket.socket:
    """Connect to gunicorn as soon as it listens."""
    until = time.monotonic() + LIMIT
    while True:
        channel = socket.socket(socket.AF_UNIX)
        channel.settimeout(LIMIT)
        try:
            channel.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            channel.close()
            assert time.monotonic() < until, "gunicorn does not listen"
            time.sleep(0.02)
        else:
            return channel
