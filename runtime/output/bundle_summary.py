"""The text of `reaugkd inspect`: model, blend, knowledge base, quality and files of a bundle."""

from __future__ import annotations

from ...errors import BundleIntegrityError
from ...kb.edits.head import SNAPSHOTS
from ...kb.index.shards import SHARDS_FOLDER
from ...kb.storage.ed25519 import PublicKey
from ..bundle.bundle import KB_FOLDER, Bundle
from ..bundle.manifest import FileRecord, Manifest
from ..bundle.signature import read_signature
from ..decision.abstention_thresholds import Abstention
from ..decision.blend_config import BlendConfig
from ..decision.mixture_weight import FEATURES, BucketWeight
from ..editing.new_labels.in_use import classifier_in_use, labels_with_rows
from ..editing.store import KnowledgeStore
from ..output.text_table import table

_LABELS_SHOWN = 6


def describe(bundle: Bundle, signer: PublicKey | None = None) -> str:
    """Describe a bundle in text.

    Args:
        bundle: an open bundle.
        signer: the key that its signature was checked with; None if it was not checked.
    """
    manifest = bundle.manifest
    quality, quantization = manifest.quality, manifest.quantization
    store = KnowledgeStore(bundle, signer=signer)
    view = store.current()
    kb, labels = view.kb, view.answered_labels
    shown = ", ".join(labels[:_LABELS_SHOWN]) + (", ..." if len(labels) > _LABELS_SHOWN else "")
    blend = manifest.blend
    data, teacher = manifest.created_from.get("data", {}), manifest.created_from.get("teacher", "unknown")
    base = store.edited().base
    texts = "with" if base.keeps_texts else "without" if base.digests is None else "with digests of"
    facts = [
        ("bundle", f"{bundle.path}, format {manifest.format_version}, every file matches its hash"),
        ("signature", signature_state(bundle, signer)),
        ("labels", f"{len(labels)}: {shown}"),
        ("input", f"{'pairs of texts' if manifest.text_pair else 'single texts'}, {manifest.max_length} tokens"),
        ("teacher", f"{teacher}, on {data.get('name', 'unknown')}"),
        ("student", _student(quantization) + _vocabulary(quantization)),
        (
            "knowledge",
            f"{len(kb):,} rows {texts} their texts, keys of {kb.ndim} x {kb.config.dtype}, "
            f"ef_search {kb.config.expansion_search}{_shards(manifest)}",
        ),
        ("edits", edits_state(store)),
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
                f"threshold {gate.threshold:.3f}, retrieves for {gate.retrieved:.1%} of the rows that certified it, "
                f"loses at most {gate.epsilon:.2%} accuracy with confidence {1 - gate.delta:.0%} ({gate.rows} rows)",
            )
        )
    if manifest.abstention is not None:
        facts.append(("abstention", _abstention(manifest.abstention)))
    if "label_agreement" in quality:
        facts.append(
            (
                "quality",
                f"{quality['label_agreement']:.2%} of {quality['rows']} held-out rows get the float32 label, accuracy "
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
    """The files that the runtime reads."""
    snapshot, files = store.view.snapshot, store.bundle.manifest.files
    if not snapshot.number:
        return files
    kept = {name: record for name, record in files.items() if not name.startswith(f"{KB_FOLDER}/")}
    folder = f"{SNAPSHOTS}/{snapshot.number}"
    return {**kept, **{f"{folder}/{name}": record for name, record in snapshot.files.items()}}


def edits_state(store: KnowledgeStore) -> str:
    """Describe the edits of the knowledge base in words."""
    view, kb = store.view, store.edited()
    if not view.head.seq:
        return "none"
    recall = view.snapshot.recall
    measured = "" if recall is None else f", search recall {recall:.2%}"
    last = f"{view.head.seq:,}, the last one {view.head.after[:12]}"
    if not view.edited:
        return f"{last}; all are undone: the bundle answers as exported"
    return (
        f"{last}; snapshot {view.snapshot.number} with {view.snapshot.kb_rows:,} rows{measured}; since then "
        f"{kb.added:,} added, {kb.removed:,} removed; the gate is off: every text is searched for{_new_labels(store)}"
    )


def _new_labels(store: KnowledgeStore) -> str:
    """What answers the labels that the student was not trained on."""
    view, trained = store.view, len(store.bundle.manifest.labels)
    if not len(labels_with_rows(view.kb, trained)):
        return ""
    if view.fitted is None or classifier_in_use(view, trained) is None:
        return "; new labels are answered by the neighbours"
    return f"; new labels are answered by the classifier fitted after edit {view.fitted.seq}"


def signature_state(bundle: Bundle, signer: PublicKey | None) -> str:
    """Describe the signature in words; without a key that it was checked with, only the key id that it names."""
    if signer is not None:
        return f"checked, by key {signer.key_id}"
    try:
        signature = read_signature(bundle.path)
    except BundleIntegrityError as error:  # a signature is not required
        return error.message
    if signature is None:
        return "none"
    return f"names key {signature.key_id}; not checked without --require-signature"


def _abstention(abstention: Abstention) -> str:
    """The certified error rates and prediction sets."""
    errors = abstention.blend.errors
    rates = f"{errors[0].error:.1%} and above" if errors else "none"
    shares = abstention.sets.blend.coverages
    covering = f"up to {shares[-1]:.0%} coverage" if shares else "none"
    return f"on {abstention.rows} rows; certified error rates: {rates}; prediction sets: {covering}"


def _shares(blend: BlendConfig) -> str:
    """The mixture weight, as a constant or as a function of the text."""
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


def _vocabulary(quantization: dict[str, object]) -> str:
    match quantization.get("vocabulary"):
        case {"kept": int(kept), "of": int(of)} if kept != of:
            return f", {kept:,} of {of:,} tokens of the vocabulary"
    return ""


def _shards(manifest: Manifest) -> str:
    if not manifest.kb.probes:
        return ""
    count = sum(name.startswith(f"{KB_FOLDER}/{SHARDS_FOLDER}/") for name in manifest.files)
    return f", in {count} shards, of which those of the {manifest.kb.probes} nearest centres are searched"
