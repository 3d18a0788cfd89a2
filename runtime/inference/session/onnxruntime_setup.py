"""Import of ONNX Runtime without telemetry, and sessions that survive a fork.

Destroying a session joins its threads. In a forked child these threads do not exist, so it would hang or crash: a child
never destroys the sessions that it inherited.
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
        # An extra reference without an owner: the interpreter would empty a list when it ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
    _alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def silence_telemetry() -> None:
    """Disable the telemetry of onnxruntime; call it before onnxruntime is imported.

    Since 1.31 the official wheels report usage to Microsoft over HTTPS, store a device id in the user's cache folder,
    and start a thread at import that makes a forked child hang when it ends. The variable is the documented switch. A
    value that the user has set is kept.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime without telemetry."""
    silence_telemetry()
    import onnxruntime

    module: ModuleType = onnxruntime
    return module
