"""`reaugkd inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..options import BUNDLE, with_opening


@click.command(short_help="Check a bundle's files and describe it.")
@click.argument("bundle", type=BUNDLE)
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest as JSON.")
@with_opening
def inspect(bundle: Path, as_json: bool, require_signature: Path | None, follow_links: bool) -> None:
    """Check every file of BUNDLE against its hash, and describe the bundle."""
    from ...kb.storage.ed25519 import read_public_key
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.output.bundle_summary import describe

    signer = None if require_signature is None else read_public_key(require_signature)
    opened = Bundle.open(bundle, require_signature=signer, follow_links=follow_links)
    manifest = opened.manifest.to_json()
    click.echo(json.dumps(manifest, indent=1, ensure_ascii=False) if as_json else describe(opened, signer))
