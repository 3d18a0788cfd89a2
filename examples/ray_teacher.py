"""Label the texts of Parquet files by a run's teacher on a Ray cluster, for `reaugkd export RUN --kb-answers ANSWERS`.

python examples/ray_teacher.py RUN TEXTS ANSWERS    (a finished run, a file or folder, a new file; all machines see RUN)
"""

import sys
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq
import ray

from reaugkd.export.training.teacher.predictor import TeacherPredictor


def main(run: str, texts: str, answers: str) -> None:
    """Ask a teacher on each GPU, or on each processor but one, and write the answers in the order of the texts."""
    ray.init()
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources["CPU"])
    answered = ray.data.read_parquet(texts).map_batches(
        TeacherPredictor,
        fn_constructor_args=(str(Path(run).absolute()),),
        batch_format="pyarrow",
        batch_size=1024,
        num_gpus=1 if gpus else None,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=gpus or max(cpus - 1, 1)),
    )
    batches = iter(answered.iter_batches(batch_format="pyarrow", batch_size=1024))
    first, part = next(batches), Path(answers + ".part")
    with pq.ParquetWriter(part, first.schema) as writer:
        for batch in chain([first], batches):
            writer.write_table(batch)
    part.rename(answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
