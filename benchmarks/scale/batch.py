"""Batch prediction: overhead of the engines, memory, and a large job that is killed three times.

    python benchmarks/scale/batch.py BUNDLE TEXTS [--parts overhead,memory,kills] [--rows 1000000] [--work FOLDER]

TEXTS is a file of texts that `reaugkd predict` reads; its texts are repeated, with a row id. Parts:

overhead    seconds of `reaugkd batch` for --loop-rows texts over those of `predict_many` in one process, for 1 and 2
            workers of each engine, each of --repeat times in turn; the start of the job (a job of one row) is taken
            off. `over_loop` is the time of all workers together over that of the loop
memory      the largest memory of the driver and of a worker for 10,000 and --rows rows of Parquet, and for 10,000 and a
            fifth of --rows of JSON lines and CSV; two workers, of the student alone, which changes no flow of data
kills       a job of --rows texts with two workers: SIGKILL to a worker at 10 % of the parts, to the driver at 40 %, to
            all at 70 %; then whether every id is there once, and every answer is that of `Runtime.predict`

It prints one JSON object a line. Only Linux.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from reaugkd import Runtime
from reaugkd.runtime.data import TextRow, read_text_rows

SMALL = 10_000
CHUNK = 50_000


def tell(**values: object) -> None:
    """Print a line of JSON."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def write_input(path: Path, texts: list[str], rows: int) -> Path:
    """Write rows with ids: Parquet, JSON lines or CSV, by the suffix."""
    repeated = islice(cycle(texts), rows)
    if path.suffix == ".parquet":
        schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
        with parquet.ParquetWriter(path, schema) as writer:
            for start in range(0, rows, CHUNK):
                some = list(islice(repeated, CHUNK))
                writer.write_table(pa.table({"id": range(start, start + len(some)), "text": some}, schema))
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            csv.writer(file).writerows([("id", "text"), *enumerate(repeated)])
        else:
            file.writelines(json.dumps({"id": row, "text": text}) + "\n" for row, text in enumerate(repeated))
    return path


