"""Measure the cost of retrieval by tokens, rows and threads.

    python -m reaugkd.benchmarks.sweep BUNDLE [--data FILE] [--tokens 8,16,32] [--rows 10000,100000] [--seconds 20]
        [--threads N] [--json FILE] [--plot FILE.svg|png]

Run it from a checkout that is installed in development mode. A million rows take minutes to build.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from reaugkd.benchmarks.sweep.plot import plot_file
from reaugkd.benchmarks.sweep.report import format_sweep
from reaugkd.benchmarks.sweep.sweep import SweepSettings, sweep
from reaugkd.commands.console import progress
from reaugkd.commands.data_source import load_texts
from reaugkd.errors import ReaugkdError
from reaugkd.kb.storage.atomic import atomic_write
from reaugkd.runtime.bundle.bundle import Bundle
from reaugkd.runtime.data import Columns


def main(arguments: list[str] | None = None) -> None:
    """Run the sweep and write its table to stdout."""
    parser = argparse.ArgumentParser(prog="python -m reaugkd.benchmarks.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", help="File of texts to cut to length.  [default: the knowledge base's texts]")
    parser.add_argument("--tokens", type=_numbers, help="Tokens per text.  [default: 8,16,32,64,128 up to max_length]")
    parser.add_argument("--rows", type=_numbers, help="Rows of the knowledge bases.  [default: 10000,100000]")
    parser.add_argument("--seconds", type=float, help="Time for the latency measurement.  [default: 20]")
    parser.add_argument("--threads", type=int, help="Number of threads to compare with one.  [default: all cores]")
    parser.add_argument("--json", type=Path, help="Write the report as JSON to a file.")
    parser.add_argument("--plot", type=Path, help="Write the plot to a file (.svg or .png).")
    options = vars(parser.parse_args(arguments))
    bundle, data, json_file, plot = (options.pop(name) for name in ("bundle", "data", "json", "plot"))
    try:
        settings = SweepSettings(**{name: value for name, value in options.items() if value is not None})
        pair = Bundle.open(bundle, verify=False).manifest.text_pair
        texts, source = (None, None) if data is None else load_texts(data, None, Columns(), pair)
        drawing: Any = nullcontext(lambda _report: None) if plot is None else plot_file(plot)
        with drawing as draw:
            report = sweep(bundle, texts, settings=settings, source=source, progress=progress)
            sys.stdout.write(format_sweep(report) + "\n")
            draw(report)
        if json_file is not None:
            with atomic_write(json_file) as file:
                json.dump(report.to_json(), file, indent=1)
    except ReaugkdError as error:
        parser.exit(error.exit_code, f"{error}\n")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
