from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from harness.datasets import Images
from harness.training import colour
from harness.training.colour import ADJUSTMENTS, adjust, brightness, contrast, hue, jitter, saturation

TORCHVISION = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation, V.adjust_hue)
Batched = Callable[[Tensor, Tensor], Tensor]
Single = Callable[[Tensor, float], Tensor]


@pytest.fixture(scope="module")
def pixels(images: Images) -> Tensor:
    """Drawn images, noise, greys, pure colours, black and white, on the 0..1 scale."""
    noise = torch.rand(20, 3, 8, 8, generator=random())
    grey = torch.rand(4, 1, 8, 8, generator=random()).expand(-1, 3, -1, -1)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).view(8, 3, 1, 1).expand(-1, -1, 8, 8)
    return torch.cat([images.pixels[:24, :, :8, :8].float() / 255, noise, grey, corners])


def random(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("batched", "single", "middle"),
    [
        (brightness, V.adjust_brightness, 1.0),
        (contrast, V.adjust_contrast, 1.0),
        (saturation, V.adjust_saturation, 1.0),
        (hue, V.adjust_hue, 0.0),
    ],
)
def test_a_batch_is_adjusted_as_torchvision_adjusts_its_images(
    batched: Batched, single: Single, middle: float, pixels: Tensor
) -> None:
    factors = middle - 0.5 + torch.rand(len(pixels), generator=random(1))
    factors[:3] = torch.tensor([middle - 0.5, middle, middle + 0.5])
    expected = torch.stack([single(image, factor) for image, factor in zip(pixels, factors.tolist(), strict=True)])
    torch.testing.assert_close(batched(pixels, factors.view(-1, 1, 1, 1)), expected, atol=2e-6, rtol=0)


def test_every_image_is_adjusted_in_its_own_order(pixels: Tensor) -> None:
    factors = torch.rand(len(pixels), 4, generator=random(2)) + torch.tensor([0.5, 0.5, 0.5, -0.5])
    orders = torch.tensor([list(order) for order in permutations(range(4))] * 3)[: len(pixels)]
    expected = []
    for image, factor, order in zip(pixels, factors.tolist(), orders.tolist(), strict=True):
        for which in order:
            image = TORCHVISION[which](image, factor[which])
        expected.append(image)
    torch.testing.assert_close(adjust(pixels, factors, orders), torch.stack(expected), atol=1e-5, rtol=0)


def test_the_order_matters(pixels: Tensor) -> None:
    factors = torch.tensor([[1.5, 0.5, 1.5, 0.3]]).expand(len(pixels), -1)
    one, other = (torch.tensor([order]).expand(len(pixels), -1) for order in ([0, 1, 2, 3], [3, 2, 1, 0]))
    assert (adjust(pixels, factors, one) - adjust(pixels, factors, other)).abs().max() > 0.1


def test_the_images_given_are_left_alone(pixels: Tensor) -> None:
    before = pixels.clone()
    jittered = jitter(pixels, random())
    assert torch.equal(pixels, before) and not torch.equal(jittered, before)
    assert jittered.min() >= 0 and jittered.max() <= 1


def test_jitter_draws_every_factor_from_its_range_and_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Tensor, Tensor]] = []

    def remember(images: Tensor, factors: Tensor, orders: Tensor) -> Tensor:
        drawn.append((factors, orders))
        return images

    monkeypatch.setattr(colour, "adjust", remember)
    jitter(torch.zeros(600, 3, 1, 1), random())
    ((factors, orders),) = drawn
    for which, middle in enumerate((1.0, 1.0, 1.0, 0.0)):
        assert middle - 0.5 <= factors[:, which].min() < middle - 0.48
        assert middle + 0.48 < factors[:, which].max() <= middle + 0.5
    assert torch.equal(orders.sort(1).values, torch.arange(4).expand(600, 4))
    assert len(orders.unique(dim=0)) == 24


def test_jitter_with_neutral_factors_changes_nothing(monkeypatch: pytest.MonkeyPatch, pixels: Tensor) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, generator: torch.full(size, 0.5))
    torch.testing.assert_close(jitter(pixels, random()), pixels, atol=1e-5, rtol=0)


def test_the_adjustments_are_in_the_order_of_their_factors() -> None:
    assert (brightness, contrast, saturation, hue) == ADJUSTMENTS
