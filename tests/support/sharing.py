"""Three processes that share distillations, and no run folder; test_shared_batches.py reads their results."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from reaugkd.errors import DistributedError
from reaugkd.export import objectives
from reaugkd.export.modeling.execution.distributed import processes
from reaugkd.export.modeling.execution.training_loop import FitJob
from reaugkd.export.recipe import ObjectiveRecipe
from reaugkd.export.training.begin_run import begin_run
from reaugkd.export.training.distill import distil
from reaugkd.export.training.run_folder import RunFolder
from support import tiny_models as tinymodels
from support.distillations import tiny_rows, tiny_targets, tiny_teacher, with_attention_maps

COUNT = 3
LIMIT = 280  # seconds, below pytest's own: other work on the machine may starve processes that wait for each other
EPOCHS = 2
BATCH_SIZE = 29  # 60 rows: of the batches of 29, 29 and 2 rows, the last leaves a process without a row
PERIOD = 4  # of the six steps: a phase of g, and two steps kept for the next
UNSHARED = "unshared"
_DISK = ObjectiveRecipe("disk", 1.0, {"period": PERIOD})
# Most alone: the exchange of gradients must also do without those that a single term does not give.
CASES = {
    "labels": (ObjectiveRecipe("soft_labels"), ObjectiveRecipe("hard_labels")),
    "relation": (ObjectiveRecipe("relation"),),
    "compress": (ObjectiveRecipe("compress"),),
    "compress_2q": (ObjectiveRecipe("compress_2q", 1.0, {"momentum": 0.8}),),
    "mixkd": (ObjectiveRecipe("mixkd"),),
    "attention": (ObjectiveRecipe("attention"),),
    "disk": (_DISK,),
    "sea": (ObjectiveRecipe("sea"),),
    "general": (ObjectiveRecipe("general"),),
    "all": (
        _DISK,
        *(ObjectiveRecipe(name) for name in ("mixkd", "attention", "relation", "compress_2q", "sea", "general")),
    ),
}


def shared_distillation(bert: Path, out: Path, *terms: ObjectiveRecipe) -> dict[str, Any]:
    """The student before and after, and the states of the terms; without dropout, which differs between processes."""
    general = tinymodels.HIDDEN if any(term.name == "general" for term in terms) else None
    config = tinymodels.bert_config(**tinymodels.NO_DROPOUT)
    student = with_attention_maps(tinymodels.tiny_student(config=config, dropout=0.0, general_dim=general))
    before, built = tinymodels.state_of(student), []
    build = objectives.build

    def noted_build(*args: Any) -> objectives.WeightedSum:
        built.append(build(*args))
        return built[-1]

    job = FitJob("student", tinymodels.fast_fit(EPOCHS, batch_size=BATCH_SIZE), 0, "fp32", out / "student.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "build", noted_build)
        recipe = tinymodels.tiny_recipe(objectives=terms)
        distil(student, tiny_teacher, tiny_rows(bert), tiny_targets(), recipe, job)
    return {
        "before": before,
        "student": student.state_dict(),
        "terms": built[0].state_dict()["terms"],
    }


def unshared_run(path: Path) -> dict[str, Any]:
    """The error of a run in a folder that only this process sees, and whether the folder is there."""
    with pytest.raises(DistributedError) as caught:
        begin_run(RunFolder(path), {"recipe": {}}, redo=False)
    return {"error": str(caught.value), "exists": path.exists()}


def main(number: int, bert: Path, out: Path) -> None:
    """Write OUT/process0.pt and so on: by the names of ``CASES`` what ``shared_distillation`` gives, and UNSHARED."""
    torch.set_num_threads(1)
    os.environ.update({"RANK": str(number), "LOCAL_RANK": str(number), "ACCELERATE_USE_CPU": "1"})
    os.environ.update(dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(COUNT)))
    meeting = f"file://{out / 'meeting'}"  # no port that might be taken
    torch.distributed.init_process_group("gloo", meeting, timedelta(seconds=LIMIT), rank=number, world_size=COUNT)
    assert (processes().process_index, processes().num_processes) == (number, COUNT)
    found = {name: shared_distillation(bert, out, *terms) for name, terms in CASES.items()}
    found[UNSHARED] = unshared_run(out / f"run{number}")
    torch.save(found, out / f"process{number}.pt")
    torch.distributed.destroy_process_group()


def run_all(bert: Path, out: Path) -> list[dict[str, Any]]:
    """Run this file, and load what each process saved."""
    call = [sys.executable, __file__, str(bert), str(out)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return [torch.load(out / f"process{number}.pt") for number in range(COUNT)]


if __name__ == "__main__":
    # Forked, since imports take longer than all the rest; nothing was computed yet that a fork would break.
    folders = tuple(map(Path, sys.argv[1:]))
    torch.multiprocessing.start_processes(main, folders, COUNT, start_method="fork")