def begin(*arguments: object) -> subprocess.Popen[bytes]:
    """Start `reaugkd batch` in a session of its own."""
    command = [sys.executable, "-m", "reaugkd.cli", "batch", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a job, which must succeed."""
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(errors.decode())


def seconds_of(out: Path, *arguments: object) -> float:
    """Seconds of a whole job."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    end(begin(*arguments, "--out", out))
    return time.perf_counter() - started


def overhead(bundle: Path, texts: list[str], work: Path, rows: int, repeat: int) -> None:
    """Measure the engines over the bare loop."""
    source = write_input(work / "loop.parquet", texts, rows)
    one = write_input(work / "one.parquet", texts, 1)
    given = list(islice(cycle(texts), rows))
    engines = ["local", *(["ray"] if importlib.util.find_spec("ray") else [])]
    # At least eight parts for each of two workers: the last one leaves the other worker idle.
    part = ("--part-rows", max(1, rows // 16))
    loops: list[float] = []
    starts: dict[tuple[str, int], list[float]] = {}
    jobs: dict[tuple[str, int], list[float]] = {}
    for _ in range(repeat):
        with Runtime.open(bundle) as runtime:
            list(runtime.predict_many(texts[:200]))
            started = time.perf_counter()
            for _answer in runtime.predict_many(given):
                pass
            loops.append(time.perf_counter() - started)
        for engine in engines:
            for workers in (1, 2):
                options = ("--engine", engine, "--workers", workers, *part)
                starts.setdefault((engine, workers), []).append(seconds_of(work / "out", bundle, one, *options))
                jobs.setdefault((engine, workers), []).append(seconds_of(work / "out", bundle, source, *options))
    loop = statistics.median(loops)
    tell(part="overhead", what="predict_many", rows=rows, seconds=loop, texts_per_second=rows / loop, all=loops)
    for (engine, workers), all_seconds in jobs.items():
        start = statistics.median(starts[engine, workers])
        net = statistics.median(all_seconds) - start
        tell(
            part="overhead",
            what=engine,
            workers=workers,
            rows=rows,
            seconds=statistics.median(all_seconds),
            start_seconds=start,
            over_loop=net * workers / loop,
            texts_per_second=rows / net,
            all=all_seconds,
        )
    for engine in engines:
        net = [
            statistics.median(jobs[engine, workers]) - statistics.median(starts[engine, workers]) for workers in (1, 2)
        ]
        tell(part="overhead", what=f"{engine}: 2 workers over 1", speedup=net[0] / net[1])


def children(process: int) -> list[int]:
    """The worker processes of a job."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def peak_of(process: int) -> int:
    """The largest memory of a process so far, in bytes; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def memory(bundle: Path, texts: list[str], work: Path, rows: int) -> None:
    """Measure the memory of jobs of two sizes and three kinds of files."""
    for kind, large in (("parquet", rows), ("jsonl", rows // 5), ("csv", rows // 5)):
        for count in (SMALL, large):
            source = write_input(work / f"memory.{kind}", texts, count)
            shutil.rmtree(work / "out", ignore_errors=True)
            process = begin(bundle, source, "--out", work / "out", "--workers", 2, "--retrieval", "never")
            driver, workers = 0, 0
            while process.poll() is None:
                driver = max(driver, peak_of(process.pid))
                with suppress(OSError):  # one has ended meanwhile
                    workers = max([workers, *map(peak_of, children(process.pid))])
                time.sleep(0.02)
            end(process)
            tell(part="memory", kind=kind, rows=count, driver_mb=driver / 1e6, worker_mb=workers / 1e6)
            source.unlink()


def parts_in(out: Path) -> int:
    """The number of parts that are done."""
    return sum(1 for _ in out.glob("part-*.parquet"))


def wait_for(process: subprocess.Popen[bytes], out: Path, parts: int) -> None:
    """Wait until so many parts are done."""
    while parts_in(out) < parts:
        if process.poll() is not None:
            end(process)
            raise RuntimeError(f"the job ended before part {parts}")
        time.sleep(0.05)


def kills(bundle: Path, texts: list[str], work: Path, rows: int) -> None:
    """Kill a large job three times and check every row of its output."""
    source, out = write_input(work / "kills.parquet", texts, rows), work / "killed"
    shutil.rmtree(out, ignore_errors=True)
    arguments = (bundle, source, "--out", out, "--workers", 2, "--part-rows", max(1, min(20_000, rows // 50)))
    total = -(-rows // int(str(arguments[-1])))
    started = time.perf_counter()
    process = begin(*arguments)
    wait_for(process, out, total // 10)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    wait_for(process, out, 4 * total // 10)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    process = begin(*arguments)
    wait_for(process, out, 7 * total // 10)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    end(begin(*arguments))
    seconds = time.perf_counter() - started
    seen, wrong = bytearray(rows), 0
    with Runtime.open(bundle) as runtime:
        expected = {text: runtime.predict(text) for text in texts}
    for row in output_rows(out):
        seen[row["id"]] = min(255, seen[row["id"]] + 1)
        answer = expected[row["text"]]
        same = row["text"] == texts[row["id"] % len(texts)] and row["error"] is None
        same = same and (row["label"], row["score"]) == (answer.label, answer.probability)
        wrong += not same
    tell(
        part="kills",
        rows=rows,
        parts=total,
        kills=["worker", "driver", "all"],
        seconds=seconds,
        once=seen.count(1),
        missing=seen.count(0),
        twice=rows - seen.count(1) - seen.count(0),
        wrong=wrong,
        left_over=[path.name for path in out.iterdir() if path.name.startswith(".")],
    )


def output_rows(out: Path) -> Iterator[dict[str, object]]:
    """The rows of an output folder, in constant memory."""
    for path in sorted(out.glob("part-*.parquet")):
        yield from parquet.read_table(path).to_pylist()


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--parts", default="overhead,memory,kills")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--loop-rows", type=int, default=32_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder for inputs and outputs [default: a temporary one]")
    options = parser.parse_args()
    texts = [str(row.text) for row in read_text_rows(options.texts) if isinstance(row, TextRow)]
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        for part in options.parts.split(","):
            if part == "overhead":
                overhead(options.bundle, texts, Path(folder), options.loop_rows, options.repeat)
            elif part == "memory":
                memory(options.bundle, texts, Path(folder), options.rows)
            else:
                kills(options.bundle, texts, Path(folder), options.rows)


if __name__ == "__main__":
    main()
