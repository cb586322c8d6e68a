import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from harness.containers import in_docker
from harness.host import cgroups
from harness.host.facts import environment
from harness.host.memory_limit import total_bytes
from harness.plan.specs import Choice, Network
from harness.training import memory
from harness.training.memory import SHARE, Footprint, fitting, free_bytes, measure, side_by_side
from tests.drop_in import ARCHITECTURE, imported
from tests.training_kit import CPU, network, thin

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
def test_what_fits_follows_from_free_memory_and_what_a_network_takes(
    standing: int, working: int, free: int, at_once: int, expected: int
) -> None:
    assert SHARE == 0.7
    assert fitting(Footprint(standing, working), free, at_once) == expected


def test_a_network_takes_its_weights_gradients_and_momentum_all_the_time() -> None:
    bytes_of_weights = sum(value.nbytes for value in network().state_dict().values())
    assert measure(thin(), 16, 8, CPU).standing == 3 * bytes_of_weights


def test_what_a_step_takes_grows_with_the_batch_as_measured() -> None:
    small, large = (measure(thin(), 16, batch, CPU).working for batch in (2, 10))
    direct = memory._kept_for_backward(network(), 10, 16, CPU)
    assert large == pytest.approx(direct, rel=0.01)
    assert 4.5 < large / small < 5


def test_what_a_step_takes_is_about_what_the_layers_put_out() -> None:
    """Every convolution's and every BatchNorm's output is kept, once, except that ReLU works in place."""
    sizes: list[int] = []
    model = network()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, output: sizes.append(output.nbytes))
    model(torch.zeros(8, 3, 16, 16))
    assert measure(thin(), 16, 8, CPU).working == pytest.approx(sum(sizes), rel=0.25)


@pytest.mark.parametrize("spec", [thin("resnet18"), thin(stem="imagenet"), thin(width=0.125)])
def test_other_networks_are_measured_too(spec: Network) -> None:
    found = measure(spec, 16, 8, CPU)
    assert found.standing == 3 * sum(value.nbytes for value in network(spec=spec).state_dict().values())
    assert found.working == pytest.approx(memory._kept_for_backward(network(spec=spec), 8, 16, CPU), rel=0.05)


def test_a_network_from_outside_the_package_is_measured(tmp_path: Path) -> None:
    ARCHITECTURE.write(tmp_path)
    with imported(tmp_path):
        found = measure(Network(Choice(ARCHITECTURE.name, {"expansion": 2}), 10, 1.0, "cifar"), 16, 8, CPU)
    assert found.standing > 0 < found.working


def test_measuring_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    measure(thin(), 8, 4, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_more_cores_leave_room_for_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: GIB)
    found = []
    for cores in (1, 8):
        monkeypatch.setattr(torch, "get_num_threads", lambda cores=cores: cores)
        found.append(side_by_side(thin(), 16, 64, CPU))
    assert 1 <= found[1] < found[0]


def on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a recorded machine, as far as control groups go."""
    monkeypatch.setattr(cgroups, "free_memory", partial(cgroups.free_memory, root))
    monkeypatch.setattr(cgroups, "limits", partial(cgroups.limits, root))


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
def test_every_room_sees_the_limit_of_a_group_around_this_process(
    tree: Callable[[dict[str, str]], Path], monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    root = tree(GROUPS[version])
    facts = environment([min(os.sched_getaffinity(0))], root)
    on(root, monkeypatch)
    assert free_bytes(CPU) == 350
    assert total_bytes() == 1000 == facts["cgroup"]["memory_bytes"]
    assert in_docker._most_memory() == 0, "a container gets a part of it, in whole pages"


def test_without_a_limit_free_is_what_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(tmp_path, monkeypatch)
    assert free_bytes(CPU) == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert total_bytes() == psutil.virtual_memory().total
