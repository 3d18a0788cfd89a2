"""Downloads of bundles from the Hugging Face Hub, into plain files: one folder for each commit.

The Hub's own cache has links to shared files. A bundle needs files of its own: the runtime refuses links that lead out
of the folder, and an edit must not change another bundle. The cache has, for each repository,

    OWNER--NAME/COMMIT/     a bundle, complete and checked
    OWNER--NAME/REVISION.commit   the commit that a branch or tag had last, for use without a network
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from ...errors import BundleError, HubError, OutputExistsError, UsageError
from ...kb.storage.atomic import atomic_directory, atomic_write, refusals
from ..bundle.bundle import Bundle
from ..bundle.manifest import MANIFEST_FILE
from ..editing.store import KnowledgeStore
from ..opening import kind_of
from .address import SCHEME, HubAddress, is_repository
from .bundle_copy import BUNDLE_FILES
from .client import hub_api, hub_constants, hub_library, hub_requests, unreachable


def _warn(remark: str) -> None:
    warnings.warn(remark, stacklevel=5)  # the caller of `Runtime.from_pretrained`


@dataclass(frozen=True)
class HubCache:
    """The bundles that were downloaded to this machine.

    Attributes:
        folder: the cache; None for ``reaugkd`` in the folder of huggingface_hub (HF_ASSETS_CACHE, or HF_HOME).
        token: same as `client.hub_api`.
        local_files_only: use what is there, and do not ask the Hub; HF_HUB_OFFLINE does the same.
        force_download: download the bundle again.
        tell: receives a remark if the Hub cannot be reached and a bundle of the cache is used; by default a warning.
    """

    folder: str | os.PathLike[str] | None = None
    token: str | bool | None = field(default=None, repr=False)
    local_files_only: bool = False
    force_download: bool = False
    tell: Callable[[str], object] = _warn

    def find(self, repository_or_path: object, revision: str | None = None) -> Path:
        """The folder of a bundle: the given one if it exists, otherwise that of a repository on the Hub.

        Raises:
            BundleError: this is neither a folder nor the name of a repository, or same as `bundle`.
            UsageError: it has the wrong type, the address is not valid, or a folder is given with a revision.
            HubError, StorageError, DependencyError: same as `bundle`.
        """
        if not isinstance(repository_or_path, str | os.PathLike):
            found = kind_of(repository_or_path)
            raise UsageError("repo_or_path has the wrong type", found=found, expected="a str or a path")
        text = os.fsdecode(repository_or_path)
        if not text.startswith(SCHEME):
            if os.path.exists(text):  # noqa: PTH110  (Path.exists raises an error for a name that is too long)
                if revision is not None:
                    remedy = f"Leave out revision. For the repository on the Hub, write {SCHEME}{text}."
                    found = f"revision {revision}"
                    raise UsageError("a folder has no revisions", path=text, found=found, remedy=remedy)
                return Path(text)
            if not is_repository(text.partition("@")[0]):
                raise BundleError(
                    "there is no bundle here",
                    path=text,
                    found="nothing",
                    expected="a folder, or the name of a repository on the Hugging Face Hub: owner/name",
                )
        return self.bundle(HubAddress.parse(text, revision))

    def bundle(self, address: HubAddress) -> Path:
        """The folder of a bundle on the Hub; it is downloaded if the cache does not have it.

        Raises:
            HubError: the Hub cannot be reached and the cache does not have the bundle, or the Hub refuses the request.
            BundleError: the repository has no usable bundle.
            StorageError: the files cannot be written.
            DependencyError: huggingface_hub is not installed.
        """
        found = None if self.force_download else address.commit
        if found is not None and self._path(address, found).is_dir():
            return self._path(address, found)
        if self.local_files_only or hub_constants().HF_HUB_OFFLINE:
            return self._kept(address)
        try:
            commit = commit_of(address, self.token)
        except HubError as error:
            if self.force_download or not unreachable(error):
                raise
            folder = self._kept(address, error)
            self.tell(f"{address}: {error.message}; commit {folder.name} of the cache is used")
            return folder
        folder = self._path(address, commit)
        if self.force_download or not folder.is_dir():
            self._download(address, commit, folder)
        if address.commit is None:
            with atomic_write(self._reference(address)) as file:
                file.write(commit)
        return folder

    def _download(self, address: HubAddress, commit: str, folder: Path) -> None:
        if folder.is_dir():
            fresh, former = (folder.with_name(f"{commit}.{os.urandom(4).hex()}") for _ in range(2))
            download(address, commit, fresh, self.token)
            with refusals(folder):
                folder.rename(former)
                fresh.rename(folder)
            shutil.rmtree(former, ignore_errors=True)
            return
        try:
            download(address, commit, folder, self.token)
        except OutputExistsError:  # another process was faster
            if not folder.is_dir():
                raise

    def _kept(self, address: HubAddress, cause: HubError | None = None) -> Path:
        """The folder of the commit that the revision had when the Hub was asked last.

        Raises:
            HubError: the cache does not have it.
        """
        commit = address.commit
        reference = self._reference(address)
        if commit is None and reference.is_file():
            commit = reference.read_text(encoding="utf-8")
        if commit is not None and self._path(address, commit).is_dir():
            return self._path(address, commit)
        raise HubError(
            "the bundle is not in the cache, and the Hub is not asked" if cause is None else cause.message,
            path=str(address),
            found=f"nothing in {reference.parent}" if cause is None else cause.found,
            remedy="Download it once with a network: without local_files_only, and without HF_HUB_OFFLINE."
            if cause is None
            else cause.remedy,
        ) from cause

    def _repository(self, address: HubAddress) -> Path:
        root = Path(hub_constants().HF_ASSETS_CACHE) / "reaugkd" if self.folder is None else Path(self.folder)
        return root.expanduser().absolute() / address.repository.replace("/", "--")

    def _path(self, address: HubAddress, commit: str) -> Path:
        return self._repository(address) / commit

    def _reference(self, address: HubAddress) -> Path:
        return self._repository(address) / f"{quote(address.revision or 'main', safe='')}.commit"


def commit_of(address: HubAddress, token: str | bool | None = None) -> str:
    """The commit that a revision has now, 40 hexadecimal digits.

    Raises:
        HubError: the Hub cannot be reached, or refuses the request.
        DependencyError: huggingface_hub is not installed.
    """
    api = hub_api(token)
    with hub_requests(address):
        # With a time limit, so that a cached bundle opens where the network swallows what is sent.
        limit = hub_constants().HF_HUB_ETAG_TIMEOUT
        found = api.model_info(address.repository, revision=address.revision, timeout=limit).sha
    commit = HubAddress(address.repository, str(found)).commit
    if commit is None:
        raise HubError("the Hub names no commit", path=str(address), found=found, expected="40 hexadecimal digits")
    return commit


def download(address: HubAddress, commit: str, out: Path, token: str | bool | None = None) -> None:
    """Download the bundle of a commit, and check every file of it against its hash.

    Args:
        address: the repository.
        commit: the commit.
        out: folder of the bundle; must not exist.
        token: same as `client.hub_api`.

    Raises:
        HubError: the Hub cannot be reached, or refuses a request.
        BundleError: the commit has no usable bundle.
        OutputExistsError: ``out`` exists.
        StorageError: the files cannot be written.
        DependencyError: huggingface_hub is not installed.
    """
    library = hub_library()
    with atomic_directory(out) as folder:
        with hub_requests(address):
            library.snapshot_download(
                address.repository,
                revision=commit,
                local_dir=folder,
                allow_patterns=list(BUNDLE_FILES),
                token=token,
                library_name="reaugkd",
            )
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # what huggingface_hub notes about the files
        if not (folder / MANIFEST_FILE).is_file():
            raise BundleError("the repository has no bundle", path=str(address), expected=f"a file {MANIFEST_FILE}")
        try:
            KnowledgeStore(Bundle.open(folder))
        except BundleError as error:
            place = Path(error.path or folder)
            name = f"/{place.relative_to(folder).as_posix()}" if place.is_relative_to(folder) else ""
            raise error.at(path=f"{address}{name}", remedy="Download it again, or push it again.") from error
