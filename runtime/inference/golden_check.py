"""Does this machine compute what the exporting one did?"""

from __future__ import annotations

import numpy as np

from ...errors import BundleError, ModelError, TextError
from ..bundle.bundle import Bundle
from ..bundle.manifest import Golden
from ..decision.blending import Floats, softmax
from .inputs import checked_input
from .student import StudentSession
from .tokenizer import TextTokenizer

_ROUNDING = 1e-4
_AGAIN = "Export the bundle again."


def check_golden(bundle: Bundle, tokenizer: TextTokenizer, student: StudentSession) -> None:
    """Run the golden texts, and check the shapes of what comes out.

    int8 arithmetic is right on one CPU and saturates on another (u8s8 without VNNI); tokenizers differ between
    versions. Both change labels silently, so both are proved here.

    Raises:
        BundleError: token ids, logits or shapes differ.
    """
    manifest = bundle.manifest
    for golden in manifest.golden:
        try:
            encoding = tokenizer.encode(*checked_input(golden.text, manifest.text_pair))
        except TextError as error:
            raise BundleError("a golden text is unusable", path=bundle.path, found=str(error)) from error
        if tuple(encoding.ids) != golden.token_ids:
            raise BundleError(
                "a golden text is split into other tokens than at export",
                path=bundle.tokenizer_path,
                found=encoding.ids,
                expected=str(list(golden.token_ids)),
                remedy="Install the tokenizers version that the manifest names, or export the bundle again.",
            )
        temperature = manifest.blend.student_temperature
        try:
            logits, embedding, probabilities = student.everything(encoding, temperature)
        except ModelError as error:
            message = "the student cannot run a golden text"
            raise BundleError(message, path=bundle.model_path, found=error.found, remedy=_AGAIN) from error
        _check_shapes(bundle, logits.shape, embedding.shape)
        _check_logits(bundle, golden, logits)
        _check_probabilities(bundle, softmax(logits, temperature), probabilities)


def _check_shapes(bundle: Bundle, logits: tuple[int, ...], embedding: tuple[int, ...]) -> None:
    manifest = bundle.manifest
    expected = ((len(manifest.labels),), (manifest.kb.ndim,))
    if (logits, embedding) != expected:
        raise BundleError(
            "the student does not fit the manifest's labels and the knowledge base",
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
    if not worst <= golden.tolerance:  # so that NaN is refused
        target = bundle.manifest.quantization.get("target", "none")
        raise BundleError(
            "this CPU computes other answers than the one that exported",
            path=bundle.model_path,
            found=f"a logit {worst:.4g} away, with a model quantized for {target}",
            expected=f"at most {golden.tolerance:.4g} away",
            remedy="Export the bundle for this CPU: `reaugkd export --target avx2|avx512_vnni|arm64`, or auto on it.",
        )


def _check_probabilities(bundle: Bundle, expected: Floats, found: Floats) -> None:
    worst = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("nan")
    if not worst <= _ROUNDING:
        raise BundleError(
            "the model's probabilities are not those of the manifest's student_temperature",
            path=bundle.model_path,
            found=f"{worst:.2g} away",
            expected=f"softmax(logits / {bundle.manifest.blend.student_temperature:g})",
            remedy=_AGAIN,
        )
