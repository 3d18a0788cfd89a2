"""Run `reaugkd train` on the workers of a Ray cluster; --data, --teacher and --out are paths that all machines have.

python examples/ray_train.py WORKERS --data DATA --teacher MODEL --out RUN ...
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer


def work(job: dict[str, Any]) -> None:
    """Run the command in a worker; Ray has joined the workers."""
    if not job["gpus"]:  # Ray does not hide a machine's GPUs from workers that have asked for none
        os.environ["ACCELERATE_USE_CPU"] = "1"
    from reaugkd.commands.training.train import train

    train.main(job["arguments"], standalone_mode=False)


def main(workers: int, arguments: list[str], work: Callable[..., None] = work) -> None:
    """Run the command in all workers; after a failure they start again and resume the run."""
    ray.init()
    found = int(ray.cluster_resources().get("GPU", 0))
    gpus = found >= workers
    if not gpus:
        sys.stderr.write(f"note: the cluster has {found} GPUs for {workers} workers: all train on CPUs\n")
    records = Path(arguments[arguments.index("--out") + 1] + ".ray").absolute()  # Ray's own; all machines see them
    trainer = TorchTrainer(
        work,
        train_loop_config={"arguments": arguments, "gpus": gpus},
        torch_config=TorchConfig(timeout_s=600),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(storage_path=str(records), failure_config=FailureConfig(max_failures=3)),
    )
    trainer.fit()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
