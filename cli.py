"""The front door: every command, thin; what a command needs is imported when it runs."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .console import Commands, json_report, output, progress, resumable, run, train_extra
from .datasource import go_offline_if_unreachable, load, load_rows, load_texts
from .errors import UsageError
from .study import study

if TYPE_CHECKING:
    from .runtime.data import Columns
    from .runtime.writers import Format

_PATH = click.Path(path_type=Path)
_THREADS = click.option(
    "--threads", type=click.IntRange(1), default=1, metavar="N", help="Threads to use.  [default: 1]"
)
_TASK = click.option("--task", metavar="NAME", help="A GLUE task's name, clinc150, clinc150_oos, or a hub subset.")
_JSON = click.option("--json", "json_path", metavar="FILE|-", help="Write the figures as JSON, to stdout for -.")


def main() -> None:
    """Run the command line: an error of ours is one line on stderr and its exit code, never a traceback."""
    run(cli)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Commands and options with a * need pip install 'reaugkd[train]'; the others run without torch.",
)
@click.version_option(__version__, prog_name="reaugkd")
def cli() -> None:
    """Distil a large text classifier into a small int8 one that looks things up in its teacher's knowledge."""


def _columns(command: Callable[..., None]) -> Callable[..., None]:
    """Add the three options that name columns, and hand them over as one ``columns``."""

    @functools.wraps(command)
    def with_columns(
        *args: Any, text_column: str | None, text_pair_column: str | None, label_column: str | None, **options: Any
    ) -> None:
        from .runtime.data import Columns

        command(*args, columns=Columns(text_column, text_pair_column, label_column), **options)

    for option, what in (("label", "the labels"), ("text-pair", "the pairs' second texts"), ("text", "the texts")):
        text = f"Column of {what}.  [default: found by its usual names]"
        with_columns = click.option(f"--{option}-column", metavar="NAME", help=text)(with_columns)
    return with_columns


