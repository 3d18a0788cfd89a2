"""The golden check: this machine must compute the same outputs as the exporting machine."""

from __future__ import annotations

import numpy as np

from ...errors import BundleError, ModelError, TextError
from ..bundle.bundle import Bundle
from ..bundle.manifest import Golden
from ..decision.blending import Floats, softmax
from .session.model_session import ModelSession
from .text.inputs import checked_input
from .text.tokenizer import TextTokenizer

_ROUNDING = 1e-4
_LENGTH = 1e-3
_AGAIN = "Export the bundle again."


def check_golden(bundle: Bundle, tokenizer: TextTokenizer, student: ModelSession) -> bool:
    """Run the golden texts and compare the outputs with those in the manifest.

    Returns whether all embeddings have length 1, as a search in the graph needs it.

    int8 arithmetic is exact on one CPU and saturates on another (u8s8 without VNNI), and tokenizers differ between
    versions. Both change labels without an error.

    Raises:
        BundleError: token ids, logits, probabilities or shapes differ.
    """
    manifest, lengths = bundle.manifest, []
    for golden in manifest.golden:
        try:
            tokens = tokenizer.tokens(*checked_input(golden.text, manifest.text_pair))
        except TextError as error:
            raise BundleError("a golden text is unusable", path=bundle.path, found=str(error)) from error
        if tuple(tokens.ids) != golden.token_ids:
            raise BundleError(
                "a golden text gets other tokens than at export",
                path=bundle.tokenizer_path,
                found=list(tokens.ids),
                expected=str(list(golden.token_ids)),
                remedy="Install the tokenizers version in the manifest, or export the bundle again.",
            )
        temperature = manifest.blend.student_temperature
        try:
            logits, embedding, probabilities = student.everything(tokens)
        except ModelError as error:
            message = "the student cannot run a golden text"
            raise BundleError(message, path=bundle.model_path, found=error.found, remedy=_AGAIN) from error
        _check_shapes(bundle, logits.shape, embedding.shape)
        _check_logits(bundle, golden, logits)
        _check_probabilities(bundle, softmax(logits, temperature), probabilities)
        lengths.append(float(np.linalg.norm(embedding)))
    return bool(lengths) and all(abs(length - 1.0) < _LENGTH for length in lengths)


def _check_shapes(bundle: Bundle, logits: tuple[int, ...], embedding: tuple[int, ...]) -> None:
    manifest = bundle.manifest
    expected = ((len(manifest.labels),), (manifest.kb.ndim,))
    if (logits, embedding) != expected:
        raise BundleError(
            "the student's outputs do not fit the labels and the knowledge base",
            path=bundle.model_path,
            found=f"logits {logits}, embedding {embedding}",
            expected=f"logits {expected[0]}, embedding {expected[1]}",
            remedy=_AGAIN,
        )


def _check_logits(bundle: Bundle, golden: Golden, logits: Floats) -> None:
    if len(golden.logits) != len(logits):
        expected = f"{len(logits)} logits"
        raise BundleError("a golden text is unusable", path=bundle.path, found=len(golden.logits), expected=expected)
    worst = float(np.abs(logits.astype(np.float64) - np.array(golden.logits)).max())
    if not worst <= golden.tolerance:  # NaN is refused
        target = bundle.manifest.quantization.get("target", "none")
        raise BundleError(
            "this CPU computes other outputs than the exporting CPU",
            path=bundle.model_path,
            found=f"a logit that differs by {worst:.4g}, in a model quantized for {target}",
            expected=f"a difference of at most {golden.tolerance:.4g}",
            remedy="Export the bundle for this CPU: `reaugkd export --target avx2|avx512_vnni|arm64`.",
        )


def _check_probabilities(bundle: Bundle, expected: Floats, found: Floats) -> None:
    worst = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("nan")
    if not worst <= _ROUNDING:
        raise BundleError(
            "the model's probabilities do not fit the manifest's student_temperature",
            path=bundle.model_path,
            found=f"a difference of {worst:.2g}",
            expected=f"softmax(logits / {bundle.manifest.blend.student_temperature:g})",
            remedy=_AGAIN,
        )
