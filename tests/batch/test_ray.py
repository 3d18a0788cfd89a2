"""Ray: `Predictor` in Ray Data; `reaugkd batch` with Ray on this machine and on a cluster that loses a node."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support import batch_jobs
from support.batch_jobs import answers, leftovers, output, texts, watched, write_rows
from support.command_line import call, finish, names, ok, spawn

from reaugkd.batch import Predictor
from reaugkd.batch.engines import ray_tasks

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings are many

STORE = 80 * 2**20


@pytest.fixture(scope="module")
def rows() -> list[str]:
    return texts(6000)


def test_a_node_of_the_cluster_is_lost(edge_bundle: Path, tmp_path: Path) -> None:
    """Two nodes of one core. One is removed when some parts are done; its part is done again on the other one."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    rows = texts(40_000)
    source, out = write_rows(tmp_path / "a.parquet", rows), tmp_path / "out"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE})
    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=STORE)
        cluster.wait_for_nodes()
        with watched(out) as watch:
            engine = ("--engine", "ray", "--address", cluster.address, "--part-rows", 2000)
            process = spawn("batch", edge_bundle, source, "--out", out, *engine, env=dict(os.environ))
            watch.wait_for_parts(4)
            cluster.remove_node(second, allow_graceful=False)
            done = finish(process)
        assert done.code == 0, done.err
        assert output(out) == answers(edge_bundle, rows) and leftovers(out) == []
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Ray, connected to a cluster of this machine that the tests below share."""
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=2, object_store_memory=STORE, include_dashboard=False, logging_level="error")
    yield ray
    ray.shutdown()


def test_predictor_in_ray_data(ray: Any, edge_bundle: Path, rows: list[str]) -> None:
    rows = rows[:1000]
    found = (
        ray.data.from_arrow(pa.table({"id": range(1000), "text": rows}))
        .map_batches(
            Predictor,
            fn_constructor_kwargs={"bundle": str(edge_bundle)},
            compute=ray.data.ActorPoolStrategy(size=2),
            batch_size=100,
            batch_format="pyarrow",
            num_cpus=1,
        )
        .take_all()
    )
    assert sorted(found, key=lambda row: row["id"]) == answers(edge_bundle, rows)


def test_a_job_on_this_machine(ray: Any, edge_bundle: Path, tmp_path: Path, rows: list[str]) -> None:
    source = write_rows(tmp_path / "a.parquet", rows)
    arguments = ("batch", edge_bundle, source, "--out", tmp_path / "out", "--part-rows", 700, "--engine", "ray")
    ok(*arguments)
    assert output(tmp_path / "out") == answers(edge_bundle, rows) and leftovers(tmp_path / "out") == []
    empty = write_rows(tmp_path / "b.parquet", ["noon", ""])
    done = call("batch", edge_bundle, empty, "--out", tmp_path / "raised", "--engine", "ray", "--on-error", "raise")
    assert done.code == 2 and done.err.startswith(f"error: {empty}, row 2, column 'text': the text is empty")


def test_a_part_that_ends_three_workers(
    ray: Any, edge_bundle: Path, tmp_path: Path, rows: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_rows(tmp_path / "a.parquet", rows), tmp_path / "out"
    arguments = ("batch", edge_bundle, source, "--out", out, "--part-rows", 2500, "--engine", "ray")
    monkeypatch.setattr(ray_tasks, "do_part", batch_jobs.do_part_or_die)
    done = call(*arguments)
    assert done.code == 2 and f"{source}: rows 2,501 to 5,000 killed every worker that took them" in done.err
    assert [name for name in names(out) if name[0] not in "._"] == ["part-00000.parquet", "part-00002.parquet"]
    monkeypatch.undo()
    ok(*arguments)
    assert output(out) == answers(edge_bundle, rows) and leftovers(out) == []
