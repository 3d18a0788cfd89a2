"""The terminal: one-line errors, signals, streams, output files, progress, and hints about missing extras."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, NoReturn, TextIO

import click

from ..errors import DependencyError, ReaugkdError, StorageError, UsageError, one_line

if TYPE_CHECKING:
    from ..runtime.bundle.bundle import Bundle
    from ..runtime.monitoring.statistics import Stats
    from ..runtime.output.progress import ProgressLine

_SIGNALS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}
_received: list[str] = []  # SIGTERM and SIGHUP, which raise the same exception as Ctrl-C


class Commands(click.Group):
    """A group that lists its commands in the order they are added, and reports every user error in one line.

    Args:
        arguments: the arguments of `click.Group`.
        renamed: former name of a command -> its name now.
        options: the keyword arguments of `click.Group`.
    """

    def __init__(self, *arguments: Any, renamed: Mapping[str, str] = MappingProxyType({}), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._renamed = renamed

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command with this name, or this former name."""
        name = self._renamed.get(cmd_name)
        if name is not None:
            click.echo(f"note: `{ctx.command_path} {cmd_name}` is now `{ctx.command_path} {name}`", err=True)
        return super().get_command(ctx, name or cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the options of the group."""
        with _one_line_errors():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command; if it returns a number, this is the exit code."""
        with _one_line_errors():
            code = super().invoke(ctx)
        if code:
            ctx.exit(code)


class _Failure(click.ClickException):
    """An error that click shows in one line on stderr before it exits with the code."""

    def __init__(self, message: str, exit_code: int, prefix: str = "error: ") -> None:
        super().__init__(prefix + one_line(message))
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file, err=True)


def run(commands: click.Command) -> NoReturn:
    """Run the command line and exit."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the caller closed it
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  (open until the exit)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Line by line, for a program that reads answers through a pipe while it sends texts.
            stream.reconfigure(errors="replace", line_buffering=True)
    _received.clear()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)
    sys.exit(commands.main(prog_name="reaugkd"))


def _interrupt(number: int, _frame: object) -> None:
    """Raise the exception of Ctrl-C, so that every ``finally`` runs and temporary files are removed.

    Raises:
        KeyboardInterrupt: always.
    """
    _received.append(signal.Signals(number).name)
    raise KeyboardInterrupt


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn the errors that a user can cause into `_Failure`, which click shows without a traceback.

    Raises:
        _Failure: an error of the user or of the operating system, or a signal.
        NoArgsIsHelpError: a group without a command; click shows the help.
        Exit: the reader of stdout has closed it.
    """
    try:
        yield
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        hint = f" See `{error.ctx.command_path} --help`." if error.ctx else ""
        raise _Failure(f"{error.format_message().rstrip('.')}.{hint}", error.exit_code) from error
    except ReaugkdError as error:
        raise _Failure(str(error), error.exit_code) from error
    except KeyboardInterrupt:
        name = _received[0] if _received else "SIGINT"
        code = 128 + getattr(signal, name)
        raise _Failure(f"{_SIGNALS[name]}: no partial files were left", code, prefix="") from None
    except MemoryError as error:
        raise _Failure("out of memory", StorageError.exit_code) from error
    except OSError as error:
        _discard_stdout()
        if isinstance(error, BrokenPipeError):
            raise click.exceptions.Exit(0) from None  # the reader, such as head or less, has read enough
        # An error with a number but without a file is one of stdout.
        place = error.filename or ("stdout" if error.errno is not None else None)
        text = error.strerror or str(error)
        raise _Failure(f"{place}: {text}" if place else text, StorageError.exit_code) from error


