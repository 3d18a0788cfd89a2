"""Inputs of batch jobs, what their output should be, and the processes of a job that runs."""

from __future__ import annotations

import ctypes
import gzip
import os
import select
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from reaugkd import ReaugkdError, Runtime
from reaugkd.batch.engines.ray_tasks import do_part
from reaugkd.batch.engines.worker import work
from reaugkd.batch.job.part import PartWorker, Settings
from support.tiny_bundle import tiny_texts

LIMIT = 300.0  # seconds; what is waited for here takes a few, on a loaded machine a minute

_MOVED_TO = 0x80
_EVENT = struct.Struct("iIII")


def texts(count: int, seed: int = 3) -> list[str]:
    return [text for text in tiny_texts(count, seed=seed) if isinstance(text, str)]


def write_rows(path: Path, rows: list[str], **options: Any) -> Path:
    """Write a Parquet file of texts with their ids."""
    parquet.write_table(pa.table({"id": range(len(rows)), "text": rows}), path, **options)
    return path


def write_empty_files(folder: Path) -> None:
    """Write files without rows, of every kind, into a new folder."""
    folder.mkdir()
    for name in ("0.csv", "0.jsonl", "0.parquet", "0.txt", "0.csv.gz"):
        (folder / name).touch()
    (folder / "1.tsv.gz").write_bytes(gzip.compress(b""))
    (folder / "2.csv").write_text("id,text\n")
    (folder / "2.jsonl").write_text("\n\n")
    (folder / "3.csv").write_bytes(b"\xef\xbb\xbf")  # a byte order mark alone
    parquet.write_table(pa.table({"other": pa.array([], pa.int64())}), folder / "z.parquet")


def output(out: Path) -> list[dict[str, Any]]:
    """The rows of an output folder, as any reader of Parquet sees them: hidden files and those with ``_`` are none."""
    return list(parquet.read_table(out).to_pylist())


def answers(bundle: Path, rows: list[str]) -> list[dict[str, Any]]:
    """The rows that a job should write for the texts of `write_rows`."""
    with Runtime.open(bundle) as runtime:
        found = map(runtime.predict, rows)
        return [
            {
                "id": number,
                "text": text,
                "label": one.label,
                "score": one.probability,
                "retrieved": one.retrieved,
                "abstained": False,
                "error": None,
            }
            for number, (text, one) in enumerate(zip(rows, found, strict=True))
        ]


def leftovers(out: Path) -> list[str]:
    return [path.name for path in out.iterdir() if path.name.startswith(".")]


class Watch:
    """Waits for files that appear in a folder by a rename, without looking again and again."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.inotify_init1(os.O_CLOEXEC)
        assert self._libc.inotify_add_watch(self._file, os.fsencode(folder), _MOVED_TO) >= 0

    def wait_for_parts(self, count: int) -> None:
        while count > 0:
            assert select.select([self._file], [], [], LIMIT)[0], f"{count} more parts were expected"
            data = os.read(self._file, 1 << 16)
            while data:
                size = _EVENT.unpack_from(data)[3]
                count -= data[_EVENT.size :].startswith(b"part-")
                data = data[_EVENT.size + size :]

    def close(self) -> None:
        os.close(self._file)


@contextmanager
def watched(folder: Path) -> Iterator[Watch]:
    folder.mkdir(exist_ok=True)
    watch = Watch(folder)
    try:
        yield watch
    finally:
        watch.close()


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                status = (folder / "stat").read_text()
            except OSError:  # it has ended meanwhile
                continue
            if int(status.rpartition(")")[2].split()[1]) == process:
                found.append(int(folder.name))
    return found


def workers(driver: int) -> list[int]:
    """The workers of a job: its children that are not Python's tracker of resources."""
    return [child for child in children(driver) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@contextmanager
def ends(processes: list[int]) -> Iterator[None]:
    """Check at the end of the block that these processes end by themselves, with their driver gone."""
    files = [os.pidfd_open(process) for process in processes]
    try:
        yield
        for file in files:
            assert select.select([file], [], [], LIMIT)[0], "a worker outlives its driver"
    finally:
        for file in files:
            os.close(file)


def work_and_die_once(pipe: Any, settings: Settings) -> None:
    """A worker that is killed in the middle of part 1, the first time."""
    _killed_in_part_1(pipe, settings, once=True)


def work_and_die(pipe: Any, settings: Settings) -> None:
    """A worker that is killed in the middle of part 1, each time."""
    _killed_in_part_1(pipe, settings, once=False)


def do_part_or_die(settings: Settings, number: int) -> ReaugkdError | None:
    """A task of Ray whose process is killed at part 1, each time."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return do_part(settings, number)


def work_and_hang_up(pipe: Any, settings: Settings) -> None:
    """A worker that gets SIGHUP before each part, as when its terminal closes."""
    do = PartWorker.do

    def hang_up_and_do(self: PartWorker, number: int, advance: Any) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        do(self, number, advance)

    PartWorker.do = hang_up_and_do  # type: ignore[method-assign]
    work(pipe, settings)


def die_early(_pipe: Any, _settings: Settings) -> None:
    """A worker that ends before it is ready."""
    os._exit(7)


def _killed_in_part_1(pipe: Any, settings: Settings, once: bool) -> None:
    do, mark = PartWorker.do, Path(settings.out).with_name("died")

    def do_or_die(self: PartWorker, number: int, advance: Any) -> None:
        def advance_or_die(rows: int) -> None:
            if number == 1 and not (once and mark.exists()):
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            advance(rows)

        do(self, number, advance_or_die)

    PartWorker.do = do_or_die  # type: ignore[method-assign]
    work(pipe, settings)
