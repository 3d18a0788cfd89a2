"""`reaugkd pull` and `reaugkd push`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import OWN_BUNDLE, PATH


@click.command(short_help="Download a bundle from the Hugging Face Hub.")
@click.argument("repository", metavar="OWNER/NAME[@REVISION]")
@click.option("--out", required=True, type=PATH, metavar="BUNDLE", help="Folder of the bundle.")
def pull(repository: str, out: Path) -> None:
    """Download a bundle and check it. REVISION is a branch, a tag or a commit; by default the branch main.

    Needs pip install 'reaugkd[hub]'. For a private repository, log in with `hf auth login`, or set HF_TOKEN. Commands
    that only read a bundle take hf://OWNER/NAME@REVISION in its place.
    """
    from ...kb.storage.atomic import refuse_existing
    from ...runtime.hub.address import HubAddress
    from ...runtime.hub.download import commit_of, download

    refuse_existing(out)
    address = HubAddress.parse(repository)
    commit = commit_of(address)
    download(address, commit, out)
    click.echo(f"{out}: commit {commit} of {address}", err=True)


@click.command(short_help="Upload a bundle to the Hugging Face Hub.")
@click.argument("bundle", type=OWN_BUNDLE)
@click.argument("repository", metavar="OWNER/NAME[@BRANCH]")
@click.option(
    "--public", is_flag=True, help="If the repository is new, make it public. An existing one stays as it is."
)
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of a commit on the branch.")
@click.option("--message", metavar="TEXT", help="Message of the commit.  [default: one that counts the edits]")
@click.option(
    "--texts",
    type=click.Choice(["refuse", "keep"]),
    default="refuse",
    help="What to do if the repository is public and the bundle stores the texts of its knowledge base: refuse, or "
    "keep them, which publishes them.  [default: refuse]",
)
def push(bundle: Path, repository: str, public: bool, create_pr: bool, message: str | None, texts: Any) -> None:
    """Upload BUNDLE as it is now, with its edits and their log, in one commit. A new repository is private.

    Needs pip install 'reaugkd[hub]', and a token that may write: log in with `hf auth login`, or set HF_TOKEN. Files of
    a former bundle are deleted from the branch, other files stay. `reaugkd kb compact` first erases removed rows.
    """
    from ...runtime.hub.address import HubAddress
    from ...runtime.hub.push import Push

    done = Push(HubAddress.parse(repository), not public, create_pr, message, texts=texts).run(bundle)
    click.echo(f"{bundle}: {done}", err=True)
