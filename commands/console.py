"""What every command shares with the terminal: errors on one line, signals, streams, output files, hints to install."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from ..errors import DependencyError, ReaugkdError, StorageError, one_line

if TYPE_CHECKING:
    from ..runtime.monitoring.statistics import Stats
    from ..runtime.output.progress import ProgressLine

INTERRUPTED = 128 + signal.SIGINT


class _Passed(Exception):  # noqa: N818  (an envelope, no error)
    """Carries what click would handle in its own way past it, as its ``__cause__``."""


class Commands(click.Group):
    """A group that lists its commands in the order of work and leaves interrupts and broken pipes to ``run``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of their definition."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError, OSError) as error:
            raise _Passed from error


def run(commands: click.Command) -> NoReturn:
    """Run the command line and end the process: what the user can cause is one line on stderr, never a traceback."""
    _prepare_streams()
    told: list[int] = []  # the exit code of a signal that has been told
    _end_politely_on(signal.SIGTERM, "terminated", told)
    if hasattr(signal, "SIGHUP"):
        _end_politely_on(signal.SIGHUP, "hung up", told)
    try:
        code: Any = _exit_code(commands)
    except SystemExit as stop:  # of a signal, or of click
        code = stop.code
    except KeyboardInterrupt:
        # A search cut short loses the exception that the signal's handler raised (kb.index makes this one of it).
        code = told[0] if told else _tell("interrupted: nothing half-written was left", INTERRUPTED, prefix="")
    sys.exit(_flushed(code))


def _exit_code(commands: click.Command) -> int:
    try:
        try:
            result = commands.main(prog_name="reaugkd", standalone_mode=False)
        except _Passed as envelope:
            assert envelope.__cause__ is not None
            raise envelope.__cause__ from None
    except ReaugkdError as error:
        return _tell(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        return _tell(_usage(error), error.exit_code)
    except click.Abort:
        raise KeyboardInterrupt from None
    except BrokenPipeError:
        return 0  # the reader (head, less) has seen enough
    except OSError as error:
        # Without a name it is one of our own streams, unless it says more than its number does.
        where = error.filename or ("stdout" if error.errno is not None else None)
        text = error.strerror or str(error)
        return _tell(f"{where}: {text}" if where else text, StorageError.exit_code)
    except MemoryError:
        return _tell("out of memory", StorageError.exit_code)
    return result if isinstance(result, int) else 0


def _tell(message: str, code: int, prefix: str = "error: ") -> int:
    click.echo(prefix + one_line(message), err=True)
    return code


def _usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}. See `{context.command_path} --help`." if context is not None else f"{message}."


def _prepare_streams() -> None:
    """Streams that the caller closed become the null device; characters a terminal lacks become question marks."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  (for good)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Line by line, so that whoever reads along a pipe is not kept waiting.
            stream.reconfigure(errors="replace", line_buffering=True)


def _end_politely_on(number: signal.Signals, word: str, told: list[int]) -> None:
    """Leave by way of every ``finally``, so that temporary files go; a signal that is ignored (nohup) stays so."""

    def leave(_number: int, _frame: object) -> None:
        told.append(_tell(f"{word}: nothing half-written was left", 128 + number, prefix=""))
        raise SystemExit(told[0])

    if signal.getsignal(number) is signal.SIG_DFL:
        signal.signal(number, leave)


def _flushed(code: Any) -> Any:
    """Flush stdout while its failure can still be told; Python would complain again at exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not code and not isinstance(error, BrokenPipeError):
            return _tell(f"stdout: {error.strerror}", StorageError.exit_code)
    return code


@contextlib.contextmanager
def train_extra(what: str) -> Iterator[None]:
    """Import from the train extra here; a missing library becomes the way to get it."""
    # OpenMP reads it when torch is loaded. By default its threads spin while they wait, and take the core from whatever
    # else runs: beside two busy processes a training step took 2.1 to 3.1 seconds, and 0.4 to 0.9 with this.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "reaugkd":
            raise
        raise DependencyError(
            f"{what} needs the train extra",
            found=f"no module {error.name!r}",
            remedy="Install it: pip install 'reaugkd[train]'.",
        ) from error


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Say after an interrupt that nothing is lost."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        click.echo("the same command again goes on where this one stopped", err=True)
        raise


@contextlib.contextmanager
def output(path: str, machine: bool) -> Iterator[TextIO]:
    """Where answers go: stdout for ``-``, else a new file that appears whole or not at all.

    Args:
        path: a file that does not exist yet, or ``-``.
        machine: for programs: always UTF-8, whatever the terminal speaks.

    Raises:
        OutputExistsError: the file exists.
        StorageError: it cannot be written.
    """
    if path == "-":
        if machine and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    from ..kb.storage.atomic import atomic_write, refuse_existing

    refuse_existing(Path(path))
    with atomic_write(Path(path)) as file:
        yield file  # type: ignore[misc]


@contextlib.contextmanager
def json_report(path: str | None) -> Iterator[Callable[[object], None]]:
    """A function that writes the report, to a file (replaced whole), to stdout (``-``) or, for None, nowhere.

    A file is opened before anything is measured, so that a place that cannot be written is told at once.
    """
    if path is None:
        yield lambda _report: None
        return
    if path == "-":
        yield lambda report: click.echo(_json(report))
        return
    from ..kb.storage.atomic import atomic_write, refuse_existing

    if not Path(path).is_file():
        refuse_existing(Path(path))
    with atomic_write(Path(path)) as file:

        def write(report: object) -> None:
            file.write(_json(report) + "\n")

        yield write


@contextlib.contextmanager
def stats_report(path: str | None) -> Iterator[Callable[[Stats], None]]:
    """`json_report` for `Stats`, in Prometheus's text format where the file's name ends in ``.prom``."""
    if path is None or Path(path).suffix != ".prom":
        with json_report(path) as write:
            yield write
        return
    from ..kb.storage.atomic import atomic_write, refuse_existing

    if not Path(path).is_file():
        refuse_existing(Path(path))
    with atomic_write(Path(path)) as file:

        def write_text(stats: Stats) -> None:
            file.write(stats.prometheus())

        yield write_text


def _json(report: object) -> str:
    return json.dumps(report, indent=1, ensure_ascii=False)


@contextlib.contextmanager
def progress(label: str, unit: str) -> Iterator[ProgressLine]:
    """A progress line on stderr with the time left, which is gone when the block ends, however it ends."""
    from ..runtime.output.progress import ProgressLine

    line = ProgressLine(label, unit, sys.stderr, shutil.get_terminal_size().columns)
    try:
        yield line
    finally:
        line.clear()
