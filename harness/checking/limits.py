"""Where the checks draw their lines, and why there."""

# The bench environment's pin in pyproject.toml, which is the reference study's (a test holds the two together).
RUNTIMES = ("onnxruntime 1.16.0",)
# With two processes an interval is nothing but the two of them.
LEAST_PROCESSES = 3
# In percentage points. ONNX and torch are both fp32 on the same images: a hundredth is one image in 10,000.
ACCURACY_DIFFERENCE = 0.1
CLASSES = 100
# Standard deviations above guessing from where on a network has learned something.
CHANCE_SD = 3.0
# The gate's own limit is 1e-3 of the largest logit, which is not on record; logits here stay below 50.
PARITY_MAX_ABS_DIFF = 0.05
PARITY_TOP1_PCT = 99.5
# Half-width of the ratio's interval, in percent of the ratio: what is wanted, and what is no use any more.
WANTED_HALFWIDTH_PCT = 1.0
USABLE_HALFWIDTH_PCT = 10.0
# CPU time that the hypervisor gave to others. Interleaving evens out a little of it.
STEAL_PCT = 5.0
# A student may pass its teacher by a point or two; far more says that the teacher is not what it should be.
STUDENT_ABOVE_TEACHER = 5.0
