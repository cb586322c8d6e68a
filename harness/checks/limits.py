"""Where the checks draw their lines, and why there. The parity gate's limits are in harness.store.records."""

# With two processes an interval is nothing but the two of them.
LEAST_PROCESSES = 3
# In percentage points. ONNX and torch are both fp32 on the same images: a hundredth is one image in 10,000.
ACCURACY_DIFFERENCE = 0.1
# The two round differently, which tips images whose two best classes are nearly equal.
AGREEMENT_PCT = 99.5
# A network has learned something from this many standard deviations above guessing on.
CHANCE_SD = 3.0
# Half-width of the ratio's interval, in percent of the ratio. Wider ones are of no use.
USABLE_HALFWIDTH_PCT = 10.0
# What the teacher may differ by from itself: twice the difference that a rerun is meant to show.
CONTROL_PCT = 4.0
# CPU time that the hypervisor gave to other guests. Interleaving evens out a little of it.
STEAL_PCT = 5.0
# A student may surpass its teacher by a point or two; far more says that the teacher was trained badly.
STUDENT_ABOVE_TEACHER = 5.0
# How far the share of channels that pruning removed may be from the share that was asked for. Rounding channel counts
# to multiples costs some of it.
PRUNED_SHARE = 0.1
