"""Run `reaugkd train` on the workers of a Ray cluster; --data, --teacher and --out are paths that all machines have.

python examples/ray_train.py WORKERS --data DATA --teacher MODEL --out RUN ...
"""

import sys
from collections.abc import Callable
from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer


def work(job: dict[str, list[str]]) -> None:
    """Run the command in a worker; Ray has joined the workers."""
    from reaugkd.commands.train import train

    train.main(job["arguments"], standalone_mode=False)


def main(workers: int, arguments: list[str], work: Callable[..., None] = work) -> None:
    """Run the command in all workers; after a failure they start again and resume the run."""
    ray.init()
    gpus = ray.cluster_resources().get("GPU", 0) >= workers
    records = Path(arguments[arguments.index("--out") + 1] + ".ray").absolute()  # Ray's own; all machines see them
    trainer = TorchTrainer(
        work,
        train_loop_config={"arguments": arguments},
        torch_config=TorchConfig(timeout_s=600),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(storage_path=str(records), failure_config=FailureConfig(max_failures=3)),
    )
    trainer.fit()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