def _discard_stdout() -> None:
    """Drop what cannot be written to stdout, or Python tries again at the exit and reports the error."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command_line() -> str:
    """The command line of this process, as a shell takes it."""
    return shlex.join(["reaugkd", *sys.argv[1:]])


def tell(remark: str) -> None:
    """Show a remark on the input in one line on stderr."""
    click.echo(f"note: {one_line(remark)}", err=True)


def tell_kept_card(bundle: Bundle, follow_links: bool) -> None:
    """Say which files for the Hub a copy of the bundle has as people edited them.

    Raises:
        BundleError: same as `edited_card`.
    """
    from ..runtime.hub.card import edited_card

    kept = edited_card(bundle, follow_links)
    if kept:
        tell(f"{' and '.join(kept)}: copied with your edits; check the figures there")


@contextlib.contextmanager
def train_extra(what: str) -> Iterator[None]:
    """Import libraries of the train extra in this block.

    Args:
        what: what needs them, such as ``"training"``.

    Raises:
        DependencyError: a library is not installed.
        ModuleNotFoundError: a module of this package is missing.
    """
    # OpenMP reads this when torch is loaded. Its threads spin by default while they wait, which slows other processes:
    # beside two busy processes a training step took 2.1 to 3.1 seconds, and 0.4 to 0.9 with this setting.
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
    """Tell the user after an interrupt how to resume.

    Raises:
        KeyboardInterrupt: the interrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo("to resume, run the same command again", err=True)
        raise


def require_two_places(first: str, path: str | None, second: str, other: str | None) -> None:
    """Check that two outputs of a command go to two places.

    Args:
        first: the option of one output.
        path: its file, ``-`` for stdout, or None.
        second: the option of the other output.
        other: same as ``path``.

    Raises:
        UsageError: both go to one place.
    """
    if path is None or other is None or Path(path).absolute() != Path(other).absolute():
        return
    if path == "-":
        raise UsageError(f"{first} and {second} cannot both go to stdout", remedy="Name a file with one of them.")
    raise UsageError(f"{first} and {second} name the same file", found=path, remedy="Give two files.")


@contextlib.contextmanager
def output(path: str, machine: bool) -> Iterator[TextIO]:
    """Open the output: stdout for ``-``, else a new file, which appears only if it is complete.

    Args:
        path: a file that does not exist yet, or ``-``.
        machine: whether programs read the output: then it is UTF-8 also on a terminal with another encoding.

    Raises:
        OutputExistsError: the file exists.
        StorageError: the file cannot be written.
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


def json_report(path: str | None) -> contextlib.AbstractContextManager[Callable[[object], None]]:
    """Open a report, and return the function that writes it as JSON.

    The file is opened at once, so that an error is reported before anything is measured.

    Args:
        path: a file that does not exist yet; ``-`` for stdout; None for no report.
    """
    return _report(path, _json)


def stats_report(path: str | None) -> contextlib.AbstractContextManager[Callable[[Stats], None]]:
    """Open a report of `Stats`: JSON, or Prometheus's text format if the file name ends in ``.prom``."""
    prometheus = path is not None and Path(path).suffix == ".prom"
    return _report(path, (lambda stats: stats.prometheus()) if prometheus else _json)


@contextlib.contextmanager
def _report(path: str | None, render: Callable[[Any], str]) -> Iterator[Callable[[Any], None]]:
    if path is None or path == "-":
        yield lambda report: None if path is None else click.echo(render(report), nl=False)
        return
    from ..kb.storage.atomic import atomic_write, refuse_existing

    refuse_existing(Path(path))
    with atomic_write(Path(path)) as file:

        def write(report: Any) -> None:
            file.write(render(report))

        yield write


def _json(report: object) -> str:
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def progress(label: str, unit: str, rate: bool = False) -> Iterator[ProgressLine]:
    """Show a progress line with the remaining time on stderr; it is removed at the end of the block.

    Args:
        label: the name of the task.
        unit: the unit that is counted, in the singular.
        rate: same as `ProgressLine`.
    """
    from ..runtime.output.progress import ProgressLine

    line = ProgressLine(label, unit, sys.stderr, shutil.get_terminal_size().columns, rate=rate)
    try:
        yield line
    finally:
        line.clear()


@contextlib.contextmanager
def stages(lines: Mapping[str, tuple[str, bool]]) -> Iterator[Callable[[str, int, int | None, int], None]]:
    """A function that shows the progress of stages; ``lines`` has the unit of each, and whether it has a rate."""
    with contextlib.ExitStack() as shown:
        begun: dict[str, ProgressLine] = {}

        def show(stage: str, done: int, total: int | None, before: int) -> None:
            if stage not in begun:
                shown.close()  # the line of the stage before
                begun[stage] = shown.enter_context(progress(stage, *lines[stage]))
            begun[stage](done, total, before)

        yield show
