"""Options that several commands share."""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError

PATH = click.Path(path_type=Path)


class BundlePath(click.ParamType[Path]):
    """The folder of a bundle, also of one on the Hugging Face Hub (``hf://owner/name@revision``), which is downloaded.

    Args:
        own: whether it must be a folder of the user, because the command, or one that it prints, changes the bundle.
    """

    name = "path"

    def __init__(self, own: bool = False) -> None:
        self._own = own

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the bundle's folder.

        Raises:
            UsageError: a bundle of the cache would be changed.
        """
        text = os.fsdecode(value)  # type: ignore[arg-type]
        if not text.startswith("hf://"):
            return Path(text)
        from ..runtime.hub.address import HubAddress
        from ..runtime.hub.download import HubCache
        from .console import tell

        address = HubAddress.parse(text)
        if self._own:
            raise UsageError(
                "this command needs a bundle in a folder of yours, because edits of the cache are easily lost",
                found=text,
                remedy=f"Download it: `reaugkd pull {address.name} --out BUNDLE`. To publish your edits: "
                f"`reaugkd push BUNDLE {address.repository}`.",
            )
        return HubCache(tell=tell).bundle(address)


BUNDLE = BundlePath()
OWN_BUNDLE = BundlePath(own=True)

with_threads = click.option(
    "--threads", type=click.IntRange(1), default=1, metavar="N", help="Number of threads.  [default: 1]"
)
with_task = click.option(
    "--task", metavar="NAME", help="Name of a GLUE task, clinc150, clinc150_oos, or a subset of the hub data set."
)
with_split = click.option(
    "--split",
    metavar="NAME",
    help="Split to score: train, dev, test or all (every row; for a file of rows not used in training).  "
    "[default: test if it has labels, else dev]",
)
with_signature = click.option(
    "--require-signature",
    type=PATH,
    metavar="PUB.pem",
    help="Refuse the bundle unless it is signed with this key (see `reaugkd sign`).",
)
with_links = click.option(
    "--follow-links",
    is_flag=True,
    help="Follow links that lead out of the bundle's folder, as in the cache of Hugging Face's hub.",
)


def with_opening(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that opens a bundle to read it: `with_signature` and `with_links`."""
    return with_signature(with_links(command))


with_search = click.option(
    "--search",
    type=click.Choice(["auto", "graph", "usearch"]),
    default="auto",
    help="How neighbours are found: in the run of the model, among all rows or in lists (graph), or after it in an "
    "HNSW index (usearch). auto takes graph for up to 8 MB of keys and labels, and where the bundle has lists, without "
    "a gate or a budget.  [default: auto]",
)
with_json = click.option(
    "--json", "json_path", metavar="FILE|-", help="Write the results as JSON to a new file, or to stdout (-)."
)


class LazyChoice(click.Choice[str]):
    """A choice of names that are loaded on first use, so that the command line starts without them."""

    def __init__(self, load: Callable[[], Sequence[str]]) -> None:
        self.case_sensitive = True
        self._load = load

    @functools.cached_property
    def choices(self) -> Sequence[str]:  # type: ignore[override]
        """Return the names."""
        return self._load()


_COLUMNS = {"label": "label", "text_pair": "second text of a pair", "text": "text"}


_ENGINE = (
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        help="Processes on this machine, or a cluster of Ray (extra ray).  [default: local]",
    ),
    click.option(
        "--address",
        metavar="ADDRESS",
        help="Address of the cluster of Ray, such as auto.  [default: RAY_ADDRESS, or else Ray on this machine alone]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        metavar="N",
        help="Number of processes.  [default: the cores of this process, or of the cluster, divided by the threads]",
    ),
    with_threads,
)


def with_engine(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the engine that runs the workers."""

    @functools.wraps(command)
    def checked(engine: str, address: str | None, **given: Any) -> Any:
        if address is not None and engine != "ray":
            raise UsageError(
                "--address is for a cluster of Ray", found=f"--engine {engine}", remedy="Add --engine ray."
            )
        return command(engine=engine, address=address, **given)

    made: Callable[..., Any] = checked
    for option in reversed(_ENGINE):
        made = option(made)
    return made


def with_columns(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name columns and the encoding; the command receives them as one argument ``columns``."""
    return _with_columns(command, _COLUMNS)


def with_text_columns(command: Callable[..., Any]) -> Callable[..., Any]:
    """`with_columns` without the label's, for a command that reads no labels."""
    return _with_columns(command, {name: what for name, what in _COLUMNS.items() if name != "label"})


def _with_columns(command: Callable[..., Any], names: Mapping[str, str]) -> Callable[..., Any]:
    @functools.wraps(command)
    def wrapped(*args: Any, encoding: str | None, **options: Any) -> Any:
        from ..runtime.data import Columns

        text, pair, label = (options.pop(f"{name}_column", None) for name in ("text", "text_pair", "label"))
        return command(*args, columns=Columns(text, pair, label, encoding), **options)

    wrapped = click.option(
        "--encoding",
        metavar="NAME",
        help="Encoding of text files, such as cp1252.  [default: UTF-8, or what a byte order mark names]",
    )(wrapped)

    for name, what in names.items():
        text = f"Name of the column with the {what}.  [default: detected]"
        wrapped = click.option(f"--{name.replace('_', '-')}-column", metavar="NAME", help=text)(wrapped)
    return wrapped


def without_blas_threads(command: Callable[..., Any]) -> Callable[..., Any]:
    """Keep numpy, imported when the command runs, from starting one thread for each core, which takes 26 ms.

    Use it for commands that need no fast linear algebra.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        return command(*args, **options)

    return wrapped


def not_empty(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse an empty name, such as that of an unset variable: as a path it would be the current folder.

    Raises:
        BadParameter: the name is empty.
    """
    if value == "":
        raise click.BadParameter("the name is empty")
    return value


def share_of(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Parse the value of an option: a share such as 0.5% or 0.005.

    Raises:
        BadParameter: the value has another form, or is not between 0 and 1.
    """
    if value is None:
        return None
    try:
        share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{value!r} is not a share such as 0.5% or 0.005")
    return share


def numbers(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Parse the value of an option: whole numbers, separated by commas.

    Raises:
        BadParameter: the value has another form.
    """
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers such as 0,2,5") from None


def names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Parse the value of an option: names separated by commas; one that has a comma stands in double quotes."""
    return None if value is None else tuple(name.strip() for name in next(csv.reader([value], skipinitialspace=True)))
