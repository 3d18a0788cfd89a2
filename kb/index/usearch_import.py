"""Import of usearch, when it is first needed: most predictions do without it."""

from __future__ import annotations

from functools import cache
from types import ModuleType


@cache
def compiled() -> ModuleType:
    """The module ``usearch.compiled``, which the package's ``Index`` wraps.

    When usearch's wheel (2.26.6) is loaded before onnxruntime's (1.31.1), the import of onnxruntime crashes the
    process. Loading tokenizers first, which every runtime needs anyway, avoids the crash.
    """
    import tokenizers  # noqa: F401
    import usearch  # noqa: F401  loads the kernels of the module below
    import usearch.compiled as module

    return module
