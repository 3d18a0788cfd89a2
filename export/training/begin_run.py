"""Begin a run in one process or several, which must have the same inputs and see the same run folder."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import DistributedError
from ..modeling.execution.distributed import from_each, from_main, processes
from .run_folder import RunFolder, flatten


def require_one_training(description: dict[str, Any]) -> None:
    """Check, before the processes compute anything together, that they have the same rows, settings and models.

    Args:
        description: the contents of run.json.

    Raises:
        DistributedError: they have not, or the launcher started one process alone.
    """
    _require_launched()
    _require_same(description)


def begin_run(run: RunFolder, description: dict[str, Any], redo: bool) -> None:
    """Begin or resume a run; the main process alone writes to the run folder.

    Args:
        run: the run folder.
        description: the contents of run.json.
        redo: see ``RunFolder.begin``.

    Raises:
        DistributedError: the run folder is not shared.
        OutputExistsError: same as ``RunFolder.begin``.
    """
    from_main(partial(run.begin, description, redo))
    _require_shared(run.path)


def _require_launched() -> None:
    # Without --multi_gpu, `accelerate launch` starts a process alone where there is one GPU or none.
    alone = "WORLD_SIZE" not in os.environ and {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()
    expected = 2 if alone else int(os.environ.get("WORLD_SIZE", 1))
    if processes().num_processes < expected:
        raise DistributedError(
            "the processes of the training were not joined",
            found="a process alone",
            expected="several" if alone else f"{expected}",
            remedy="Give `accelerate launch` the option --multi_gpu, on machines without a GPU too.",
        )


def _require_same(description: dict[str, Any]) -> None:
    # The versions may differ, and so may the path of a teacher: its fingerprint tells whether it is the same.
    found = from_each((socket.gethostname(), flatten({**description, "versions": {}, "teacher": None})))
    _, expected = found[0]
    for number, (host, other) in enumerate(found):
        changed = sorted(key for key in expected.keys() | other.keys() if expected.get(key) != other.get(key))
        if changed:
            raise DistributedError(
                f"the processes have different inputs: {', '.join(changed[:5])}",
                found=f"process {number} on {host}: {changed[0]} = {other.get(changed[0])!r}",
                expected=f"{expected.get(changed[0])!r}, as in the main process",
                remedy="Give all processes the same command, and all machines the same data and models.",
            )


def _require_shared(folder: Path) -> None:
    if processes().num_processes == 1:
        return
    # Looked for by a new name: a folder of the same name, perhaps with an older run.json, may be on each machine.
    probe = from_main(partial(_make_probe, folder))
    blind = [host for host, seen in from_each((socket.gethostname(), (folder / probe).exists())) if not seen]
    if processes().is_main_process:
        (folder / probe).unlink()
    if blind:
        raise DistributedError(
            "the run folder is not shared",
            path=folder,
            found=f"no access to the main process's folder on {', '.join(sorted(set(blind)))}",
            expected="one folder that all machines see",
            remedy="Give an --out on a file system that all machines mount.",
        )


def _make_probe(folder: Path) -> str:
    name = f".run.json.{os.urandom(4).hex()}.tmp"  # the next run removes it after a kill
    (folder / name).touch()
    return name
