"""The examples run: web services, a function of AWS Lambda, a notebook, and the one-file model in Node."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.gunicorn_server import connect, gunicorn
from support.heldout_bundle import build_heldout_bundle
from support.paths import ROOT

from reaugkd import Prediction, Runtime

if TYPE_CHECKING:
    from support.workshop import Workshop

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def expected(edge_bundle: Path) -> dict[str, Any]:
    with Runtime.open(edge_bundle) as runtime:
        answer = runtime.predict("jazz at noon")
    assert isinstance(answer, Prediction)
    return answer.as_record(top_k=2)


@pytest.fixture(autouse=True)
def bundle_of_the_environment(edge_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNDLE", str(edge_bundle))


def loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


def test_fastapi(expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    module = loaded(EXAMPLES / "web" / "fastapi_app.py", monkeypatch)
    with TestClient(module.app) as client:
        found = client.post("/predict", json={"text": "jazz at noon", "top_k": 2})
        assert (found.status_code, found.json()) == (200, expected)
        assert client.post("/predict", json={"text": " "}).status_code == 422
        assert client.post("/predict", json={"text": "noon", "top_k": 0}).status_code == 422
        module.app.state.waiting = module.MOST_WAITING
        refused = client.post("/predict", json={"text": "noon"})
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        module.app.state.waiting = 0
        assert client.post("/predict", json={"text": "noon"}).status_code == 200
        assert module.app.state.waiting == 0


def test_flask(expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    client = loaded(EXAMPLES / "web" / "flask_app.py", monkeypatch).create_app().test_client()
    found = client.post("/predict", json={"text": "jazz at noon", "top_k": 2})
    assert (found.status_code, found.get_json()) == (200, expected)
    for wrong in ({}, {"text": ""}, {"text": "noon", "top_k": "x"}):
        found = client.post("/predict", json=wrong)
        assert found.status_code == 422 and found.get_json()["error"]


@pytest.mark.parametrize(("resources", "gpus"), [({}, 0), ({"GPU": 3.0}, 3), ({"GPU": 4.0}, 4)])
def test_ray_train_without_enough_gpus(
    resources: dict[str, float], gpus: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With fewer GPUs than workers, all use CPUs, and a line on stderr says so. The test starts no cluster."""
    pytest.importorskip("ray.train.torch")
    from reaugkd.commands.training import train

    module = loaded(EXAMPLES / "ray_train.py", monkeypatch)
    trained: list[tuple[list[str], bool, str | None]] = []

    class Trainer:
        """Runs the work in this process."""

        def __init__(self, work: Any, *, train_loop_config: Any, scaling_config: Any, **_: object) -> None:
            self._work, self._config, self._use_gpu = work, train_loop_config, scaling_config.use_gpu

        def fit(self) -> None:
            def main(arguments: list[str], **_: object) -> None:
                trained.append((arguments, self._use_gpu, os.environ.get("ACCELERATE_USE_CPU")))

            monkeypatch.setattr(train.train, "main", main)
            self._work(self._config)

    monkeypatch.setattr(module.ray, "init", lambda: None)
    monkeypatch.setattr(module.ray, "cluster_resources", lambda: resources)
    monkeypatch.setattr(module, "TorchTrainer", Trainer)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "")  # restored afterwards
    arguments = ["--data", "data", "--out", "run"]
    module.main(4, arguments)
    on_gpus = gpus == 4
    assert trained == [(arguments, on_gpus, "" if on_gpus else "1")]
    expected = "" if on_gpus else f"note: the cluster has {gpus} GPUs for 4 workers: all train on CPUs\n"
    assert capsys.readouterr().err == expected


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--threads", "4"], None], ids=["preload", "threads", "no preload"])
def test_flask_under_gunicorn(
    edge_bundle: Path, expected: dict[str, Any], tmp_path: Path, more: list[str] | None
) -> None:
    """The command of the example's docstring; both workers answer, each with a model that it opened after the fork."""
    (line,) = re.findall(r"BUNDLE=\S+ gunicorn (.*)", (EXAMPLES / "web" / "flask_app.py").read_text(encoding="utf-8"))
    arguments = [argument.replace("examples/web", str(EXAMPLES / "web")) for argument in shlex.split(line)]
    assert {"--preload", "--workers", "2"} <= set(arguments)
    if more is None:
        arguments.remove("--preload")
    body = json.dumps({"text": "jazz at noon", "top_k": 2}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with gunicorn([*arguments, *(more or [])], tmp_path, edge_bundle) as path:
        # A worker without threads that waits for the first request leaves the second one to the other worker.
        channels = [connect(path) for _ in range(2)]
        for channel in reversed(channels):
            channel.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)
            with channel, channel.makefile("rb") as file:
                status, _, answer = file.read().partition(b"\r\n\r\n")
            assert status.startswith(b"HTTP/1.1 200 ") and json.loads(answer) == expected


def test_aws_lambda(expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module = loaded(EXAMPLES / "web" / "aws_lambda.py", monkeypatch)
    body = json.dumps({"text": "jazz at noon", "top_k": 2})
    for event in (
        {"version": "2.0", "body": body, "isBase64Encoded": False},
        {"body": base64.b64encode(body.encode()).decode(), "isBase64Encoded": True},
    ):
        found = module.handler(event, None)
        assert found["statusCode"] == 200 and json.loads(found["body"]) == expected
    for wrong, status in ((None, 400), ("[]", 400), ("{}", 400), ("no json", 400), ('{"text": " "}', 422)):
        assert module.handler({"body": wrong}, None)["statusCode"] == status
    module.runtime.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("BUNDLE", str(build_heldout_bundle(tmp_path / "bundle")))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(EXAMPLES / "notebook" / "classify.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.data["text/plain"] for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len(shown) == 4 and "preview" in shown[3]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_node_answers_with_the_one_file_model(workshop: Workshop, tmp_path: Path) -> None:
    """examples/fused/classify.mjs, against the runtime; examples/fused/compare.py compares more on a real bundle."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node or npm is not here")
    from reaugkd.export.onnx.fuse import fuse

    shutil.copy(EXAMPLES / "fused" / "classify.mjs", tmp_path)
    package = json.loads((EXAMPLES / "fused" / "package.json").read_text())
    del package["dependencies"]["onnxruntime-web"]
    (tmp_path / "package.json").write_text(json.dumps(package))
    # The scripts would download CUDA, which nothing here uses.
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
    if subprocess.run(install, cwd=tmp_path, check=False).returncode:
        pytest.skip("npm cannot install the packages of the example")
    fuse(workshop.bundle, tmp_path / "model.onnx")
    texts = ["wake me at seven", "rain tomorrow"]  # known words: its WordLevel tokenizer fails on others
    command = ["node", "classify.mjs", "model.onnx", workshop.bundle / "student", *texts]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    with Runtime.open(workshop.bundle) as runtime:
        answers = list(runtime.predict_many(texts))
    for one, answer in zip(found, answers, strict=True):
        assert one["label"] == answer.label
        # Another version of ONNX Runtime has other int8 kernels (docs/reference/fused.md).
        assert np.allclose(one["probabilities"], answer.probabilities, atol=0.02)
