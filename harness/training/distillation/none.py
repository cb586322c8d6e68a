"""A control: the pruned network fine-tuned on labels, without a teacher."""

from harness.training.distillation import Method

METHOD = Method(teacher=False)
