"""Where the checks draw their lines, and why there."""

# The bench environments' pins in requirements/ (a test holds them together): the reference study's, and today's.
RUNTIMES = {"1.16.0": "onnxruntime 1.16.0", "current": "onnxruntime 1.32.0"}
# With two processes an interval is nothing but the two of them.
LEAST_PROCESSES = 3
# In percentage points. ONNX and torch are both fp32 on the same images: a hundredth is one image in 10,000.
ACCURACY_DIFFERENCE = 0.1
# Both round differently, which tips images whose two best classes are as good as equal.
AGREEMENT_PCT = 99.5
CLASSES = 100
# Standard deviations above guessing from where on a network has learned something.
CHANCE_SD = 3.0
# The gate's own limit is 1e-3 of the largest logit, which is not on record; logits here stay below 50.
PARITY_MAX_ABS_DIFF = 0.05
PARITY_TOP1_PCT = 99.5
# Half-width of the ratio's interval, in percent of the ratio, from which on it is no use any more.
USABLE_HALFWIDTH_PCT = 10.0
# What the teacher may differ by from itself: twice what is wanted of a rerun.
CONTROL_PCT = 4.0
# CPU time that the hypervisor gave to others. Interleaving evens out a little of it.
STEAL_PCT = 5.0
# A student may pass its teacher by a point or two; far more says that the teacher is not what it should be.
STUDENT_ABOVE_TEACHER = 5.0
