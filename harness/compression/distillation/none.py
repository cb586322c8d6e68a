"""A control: the pruned network fine-tuned on labels, without a teacher."""

from harness.compression.distillation import Method, by_labels

TITLE = "None"
TEACHER = False

METHOD = Method(by_labels)
