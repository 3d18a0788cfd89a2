"""`reaugkd sign`: sign a bundle, or create a key pair."""

from __future__ import annotations

from pathlib import Path

import click

from ...errors import UsageError
from ..options import OWN_BUNDLE, PATH


@click.command(short_help="Sign a bundle, or create a key pair.")
@click.argument("bundle", type=OWN_BUNDLE, required=False)
@click.option("--key", type=PATH, metavar="KEY.pem", help="Ed25519 private key that signs the bundle.")
@click.option(
    "--new-key", type=PATH, metavar="KEY.pem", help="Private key file to create; the public key goes to KEY.pub.pem."
)
def sign(bundle: Path | None, key: Path | None, new_key: Path | None) -> None:
    """Check BUNDLE and sign its manifest, or create a key pair. Needs pip install 'reaugkd[sign]'.

    `--require-signature KEY.pub.pem` (predict, eval, bench, inspect, kb verify) and
    `Runtime.open(..., require_signature="KEY.pub.pem")` refuse a bundle that the owner of the key did not sign.
    """
    from ...kb.storage.ed25519 import new_key_pair, read_private_key
    from ...runtime.bundle.manifest import SIGNATURE_FILE
    from ...runtime.editing.sign import sign_bundle

    if new_key is not None and bundle is None and key is None:
        public, other = new_key_pair(new_key)
        click.echo(f"key {public.key_id}: private key in {new_key}, keep it secret; public key in {other}", err=True)
    elif bundle is not None and key is not None and new_key is None:
        signature = sign_bundle(bundle, read_private_key(key))
        click.echo(f"{bundle / SIGNATURE_FILE}: signed by key {signature.key_id}", err=True)
    else:
        raise UsageError("give either BUNDLE and --key, or --new-key alone", remedy="See `reaugkd sign --help`.")
