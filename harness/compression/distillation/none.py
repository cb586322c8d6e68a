"""A control: the pruned network fine-tuned on labels, without a teacher."""

from harness.compression.distillation import Method

METHOD = Method(teacher=False)
