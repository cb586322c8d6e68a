"""`python reference_method.py MODEL.onnx`: latency (ms) as the reference study measures it, and as many would.

The mean of 100 runs by timeit on one random input, in a session with default options: as many threads as there are
cores, none of them pinned. Stands alone, so that nothing of ours improves it.
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
