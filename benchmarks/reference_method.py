"""`python reference_method.py MODEL.onnx`: the latency (ms) as the reference study measures it, and as many would.

It is timeit's mean of 100 inferences of one random input, in a session with default options: as many threads as there
are cores, none of them pinned. The file imports nothing of the harness, so that nothing of the harness improves it.
"""

import sys
import timeit

import numpy as np
import onnxruntime

RUNS = 100

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
feed = session.get_inputs()[0]
image = np.random.default_rng(0).normal(size=(1, *feed.shape[1:])).astype(np.float32)
print(1000 * timeit.timeit(lambda: session.run(None, {feed.name: image}), number=RUNS) / RUNS)
