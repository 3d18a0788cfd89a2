"""Where a report's figures come from: the bundle and its seal, the data, the run, and the program versions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...kb.storage.atomic import sha256_file
from ...kb.storage.ed25519 import PublicKey
from ..benchmark.environment import host_facts
from ..bundle.bundle import Bundle
from ..bundle.manifest import Manifest
from ..data import Split
from ..editing.store import KnowledgeStore
from ..output.bundle_summary import edits_state, signature_state


def provenance_of(
    bundle: Bundle, split: Split, run: Mapping[str, Any] | None, signer: PublicKey | None
) -> dict[str, str]:
    """Names and values, in the order of the page.

    Args:
        bundle: the bundle.
        split: the evaluated rows.
        run: the contents of run.json; None without a run.
        signer: the key that the bundle's signature was checked with; None if it was not checked.
    """
    manifest, source = bundle.manifest, Path(split.source)
    hashed = sha256_file(source) if source.is_file() else "not a single file"
    created = manifest.created_from
    found = {
        "bundle's seal": bundle.seal,
        "signature": signature_state(bundle, signer),
        "edits of the knowledge base": edits_state(KnowledgeStore(bundle, signer=signer)),
        "teacher": str(created.get("teacher", "unknown")),
        "training data": _data(created.get("data")),
        "exported with": _versions(manifest.versions),
        "evaluated data": split.source,
        "its SHA-256": hashed,
        **machine_facts(host_facts()),
    }
    if run is not None:
        found |= {
            "run's training data": _data(run.get("data")),
            "run's teacher and student": ", ".join(
                f"{name} {value or 'from the teacher'}" for name, value in run.get("fingerprints", {}).items()
            ),
            "trained with": _versions(run.get("versions", {})),
        }
    return found


def machine_facts(host: Mapping[str, Any]) -> dict[str, str]:
    """The libraries and the machine of `host_facts` in words."""
    return {
        "measured with": _versions(host["versions"]),
        "machine": f"{host['cpu']}, {host['usable_cores']} usable cores, {host['system']}, Python {host['python']}",
    }


def now() -> str:
    """Date and time in UTC, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def recipe_of(manifest: Manifest, run: Mapping[str, Any] | None) -> dict[str, Any]:
    """The recipe of the run, or the one that the bundle names; empty if there is none."""
    recipe = (manifest.created_from if run is None else run).get("recipe")
    return dict(recipe) if isinstance(recipe, dict) else {}


def _data(data: object) -> str:
    """A training's data set: its name, its rows and their hash."""
    if not isinstance(data, dict):
        return "unknown"
    rows = data.get("rows")
    counted = ", ".join(f"{count:,} {name}" for name, count in rows.items()) if isinstance(rows, dict) else ""
    parts = (
        str(data.get("name", "")),
        f"{counted} rows" if counted else "",
        f"SHA-256 {data.get('sha256', 'unknown')}",
    )
    return ", ".join(part for part in parts if part)


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)
