"""`reaugkd inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import PATH


@click.command(short_help="What a bundle is, every file checked.")
@click.argument("bundle", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="The whole manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Check every file of a bundle against its hash and say what the bundle is."""
    from ..runtime.bundle import Bundle
    from ..runtime.inspect import describe

    opened = Bundle.open(bundle)
    click.echo(json.dumps(opened.manifest.to_json(), indent=1, ensure_ascii=False) if as_json else describe(opened))
