import pytest
import torch
from torch import Tensor, nn

from harness.architectures._batchnorm import VECTOR, BatchNorm2d

CHANNELS_LAST = torch.channels_last


def images(channels: int, dtype: torch.dtype = torch.float32, size: int = 8) -> Tensor:
    """Images with another mean and spread in every channel, so that statistics matter."""
    torch.manual_seed(0)
    spread, centre = torch.rand(2, 1, channels, 1, 1)
    x = torch.randn(4, channels, size, size) * (spread + 0.5) + 3 * centre
    return x.to(dtype).contiguous(memory_format=CHANNELS_LAST)


def pair(channels: int, momentum: float | None = 0.1) -> tuple[BatchNorm2d, nn.BatchNorm2d]:
    """Ours and PyTorch's, with the same random scale and shift."""
    own, theirs = BatchNorm2d(channels, momentum=momentum), nn.BatchNorm2d(channels, momentum=momentum)
    nn.init.uniform_(own.weight, 0.5, 1.5)
    nn.init.normal_(own.bias)
    theirs.load_state_dict(own.state_dict())
    return own, theirs


def by_parameter(norm: nn.BatchNorm2d) -> list[Tensor]:
    return [value.grad for value in norm.parameters() if value.grad is not None]


def learn(norm: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, ...]:
    """The output, and the gradient by the input, under a loss that weighs every number differently."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    y.backward(torch.linspace(-1, 2, y.numel()).to(y.dtype).view(y.shape))
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("channels", [1, 2, 6, 8, 12, 20, 31])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_few_channels_are_normalised_as_by_pytorch_in_double_precision(channels: int, dtype: torch.dtype) -> None:
    own, theirs = pair(channels)
    x = images(channels, dtype)
    assert own.fold(x) > 1
    found, exact = learn(own, x), learn(theirs.double(), x.double())
    assert all(one.dtype == dtype and one.is_contiguous(memory_format=CHANNELS_LAST) for one in found)
    found += tuple(by_parameter(own))
    exact += tuple(by_parameter(theirs))
    # as much as a few operations round
    tolerance = 4 * torch.finfo(dtype).eps if dtype == torch.bfloat16 else 1e-5
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=tolerance * float(other.abs().max()))
    for name, value in theirs.named_buffers():
        torch.testing.assert_close(own.get_buffer(name).double(), value.double(), rtol=1e-5, atol=1e-6)


def test_without_a_momentum_the_statistics_are_averaged_over_batches_as_in_pytorch() -> None:
    own, theirs = pair(6, momentum=None)
    for seed in range(3):
        x = images(6, torch.float32) * (seed + 1)
        with torch.no_grad():
            own(x), theirs(x)
    for name, value in theirs.named_buffers():
        torch.testing.assert_close(own.get_buffer(name), value)


@pytest.mark.parametrize("channels", [VECTOR // 2, VECTOR, 40, 64])
def test_pytorchs_own_kernels_are_used_where_they_are_fast(channels: int) -> None:
    own, theirs = pair(channels)
    x = images(channels, torch.float32)
    assert own.fold(x) == 1
    for one, other in zip(learn(own, x), learn(theirs, x), strict=True):
        assert torch.equal(one, other)


def test_what_cannot_be_folded_is_left_to_pytorch() -> None:
    own, _ = pair(6)
    assert own.fold(images(6, torch.float32).contiguous()) == 1
    # 25 pixels are no multiple of 16
    assert own.fold(images(6, torch.float32, size=5)[:1].contiguous(memory_format=CHANNELS_LAST)) == 1


def test_evaluation_is_left_to_pytorch() -> None:
    own, theirs = pair(6)
    x = images(6, torch.float32)
    assert torch.equal(own.eval()(x), theirs.eval()(x))


def test_the_output_may_be_changed_in_place() -> None:
    own, theirs = pair(6)
    gradients = []
    for norm in (own, theirs):
        x = images(6, torch.float32).requires_grad_()
        nn.functional.relu(norm(x), inplace=True).square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
