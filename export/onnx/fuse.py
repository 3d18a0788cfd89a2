"""Fuse a bundle into one ONNX file with student, knowledge base and blend.

The file is for programs that run ONNX without Python. It maps token ids to probabilities, neighbours and the label. Its
graph is the one that the runtime runs with search ``"graph"``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import onnx

from ... import __version__
from ...errors import UsageError
from ...kb.knowledge_base import KnowledgeBase
from ...kb.storage.atomic import atomic_write, refuse_existing
from ...runtime.bundle.bundle import MODEL_FILE, Bundle
from ...runtime.bundle.manifest import MANIFEST_FILE, Manifest
from ...runtime.editing.store import KnowledgeStore
from ...runtime.graph.retrieval import Tables
from ...runtime.inference.session.retrieval_session import tables_of
from ...runtime.inference.session.sessions import read_model
from ...runtime.runtime import Runtime
from .fused_check import FusedAgreement, compare
from .fused_graph import fused_model

MAX_ROWS = 4096
FORMAT_VERSION = 1
_LARGEST_FILE = 2**31 - 1  # bytes of a protocol buffer


@dataclass(frozen=True)
class Fused:
    """The result of `fuse`.

    Attributes:
        path: the file.
        bytes: size of the file.
        rows: number of rows of its knowledge base.
        comparison: agreement with the bundle's answers.
    """

    path: Path
    bytes: int
    rows: int
    comparison: FusedAgreement


def fuse(bundle: Path, out: Path, max_rows: int = MAX_ROWS, follow_links: bool = False) -> Fused:
    """Write a bundle as one ONNX file; ``out`` is not written if this fails.

    Before the file is moved to its place, its outputs for the golden texts and, if the knowledge base stores texts, for
    32 of them are compared with the bundle's.

    Args:
        bundle: the bundle's folder.
        out: path of the new ``.onnx`` file; must not exist.
        max_rows: largest number of rows, because every text is compared with every row.
        follow_links: same as `Runtime.open`.

    Raises:
        OutputExistsError: ``out`` exists.
        BundleError: the bundle cannot be used.
        UsageError: the bundle was edited, or the knowledge base is empty or too large.
        ModelError: the fused model gives other answers than the bundle.
        StorageError: a file cannot be written.
    """
    refuse_existing(out)
    KnowledgeStore(Bundle.open(bundle, verify=False, follow_links=follow_links)).refuse_edits("fuse")
    with Runtime.open(bundle, search="graph", follow_links=follow_links) as runtime:
        kb = runtime.knowledge_base
        assert isinstance(kb, KnowledgeBase)  # edits were refused above
        knowledge = _tables(bundle, kb, max_rows)
        manifest, student = runtime.manifest, read_model(Bundle(bundle.absolute(), runtime.manifest))
        # The file's session may lack the option that makes products of integers exact without VNNI.
        integer = manifest.quantization.get("target") != "avx2"
        model = fused_model(student, knowledge, manifest.blend, manifest.labels, _metadata(bundle, manifest), integer)
        model.producer_name, model.producer_version = "reaugkd", __version__
        onnx.checker.check_model(model)
        with atomic_write(out, "wb") as file:
            file.write(model.SerializeToString(deterministic=True))
            file.flush()
            comparison = compare(Path(file.name), runtime, integer)
    return Fused(out, out.stat().st_size, len(knowledge.keys), comparison)


def _tables(bundle: Path, kb: KnowledgeBase, max_rows: int) -> Tables:
    rows = len(kb)
    if rows == 0:
        raise UsageError(
            "the knowledge base is empty: there is nothing to fuse",
            path=bundle,
            remedy=f"Use {MODEL_FILE} alone: softmax(logits / student_temperature) is the answer.",
        )
    if rows > max_rows:
        raise UsageError(
            "the knowledge base is too large to compare every text with every row",
            path=bundle,
            found=f"{rows:,} rows",
            expected=f"at most {max_rows:,}",
            remedy=f"Condense it: `reaugkd condense {bundle} --out NEW --max-rows {max_rows}`; or raise --max-rows.",
        )
    tables = tables_of(kb)
    size = tables.keys.nbytes + tables.soft_labels.nbytes + (bundle / MODEL_FILE).stat().st_size
    if size > _LARGEST_FILE:
        raise UsageError(
            "the fused model is larger than the limit of an ONNX file",
            path=bundle,
            found=f"{size:,} bytes",
            expected=f"at most {_LARGEST_FILE:,}",
            remedy="Make the knowledge base smaller with `reaugkd condense`.",
        )
    return tables


def _metadata(bundle: Path, manifest: Manifest) -> dict[str, object]:
    seal = json.loads((bundle / MANIFEST_FILE).read_bytes())["seal"]
    return {
        "format_version": FORMAT_VERSION,
        "max_length": manifest.max_length,
        "text_pair": manifest.text_pair,
        "kb_rows": manifest.kb_rows,
        "bundle_seal": seal,
        "quantization": {name: manifest.quantization.get(name) for name in ("kind", "target")},
    }
