"""The library huggingface_hub, and its errors in the terms of this package.

It is imported on first use: the import takes 0.2 seconds, and only commands and methods of the Hub need it.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from ...errors import DependencyError, HubError, ReaugkdError, UsageError, one_line
from .address import HubAddress

_LOG_IN = "Check the name. For a private repository, log in with `hf auth login`, or set HF_TOKEN."


def hub_library() -> Any:
    """The module ``huggingface_hub``.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        return importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise DependencyError(
            "the Hugging Face Hub needs the extra hub",
            found=f"no module {error.name!r}",
            remedy="Install it: pip install 'reaugkd[hub]'.",
        ) from error


def hub_constants() -> Any:
    """The module with the settings of huggingface_hub, which it reads from the environment.

    Raises:
        DependencyError: the library is not installed.
    """
    hub_library()
    return importlib.import_module("huggingface_hub.constants")


def hub_api(token: str | bool | None) -> Any:
    """A client of the Hub's interface.

    Args:
        token: an access token; None for the one of `hf auth login` or HF_TOKEN, False for none.

    Raises:
        DependencyError: the library is not installed.
        UsageError: same as `checked_token`.
    """
    return hub_library().HfApi(token=checked_token(token), library_name="reaugkd")


def checked_token(token: object) -> str | bool | None:
    """The token, if it can be one.

    The libraries below would use another token in place of one of a wrong type, and show one that no HTTP header can
    hold in their messages.

    Raises:
        UsageError: it cannot; the message does not show it.
    """
    if token is None or isinstance(token, bool) or (isinstance(token, str) and re.fullmatch("[!-~]+", token)):
        return token
    raise UsageError(
        "the token is not valid",
        found=f"the type {type(token).__name__}" if not isinstance(token, str) else "other characters, or none",
        expected="printable ASCII characters without blanks, such as hf_...; None or False",
    )


@contextmanager
def hub_requests(address: HubAddress) -> Iterator[None]:
    """Turn the errors of huggingface_hub in the block into HubError; show its progress on terminals only.

    Args:
        address: the repository, for the message.

    Raises:
        HubError: the Hub cannot be reached, or refuses a request.
    """  # noqa: DOC501
    quiet = nullcontext() if sys.stderr.isatty() else hub_library().utils.disable_progress_bars()
    try:
        with quiet:
            yield
    except ReaugkdError:
        raise
    except Exception as error:  # the library's exceptions have no common base class
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the disk
        raise _described(error, address) from error


def unreachable(error: HubError) -> bool:
    """Whether the Hub did not answer, or answered that it is out of order: then a cached copy may be used."""
    cause, known = error.__cause__, importlib.import_module("huggingface_hub.errors")
    if isinstance(cause, known.HfHubHTTPError):
        return bool(cause.response.status_code >= 500)
    return isinstance(cause, known.HTTPError | known.OfflineModeIsEnabled)


def missing(error: HubError) -> bool:
    """Whether there is no such repository, or none that the caller may see."""
    known = importlib.import_module("huggingface_hub.errors")
    return isinstance(error.__cause__, known.RepositoryNotFoundError) and not isinstance(
        error.__cause__, known.GatedRepoError
    )


def _described(error: Exception, address: HubAddress) -> HubError:
    """The error in the terms of this package."""
    known = importlib.import_module("huggingface_hub.errors")
    if isinstance(error, known.GatedRepoError):
        message, remedy = "the repository gives access on request only", f"Ask for it on the Hub's page. {_LOG_IN}"
    elif isinstance(error, known.RepositoryNotFoundError):
        message, remedy = "there is no such repository on the Hub, or you may not read it", _LOG_IN
    elif isinstance(error, known.RevisionNotFoundError):
        message, remedy = "the repository has no such revision", "Name a branch, a tag or a commit of it."
    elif isinstance(error, known.OfflineModeIsEnabled):
        message, remedy = "the Hub is not asked: HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE."
    elif isinstance(error, known.HfHubHTTPError):
        status = error.response.status_code
        message = f"the Hub refuses the request with status {status}"
        remedy = _LOG_IN if status in (401, 403) else "Try again later."
    elif isinstance(error, ValueError):
        message, remedy = "the Hub refuses the request", "Correct what it names."
        return HubError(message, path=str(address), found=one_line(str(error)), remedy=remedy)
    else:
        message, remedy = "the Hub cannot be reached, or its answer is broken", "Check the network, and try again."
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return HubError(message, path=str(address), found=one_line(lines[0]).rstrip("."), remedy=remedy)
