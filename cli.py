"""The front door: `reaugkd COMMAND`. The commands are in commands/, one a file."""

from __future__ import annotations

from typing import Any

import click

from . import __version__
from .commands.bench import bench
from .commands.calibrate import calibrate
from .commands.condense import condense
from .commands.console import Commands, run
from .commands.demo import demo
from .commands.evaluate import evaluate
from .commands.export import export
from .commands.fuse import fuse
from .commands.inspect import inspect
from .commands.kb import kb
from .commands.predict import predict
from .commands.sign import sign
from .commands.study import study
from .commands.train import train


def main() -> None:
    """Run the command line: an error of ours is one line on stderr and its exit code, never a traceback."""
    run(cli)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Commands and options with a * need pip install 'reaugkd[train]'; the others run without torch.",
)
@click.version_option(__version__, prog_name="reaugkd")
def cli() -> None:
    """Distil a large text classifier into a small int8 one that looks things up in its teacher's knowledge."""


def _old_name(command: click.Command, name: str) -> click.Command:
    """A hidden command with an old name, which prints a note and runs the renamed command."""

    def run_renamed(**options: Any) -> Any:
        click.echo(f"note: `reaugkd {name}` is now `reaugkd {command.name}`", err=True)
        assert command.callback is not None
        return command.callback(**options)

    return click.Command(name, callback=run_renamed, params=command.params, help=command.help, hidden=True)


for command in (
    train,
    export,
    predict,
    evaluate,
    bench,
    inspect,
    kb,
    sign,
    calibrate,
    condense,
    fuse,
    study,
    demo,
):  # in the order of work
    cli.add_command(command)


cli.add_command(_old_name(condense, "compact"))

if __name__ == "__main__":
    main()
