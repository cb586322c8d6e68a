import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.benchmarking.host import Topology, choose_cpus, parse_cpu_list, read_topology, require_affinity
from harness.errors import HarnessError


def machine(cores: list[list[int]], allowed: set[int] | None = None) -> Topology:
    siblings = {cpu: frozenset(core) for core in cores for cpu in core}
    return Topology(allowed=frozenset(siblings if allowed is None else allowed), siblings=siblings)


NO_SMT = [[0], [1], [2], [3]]
SMT = [[0, 4], [1, 5], [2, 6], [3, 7]]
NEIGHBOURS = [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("cores", "allowed", "threads", "cpus"),
    [
        ([[0]], None, 1, [0]),
        (NO_SMT, None, 1, [1]),
        (NO_SMT, None, 4, [0, 1, 2, 3]),
        (SMT, None, 3, [1, 2, 3]),
        (SMT, None, 4, [0, 1, 2, 3]),
        (NEIGHBOURS, None, 2, [0, 2]),
        # a cpuset of two whole cores, and one that cuts a core in half
        (SMT, {2, 3, 6, 7}, 2, [2, 3]),
        (SMT, {1, 2, 6}, 1, [2]),
        # better the whole core of CPU 0 than half of another
        (SMT, {0, 1, 4}, 1, [0]),
        # kernels that show no siblings: every allowed CPU counts as a core
        ([], {0, 1}, 2, [0, 1]),
    ],
)
def test_whole_cores_are_chosen(cores: list[list[int]], allowed: set[int], threads: int, cpus: list[int]) -> None:
    choice = choose_cpus(machine(cores, allowed), threads)
    assert (choice.cpus, choice.warnings) == (cpus, [])


def test_half_a_core_comes_last_and_with_a_warning() -> None:
    choice = choose_cpus(machine(SMT, {1, 2, 6}), 2)
    assert choice.cpus == [1, 2]
    assert len(choice.warnings) == 1
    assert "CPU 1 " in choice.warnings[0]


@pytest.mark.parametrize(
    ("threads", "cores", "said"), [(5, SMT, "4 physical cores"), (2, [[0, 1]], "1 physical core;")]
)
def test_too_few_cores_names_both_numbers_and_the_key(threads: int, cores: list[list[int]], said: str) -> None:
    with pytest.raises(HarnessError, match=rf"bench\.threads is {threads}, .* {said}"):
        choose_cpus(machine(cores), threads)


@given(st.data())
def test_a_choice_is_always_one_allowed_cpu_per_core(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from([1, 2, 4]))
    count = data.draw(st.integers(1, 12))
    cores = [[core + way * count for way in range(width)] for core in range(count)]
    allowed = data.draw(st.sets(st.integers(0, width * count - 1), min_size=1))
    picture = machine(cores, allowed)
    usable = len({picture.siblings[cpu] for cpu in allowed})
    threads = data.draw(st.integers(1, count))
    if threads > usable:
        with pytest.raises(HarnessError, match=rf"{threads}.*{usable}"):
            choose_cpus(picture, threads)
        return
    choice = choose_cpus(picture, threads)
    assert len(choice.cpus) == len({picture.siblings[cpu] for cpu in choice.cpus}) == threads
    assert set(choice.cpus) <= allowed
    halves = [cpu for cpu in choice.cpus if not picture.siblings[cpu] <= allowed]
    whole = len({core for core in picture.siblings.values() if core <= allowed})
    assert len(halves) == len(choice.warnings) == max(0, threads - whole)


@given(st.sets(st.integers(0, 500)))
def test_cpu_lists_are_read_as_the_kernel_writes_them(cpus: set[int]) -> None:
    assert parse_cpu_list(",".join(map(str, sorted(cpus))) + "\n") == cpus


def test_ranges_in_cpu_lists() -> None:
    assert parse_cpu_list("0-2,8,10-11\n") == {0, 1, 2, 8, 10, 11}


def test_the_picture_is_read_from_the_kernel(tree: Callable[[dict[str, str]], Path]) -> None:
    root = tree({f"cpu{cpu}/topology/thread_siblings_list": f"{cpu % 2},{cpu % 2 + 2}\n" for cpu in range(4)})
    picture = read_topology(root)
    assert picture.siblings == {0: {0, 2}, 2: {0, 2}, 1: {1, 3}, 3: {1, 3}}
    assert picture.physical_cores == 2
    assert picture.allowed == os.sched_getaffinity(0)


def test_this_machine_has_a_core_to_measure_on() -> None:
    assert set(choose_cpus(read_topology(), 1).cpus) <= os.sched_getaffinity(0)


def test_a_wrong_cpuset_is_seen_from_inside() -> None:
    mine = sorted(os.sched_getaffinity(0))
    require_affinity(mine)
    with pytest.raises(HarnessError, match="not on the chosen"):
        require_affinity([*mine, 4096])
