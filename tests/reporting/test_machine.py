from typing import Any

import pytest

from harness.plan.cpu_table import Cpu, cpus
from harness.reporting.machine import bench_machine, target_differences
from tests.synthetic import BENCH, plan_for

TARGET_MACHINE = {
    "cpu": "Intel(R) Core(TM) i9-9900K CPU @ 3.60GHz",
    "isa": ["avx2", "fma"],
    "physical_cores": 8,
    "caches_kib": {"L1d": 32, "L2": 256, "L3": 16384},
}


@pytest.fixture
def target() -> Cpu:
    return plan_for("long").settings.bench.target.cpu


def test_the_target_itself_has_no_differences(target: Cpu) -> None:
    assert target_differences(TARGET_MACHINE, target) == []


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"cpu": "Some Xeon"}, "another processor"),
        ({"isa": ["avx2", "avx512f"]}, "AVX-512 (16 channels per block) instead of AVX2 (8)"),
        ({"physical_cores": 1}, "1 instead of 8 physical cores"),
        ({"caches_kib": {"L3": 32768}}, "L3 cache 32 MiB instead of 16 MiB"),
        ({"caches_kib": {}}, "L3 cache unknown instead of 16 MiB"),
        ({"isa": []}, "an unknown vector extension instead of AVX2 (8)"),
    ],
)
def test_each_difference_is_named(target: Cpu, changed: dict[str, Any], named: str) -> None:
    assert target_differences({**TARGET_MACHINE, **changed}, target) == [named]


@pytest.mark.parametrize("flags", [["avx2", "avx512f"], ["avx2", "avx512f", "avx512_vnni", "amx_bf16"], []])
def test_kernels_are_no_difference_where_the_targets_instruction_set_was_shown(target: Cpu, flags: list[str]) -> None:
    assert target_differences({**TARGET_MACHINE, "isa": flags}, target, shown=True) == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("E5-2699v4", "Intel(R) Xeon(R) CPU E5-2699 v4 @ 2.20GHz"),
        ("EPYC-7742", "AMD EPYC 7742 64-Core Processor"),
        ("Xeon-8380", "Intel(R) Xeon(R) Platinum 8380 CPU @ 2.30GHz"),
        ("Xeon-8480", "Intel(R) Xeon(R) Platinum 8480+"),
    ],
)
def test_every_cpu_is_known_by_what_the_kernel_calls_it(name: str, found: str) -> None:
    assert "another processor" not in target_differences({"cpu": found}, cpus()[name])
    assert "another processor" in target_differences({"cpu": "Intel(R) Xeon(R) Gold 6152"}, cpus()[name])


def test_a_machine_that_told_nothing_differs_in_everything(target: Cpu) -> None:
    assert len(target_differences({}, target)) == 4
    assert bench_machine({}) == "unknown processor"


@pytest.mark.parametrize("value", [None, [1], {"L3": [1]}, "x", 1.5])
def test_facts_of_any_type_are_no_obstacle(target: Cpu, value: Any) -> None:
    environment = dict.fromkeys(["cpu", "isa", "physical_cores", "caches_kib", "virtualised"], value)
    assert bench_machine(environment)
    assert len(target_differences(environment, target)) == 4


def test_a_machine_in_words() -> None:
    assert bench_machine(BENCH) == "Some CPU @ 2.00GHz (2 physical cores, AVX-512, virtualised)"
