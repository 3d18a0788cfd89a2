"""The command line, `reaugkd COMMAND`. Each command has its own file in commands/."""

from __future__ import annotations

import click

from . import __version__
from .commands.batch import batch
from .commands.bench import bench
from .commands.calibrate import calibrate
from .commands.condense import condense
from .commands.console import Commands, run
from .commands.demo import demo
from .commands.evaluate import evaluate
from .commands.export import export
from .commands.fuse import fuse
from .commands.hub import pull, push
from .commands.inspect import inspect
from .commands.kb import kb
from .commands.predict import predict
from .commands.report import report
from .commands.serve import serve
from .commands.sign import sign
from .commands.study import study
from .commands.suggest import suggest
from .commands.train import train
from .commands.ui import ui


def main() -> None:
    """Run the command line and exit. An error is one line on stderr; ``errors`` has the exit codes."""
    run(cli)


@click.group(
    cls=Commands,
    renamed={"compact": "condense"},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Commands and options with * need the train extra: pip install 'reaugkd[train]'.",
)
@click.version_option(__version__, prog_name="reaugkd")
def cli() -> None:
    """Distil a large text classifier into a small one that retrieves its teacher's soft labels on a CPU."""


for name, command in {  # in the order of work
    "train": train,
    "export": export,
    "predict": predict,
    "batch": batch,
    "serve": serve,
    "ui": ui,
    "eval": evaluate,
    "report": report,
    "bench": bench,
    "inspect": inspect,
    "kb": kb,
    "suggest": suggest,
    "sign": sign,
    "pull": pull,
    "push": push,
    "calibrate": calibrate,
    "condense": condense,
    "fuse": fuse,
    "study": study,
    "demo": demo,
}.items():
    cli.add_command(command, name)


if __name__ == "__main__":
    main()
