from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from harness.architectures.resnet import full_widths

from harness.host import cgroups
from harness.training import memory
from harness.training.memory import SHARE, Footprint, fitting, free_bytes, measure, side_by_side
from tests.training_kit import CPU, WIDTH, network

GIB = 2**30


@pytest.mark.parametrize(
    ("standing", "working", "free", "at_once", "expected"),
    [
        (1, 2, 100, 1, 66),  # 70 - 2 x 2
        (1, 2, 100, 4, 60),
        (10, 0, 100, 8, 7),
        (100, 2, 100, 1, 1),
        (1, 100, 100, 1, 1),
        (1, 1, 0, 1, 1),
    ],
)
def test_what_fits_is_free_memory_less_what_steps_by_what_stands(
    standing: int, working: int, free: int, at_once: int, expected: int
) -> None:
    assert SHARE == 0.7
    assert fitting(Footprint(standing, working), free, at_once) == expected


def test_a_network_stands_for_weights_gradients_and_momentum() -> None:
    bytes_of_weights = sum(value.nbytes for value in network().state_dict().values())
    assert measure(full_widths(WIDTH), "cifar", 16, 8, CPU).standing == 3 * bytes_of_weights


def test_what_it_works_with_grows_with_the_batch_as_measured() -> None:
    small, large = (measure(full_widths(WIDTH), "cifar", 16, batch, CPU).working for batch in (2, 10))
    direct = memory._kept_for_backward(network(), 10, 16, CPU)
    assert large == pytest.approx(direct, rel=0.01)
    assert 4.5 < large / small < 5


def test_it_is_about_what_the_layers_put_out() -> None:
    """Every convolution's and every BatchNorm's output is kept, once, except that ReLU works in place."""
    sizes: list[int] = []
    model = network()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, output: sizes.append(output.nbytes))
    model(torch.zeros(8, 3, 16, 16))
    assert measure(full_widths(WIDTH), "cifar", 16, 8, CPU).working == pytest.approx(sum(sizes), rel=0.25)


def test_measuring_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    measure(full_widths(WIDTH), "cifar", 8, 4, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_more_cores_leave_room_for_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: GIB)
    found = []
    for cores in (1, 8):
        monkeypatch.setattr(torch, "get_num_threads", lambda cores=cores: cores)
        found.append(side_by_side(full_widths(WIDTH), "cifar", 16, 64, CPU))
    assert 1 <= found[1] < found[0]


def on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a recorded machine, as far as control groups go."""
    monkeypatch.setattr(cgroups, "free_memory", partial(cgroups.free_memory, root))


GROUPS = {
    1: {
        "proc/self/cgroup": "2:memory:/outer/inner\n",
        "sys/fs/cgroup/memory/outer/memory.limit_in_bytes": "1000",
        "sys/fs/cgroup/memory/outer/memory.usage_in_bytes": "700",
        "sys/fs/cgroup/memory/outer/memory.stat": "anon 5\ninactive_file 50\n",
    },
    2: {
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/fs/cgroup/outer/memory.max": "1000",
        "sys/fs/cgroup/outer/memory.current": "700",
        "sys/fs/cgroup/outer/memory.stat": "anon 5\ninactive_file 50\n",
        "sys/fs/cgroup/outer/inner/memory.max": "max",
    },
}


@pytest.mark.parametrize("version", GROUPS)
def test_the_limit_of_a_group_around_this_process_counts(
    tree: Callable[[dict[str, str]], Path], monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    on(tree(GROUPS[version]), monkeypatch)
    assert free_bytes(CPU) == 350


def test_without_a_limit_free_is_what_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(tmp_path, monkeypatch)
    assert free_bytes(CPU) == pytest.approx(psutil.virtual_memory().available, rel=0.2)
