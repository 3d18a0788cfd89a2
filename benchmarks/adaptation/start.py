"""Measure a start from what a system has saved: milliseconds to the first answer, imports included, and memory then.

    python start.py SYSTEM OUT

Apart from json and pathlib, no module that a system imports is imported before the clock starts.
"""

import json
import sys
import time
from pathlib import Path


def main(name: str, out: Path) -> None:
    """Print both figures as JSON."""
    began = time.perf_counter()
    system = _open(name, out)
    system("where is my parcel?")  # type: ignore[operator]
    ms = 1e3 * (time.perf_counter() - began)
    # Not getrusage: its peak includes the parent process before the fork.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    rss = int(status["VmRSS"].split()[0]) * 1024 / 1e6
    sys.stdout.write(f"\n{json.dumps({'ms': ms, 'rss_mb': rss})}\n")


def _open(name: str, out: Path) -> object:
    import numpy as np
    from systems import ADAPTIVE, REAUGKD, ROUTER, SETFIT, STUDENT

    if name in (REAUGKD, STUDENT):
        from reaugkd import Runtime

        return Runtime.open(out / "bundle", threads=1, retrieval="never" if name == STUDENT else "always").predict
    if name == ADAPTIVE:
        from adaptive_classifier import AdaptiveClassifier

        return AdaptiveClassifier.load(str(out / "adaptive"), device="cpu").predict
    if name == ROUTER:
        from semantic_router import IndexedRouter, Route
        from semantic_router.encoders import LocalEncoder

        routes = [Route(**route) for route in json.loads((out / "routes.json").read_text())]
        how = json.loads((out / "settings.json").read_text())["aggregation"]
        return IndexedRouter(LocalEncoder(name=str(out / "encoder"), device="cpu"), routes, aggregation=how)
    import joblib
    from sentence_transformers import SentenceTransformer

    rows = np.load(out / "rows.npz")["vectors"]  # of all rows, for the next refit
    if name == SETFIT:
        from setfit import SetFitModel

        body = SentenceTransformer(str(out / "encoder"), device="cpu")
        model = SetFitModel(model_body=body, model_head=joblib.load(out / "setfit.joblib"))
        return lambda text: (model.predict([text]), rows)
    head = joblib.load(out / "sklearn.joblib")
    onnx = {"file_name": "onnx/model.onnx"}
    encoder = SentenceTransformer(str(out / "encoder"), device="cpu", backend="onnx", model_kwargs=onnx)
    return lambda text: (head.predict(encoder.encode([text])), rows)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
