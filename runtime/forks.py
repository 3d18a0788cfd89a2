"""Forked children must not take a parent's ONNX Runtime sessions down.

Destroying a session joins its threads, and after a fork those exist in the parent only: the child would hang or crash.
So a child leaves every session that it inherited alone until it ends.
"""

from __future__ import annotations

import os
import weakref

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
