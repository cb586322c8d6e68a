"""pytest-benchmark as its documentation introduces it, all options left alone. PLAIN_MODELS is JSON: name -> file."""

import json
import os
from typing import Any

import numpy as np
import onnxruntime
import pytest

MODELS: dict[str, str] = json.loads(os.environ.get("PLAIN_MODELS", "{}"))


@pytest.mark.parametrize("name", MODELS)
def test_latency(benchmark: Any, name: str) -> None:
    """Calibrated rounds of one random input in a session with default options."""
    session = onnxruntime.InferenceSession(MODELS[name], providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0]
    image = np.random.default_rng(0).normal(size=(1, *feed.shape[1:])).astype(np.float32)
    benchmark(session.run, None, {feed.name: image})
