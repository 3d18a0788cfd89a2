"""Forked children must not take a parent's ONNX Runtime sessions down.

Destroying a session joins its threads, and after a fork those exist in the parent only: the child would hang or crash.
So a child leaves every session that it inherited alone until it ends.
"""

from __future__ import annotations

import os
import weakref
from types import ModuleType

_alive: weakref.WeakSet[object] = weakref.WeakSet()


def keep_in_children(session: object) -> None:
    """Never destroy ``session`` in a forked child of this process."""
    _alive.add(session)


def _after_fork() -> None:
    import ctypes

    for session in _alive:
        # A reference that nobody holds: a mere list would be emptied when the interpreter ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
    _alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def silence_telemetry() -> None:
    """Keep onnxruntime, imported later by whomever, from reporting usage.

    Since 1.31 the official wheels report usage to Microsoft over HTTPS, keep a device id under the user's cache folder,
    and start a thread for it at import that makes a forked child hang at its end. The variable is the documented way to
    have none of it, and it must be set before the import. Whoever wants the reports sets it to something else.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime, its telemetry silenced."""
    silence_telemetry()
    import onnxruntime

    module: ModuleType = onnxruntime
    return module
