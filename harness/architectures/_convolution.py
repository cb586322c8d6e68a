"""A way around a fault in oneDNN (3.12, with PyTorch 2.13) that corrupts memory while thin networks train on a CPU.

The gradient by the weights of a 1x1 convolution with a stride, in channels_last memory, writes past its end where there
are fewer input channels than a vector holds: the process aborts soon after, or computes with what it has overwritten.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# fp32 numbers in a vector of 512 bits
VECTOR = 16


class StridedPointwise(nn.Conv2d):
    """nn.Conv2d with a 1x1 kernel; where its gradient is needed on a CPU, few channels are strided over beforehand."""

    def forward(self, x: Tensor) -> Tensor:
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
        learns = torch.is_grad_enabled() and self.weight.requires_grad and not tracing
        if not (learns and x.is_cpu and self.in_channels < VECTOR):
            return super().forward(x)
        down, across = self.stride
        return F.conv2d(x[:, :, ::down, ::across], self.weight, self.bias)


def mend(model: nn.Module) -> nn.Module:
    """The network, with every convolution that the fault may concern as a StridedPointwise."""
    for module in model.modules():
        plain = type(module) is nn.Conv2d and module.groups == 1 and module.padding in ((0, 0), 0)
        if plain and module.kernel_size == (1, 1) and module.stride != (1, 1):
            module.__class__ = StridedPointwise
    return model
