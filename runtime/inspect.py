"""What a bundle is, in words."""

from __future__ import annotations

from ..kb.knowledge_base import KnowledgeBase
from .abstention import Abstention
from .bundle import Bundle
from .manifest import BlendConfig
from .tables import table
from .weight import FEATURES, BucketWeight

_LABELS_SHOWN = 6


def describe(bundle: Bundle) -> str:
    """The bundle for people: model, blend, knowledge base, quality, files."""
    manifest = bundle.manifest
    labels, quality, quantization = manifest.labels, manifest.quality, manifest.quantization
    kb = KnowledgeBase.open(bundle.kb_folder, manifest.kb, len(manifest.labels))
    shown = ", ".join(labels[:_LABELS_SHOWN]) + (", ..." if len(labels) > _LABELS_SHOWN else "")
    blend = manifest.blend
    data, teacher = manifest.created_from.get("data", {}), manifest.created_from.get("teacher", "unknown")
    texts = "with" if len(kb) and kb.text(0) is not None else "without"
    facts = [
        ("bundle", f"{bundle.path}, format {manifest.format_version}, every file as sealed"),
        ("labels", f"{len(labels)}: {shown}"),
        ("input", f"{'pairs of texts' if manifest.text_pair else 'single texts'}, {manifest.max_length} tokens"),
        ("teacher", f"{teacher}, on {data.get('name', 'unknown')}"),
        ("student", _student(quantization) + _pieces(quantization)),
        (
            "knowledge",
            f"{len(kb):,} rows {texts} their texts, keys of {kb.ndim} x {manifest.kb.dtype}, "
            f"search width {manifest.kb.expansion_search}",
        ),
        (
            "blend",
            f"{_shares(blend)}, k {blend.k}, tau {blend.tau:g}, temperatures: student {blend.student_temperature:g}, "
            f"labels {blend.label_temperature:g}",
        ),
    ]
    gate = manifest.gate
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
    files = [(name, f"{record.bytes:,}", record.sha256[:12]) for name, record in manifest.files.items()]
    total = sum(record.bytes for record in manifest.files.values())
    files.append(("total", f"{total:,}", ""))
    lines = [f"{name:<10} {value}" for name, value in facts]
    return "\n".join([*lines, "", table(["file", "bytes", "sha256"], files)])


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
