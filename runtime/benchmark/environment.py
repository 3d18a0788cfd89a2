"""Description of the machine and the libraries, for reports of latencies."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..inference.session.threads import default_threads

LIBRARIES = ("reaugkd", "numpy", "onnxruntime", "tokenizers", "usearch")

# The instruction sets that determine the speed of int8.
_INT8_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def host_facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Return CPU model, instruction sets for int8, cores, operating system and versions, as a JSON object.

    Args:
        cpuinfo: Linux's description of the CPUs; without it the model comes from ``platform``, and there are no sets.
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
    """Return the fields of the first CPU."""
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
