"""Fuzzing a target: a module here with ``seeds()``, some inputs, and ``check(data)``, which raises what may not be.

From the folder ``tests``:

    python -m fuzz NAME                 guided by coverage, for FUZZ_SECONDS (300); needs atheris
    python -m fuzz NAME --count N       the seeds and N changed ones, the same every time, without atheris
    python -m fuzz NAME FILE            one input, such as one that was found, below .fuzz/NAME

A new target is a new file here: `make fuzz` and the tests find it.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .common import mutants

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 100_000  # bytes of an input


def main(name: str, *arguments: str) -> None:
    """Fuzz the target with this name."""
    if not arguments:
        guided(name)
        return
    target = import_module(f".{name}", __package__)
    if arguments[0] == "--count":
        for data in mutants(target.seeds(), int(arguments[1])):
            try:
                target.check(data)
            except BaseException:
                sys.stderr.write(f"of {len(data)} bytes: {data[:2000]!r}\n")
                raise
    else:
        target.check(Path(arguments[0]).read_bytes())


def guided(name: str) -> None:
    """Fuzz with atheris; findings and the corpus are kept for the next run."""
    import atheris

    with atheris.instrument_imports(include=["reaugkd"]):
        target: Any = import_module(f".{name}", __package__)
    corpus, found = ROOT / ".fuzz" / name / "corpus", ROOT / ".fuzz" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed{number}").write_bytes(seed)
    options = {"max_total_time": os.environ.get("FUZZ_SECONDS", "300"), "timeout": 10, "rss_limit_mb": 2048}
    options |= {"max_len": LARGEST, "artifact_prefix": f"{found}/", "print_final_stats": 1}
    atheris.Setup([name, *(f"-{key}={value}" for key, value in options.items()), str(corpus)], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
