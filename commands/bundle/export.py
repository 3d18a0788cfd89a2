"""`reaugkd export`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import UsageError
from ..console import train_extra
from ..data_source import load_rows
from ..options import PATH, with_text_columns

if TYPE_CHECKING:
    from ...export.tuning.build_kb import KbTexts
    from ...export.vocabulary.prune_vocabulary import VocabularySize
    from ...runtime.data import Columns


def _vocabulary(_context: click.Context, _parameter: click.Parameter, value: str) -> str | int:
    if value == "full":
        return value
    if value.isascii() and value.isdigit():
        return int(value)
    if value in ("auto", "task"):
        raise click.BadParameter(
            f"{value!r} is not a choice any more: leave --vocabulary out to keep all tokens, or give a number, "
            "such as 10000"
        )
    raise click.BadParameter(f"{value!r} is neither full nor a number of tokens")


def _of_vocabulary(kept: int, of: int, unseen: dict[str, float]) -> str:
    return (
        f"vocabulary: {kept:,} of {of:,} tokens; {unseen['split_otherwise']:.1%} of unseen texts are split "
        f"into other tokens (at most {unseen['split_otherwise_most']:.1%} in ten draws of the train rows), "
        f"{unseen['other_label'] / max(unseen['rows'], 1):.2%} of {unseen['rows']} held-out texts change their label"
    )


@click.command(short_help="Export a run as a bundle of int8 student and knowledge base. *")
@click.argument("run", type=PATH)
@click.option("--out", required=True, type=PATH, metavar="BUNDLE", help="Folder of the new bundle.")
@click.option(
    "--target",
    type=click.Choice(["auto", "avx2", "avx512_vnni", "arm64"]),
    default="auto",
    show_default=True,
    help="Processor family that the bundle is for; auto stands for this machine's.",
)
@click.option(
    "--quantization",
    type=click.Choice(["dynamic", "none"]),
    default="dynamic",
    show_default=True,
    help="Quantization of the student: dynamic (int8) or none (float32).",
)
@click.option(
    "--exporter",
    type=click.Choice(["torch", "optimum"]),
    default="torch",
    show_default=True,
    help="What writes the student's ONNX graph: torch, or optimum (needs the extra train-optimum instead of train).",
)
@click.option(
    "--allow-quality-loss",
    is_flag=True,
    help="Write the bundle even if it misses the quality floors: 95 % of held-out labels kept, at most 1 % "
    "accuracy lost, 30 % of neighbours kept; with --vocabulary N, at most 4 % of unseen texts split into other tokens.",
)
@click.option(
    "--kb-texts",
    type=click.Choice(["plain", "hash", "none"]),
    default="plain",
    show_default=True,
    help="Storage of the rows' texts in the knowledge base: plain texts, digests (hash) by which a given text can be "
    "found, or none. docs/explanation/privacy.md compares them.",
)
@click.option(
    "--gate-loss",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.005,
    show_default=True,
    metavar="SHARE",
    help="Largest accuracy loss of the retrieval gate, certified with 95 % confidence on held-out rows.",
)
@click.option(
    "--vocabulary",
    default="full",
    show_default=True,
    callback=_vocabulary,
    metavar="full|N",
    help="Tokens that the student keeps. full: all. N: those of the run's rows, every character, and the "
    "likeliest others up to N; texts with a removed token are split into other tokens.",
)
@click.option(
    "--kb-data",
    metavar="FILE",
    help="File with more texts for the knowledge base. The teacher labels them; labels in the file are ignored. "
    "The blend is tuned on the run's held-out rows alone.",
)
@click.option(
    "--kb-answers",
    type=PATH,
    metavar="FILE",
    help="Instead of --kb-data: JSON lines or Parquet with more texts and the teacher's answers to them, in the form "
    "of train --teacher-outputs. The teacher is not run.",
)
@click.option(
    "--query",
    type=click.Choice(["layers", "distilled"]),
    help="Query of the student: a head on all layers, fitted after distillation, or distilled (the head that the "
    "recipe's objectives trained).  [default: the recipe's]",
)
@click.option(
    "--keys",
    type=click.Choice(["student", "teacher"]),
    help="Keys of the knowledge base: the student's queries, or the teacher's projected embeddings (then --query "
    "distilled).  [default: the recipe's]",
)
@click.option(
    "--keep-heldout/--leave-heldout",
    default=None,
    help="Add the held-out rows to the knowledge base after tuning, or leave them out.  [default: the recipe's]",
)
@with_text_columns
def export(
    run: Path,
    out: Path,
    target: str,
    quantization: Any,
    exporter: Any,
    allow_quality_loss: bool,
    kb_texts: KbTexts,
    gate_loss: float,
    vocabulary: VocabularySize,
    kb_data: str | None,
    kb_answers: Path | None,
    columns: Columns,
    **retrieval: Any,
) -> None:
    """Export RUN as a bundle: an int8 ONNX student, a knowledge base, a tuned blend and a quality report."""
    with train_extra("exporting"):
        from ...export import recipe_file as recipes
        from ...export.bundle.write import ExportJob
        from ...export.bundle.write import export as run_export
        from ...export.onnx.quantization import detect_target
        from ...export.training.run_folder import RunFolder
        from ...export.training.teacher.file import read_teacher_file
        from ...export.training.train_from_file import describe_heldout
        from ...export.tuning.abstention import describe_abstention
        from ...export.tuning.build_kb import KbStorageConfig
        from ...export.tuning.gating import Certificate, describe_gate
    if kb_data is not None and kb_answers is not None:
        raise UsageError("--kb-data and --kb-answers are two ways to give the same rows", remedy="Leave one out.")
    chosen: Any = detect_target() if target == "auto" else target
    description = RunFolder(run).describe()
    recipe = recipes.recipe_from_dict(description["recipe"]).retrieval
    job = ExportJob(
        chosen,
        quantization,
        allow_quality_loss=allow_quality_loss,
        store=KbStorageConfig(texts=kb_texts),
        retrieval=replace(recipe, **{name: value for name, value in retrieval.items() if value is not None}),
        certificate=Certificate(gate_loss),
        vocabulary=vocabulary,
        exporter=exporter,
        extra=None if kb_data is None else load_rows(kb_data, columns, description["data"]["text_pair"]),
    )
    if kb_answers is not None:
        answers = read_teacher_file(kb_answers, columns, description["labels"])
        job = replace(job, extra=answers.split, answers=answers)
    done = run_export(run, out, job)
    for remark in () if job.answers is None else job.answers.remarks:
        click.echo(remark, err=True)
    vocabulary_report = done.manifest.quantization["vocabulary"]
    if "unseen" in vocabulary_report:
        click.echo(_of_vocabulary(**vocabulary_report), err=True)
    quality = done.quality
    made = done.manifest.quantization
    click.echo(
        f"{made['kind']} quantization for {chosen}: {quality.label_agreement:.2%} of {quality.rows} held-out rows "
        f"keep their label, accuracy {quality.accuracy_float32:.2%} -> {quality.accuracy:.2%}, "
        f"neighbour overlap {quality.neighbour_overlap:.2%} at k={quality.k}",
        err=True,
    )
    if "teacher_file" in description:
        click.echo(describe_heldout(description), err=True)
    if job.extra is not None:
        click.echo(f"{job.extra.source}: {done.manifest.created_from['extra_rows']:,} new texts", err=True)
    click.echo(done.tuning.describe(), err=True)
    click.echo(f"gate (predict --gated): {describe_gate(done.manifest.gate, gate_loss)}", err=True)
    click.echo(f"abstention (predict --abstain): {describe_abstention(done.manifest.abstention)}", err=True)
    total = sum(record.bytes for record in done.manifest.files.values())
    click.echo(f"{out}: {total / 1e6:.1f} MB; next: reaugkd predict {out} 'some text', or reaugkd ui {out}", err=True)
