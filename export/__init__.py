"""The training stage: from rows and a teacher to a bundle for the edge. Needs the train extra (torch)."""

from __future__ import annotations

from ..runtime.inference.session.onnxruntime_setup import silence_telemetry

silence_telemetry()  # before optimum imports onnxruntime
