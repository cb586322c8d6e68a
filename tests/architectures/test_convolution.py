import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from harness.architectures import build
from harness.architectures._convolution import StridedPointwise, mend
from harness.model_files import onnx_export
from tests.documents import ROOT
from tests.training_kit import thin


def pair(channels: int, stride: int = 2, bias: bool = False) -> tuple[nn.Module, nn.Conv2d]:
    """Ours, and PyTorch's in double precision, with the same weights."""
    torch.manual_seed(0)
    theirs = nn.Conv2d(channels, 8, 1, stride, bias=bias)
    ours = nn.Conv2d(channels, 8, 1, stride, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    return mend(nn.Sequential(ours)).to(memory_format=torch.channels_last), theirs.double()  # type: ignore[call-overload]


def images(channels: int, size: int) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randn(4, channels, size, size, generator=random).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [1, 8, 9])
@pytest.mark.parametrize("channels", [1, 3, 4, 7, 12, 16, 24])
def test_outputs_and_gradients_are_pytorchs_in_double_precision(channels: int, size: int, bias: bool) -> None:
    ours, theirs = pair(channels, bias=bias)
    x = images(channels, size).requires_grad_()
    y = x.detach().double().requires_grad_()
    found, exact = ours(x), theirs(y)
    weights = torch.linspace(-1, 2, exact.numel()).view(exact.shape)
    found.backward(weights)
    exact.backward(weights.double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    pairs = zip([x, *ours.parameters()], [y, *theirs.parameters()], strict=True)
    for one, other in pairs:
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-4)


def test_only_strided_convolutions_with_a_1x1_kernel_are_replaced() -> None:
    layers = [
        nn.Conv2d(4, 8, 1, 2),
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(4, 8, 3, 2),
        nn.Conv2d(4, 8, 1, 2, padding=1),
        nn.Conv2d(4, 8, 1, 2, groups=2),
    ]
    model = mend(nn.Sequential(*layers))
    assert [isinstance(module, StridedPointwise) for module in model.children()] == [True, False, False, False, False]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_networks_are_built_with_it(name: str) -> None:
    model = build(thin(name))
    replaced = {name for name, module in model.named_modules() if isinstance(module, StridedPointwise)}
    assert replaced == {f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)}


def test_without_a_gradient_it_is_pytorchs_own() -> None:
    ours, _ = pair(4)
    (layer,) = ours.children()
    x = images(4, 8)
    with torch.no_grad():
        assert torch.equal(ours(x), nn.Conv2d.forward(layer, x))  # type: ignore[arg-type]


def test_in_an_exported_model_it_is_one_convolution(tmp_path: Path) -> None:
    ours, _ = pair(3)
    onnx_export._trace(ours, tmp_path / "m.onnx", 8, 17)
    assert [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node] == ["Conv"]


TRAINS = """
import torch
from torch import nn
from harness.architectures import build
from tests.training_kit import thin

torch.set_num_threads(1)
model = build(thin("resnet18")).to(memory_format=torch.channels_last)
images = torch.randn(16, 3, 16, 16).contiguous(memory_format=torch.channels_last)
for _ in range(20):
    model(images).square().sum().backward()
    kept = [torch.randn(17 + n) for n in range(50)]
"""


def test_a_network_of_four_channels_trains_without_corrupting_memory() -> None:
    """With PyTorch's own layers glibc aborts the process, if told to look closely, in the first steps."""
    environment = {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "7", "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", TRAINS], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
