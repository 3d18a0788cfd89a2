"""Time one product with weights, in turns: float32 and the int8 kernels of ONNX Runtime.

python benchmarks/latency/products.py [INPUTSxOUTPUTS ...]

`exact` is the kernel of session.x64quantprecision; `blocks` is MatMulNBits with 8 bits. CPU time of one thread, so that
other work on the machine counts little: 10th percentile, in microseconds.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from reaugkd.runtime.inference.session.onnxruntime_setup import import_onnxruntime

SHAPES = ("384x1536", "1536x384", "384x1152", "384x384")
KERNELS = ("float32", "s8", "s8 exact", "blocks of 128", "blocks of 256")
TOKENS, ROUNDS, MICROSOFT = (12, 24, 64), 100, "com.microsoft"


def session(inputs: int, outputs: int, kernel: str) -> Any:
    """Return a session that computes one product and adds a bias."""
    rng, bias = np.random.default_rng(0), np.zeros(outputs, np.float32)
    if kernel == "float32":
        constants = {"w": rng.normal(size=(inputs, outputs)).astype(np.float32), "b": bias}
        nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    elif kernel.startswith("s8"):
        weights, zeros = rng.integers(-127, 128, (inputs, outputs), np.int8), np.zeros(outputs, np.int8)
        constants = {"w": weights, "s": np.full(outputs, 0.01, np.float32), "z": zeros, "b": bias}
        nodes = [helper.make_node("DynamicQuantizeMatMul", list("xwszb"), ["y"], domain=MICROSOFT)]
    else:
        block = int(kernel.rsplit(" ", 1)[1])
        blocks = -(-inputs // block)
        weights = rng.integers(1, 256, (outputs, blocks, block)).astype(np.uint8)
        constants = {"w": weights, "s": np.full(outputs * blocks, 0.01, np.float32), "b": bias}
        settings = {"K": inputs, "N": outputs, "bits": 8, "block_size": block, "accuracy_level": 4}
        nodes = [helper.make_node("MatMulNBits", ["x", "w", "s", "", "", "b"], ["y"], domain=MICROSOFT, **settings)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "tokens", inputs])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "tokens", outputs])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    graph = helper.make_graph(nodes, "product", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if kernel.endswith("exact"):
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main(shapes: list[str]) -> None:
    """Print the times."""
    click.echo(" | ".join(["inputs x outputs", "tokens", *KERNELS]))
    for shape in shapes:
        inputs, outputs = map(int, shape.split("x"))
        sessions = [session(inputs, outputs, kernel) for kernel in KERNELS]
        for tokens in TOKENS:
            feeds = {"x": np.random.default_rng(1).normal(size=(1, tokens, inputs)).astype(np.float32)}
            times = np.empty((ROUNDS, len(sessions)))
            for number in range(ROUNDS):
                for one in np.roll(np.arange(len(sessions)), number):
                    sessions[one].run(None, feeds)
                    start = time.thread_time()
                    sessions[one].run(None, feeds)
                    times[number, one] = 1e6 * (time.thread_time() - start)
            found = [f"{value:.0f}" for value in np.percentile(times, 10, axis=0)]
            click.echo(" | ".join([shape, str(tokens), *found]))


if __name__ == "__main__":
    main(sys.argv[1:] or list(SHAPES))
