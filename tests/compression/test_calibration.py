from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from harness.compression.calibration import calibrate, even, sample
from harness.datasets import Images, normalise
from harness.plan.settings import Calibration
from tests.training_kit import network


@pytest.fixture(scope="module")
def batch(images: Images) -> Tensor:
    return normalise(images.pixels[:96, :, ::2, ::2], images.mean, images.std)


def first_norm(model: nn.Module) -> nn.BatchNorm2d:
    found = model.get_submodule("bn1")
    assert isinstance(found, nn.BatchNorm2d)
    return found


def gap(model: nn.Module, batch: Tensor) -> float:
    """How far logits with stored statistics are from those with the batch's own."""
    copied = deepcopy(model)
    with torch.no_grad():
        stored, own = copied.eval()(batch), copied.train()(batch)
    assert stored.isfinite().all()
    return float((stored - own).abs().mean())


def test_stored_statistics_become_those_of_the_images(batch: Tensor) -> None:
    model = network(pruned=True)
    before = gap(model, batch)
    calibrate(model, batch, len(batch))
    assert gap(model, batch) < 0.02 * before


def test_weights_and_momentum_are_left_alone_and_the_model_ends_in_evaluation_mode(batch: Tensor) -> None:
    model = network()
    first_norm(model).momentum = 0.3
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    calibrate(model, batch, 32)
    assert [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)] == [0.3] + [0.1] * 52
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("count", [501, 251, 500, 7])
def test_every_image_has_the_same_weight(count: int) -> None:
    """With 501 images in batches of 250, the single last image once had a third of the weight."""
    random = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 8, 8, generator=random)
    images[-1] += 100
    model = nn.Sequential(nn.BatchNorm2d(3))
    calibrate(model, images, 250)
    norm = model[0]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    parts = [part.var((0, 2, 3)) * len(part) / count for part in even(images, 250)]
    torch.testing.assert_close(norm.running_var, torch.stack(parts).sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [501, 251, 250, 2])
def test_a_remainder_of_one_image_is_no_batch_of_its_own(count: int, batch: Tensor) -> None:
    """Of 8 pixels, the last stage has a single pixel: one image of it has no variance."""
    sizes = [len(part) for part in even(torch.zeros(count, 1), 250)]
    assert sum(sizes) == count and max(sizes) <= 250 and max(sizes) - min(sizes) <= 1 < min(sizes)
    model = network()
    small = batch[:, :, ::2, ::2]
    calibrate(model, small[torch.arange(count) % len(small)], 250)
    assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_no_batch_is_larger_than_asked_for() -> None:
    for count in range(2, 60):
        for most in range(2, 20):
            parts = list(even(torch.arange(count), most))
            assert torch.equal(torch.cat(parts), torch.arange(count))
            assert max(map(len, parts)) <= most


def test_calibrating_twice_gives_the_same_statistics(batch: Tensor) -> None:
    once, twice = network(), network()
    calibrate(once, batch, 32)
    for _ in range(2):
        calibrate(twice, batch, 32)
    assert all(torch.equal(one, other) for one, other in zip(once.buffers(), twice.buffers(), strict=True))


def test_the_first_images_of_the_setting_are_the_sample(images: Images) -> None:
    assert torch.equal(sample(images.pixels, Calibration(images=20)), images.pixels[:20])
    assert len(sample(images.pixels, Calibration(images=1000))) == 300
