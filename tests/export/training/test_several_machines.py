"""Two processes, by accelerate as on two machines, by torchrun and by Ray: the student of one process, and a kill."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import tiny_models as tinymodels
from support.command_line import ok
from support.paths import TESTS
from support.workshop import RECIPE

from reaugkd.errors import DistributedError
from reaugkd.export.modeling.encoder import EncoderClassifier
from reaugkd.export.training import begin_run, run_folder
from reaugkd.export.training.run_folder import RunFolder

DEADLY = TESTS / "support" / "deadly_training.py"
STEPS = 15  # of 12 of the teacher and as many of the student
LIMIT = 280


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a training without dropout, which differs between processes."""
    folder = tmp_path_factory.mktemp("several")
    tinymodels.write_bert(folder / "teacher", **tinymodels.NO_DROPOUT)
    rows = tinymodels.make_split(80, 0)
    lines = [f"{text}\t{label}" for text, label in zip(rows.texts, rows.labels or [], strict=True)]
    (folder / "train.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    recipe = RECIPE.replace("[teacher.fit]", "[teacher]\ndropout = 0.0\n[teacher.fit]")
    (folder / "recipe.toml").write_text(recipe.replace("[student.fit]", "[student]\ndropout = 0.0\n[student.fit]"))
    given = {"--data": "train.tsv", "--teacher": "teacher", "--recipe": "recipe.toml"}
    return [*(part for name, file in given.items() for part in (name, str(folder / file))), "--student-layers", "0,3"]


@pytest.fixture(scope="module")
def alone(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    ok("train", *arguments, "--out", run)
    return run


def environment() -> dict[str, str]:
    """Of one thread a process, on the CPU; Ray gives its workers the lowest priority unless told not to."""
    ray = {"RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    return {**os.environ, **ray, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}


def launch(*outs: Path, marker: Path, arguments: list[str]) -> list[tuple[int, str]]:
    """Run a process on each of two machines, which both are this one; returns exit codes and outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = []
    for rank, out in enumerate(outs):
        machine = ["--num_machines", "2", "--machine_rank", rank, "--main_process_ip", "127.0.0.1"]
        options = ["--multi_gpu", "--num_processes", "2", *machine, "--main_process_port", port]
        command = [sys.executable, "-m", "accelerate.commands.launch", *options, DEADLY, STEPS, marker, *arguments]
        begun.append(
            subprocess.Popen(
                [*map(str, command), "--out", str(out)],
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [process.communicate(timeout=LIMIT)[0] for process in begun]
    return [(process.returncode, text) for process, text in zip(begun, said, strict=True)]


def resume_on_one_machine(out: Path, marker: Path, arguments: list[str]) -> str:
    """Run two processes by torchrun, as with several GPUs; returns their output."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, DEADLY, STEPS, marker, *arguments]
    done = subprocess.run(
        [*map(str, command), "--out", str(out)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def require_same_students(run: Path, expected: Path) -> None:
    """Within float32's rounding; Adam makes more of it in weights without a gradient, the biases of attention keys."""
    for stage in ("teacher", "student"):
        ours, theirs = (EncoderClassifier.load(path / stage).state_dict() for path in (run, expected))
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, atol=1e-3 if "key.bias" in name else 1e-5, rtol=0)
    outputs = [load_file(path / "teacher_outputs" / "train.safetensors") for path in (run, expected)]
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=0)
    assert (run / "run.json").read_text() == (expected / "run.json").read_text()
    RunFolder(run).require_finished()


@pytest.mark.slow
def test_two_machines_make_the_student_of_one_process_though_one_is_killed(
    arguments: list[str], alone: Path, tmp_path: Path
) -> None:
    run, marker = tmp_path / "run", tmp_path / "killed"
    (first, told), (second, _) = launch(run, run, marker=marker, arguments=arguments)
    assert marker.exists() and first and second
    assert "error: another process of the training ended" in told and "it resumes the run" in told
    assert (run / "checkpoints" / "student.pt").is_file() and not (run / "student").exists()
    copy = shutil.copytree(run, tmp_path / "copy")
    ok("train", *arguments, "--out", copy)  # resumed by one process
    require_same_students(copy, alone)
    again = resume_on_one_machine(run, marker, arguments)
    assert again.count("student: done") == 1  # the main process keeps the results
    assert not (tmp_path / "begun again").exists()
    assert sorted(path.name for path in run.iterdir() if path.name.startswith(".")) == []
    require_same_students(run, alone)


@pytest.mark.slow
@pytest.mark.timeout(900)  # Ray's own start takes most of it on a busy machine
def test_ray_makes_the_student_of_one_process_though_a_worker_is_killed(
    arguments: list[str], alone: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray.train")
    run, marker = tmp_path / "run", tmp_path / "killed"
    command = [sys.executable, DEADLY, STEPS, marker, "ray", *arguments, "--out", run]
    done = subprocess.run(
        list(map(str, command)), env=environment(), capture_output=True, text=True, timeout=3 * LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert marker.exists() and not (tmp_path / "begun again").exists()
    require_same_students(run, alone)


def test_a_launcher_that_did_not_join_the_processes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    begin_run.require_one_training({})
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(DistributedError, match="found a process alone; expected 4"):
        begin_run.require_one_training({})
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    with pytest.raises(DistributedError, match=r"expected several\. Give `accelerate launch`"):
        begin_run.require_one_training({})


def test_other_rows_on_another_machine_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_elsewhere(own: tuple[str, dict[str, object]]) -> list[object]:
        return [own, ("host2", {**own[1], "data.sha256": "f00"})]

    monkeypatch.setattr(begin_run, "from_each", as_elsewhere)
    with pytest.raises(DistributedError, match=r"data\.sha256; found process 1 on host2: data\.sha256 = 'f00'"):
        begin_run.require_one_training({"data": {"sha256": "cafe"}, "versions": {"torch": "1"}})


def test_a_result_that_never_appears_ends_the_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "_LAG_SECONDS", 0.0)
    with pytest.raises(DistributedError, match="not visible on this machine"):
        run_folder._wait_for(tmp_path / "student", "hash")
