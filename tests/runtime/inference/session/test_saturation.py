from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.paths import KEPT_BUNDLES

from reaugkd.runtime.bundle.bundle import MODEL_FILE
from reaugkd.runtime.inference.session import model_session, saturation
from reaugkd.runtime.inference.session.onnxruntime_setup import import_onnxruntime
from reaugkd.runtime.inference.session.saturation import int8_saturates
from reaugkd.runtime.inference.session.student import StudentSession

ENTRY = "session.x64quantprecision"


def test_the_stored_model_is_one_product() -> None:
    (a, b), c = (
        [
            helper.make_tensor_value_info(name, kind, shape)
            for name, kind, shape in (("a", TensorProto.UINT8, [2, 16]), ("b", TensorProto.INT8, [16, 16]))
        ],
        helper.make_tensor_value_info("c", TensorProto.INT32, [2, 16]),
    )
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["c"])], "g", [a, b], [c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=5, producer_name="")
    assert model.SerializeToString(deterministic=True) == saturation._MODEL


def test_a_processor_with_vnni_does_not_saturate() -> None:
    cpu = Path("/proc/cpuinfo")
    flags = set(cpu.read_text().split()) if cpu.is_file() else set()
    if not flags & {"avx512_vnni", "avx_vnni"}:
        pytest.skip("no VNNI")
    assert not int8_saturates()


@pytest.mark.parametrize("saturates", [True, False])
def test_exact_kernels_are_asked_for_only_where_int8_saturates(
    saturates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime, given = import_onnxruntime(), []
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, **others: Any) -> Any:
        given.append(options)
        return real(path, options, **others)

    monkeypatch.setattr(model_session, "int8_saturates", lambda: saturates)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    StudentSession(KEPT_BUNDLES / "v2" / MODEL_FILE)
    if saturates:
        assert given[0].get_session_config_entry(ENTRY) == "1"
    else:
        with pytest.raises(RuntimeError):
            given[0].get_session_config_entry(ENTRY)


def test_a_wrong_product_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def run(self, *_: object) -> list[Any]:
            return [np.full((2, 16), 16 * 32767 // 2, np.int32)]

    monkeypatch.setattr(import_onnxruntime(), "InferenceSession", Session)
    int8_saturates.cache_clear()
    try:
        assert int8_saturates()
    finally:
        int8_saturates.cache_clear()
