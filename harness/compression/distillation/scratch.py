"""A control: the pruned shape trained on labels from new weights.

Liu et al., "Rethinking the Value of Network Pruning", ICLR 2019.
"""

from harness.compression.distillation import Method

METHOD = Method(teacher=False, fresh_weights=True)
