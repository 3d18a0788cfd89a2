"""The machine and the libraries: what a latency means nothing without."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..inference.threads import default_threads

LIBRARIES = ("reaugkd", "numpy", "onnxruntime", "tokenizers", "usearch")

# The instruction sets that decide how fast int8 is.
_INT8_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def host_facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """CPU model, instruction sets that matter to int8, cores, system and versions, as JSON values.

    Args:
        cpuinfo: where Linux describes its CPUs; elsewhere the model is what ``platform`` knows and the sets are empty.
    """
    facts = _cpuinfo(cpuinfo)
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "instruction_sets": [flag for flag in _INT8_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "usable_cores": default_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def _cpuinfo(path: Path) -> dict[str, str]:
    """The first CPU's fields."""
    try:
        first = path.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return {}
    fields = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
