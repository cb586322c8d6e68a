"""A control: the pruned shape trained on labels from new weights.

Liu et al., "Rethinking the Value of Network Pruning", ICLR 2019.
"""

from harness.compression.distillation import Method, by_labels

TITLE = "None (from scratch)"
TEACHER = False
FRESH_WEIGHTS = True

METHOD = Method(by_labels, fresh_weights=FRESH_WEIGHTS)
