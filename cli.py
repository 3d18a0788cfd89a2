"""The command line, `reaugkd COMMAND`. Each command has its own file in a folder of commands/."""

from __future__ import annotations

import click

from . import __version__
from .commands.bundle.calibrate import calibrate
from .commands.bundle.condense import condense
from .commands.bundle.export import export
from .commands.bundle.fuse import fuse
from .commands.bundle.hub import pull, push
from .commands.bundle.inspect import inspect
from .commands.bundle.sign import sign
from .commands.console import Commands, run
from .commands.evaluation.bench import bench
from .commands.evaluation.evaluate import evaluate
from .commands.evaluation.report import report
from .commands.kb.kb import kb
from .commands.kb.suggest import suggest
from .commands.prediction.batch import batch
from .commands.prediction.predict import predict
from .commands.prediction.serve import serve
from .commands.prediction.ui import ui
from .commands.training.demo import demo
from .commands.training.study import study
from .commands.training.train import train


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
