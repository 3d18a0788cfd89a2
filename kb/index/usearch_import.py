"""usearch's compiled module, without what its package imports around it.

``import usearch`` also imports urllib, email, ssl and tqdm, to download files and to show progress: 40 ms and 10 MB
that an edge has no use for. The compiled module (typed in usearch's ``compiled.pyi``) is what the package's ``Index``
wraps. It finds numkong's kernels by their symbols, which usearch's ``__init__`` makes known, and so does this. Where
anything is not as expected, the package is imported as usual. It is the same module, whoever imports it later.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib import _bootstrap, import_module, util
from importlib.machinery import PathFinder
from typing import Any

_NAME = "usearch.compiled"


@cache
def compiled() -> Any:
    """The module ``usearch.compiled``.

    usearch's wheel loaded before onnxruntime's (seen with 2.26.6 and 1.31.1) makes the latter's import crash the
    process, whichever program imports it; with tokenizers, which every runtime loads anyway, before both, it does not.
    """
    import tokenizers  # noqa: F401

    if sys.platform == "linux" and "usearch" not in sys.modules:
        try:
            # The lock that an import of it takes: loaded by two threads at once, it would be of no use to either.
            with _bootstrap._ModuleLockManager(_NAME):  # type: ignore[attr-defined]
                return sys.modules.get(_NAME) or _alone()
        except (AttributeError, ImportError, OSError):
            pass
    import_module("usearch")  # to its end, in whichever thread: it loads the kernels
    return import_module(_NAME)


def _alone() -> Any:
    kernels = import_module("numkong._numkong").__file__
    ctypes.CDLL(kernels, mode=ctypes.RTLD_GLOBAL)
    package = util.find_spec("usearch")
    if package is None:
        raise ImportError("no usearch")
    spec = PathFinder.find_spec(_NAME, package.submodule_search_locations)
    if spec is None or spec.loader is None:
        raise ImportError(f"no {_NAME}")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.Index  # noqa: B018  what it is for
    return module
