"""The text form of a bundle: model, blend, knowledge base, quality, files."""

from __future__ import annotations

from ...errors import BundleIntegrityError
from ...kb.edits.head import SNAPSHOTS
from ...kb.storage.ed25519 import PublicKey
from ..bundle.bundle import KB_FOLDER, Bundle
from ..bundle.manifest import FileRecord
from ..bundle.signature import read_signature
from ..decision.abstention import Abstention
from ..decision.blend_config import BlendConfig
from ..decision.mixture_weight import FEATURES, BucketWeight
from ..editing.store import KnowledgeStore
from ..output.text_table import table

_LABELS_SHOWN = 6


def describe(bundle: Bundle, signer: PublicKey | None = None) -> str:
    """The bundle for people: model, blend, knowledge base, quality, files.

    Args:
        bundle: an open one.
        signer: whose signature was asked for, and found, when it was opened.
    """
    manifest = bundle.manifest
    quality, quantization = manifest.quality, manifest.quantization
    store = KnowledgeStore(bundle, signer=signer)
    view = store.current()
    kb, labels = view.kb, view.labels
    shown = ", ".join(labels[:_LABELS_SHOWN]) + (", ..." if len(labels) > _LABELS_SHOWN else "")
    blend = manifest.blend
    data, teacher = manifest.created_from.get("data", {}), manifest.created_from.get("teacher", "unknown")
    base = store.edited().base
    texts = "with" if base.keeps_texts else "without" if base.digests is None else "with digests of"
    facts = [
        ("bundle", f"{bundle.path}, format {manifest.format_version}, every file as sealed"),
        ("signature", _signed(bundle, signer)),
        ("labels", f"{len(labels)}: {shown}"),
        ("input", f"{'pairs of texts' if manifest.text_pair else 'single texts'}, {manifest.max_length} tokens"),
        ("teacher", f"{teacher}, on {data.get('name', 'unknown')}"),
        ("student", _student(quantization) + _pieces(quantization)),
        (
            "knowledge",
            f"{len(kb):,} rows {texts} their texts, keys of {kb.ndim} x {kb.config.dtype}, "
            f"search width {kb.config.expansion_search}",
        ),
        ("edits", _edits(store)),
        (
            "blend",
            f"{_shares(blend)}, k {blend.k}, tau {blend.tau:g}, temperatures: student {blend.student_temperature:g}, "
            f"labels {blend.label_temperature:g}",
        ),
    ]
    gate = None if view.edited else manifest.gate
    if gate is not None:
        facts.append(
            (
                "gate",
                f"alone from {gate.threshold:.3f} on, retrieving for {gate.retrieved:.1%} of held-out rows; accuracy "
                f"lost at most {gate.epsilon:.2%}, with confidence {1 - gate.delta:.0%} ({gate.rows} rows)",
            )
        )
    if manifest.abstention is not None:
        facts.append(("abstention", _abstention(manifest.abstention)))
    if "label_agreement" in quality:
        facts.append(
            (
                "quality",
                f"{quality['label_agreement']:.2%} of {quality['rows']} held-out rows as in float32, accuracy "
                f"{quality['accuracy_float32']:.2%} -> {quality['accuracy']:.2%}, "
                f"neighbour overlap {quality['neighbour_overlap']:.2%}",
            )
        )
    facts.append(("made with", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())))
    records = _files(store)
    files = [(name, f"{record.bytes:,}", record.sha256[:12]) for name, record in records.items()]
    total = sum(record.bytes for record in records.values())
    files.append(("total", f"{total:,}", ""))
    lines = [f"{name:<10} {value}" for name, value in facts]
    return "\n".join([*lines, "", table(["file", "bytes", "sha256"], files)])


def _files(store: KnowledgeStore) -> dict[str, FileRecord]:
    """The files in force."""
    snapshot, files = store.view.snapshot, store.bundle.manifest.files
    if not snapshot.number:
        return files
    kept = {name: record for name, record in files.items() if not name.startswith(f"{KB_FOLDER}/")}
    folder = f"{SNAPSHOTS}/{snapshot.number}"
    return {**kept, **{f"{folder}/{name}": record for name, record in snapshot.files.items()}}


def _edits(store: KnowledgeStore) -> str:
    view, kb = store.view, store.edited()
    if not view.edited:
        return "none"
    recall = view.snapshot.recall
    measured = "" if recall is None else f", of which a search finds {recall:.2%} of the true neighbours"
    return (
        f"{view.head.seq:,}, the last one {view.head.after[:12]}; snapshot {view.snapshot.number} of "
        f"{view.snapshot.kb_rows:,} rows{measured}; since then {kb.added:,} added, {kb.removed:,} removed; the gate "
        "does not hold any more: every text retrieves"
    )


def _signed(bundle: Bundle, signer: PublicKey | None) -> str:
    """What can be said of the signature: without a key only what it says of itself."""
    if signer is not None:
        return f"by key {signer.key_id}, as required"
    try:
        signature = read_signature(bundle.path)
    except BundleIntegrityError as error:  # nobody asked for one
        return error.message
    if signature is None:
        return "none"
    return f"says it is by key {signature.key_id}; not checked without --require-signature"


def _abstention(abstention: Abstention) -> str:
    """What was fitted about when not to answer."""
    errors = abstention.blend.errors
    rates = f"from {errors[0].error:.1%} on" if errors else "none"
    shares = abstention.sets.blend.coverages
    covering = f"of up to {shares[-1]:.0%}" if shares else "none"
    return f"on {abstention.rows} rows; certified rates of errors: {rates}; prediction sets: {covering}"


def _shares(blend: BlendConfig) -> str:
    """Whose share of an answer is how large, and what that depends on."""
    weight = blend.weight
    if weight is None:
        return f"student {blend.student_weight:.3f} + neighbours {1 - blend.student_weight:.3f}"
    if isinstance(weight, BucketWeight):
        below = [f"{share:.3f} below {edge:.3f}" for edge, share in zip(weight.edges, weight.weights, strict=False)]
        rest = f"{weight.weights[-1]:.3f} above" if below else f"{weight.weights[-1]:.3f} throughout"
        return f"student by top similarity ({', '.join([*below, rest])}) + neighbours the rest"
    terms = (f"{value:+.3f} {name}" for name, value in zip(FEATURES, weight.coefficients, strict=True))
    return f"student by sigmoid({weight.intercept:+.3f} {' '.join(terms)}) + neighbours the rest"


def _student(quantization: dict[str, object]) -> str:
    kind = quantization.get("kind", "unknown")
    if kind == "none":
        return "float32"
    counted = f", {quantization['int8']} matrix products quantized" if "int8" in quantization else ""
    return f"int8 ({kind}) for {quantization.get('target', 'an unknown processor')}{counted}"


def _pieces(quantization: dict[str, object]) -> str:
    match quantization.get("vocabulary"):
        case {"kept": int(kept), "of": int(of)} if kept != of:
            return f", {kept:,} of {of:,} word pieces"
    return ""
