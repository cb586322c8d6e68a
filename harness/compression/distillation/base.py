"""Base KD: the student learns the teacher's class probabilities."""

from harness.compression.distillation import Method, by_objective

TITLE = "Base"
NUMBER = 0
# of the study's objective; the joint one has its constants in the protocol
PARAMETERS = {"temperature": 2.0, "dead_zone": 0.1, "guard": 1e-6}

METHOD = Method(by_objective)
