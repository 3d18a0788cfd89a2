"""`reaugkd ui`."""

from __future__ import annotations

import logging
import re
import threading
import webbrowser
from pathlib import Path

import click

from ..options import OWN_BUNDLE, without_blas_threads
from .serve import begin_log, require_server

_DEADLINE = 60.0  # seconds; nobody else waits while a long list of texts is read


@click.command(short_help="Try and correct a bundle in the browser.")
@click.argument("bundle", metavar="BUNDLE", type=OWN_BUNDLE)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port to listen at.  [default: a free one]",
)
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@without_blas_threads
def ui(bundle: Path, port: int, no_browser: bool) -> int:
    """Open a page in the browser on which you try texts and correct answers.

    Everybody who works on this machine can use the page, nobody else. Corrections are edits of the bundle, with a log
    and undo. Ctrl-C ends it. Needs the serve extra: pip install 'reaugkd[serve]'.
    """
    require_server()
    from ...runtime.inference.session.threads import default_threads
    from ...serve.process.listener import listen, url_of
    from ...serve.process.server import run_server
    from ...serve.settings import ServerSettings

    with listen("127.0.0.1", port) as listener:
        settings = ServerSettings(
            {_name(bundle): bundle},
            threads=default_threads(),
            deadline=_DEADLINE,
            allow_edits=True,
            edits_without_key=True,
        )
        address = url_of(listener)
        begin_log()
        logging.getLogger("reaugkd.serve").info("the page is at %s", address)

        def show() -> None:
            if not no_browser:  # in a thread: a browser in the terminal is waited for until it ends
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        run_server(settings, listener, drain_seconds=0, on_ready=show)
    return 0


def _name(bundle: Path) -> str:
    """The name of the bundle's folder, as far as it can be part of a URL."""
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9._-]+", "-", bundle.absolute().name).lstrip("-")[:100] or "bundle"
