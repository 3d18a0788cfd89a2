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
from ..data import Split, drop_duplicates_of
from ..editing.store import KnowledgeStore
from ..labelling.stored_rows import KnownTexts
from ..output.bundle_summary import edits_state, signature_state
from ..runtime import Runtime

TRAINED, TUNED, STORED = "train rows of the run", "held-out rows of the run", "rows of the knowledge base"
"""Rows that the evaluated ones may be among."""


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


def rows_among(runtime: Runtime, split: Split, run_rows: Mapping[str, Split]) -> dict[str, int]:
    """How many of the evaluated rows have a text of other rows.

    Args:
        runtime: the open bundle.
        split: the evaluated rows.
        run_rows: the rows of the run under the names `TRAINED` and `TUNED`; empty without a run.

    Returns:
        name of the other rows -> count; without `STORED` if the knowledge base does not keep all texts or digests.
    """
    found = {name: len(split) - len(drop_duplicates_of(split, [rows])) for name, rows in run_rows.items()}
    known = KnownTexts(runtime.knowledge_base)
    return {**found, STORED: sum(text in known for text in split.inputs())} if known.complete else found


def what_rows_served_for(among: Mapping[str, int], rows: int) -> list[str]:
    """What `rows_among` means for the figures, in sentences."""

    def some(name: str) -> str:
        return f"{'All' if among[name] == rows else f'{among[name]:,} of the'} {rows:,} evaluated rows"

    said = []
    if among.get(TRAINED):
        said.append(
            f"{some(TRAINED)} are {TRAINED}: the student was trained on them. Expect lower scores on new texts."
        )
    if among.get(TUNED):
        said.append(
            f"{some(TUNED)} are {TUNED}: the student was not trained on them, but temperatures, blend, gate and "
            "thresholds of abstention were tuned on them. Expect slightly lower scores on new texts."
        )
    if TUNED in among and not said:
        said.append("No evaluated row is a train or held-out row of the run.")
    if among.get(STORED):
        said.append(f"{some(STORED)} are {STORED}, where each finds itself. Expect lower scores on new texts.")
    return said


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
