"""ONNX Runtime, without its telemetry."""

from __future__ import annotations

import os
from types import ModuleType


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
