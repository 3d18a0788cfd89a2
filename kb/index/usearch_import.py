"""Import of usearch, when it is first needed: most predictions do without it, and need not have it installed."""

from __future__ import annotations

from functools import cache
from types import ModuleType

from ...errors import DependencyError


def compiled(what: str) -> ModuleType:
    """The module ``usearch.compiled``, which the package's ``Index`` wraps.

    Args:
        what: what needs it, for the error message.

    Raises:
        DependencyError: usearch is not installed.
    """
    try:
        return _compiled()
    except ImportError as error:
        raise DependencyError(
            f"{what} needs usearch", found=str(error), remedy="Install it: pip install 'usearch<3'."
        ) from error


@cache
def available() -> bool:
    """Whether usearch is installed; it is imported if it is."""
    try:
        _compiled()
    except ImportError:
        return False
    return True


@cache
def _compiled() -> ModuleType:
    """The module.

    When usearch's wheel (2.26.6) is loaded before onnxruntime's (1.31.1), the import of onnxruntime crashes the
    process. Loading tokenizers first, which every runtime needs anyway, avoids the crash.
    """
    import tokenizers  # noqa: F401
    import usearch  # noqa: F401  loads the kernels of the module below
    import usearch.compiled as module

    return module
