"""`reaugkd sign`."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UsageError
from .options import PATH


@click.command(short_help="Sign a bundle with a key, or make a key.")
@click.argument("bundle", type=PATH, required=False)
@click.option("--key", type=PATH, metavar="KEY.pem", help="The Ed25519 private key to sign with.")
@click.option("--new-key", type=PATH, metavar="KEY.pem", help="Make a key pair: KEY.pem, to be kept, and KEY.pub.pem.")
def sign(bundle: Path | None, key: Path | None, new_key: Path | None) -> None:
    """Check BUNDLE and sign its manifest, or make the keys for it. Needs pip install 'reaugkd[sign]'.

    Whoever has the public key makes sure with `--require-signature KEY.pub.pem` (predict, eval, bench, inspect) or
    `Runtime.open(..., require_signature="KEY.pub.pem")` that a bundle is the one that the key's owner signed.
    """
    from ..kb.storage.ed25519 import new_key_pair, read_private_key
    from ..runtime.bundle.manifest import SIGNATURE_FILE
    from ..runtime.editing.sign import sign_bundle

    if new_key is not None and bundle is None and key is None:
        public, other = new_key_pair(new_key)
        click.echo(f"key {public.key_id}: {new_key} signs and must stay secret, {other} is for everybody", err=True)
    elif bundle is not None and key is not None and new_key is None:
        signature = sign_bundle(bundle, read_private_key(key))
        click.echo(f"{bundle / SIGNATURE_FILE}: signed by key {signature.key_id}", err=True)
    else:
        raise UsageError("give either BUNDLE and --key, or --new-key alone", remedy="See `reaugkd sign --help`.")
