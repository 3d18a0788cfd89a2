"""`reaugkd train` in which process 1 kills itself before a step, once; it saves a checkpoint after every step.

deadly_training.py STEP MARKER ARGUMENT...: the STEP-th step of all fits together; MARKER tells that it was killed.
deadly_training.py STEP MARKER ray ARGUMENT...: in two workers of examples/ray_train.py.
"""

from __future__ import annotations

import functools
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

STEP, MARKER = int(sys.argv[1]), Path(sys.argv[2])


def arm(step: int, marker: Path) -> None:
    """Make the training of this process deadly."""
    from reaugkd.export.modeling.execution import training_loop
    from reaugkd.export.training import train

    train.FitJob = functools.partial(training_loop.FitJob, checkpoint_seconds=0.0)  # type: ignore[misc, assignment]
    take, taken = training_loop._Loop.step, 0

    def counted(self: Any, number: int) -> None:
        nonlocal taken
        if taken == step and os.environ["RANK"] == "1" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if marker.exists() and number == 0:
            marker.with_name("begun again").touch()
        taken += 1
        take(self, number)

    training_loop._Loop.step = counted  # type: ignore[method-assign]


if __name__ == "__main__" and sys.argv[3] == "ray":
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "ray_train.py"))
    work = example["work"]

    def armed_work(job: dict[str, Any], step: int = STEP, marker: Path = MARKER) -> None:
        """Do the example's work in a worker."""
        arm(step, marker)
        work(job)

    example["main"](2, sys.argv[4:], armed_work)
elif __name__ == "__main__":
    from reaugkd.cli import main

    arm(STEP, MARKER)
    sys.argv = ["reaugkd", "train", *sys.argv[3:]]
    main()
