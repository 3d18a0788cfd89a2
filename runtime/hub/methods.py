"""The methods of `Runtime` for the Hugging Face Hub.

Their modules are imported on first use: most runtimes open a folder, and start faster without them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..opening import Settings, checked_bool

if TYPE_CHECKING:
    from .push import Texts


class HubMethods:
    """Downloads, copies and uploads of a runtime's bundle."""

    _settings: Settings

    @classmethod
    def open(cls, *args: Any, **options: Any) -> Self:
        """Open a bundle, as `Runtime` does."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        repo_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
        **open_options: Any,
    ) -> Self:
        """Open a bundle of the Hugging Face Hub, or of a folder; needs the extra ``hub``.

        The bundle is downloaded once for each commit, into plain files, and checked. Edits of it are kept in the cache,
        beside the commit that they were made on, and a later commit does not have them: to keep them, push the bundle.
        If the Hub cannot be reached, the commit that the revision had last is used, with a warning.

        Args:
            repo_or_path: a folder that exists, ``owner/name``, or ``hf://owner/name@revision``.
            revision: a branch, a tag or a commit of a repository. Default: the branch ``main``.
            cache_dir: where downloaded bundles are kept. Default: ``reaugkd`` in HF_ASSETS_CACHE.
            local_files_only: use the cache, and do not ask the Hub. The variable HF_HUB_OFFLINE does the same.
            token: an access token. Default: that of ``hf auth login`` or HF_TOKEN.
            force_download: download the commit again, in place of the cache's copy and of edits in it.
            open_options: the other arguments of `open`, such as ``threads``.

        Raises:
            HubError: the Hub cannot be reached and the cache does not have the bundle, or the Hub refuses the request.
            BundleError: the repository has no usable bundle, or same as `open`.
            UsageError: the address is not valid, or same as `open`.
            StorageError: the files cannot be written.
            DependencyError: the library ``huggingface_hub`` is missing, or same as `open`.
        """
        from .download import HubCache

        local_files_only = checked_bool("local_files_only", local_files_only)
        force_download = checked_bool("force_download", force_download)
        cache = HubCache(cache_dir, token, local_files_only, force_download)
        return cls.open(cache.find(repo_or_path, revision), **open_options)

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Copy the bundle with its edits, as it is now, to a new folder.

        Args:
            save_directory: the new folder.

        Raises:
            OutputExistsError: it exists.
            BundleError: the bundle's files were damaged since it was opened.
            UsageError: an edit of the bundle takes longer than ten seconds.
            StorageError: the files cannot be written.
        """
        from .bundle_copy import copy_bundle

        copy_bundle(self._settings.path, Path(save_directory), self._settings.follow_links)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        token: str | bool | None = None,
        texts: Texts = "refuse",
    ) -> str:
        """Upload the bundle with its edits and their log, as it is now, in one commit; needs the extra ``hub``.

        Files of a former bundle are deleted from the branch, other files stay.

        Args:
            repo_id: ``owner/name``; it is created if it does not exist.
            private: whether a new repository is private. An existing one stays as it is.
            revision: the branch; it is created if it does not exist. Default: ``main``.
            create_pr: open a pull request instead.
            commit_message: the commit's message. Default: one that counts the edits.
            token: an access token. Default: that of ``hf auth login`` or HF_TOKEN.
            texts: what to do if the repository is public and the bundle stores texts: ``"refuse"`` or ``"keep"``, which
                publishes them.

        Returns:
            The web address of the commit, or of the pull request.

        Raises:
            UsageError: an argument is not valid, or the repository is public and the bundle stores texts.
            HubError: the Hub cannot be reached, or refuses a request.
            BundleError: the bundle's files were damaged since it was opened.
            StorageError: a copy of the bundle cannot be written to the folder for temporary files.
            DependencyError: the library ``huggingface_hub`` is missing.
        """
        from .address import HubAddress
        from .push import Push

        private, create_pr = checked_bool("private", private), checked_bool("create_pr", create_pr)
        push = Push(HubAddress.parse(repo_id, revision), private, create_pr, commit_message, token, texts)
        return push.run(self._settings.path, self._settings.follow_links)