def _numbers(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers such as 0,2,5") from None


@cli.command(short_help="Teacher, keys and student from labelled rows. *")
@click.option("--data", required=True, metavar="PATH|HUB_ID", help="A data folder or file, or a Hugging Face data set.")
@click.option("--teacher", required=True, metavar="MODEL", help="Encoder or fine-tuned classifier: hub id or folder.")
@click.option("--out", required=True, type=_PATH, metavar="RUN", help="The run folder to make, or to go on with.")
@_TASK
@click.option(
    "--student-layers", callback=_numbers, metavar="N,N,..", help="Teacher layers the student starts from, 0-based."
)
@click.option("--student", metavar="MODEL", help="A model the student starts from instead: hub id or folder.")
@click.option("--embedding-dim", type=int, metavar="N", help="Components of keys and queries.  [default: 128]")
@click.option("--teacher-epochs", type=int, metavar="N", help="Epochs of the teacher's fine-tuning.  [default: 4]")
@click.option("--student-epochs", type=int, metavar="N", help="Epochs of the distillation.  [default: 5]")
@click.option("--max-length", type=int, metavar="N", help="Tokens a text is cut to.  [default: 128]")
@click.option("--limit", type=click.IntRange(2), metavar="N", help="Use at most N train rows, stratified.")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Seed of everything random.  [default: 0]")
@click.option("--recipe", type=_PATH, metavar="FILE.toml", help="Every other choice; options above win over it.")
@click.option("--redo", is_flag=True, help="In an existing run, redo the stages whose settings changed.")
@_columns
def train(
    data: str,
    teacher: str,
    out: Path,
    task: str | None,
    limit: int | None,
    recipe: Path | None,
    redo: bool,
    columns: Columns,
    **options: Any,
) -> None:
    """Train a teacher, its keys and a student; killed at any point and called again, it goes on."""
    go_offline_if_unreachable(data, teacher, options["student"] or teacher)
    with train_extra("training"):
        from .export import recipe_file as recipes
        from .export.recipe import Recipe
        from .export.train import TrainJob
        from .export.train import train as run_training
    base = recipes.load_recipe(recipe) if recipe else Recipe()
    chosen = recipes.override(
        base,
        seed=options["seed"],
        max_length=options["max_length"],
        teacher__fit__epochs=options["teacher_epochs"],
        projection__embedding_dim=options["embedding_dim"],
        student=recipes.with_start(base.student, options["student_layers"], options["student"]),
        student__fit__epochs=options["student_epochs"],
    )
    dataset = load(data, task, columns)
    with resumable():
        tuning = run_training(dataset, TrainJob(teacher, chosen, limit, redo), out)
    blend = tuning.blend
    nll = ", ".join(f"{name} {value:.4f}" for name, value in tuning.nll.items())
    click.echo(
        f"tuned on {tuning.rows} held-out rows: student weight "
        f"{f'{blend.student_weight:.3f}' if blend.weight is None else blend.weight.kind}, k {blend.k}, "
        f"tau {blend.tau:g}; negative log-likelihood: {nll}",
        err=True,
    )
    click.echo(f"next: reaugkd export {out} --out BUNDLE", err=True)


@cli.command(short_help="A run as a bundle for the edge. *")
@click.argument("run", type=_PATH)
@click.option("--out", required=True, type=_PATH, metavar="BUNDLE", help="The bundle folder to make.")
@click.option(
    "--target",
    type=click.Choice(["auto", "avx2", "avx512_vnni", "arm64"]),
    default="auto",
    show_default=True,
    help="Processor family of the edge; auto is this machine's.",
)
@click.option("--quantization", type=click.Choice(["dynamic", "static", "none"]), default="dynamic", show_default=True)
@click.option(
    "--allow-quality-loss", is_flag=True, help="Write the bundle even if int8 falls below the quality floors."
)
@click.option("--no-texts", is_flag=True, help="Leave the rows' texts out of the knowledge base (privacy, size).")
@click.option(
    "--kb-data", metavar="FILE", help="More texts for the knowledge base, labelled by the teacher; labels are not read."
)
@click.option(
    "--query", type=click.Choice(["layers", "distilled"]), help="What the student asks with.  [default: the recipe's]"
)
@click.option(
    "--keys", type=click.Choice(["student", "teacher", "both"]), help="What it finds.  [default: the recipe's]"
)
@click.option(
    "--weight",
    type=click.Choice(["auto", "constant", "buckets", "logistic"]),
    help="The form of the student's share.  [default: the recipe's]",
)
@click.option(
    "--keep-heldout/--leave-heldout",
    default=None,
    help="Whether the knowledge base holds the held-out rows too.  [default: the recipe's]",
)
@_columns
def export(
    run: Path,
    out: Path,
    target: str,
    quantization: Any,
    allow_quality_loss: bool,
    no_texts: bool,
    kb_data: str | None,
    columns: Columns,
    **retrieval: Any,
) -> None:
    """Export RUN as a bundle: int8 ONNX student, knowledge base, tuned blend, proof of quality."""
    with train_extra("exporting"):
        from .export import recipe_file as recipes
        from .export.bundle import ExportJob
        from .export.bundle import export as run_export
        from .export.onnx import detect_target
        from .export.retrieval import Store
        from .export.run import RunFolder
    chosen: Any = detect_target() if target == "auto" else target
    description = RunFolder(run).describe()
    recipe = recipes.recipe_from_dict(description["recipe"]).retrieval
    job = ExportJob(
        chosen,
        quantization,
        allow_quality_loss=allow_quality_loss,
        store=Store(keep_texts=not no_texts),
        retrieval=replace(recipe, **{name: value for name, value in retrieval.items() if value is not None}),
        extra=None if kb_data is None else load_rows(kb_data, columns, description["data"]["text_pair"]),
    )
    done = run_export(run, out, job)
    quality = done.quality
    click.echo(
        f"{quantization} quantization for {chosen}: {quality.label_agreement:.2%} of {quality.rows} held-out rows "
        f"as in float32, accuracy {quality.accuracy_float32:.2%} -> {quality.accuracy:.2%}, "
        f"neighbour overlap {quality.neighbour_overlap:.2%} at k={quality.k}",
        err=True,
    )
    total = sum(record.bytes for record in done.manifest.files.values())
    click.echo(f"{out}: {total / 1e6:.1f} MB; next: reaugkd predict {out} 'some text'", err=True)


@cli.command(short_help="The label of each text.")
@click.argument("bundle", type=_PATH)
@click.argument("text", nargs=-1)
@click.option("--input", "source", metavar="FILE|-", help="Read texts from a file, or from stdin.")
@click.option(
    "--input-format",
    type=click.Choice(["txt", "csv", "tsv", "jsonl", "parquet"]),
    help="What --input holds.  [default: by suffix; stdin: txt, one text a line]",
)
@click.option("--output", "target", metavar="FILE|-", default="-", help="A new file, whole or not at all, or stdout.")
@click.option(
    "--format", "kind", type=click.Choice(["table", "jsonl", "csv"]), help="[default: table; jsonl with --input]"
)
@click.option("--explain", is_flag=True, help="Show the neighbours that were retrieved.")
@click.option("--no-retrieval", is_flag=True, help="Answer with the student alone.")
@_THREADS
@_columns
def predict(
    bundle: Path,
    text: tuple[str, ...],
    source: str | None,
    input_format: Any,
    target: str,
    kind: Format | None,
    explain: bool,
    no_retrieval: bool,
    threads: int,
    columns: Columns,
) -> None:
    """Classify each TEXT, or each row of --input, with the bundle at BUNDLE.

    A bundle trained on pairs takes the TEXTs two by two. A row of --input that cannot be used gives an error record in
    its place and the rest goes on; how many there were is said on stderr.
    """
    from .runtime.answers import STDIN, Answers, answer_stream, records_of_arguments, records_of_source
    from .runtime.engine import Runtime

    if bool(text) == (source is not None):
        found = f"{len(text)} texts and --input {source}" if text else "neither"
        remedy = "Quote a text as one argument, or read stdin with --input -."
        raise UsageError("give either TEXTs or --input", found=found, remedy=remedy)
    runtime = Runtime.open(bundle, threads=threads, retrieval="never" if no_retrieval else "always")
    pair = runtime.manifest.text_pair
    records = records_of_source(source, input_format, columns, pair) if source else records_of_arguments(text, pair)
    kind = kind or ("table" if source is None else "jsonl")
    if source == STDIN and sys.stdin.isatty():
        click.echo("reading texts, one a line; end with Ctrl-D", err=True)
    with output(target, machine=kind != "table") as out, progress("predict", "row") as advance:
        counted = None if target == "-" else advance
        failed = answer_stream(runtime, records, Answers(kind, explain, source), out, counted)
    if failed:
        click.echo(f"{failed:,} row{'s' * (failed > 1)} could not be answered: see the error records", err=True)


@cli.command(name="eval", short_help="How good student, retrieval and their blend are.")
@click.argument("bundle", type=_PATH)
@click.option("--data", required=True, metavar="PATH|HUB_ID", help="The data set to score on.")
@click.option(
    "--split", metavar="NAME", help="train, dev, test, or all rows.  [default: test if it has labels, else dev]"
)
@_TASK
@click.option("--run", type=_PATH, metavar="RUN", help="Add the run's teacher and float32 student. *")
@_THREADS
@_JSON
@_columns
def evaluate(
    bundle: Path,
    data: str,
    split: str | None,
    task: str | None,
    run: Path | None,
    threads: int,
    json_path: str | None,
    columns: Columns,
) -> None:
    """Score student, retrieval and their blend, and with --run the teacher and the float32 student.

    With --run it also says how faithful each is to the teacher: on these rows, on the same rows with typing errors, and
    on up to 1,000 rows of the distillation.

    Where the data has no dev split, the one that training carves out of train is scored; a file of rows that no
    training has seen wants --split all.
    """
    from .runtime.data import choose_split, is_carved
    from .runtime.engine import Runtime
    from .runtime.evaluate import evaluate_bundle
    from .runtime.report import format_evaluation

    runtime = Runtime.open(bundle, threads=threads)
    dataset = load(data, task, columns, runtime.labels)
    name, rows = choose_split(dataset, split)
    if is_carved(dataset, name):
        click.echo(
            f"{rows.source} has no dev split: scoring the {len(rows):,} rows that training carves out of its "
            f"{len(dataset.splits['train']):,}; every row with --split all",
            err=True,
        )
    with json_report(json_path) as write:
        if run is None:
            with progress("eval", "row") as advance:
                report = evaluate_bundle(runtime, rows, split_name=name, progress=advance)
        else:
            with train_extra("scoring the teacher (--run)"):
                from .export.evaluate import evaluate_with_run
            report = evaluate_with_run(run, runtime, rows, name)
        click.echo(format_evaluation(report), err=json_path == "-")
        write(report.to_json())


@cli.command(short_help="What retrieval costs in time, memory and bytes.")
@click.argument("bundle", type=_PATH)
@click.option("--data", metavar="PATH|HUB_ID", help="Texts to time with.  [default: the knowledge base's own]")
@_TASK
@_THREADS
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="Time for the latencies.  [default: 10]"
)
@click.option(
    "--processes", type=click.IntRange(0), metavar="N", help="Fresh processes, for cold start and memory.  [default: 5]"
)
@_JSON
@_columns
def bench(
    bundle: Path,
    data: str | None,
    task: str | None,
    threads: int,
    seconds: float | None,
    processes: int | None,
    json_path: str | None,
    columns: Columns,
) -> None:
    """Measure what retrieval costs: student alone and with retrieval, interleaved, stage by stage."""
    from .runtime.bench import BenchSettings
    from .runtime.bench import bench as run_bench
    from .runtime.bundle import Bundle
    from .runtime.report import format_bench

    pair = Bundle.open(bundle, verify=False).manifest.text_pair
    texts, source = (None, None) if data is None else load_texts(data, task, columns, pair)
    chosen = {"seconds": seconds, "processes": processes}
    settings = BenchSettings(**{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]
    with json_report(json_path) as write:
        with progress("bench", "step") as advance:
            report = run_bench(bundle, texts, threads=threads, settings=settings, source=source, progress=advance)
        click.echo(format_bench(report), err=json_path == "-")
        write(report.to_json())


@cli.command(short_help="What a bundle is, every file checked.")
@click.argument("bundle", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="The whole manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Check every file of a bundle against its hash and say what the bundle is."""
    from .runtime.bundle import Bundle
    from .runtime.inspect import describe

    opened = Bundle.open(bundle)
    click.echo(json.dumps(opened.manifest.to_json(), indent=1, ensure_ascii=False) if as_json else describe(opened))


cli.add_command(study)


@cli.command(short_help="All of it on an embedded corpus, in four minutes. *")
@click.option(
    "--out", type=_PATH, default=Path("demo"), show_default=True, help="Folder for the demo's run and bundle."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N")
def demo(out: Path, seed: int) -> None:
    """The whole job on an embedded corpus, offline: voice-assistant intents, a teacher from scratch, its student."""
    with train_extra("the demo"):
        from .export.demo import run_demo
    with resumable():
        run_demo(out, seed, click.echo)


if __name__ == "__main__":
    main()
