"""Import of usearch's compiled module without the other imports of its package.

``import usearch`` also imports urllib, email, ssl and tqdm for downloads and progress bars, which costs 40 ms and 10
MB. The compiled module (typed in usearch's ``compiled.pyi``) is the one that the package's ``Index`` wraps. It finds
numkong's kernels by their symbols, which usearch's ``__init__`` loads first, and so does this module. If a step fails,
the whole package is imported. A later import of usearch gets the same module.
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

    When usearch's wheel (2.26.6) is loaded before onnxruntime's (1.31.1), the import of onnxruntime crashes the
    process. Loading tokenizers first, which every runtime needs anyway, avoids the crash.
    """
    import tokenizers  # noqa: F401

    if sys.platform == "linux" and "usearch" not in sys.modules:
        try:
            # The import lock of the module: two threads must not load it at the same time.
            with _bootstrap._ModuleLockManager(_NAME):  # type: ignore[attr-defined]
                return sys.modules.get(_NAME) or _alone()
        except (AttributeError, ImportError, OSError):
            pass
    import_module("usearch")  # loads the kernels
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
    module.Index  # noqa: B018  fails where the module is not as expected
    return module
