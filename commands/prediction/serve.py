"""`reaugkd serve`."""

from __future__ import annotations

import logging
import math
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import DependencyError, UsageError
from ...serve.settings import CONNECTIONS, DEADLINE, MOST_BYTES, MOST_TEXTS, QUEUE
from ..options import PATH, with_opening, without_blas_threads

if TYPE_CHECKING:
    import socket

    from ...serve.settings import ServerSettings


@click.command(short_help="Answer texts over HTTP.")
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True)
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="Address to listen at; 0.0.0.0 for all of this machine.  [default: 127.0.0.1]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    metavar="N",
    help="Port to listen at; 0 for a free one.  [default: 8080]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    default=1,
    metavar="N",
    help="Number of processes; more than one pays above 4 cores.  [default: 1]",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    metavar="N",
    help="Texts that a process answers side by side.  [default: the cores of this process, divided by the workers]",
)
@click.option(
    "--retrieval",
    type=click.Choice(["always", "gated", "never"]),
    default="always",
    help="When to retrieve, unless a request says it.  [default: always]",
)
@click.option(
    "--queue",
    type=click.IntRange(1),
    default=QUEUE,
    metavar="TEXTS",
    help=f"Most texts of a process that wait or are answered; further requests get code 429.  [default: {QUEUE}]",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1),
    default=MOST_TEXTS,
    metavar="TEXTS",
    help=f"Most texts of one request.  [default: {MOST_TEXTS}]",
)
@click.option(
    "--max-body",
    type=click.IntRange(1),
    default=MOST_BYTES,
    metavar="BYTES",
    help=f"Most bytes of one request.  [default: {MOST_BYTES}]",
)
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    default=DEADLINE,
    metavar="SECONDS",
    help=f"Most seconds of one request; then it gets code 504.  [default: {DEADLINE:g}]",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1),
    default=CONNECTIONS,
    metavar="N",
    help=f"Largest number of open connections of a process; further clients wait.  [default: {CONNECTIONS}]",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0),
    default=5.0,
    metavar="SECONDS",
    help="After SIGTERM, seconds in which /health says 503 and texts are still answered.  [default: 5]",
)
@click.option("--allow-edits", is_flag=True, help="Turn on the routes below /kb, which edit the knowledge base.")
@click.option(
    "--api-key-file",
    type=PATH,
    metavar="FILE",
    help="File of keys, one a line; requests need one of them. The environment variable REAUGKD_API_KEY is one more.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Origin whose pages may read answers in a browser, such as https://example.org; * for all. Can be given "
    "repeatedly.",
)
@with_opening
@without_blas_threads
def serve(
    bundles: tuple[str, ...],
    host: str,
    port: int,
    workers: int,
    threads: int | None,
    drain_seconds: float,
    api_key_file: Path | None,
    cors_origins: tuple[str, ...],
    require_signature: Path | None,
    **limits: Any,
) -> int:
    """Answer texts over HTTP, with one or more bundles, each given as BUNDLE or NAME=BUNDLE.

    Clients of text-embeddings-inference (POST /predict), Hugging Face (POST /), vLLM (POST /classify) and the Open
    Inference Protocol (/v2) work unchanged; POST /v1/predict has everything. GET /openapi.json describes all routes.

    SIGTERM ends the server without losing a request. A new bundle at the same path is taken in by itself, SIGHUP does
    it at once. Needs the serve extra: pip install 'reaugkd[serve]'.
    """
    require_server()
    from ...runtime.inference.session.threads import default_threads
    from ...serve.process.listener import is_local, listen, url_of
    from ...serve.settings import ServerSettings, named_bundles, read_keys

    if not math.isfinite(drain_seconds):
        raise UsageError("--drain-seconds is unusable", found=f"{drain_seconds:g}", expected="seconds from 0")
    keys = read_keys(api_key_file)
    with listen(host, port) as listener:
        settings = ServerSettings(
            named_bundles(bundles),
            threads=threads or max(1, default_threads() // workers),
            edits_without_key=is_local(listener),
            keys=keys,
            cors_origins=cors_origins,
            require_signature=require_signature,
            **limits,
        )
        begin_log()
        logging.getLogger("reaugkd.serve").info("listening on %s", url_of(listener))
        return _run(settings, listener, workers, drain_seconds)


def _run(settings: ServerSettings, listener: socket.socket, workers: int, drain_seconds: float) -> int:
    if workers == 1:
        from ...serve.process.server import run_server

        run_server(settings, listener, drain_seconds)
        return 0
    from ...serve.metrics import SharedCounts, WorkerCounts
    from ...serve.process.workers import Supervisor

    shared = SharedCounts(workers)

    def work(number: int, on_ready: Any, parent: int, replacement: bool) -> None:
        from ...serve.process.server import run_server

        counts = WorkerCounts(shared, number)
        run_server(settings, listener, drain_seconds, counts, on_ready, parent, replacement=replacement)

    return Supervisor(workers, listener, work).run()


def require_server() -> None:
    """Check that this system and its packages can serve, before anything else is done.

    Raises:
        DependencyError: the serve extra is not installed.
        UsageError: the system has no signals of Unix.
    """
    try:
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise DependencyError(
            "serving needs the serve extra",
            found=f"no module {error.name!r}",
            remedy="Install it: pip install 'reaugkd[serve]'.",
        ) from error
    if not hasattr(signal, "SIGHUP"):
        raise UsageError("`reaugkd serve` and `reaugkd ui` run on Linux and macOS", found=sys.platform)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the bundles are open, there is nothing to open again


def begin_log() -> None:
    """Write the log to stderr, a line for each event. uvicorn's warnings are left out: clients could fill the log."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in ("reaugkd.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "reaugkd.serve" else logging.ERROR)
