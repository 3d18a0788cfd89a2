"""Make the stored bundles: one for every format version, with its predictions at that time.

They stand for what users have on their disks: made once, at the version that wrote them, and not again. To add one for
a new format version, add a function and call

    PYTHONPATH=FOLDER_OF_REAUGKD:tests python tests/data/bundles/make.py v3

Their students have 7-bit weights and their indexes f32 or i8 keys, so that processors differ by rounding alone.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from support.heldout_bundle import build_heldout_bundle
from support.tiny_bundle import build_tiny_bundle, reseal, tiny_texts

from reaugkd import Runtime, __version__
from reaugkd.batch.build.run import BuildJob, build
from reaugkd.batch.build.settings import BuildOptions, BuildSettings
from reaugkd.kb.index.shards import Centres
from reaugkd.kb.soft_labels import TopLabels
from reaugkd.runtime.data import Columns
from reaugkd.runtime.decision.blend_config import BlendConfig
from reaugkd.runtime.decision.gating import Gate
from reaugkd.runtime.decision.mixture_weight import BucketWeight

HERE = Path(__file__).resolve().parent


def dense(path: Path) -> None:
    """Write version 1: soft labels of all classes, single texts, keys in f32."""
    build_heldout_bundle(path, rows=60, dtype="f32", reduce_range=True)


def likeliest(path: Path) -> None:
    """Write version 2: soft labels of the likeliest classes, pairs without texts, keys in i8, a weight and a gate."""
    labels = [f"intent {number}" for number in range(20)]
    build_tiny_bundle(path, rows=60, labels=labels, pairs=True, texts=False, dtype="i8", reduce_range=True)
    with Runtime.open(path) as runtime:
        kb, blend = runtime.knowledge_base, runtime.manifest.blend
        short = kb.with_soft_labels(np.asarray(kb.soft_labels), label_loss=0.02)
    assert isinstance(short.soft_labels, TopLabels)
    short.save(path / "kb")
    weight = BucketWeight((0.8, 0.95), (0.7, 0.4, 0.1))
    reseal(
        path,
        format_version=short.format_version,
        blend=json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(blend, weight=weight)))),
        gate=dataclasses.asdict(Gate(0.9, 0.005, 0.05, 400, 0, 0.4)),
    )


def sharded(path: Path) -> None:
    """Write version 3: an index in shards, all of which are searched."""
    with TemporaryDirectory() as folder:
        bundle = build_heldout_bundle(Path(folder) / "bundle", rows=20, dtype="i8")
        data = Path(folder) / "rows.jsonl"
        rows = [{"text": text, "label": "abc"[number % 3]} for number, text in enumerate(tiny_texts(60, seed=8))]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = BuildSettings("", str(bundle))
        job = BuildJob((str(data),), path, Columns(), settings, BuildOptions("", shards=2), workers=1)
        build(job, lambda remark: None, lambda *counts: None)
    kb = json.loads((path / "manifest.json").read_text())["kb"]
    centres = len(Centres.open(path / "kb" / "shards.npy", kb["ndim"]).shard)
    blend = json.loads(json.dumps(dataclasses.asdict(BlendConfig(k=8, tau=0.1, student_weight=0.4))))
    reseal(path, blend=blend, kb={**kb, "probes": centres, "expansion_search": 60})


def write(name: str) -> None:
    """Write one bundle with its predictions, with neighbours and by the student alone."""
    path = HERE / name
    {"v1": dense, "v2": likeliest, "v3": sharded}[name](path)
    manifest = json.loads((path / "manifest.json").read_text())
    for golden in manifest["golden"]:
        golden["tolerance"] = 0.05 * float(np.ptp(golden["logits"]))  # the tolerance of an export
    libraries = {library: version(library) for library in ("onnxruntime", "usearch", "numpy", "tokenizers")}
    reseal(path, golden=manifest["golden"], versions={"reaugkd": __version__, **libraries})
    with Runtime.open(path) as runtime:
        texts = tiny_texts(12, seed=33, pairs=runtime.manifest.text_pair)
        kept = [
            {
                "text": text,
                "label": answer.label,
                "probabilities": answer.probabilities.tolist(),
                "student_probabilities": answer.student_probabilities.tolist(),
                "student_weight": answer.student_weight,
                "neighbours": [near.id for near in answer.neighbours],
            }
            for text, answer in ((text, runtime.predict(text)) for text in texts)
        ]
    (HERE / f"{name}.json").write_text("[\n" + ",\n".join(map(json.dumps, kept)) + "\n]\n")


if __name__ == "__main__":  # worker processes import this file
    for name in sys.argv[1:]:
        write(name)
