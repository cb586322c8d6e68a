"""BatchNorm that stays fast on a CPU when there are few channels.

PyTorch's channels_last kernels process a vector's worth of channels at a time and the remainder one by one, and their
threads accumulate sums in adjacent buffers, which share a cache line if there are few channels. What this costs a whole
step of a thin network is in docs/training-profile.md.

Here neighbouring pixels are read as additional channels: the same memory, seen as `fold` times as many channels, fills
vectors and cache lines. The kernel computes statistics for each of the `fold` groups, which are combined before
anything is normalised.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

# The bf16 numbers in a vector of 512 bits; also fp32 sums that fill a cache line for each of two threads.
VECTOR = 32
HALF = VECTOR // 2

_aten = torch.ops.aten


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d that folds pixels into channels when it trains few channels on a CPU. Only rounding differs."""

    def forward(self, x: Tensor) -> Tensor:
        fold = self.fold(x) if self.training else 1
        if fold == 1:
            return super().forward(x)
        y, mean, var = _Folded.apply(x, self.weight, self.bias, self.eps, fold)
        self._keep(mean, var, x.numel() // x.shape[1])
        return y

    def fold(self, x: Tensor) -> int:
        """How many pixels of `x` [N, C, H, W] to read side by side; 1 if PyTorch's own kernels are fast, or needed."""
        channels = self.num_features
        fold = VECTOR // math.gcd(channels, VECTOR)
        few = channels < VECTOR and channels != HALF
        whole = x.numel() % (fold * channels) == 0
        known = x.is_cpu and x.dtype in (torch.bfloat16, torch.float32) and self.weight.dtype == torch.float32
        return fold if few and whole and known and x.is_contiguous(memory_format=torch.channels_last) else 1

    def _keep(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Update the running statistics as nn.BatchNorm2d does; a momentum of None means the plain average."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var * (count / max(count - 1, 1)), share)


class _Folded(torch.autograd.Function):
    """Ioffe and Szegedy, "Batch Normalization", 2015, and its gradient, computed by kernels that see more channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, fold: int) -> tuple[Tensor, ...]:
        channels = x.shape[1]
        rows = _rows(x, fold)
        # The kernel computes in the precision of the statistics that it is given to update, whatever that of x is.
        unused = torch.zeros(fold * channels), torch.ones(fold * channels)
        means, variances = (sums.view(fold, channels) for sums in _aten.batch_norm_update_stats(rows, *unused, 0.0))
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)
        y = torch.empty_like(x)
        _normalise(rows, weight, bias, mean, var, eps, fold, out=_rows(y, fold))
        ctx.save_for_backward(rows, weight, mean, var)
        ctx.eps, ctx.fold, ctx.shape = eps, fold, x.shape
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, mean, var = ctx.saved_tensors
        fold, eps, (images, channels, height, width) = ctx.fold, ctx.eps, ctx.shape
        # With the statistics as constants: the gradient by x, and the sums of dy * normalised x and of dy.
        through, *sums = _aten.native_batch_norm_backward(
            _rows(gradients[0], fold), rows, *_repeated(fold, weight, mean, var),
            None, None, False, eps, [True, True, True],
        )  # fmt: skip
        by_weight, by_bias = (one.view(fold, channels).sum(0) for one in sums)
        # The gradient that flows through mean and variance is linear in the normalised x.
        scale = -weight * (var + eps).rsqrt() / (images * height * width)
        through += _normalise(rows, scale * by_weight, scale * by_bias, mean, var, eps, fold)
        by_x = through.view(images, height, width, channels).permute(0, 3, 1, 2)
        return by_x, by_weight, by_bias, None, None


def _rows(x: Tensor, fold: int) -> Tensor:
    """[N, C, H, W] as [N * H * W / fold, fold * C]: a view if the memory is channels_last."""
    return x.permute(0, 2, 3, 1).reshape(-1, fold * x.shape[1])


def _normalise(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    fold: int,
    out: Tensor | None = None,
) -> Tensor:
    """weight * (rows - mean) / sqrt(var + eps) + bias, in the precision of `rows`."""
    if out is None:
        out = torch.empty_like(rows)
    _aten.native_batch_norm.out(
        rows,
        *_repeated(fold, weight, bias, mean, var),
        False,
        0.0,
        eps,
        out=out,
        save_mean=torch.empty(0),
        save_invstd=torch.empty(0),
    )
    return out


def _repeated(fold: int, *numbers: Tensor) -> tuple[Tensor, ...]:
    """Each tensor [C] repeated `fold` times to [fold * C], all in one copy."""
    # Contiguous, since the kernels ignore strides: of one channel, `expand` alone would give them a view to read past.
    return torch.stack(numbers).unsqueeze(1).expand(-1, fold, -1).contiguous().view(len(numbers), -1).unbind()
