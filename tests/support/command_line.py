"""Calls of the command line, in this process or in a new one."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from reaugkd import cli
from support.tiny_bundle import tiny_texts

HEAVY = (
    *("torch", "transformers", "optimum", "onnx", "datasets", "accelerate", "safetensors", "tqdm", "sklearn", "pandas"),
    *("pyarrow", "scipy", "mapie"),
)

COMMANDS = (
    *(
        "train",
        "export",
        "predict",
        "batch",
        "serve",
        "ui",
        "eval",
        "report",
        "bench",
        "inspect",
        "kb",
        "suggest",
        "sign",
        "pull",
        "push",
        "calibrate",
        "condense",
        "fuse",
    ),
    *("study", "demo"),
)


class Called(NamedTuple):
    """The result of a call."""

    code: int
    out: str
    err: str


class _Bytes(io.BytesIO):
    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(content)
        self.name = f"<{name}>"


def call(*arguments: object, stdin: bytes = b"") -> Called:
    """Run ``reaugkd ARGUMENTS`` in this process."""
    streams = {
        name: io.TextIOWrapper(_Bytes(name, stdin if name == "stdin" else b""), encoding="utf-8", newline="")
        for name in ("stdin", "stdout", "stderr")
    }
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with mock.patch.multiple(sys, argv=["reaugkd", *map(str, arguments)], **streams):
            cli.main()
    except SystemExit as stop:
        code = stop.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    out, err = (streams[name].buffer.getvalue().decode() for name in ("stdout", "stderr"))  # type: ignore[attr-defined]
    assert isinstance(code, int)
    return Called(code, out, err)


def ok(*arguments: object, stdin: bytes = b"") -> Called:
    """Run ``call``, which must succeed."""
    done = call(*arguments, stdin=stdin)
    assert done.code == 0, done.err
    return done


def refused(*arguments: object, stdin: bytes = b"", code: int = 2, remarks: int = 0) -> str:
    """Run ``call``, which must fail with one line on stderr and nothing on stdout, and return the line.

    Args:
        arguments: of the command line.
        stdin: its input.
        code: the exit code expected.
        remarks: lines that may stand before the error.
    """
    done = call(*arguments, stdin=stdin)
    assert done.code == code, (done.code, done.err)
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) <= remarks + 1 and lines[-1].startswith("error: "), done.err
    assert done.err.endswith("\n") and "Traceback" not in done.err
    return lines[-1]


def spawn(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start ``reaugkd ARGUMENTS`` in a new process; the three streams are pipes unless ``options`` override them."""
    return spawn_python("from reaugkd.cli import main; main()", *arguments, **options)


def spawn_python(script: str, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start a script in a new interpreter that ignores no signal; see ``spawn``."""
    piped = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    # A job started in the background comes with SIGINT ignored, one under nohup with SIGHUP, and Python leaves that so.
    heeded = "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    script = f"import signal; {heeded}\n{script}"
    command = [sys.executable, "-P", "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **{**piped, **options})


def finish(process: subprocess.Popen[bytes], stdin: bytes | None = None) -> Called:
    """Wait for a spawned process; one ended by a signal has the signal's negative number as its code."""
    out, err = process.communicate(stdin, timeout=120)
    return Called(process.returncode, (out or b"").decode(), (err or b"").decode())


def names(folder: Path) -> list[str]:
    """Return the names in a folder, hidden files included."""
    return sorted(entry.name for entry in folder.iterdir())


def records(text: str) -> list[dict[str, Any]]:
    """The objects of JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def ok_json(bundle: Path, *arguments: object) -> str:
    """Return the output of ``predict`` as JSON lines."""
    return ok("predict", bundle, *arguments, "--format", "jsonl").out


ROWS = "text,label\n" + "".join(f"noon {row},{'ab'[row % 2]}\n" for row in range(30))
"""A file of labelled rows."""


def labelled_rows(path: Path, rows: int = 30) -> Path:
    """Write a labelled file of the tiny bundle's texts and labels."""
    texts = tiny_texts(rows, seed=9)
    lines = [json.dumps({"text": text, "label": "abc"[row % 3]}) for row, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n")
    return path
