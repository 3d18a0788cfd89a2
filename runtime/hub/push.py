"""Uploads of bundles to the Hugging Face Hub: one commit with all files."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, get_args

from ...errors import HubError, UsageError
from ..bundle.manifest import CARD_FILE, UNSEALED_FILES
from ..editing.store import KnowledgeStore
from .address import HubAddress
from .bundle_copy import BUNDLE_FILES, copy_bundle
from .card import REPOSITORY, write_card
from .client import hub_api, hub_library, hub_requests, missing

Texts = Literal["refuse", "keep"]
"""What a push to a public repository does with a bundle that stores texts: refuse it, or upload the texts too."""


@dataclass(frozen=True)
class Push:
    """A push of a bundle to the Hub.

    Attributes:
        address: the repository, and the branch; None for ``main``. A branch that does not exist is created.
        private: whether a new repository is private; an existing one stays as it is.
        create_pr: open a pull request instead of a commit on the branch.
        message: the commit's message; None for one that names the edits.
        token: same as `client.hub_api`.
        texts: what to do if the repository is public and the bundle stores texts.

    Raises:
        UsageError: an unknown value of ``texts``, a pull request on a branch, or a commit in place of a branch.
    """

    address: HubAddress
    private: bool = True
    create_pr: bool = False
    message: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    texts: Texts = "refuse"

    def __post_init__(self) -> None:
        if self.texts not in get_args(Texts):
            raise UsageError("unknown value of texts", found=self.texts, expected=" or ".join(get_args(Texts)))
        if self.create_pr and self.address.revision not in (None, "main"):
            raise UsageError("a pull request is made for the branch main", found=f"revision {self.address.revision}")
        if self.address.commit is not None:
            expected = "a branch, or none for main"
            raise UsageError("a commit cannot be changed", found=str(self.address), expected=expected)

    def run(self, path: Path, follow_links: bool = False) -> str:
        """Upload a bundle in its current state, edits and their log included.

        Args:
            path: the bundle.
            follow_links: same as `Bundle.open`.

        Returns:
            The web address of the commit or of the pull request.

        Raises:
            UsageError: the repository is public, and the bundle stores texts.
            HubError: the Hub cannot be reached, refuses a request, or leaves out files.
            BundleError: the bundle cannot be used.
            StorageError: the copy of the bundle that is uploaded cannot be written.
            DependencyError: huggingface_hub is not installed.
        """
        api = hub_api(self.token)
        with tempfile.TemporaryDirectory(prefix="reaugkd-push-") as temporary:
            copy = Path(temporary) / "bundle"
            store = copy_bundle(path, copy, follow_links)
            private = self._is_private(api)
            if not (self.private if private is None else private):
                self._refuse_texts(store)
            if not all((copy / name).exists() for name in UNSEALED_FILES):
                write_card(copy, store.bundle.manifest)
            card = (copy / CARD_FILE).read_bytes()
            (copy / CARD_FILE).write_bytes(card.replace(REPOSITORY.encode(), self.address.repository.encode()))
            if private is None:
                with hub_requests(self.address):
                    api.create_repo(self.address.repository, private=self.private)
            return self._commit(api, copy, self.message or f"Bundle with {store.view.head.seq} edits")

    def _is_private(self, api: Any) -> bool | None:
        """Whether the repository is private; None if there is none.

        Raises:
            HubError: the Hub cannot be reached, or refuses the request.
        """
        try:
            with hub_requests(self.address):
                return bool(api.model_info(self.address.repository).private)
        except HubError as error:
            if missing(error):
                return None
            raise

    def _refuse_texts(self, store: KnowledgeStore) -> None:
        if self.texts == "refuse" and store.view.snapshot.texts == "plain":
            raise UsageError(
                "the repository is public, and the bundle stores the texts of its knowledge base",
                path=str(self.address),
                found="--kb-texts plain",
                remedy="Make the repository private, or export the bundle with --kb-texts hash or none. To publish the "
                'texts: --texts keep, or push_to_hub(..., texts="keep").',
            )

    def _commit(self, api: Any, copy: Path, message: str) -> str:
        library, repository, branch = hub_library(), self.address.repository, self.address.revision
        files = {file.relative_to(copy).as_posix(): file for file in sorted(copy.rglob("*")) if file.is_file()}
        with hub_requests(self.address):
            if branch is not None and branch != "main" and not branch.startswith("refs/"):
                api.create_branch(repository, branch=branch, exist_ok=True)
            now = api.model_info(repository, revision=branch)
            add = [library.CommitOperationAdd(name, str(file)) for name, file in files.items()]
            there = [one.rfilename for one in now.siblings or []]
            # Files of a former bundle must go: the runtime refuses some, and they could be texts.
            gone = [name for name in there if name not in files and any(fnmatch(name, one) for one in BUNDLE_FILES)]
            done = api.create_commit(
                repository,
                [*add, *(library.CommitOperationDelete(name) for name in gone)],
                commit_message=message,
                revision=branch,
                create_pr=self.create_pr,
                parent_commit=now.sha,
            )
            stored = {one.rfilename for one in api.model_info(repository, revision=done.oid).siblings or []}
        lost = sorted(set(files) - stored)
        if lost:
            raise HubError(
                "the commit lacks files of the bundle",
                path=str(self.address),
                found=lost[0],
                remedy="Remove the repository's .gitignore, which excludes them, and push again.",
            )
        return str(done.pr_url or done.commit_url)
