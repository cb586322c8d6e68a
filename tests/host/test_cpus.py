import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.host.cpus import Core, Topology, choose_cpus, parse_cpu_list, read_topology, require_affinity
from tests.bench_kit import machine

Tree = Callable[[dict[str, str]], Path]

NO_SMT = [[0], [1], [2], [3]]
SMT = [[0, 4], [1, 5], [2, 6], [3, 7]]
NEIGHBOURS = [[0, 1], [2, 3]]
# Two sockets of four cores; the second thread of each core comes after the first ones of all.
SOCKETS = [[cpu, cpu + 8] for cpu in range(8)]
NODES = [0, 0, 0, 0, 1, 1, 1, 1]
# Four fast cores with SMT, eight slow ones without, as on an i5-1340P.
HYBRID = [[0, 1], [2, 3], [4, 5], [6, 7], *([cpu] for cpu in range(8, 16))]
KINDS = [4_800_000] * 4 + [3_500_000] * 8
BIG_LITTLE = [[cpu] for cpu in range(6)]
CAPACITIES = [446, 446, 446, 446, 1024, 1024]


# --- Which CPUs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture", "threads", "cpus"),
    [
        (machine([[0]]), 1, [0]),
        (machine(NO_SMT), 1, [1]),
        (machine(NO_SMT), 4, [0, 1, 2, 3]),
        (machine(SMT), 3, [1, 2, 3]),
        (machine(SMT), 4, [0, 1, 2, 3]),
        (machine(NEIGHBOURS), 1, [2]),
        (machine(NEIGHBOURS), 2, [0, 2]),
        # a cpuset of two whole cores, and one that cuts a core in half
        (machine(SMT, {2, 3, 6, 7}), 2, [2, 3]),
        (machine(SMT, {1, 2, 6}), 1, [2]),
        # better the whole core of CPU 0 than half of another
        (machine(SMT, {0, 1, 4}), 1, [0]),
        # kernels that show nothing: every allowed CPU counts as a core
        (machine([], {0, 1}), 2, [0, 1]),
        (machine([], {3, 7, 9}), 1, [3]),
        # two sockets: both threads on one of them
        (machine(SOCKETS, nodes=NODES), 2, [1, 2]),
        (machine(SOCKETS, nodes=NODES), 4, [0, 1, 2, 3]),
        # a cpuset that leaves one whole core of the first socket, or halves of its cores
        (machine(SOCKETS, {0, 8, 4, 5, 6, 12, 13, 14}, NODES), 2, [4, 5]),
        (machine(SOCKETS, {0, 1, 2, 3, 6, 7, 14, 15}, NODES), 2, [6, 7]),
        # fast cores while there are enough of them, else as many slow ones; never some of each
        (machine(HYBRID, speeds=KINDS), 1, [2]),
        (machine(HYBRID, speeds=KINDS), 4, [0, 2, 4, 6]),
        (machine(HYBRID, speeds=KINDS), 5, [8, 9, 10, 11, 12]),
        (machine(HYBRID, {8, 9, 10}, speeds=KINDS), 2, [8, 9]),
        (machine(BIG_LITTLE, speeds=CAPACITIES), 2, [4, 5]),
        (machine(BIG_LITTLE, speeds=CAPACITIES), 3, [1, 2, 3]),
    ],
)
def test_whole_cores_of_one_kind_and_node_are_chosen(picture: Topology, threads: int, cpus: list[int]) -> None:
    choice = choose_cpus(picture, threads)
    assert (choice.cpus, choice.warnings) == (cpus, [])


@pytest.mark.parametrize(
    ("picture", "threads", "cpus", "said"),
    [
        (machine(SMT, {1, 2, 6}), 2, [1, 2], ["CPU 1 shares its physical core"]),
        (machine(SOCKETS, nodes=NODES), 5, [0, 1, 2, 3, 4], ["several NUMA nodes"]),
        (machine(HYBRID, speeds=KINDS), 12, [0, 2, 4, 6, *range(8, 16)], ["cores of different speeds"]),
        (machine(BIG_LITTLE, {0, 4, 5}, speeds=CAPACITIES), 3, [0, 4, 5], ["cores of different speeds"]),
        # one socket even where it has halves only
        (machine(SOCKETS, {0, 1, 4, 12}, NODES), 2, [0, 1], ["CPU 0 shares", "CPU 1 shares"]),
    ],
)
def test_a_choice_that_is_not_ideal_comes_with_a_warning(
    picture: Topology, threads: int, cpus: list[int], said: list[str]
) -> None:
    choice = choose_cpus(picture, threads)
    assert choice.cpus == cpus
    assert len(choice.warnings) == len(said)
    assert all(text in warning for text, warning in zip(said, sorted(choice.warnings), strict=True))


@pytest.mark.parametrize(
    ("threads", "cores", "said"), [(5, SMT, "4 physical cores"), (2, [[0, 1]], "1 physical core;")]
)
def test_too_few_cores_are_an_error_with_both_numbers_and_the_key(
    threads: int, cores: list[list[int]], said: str
) -> None:
    with pytest.raises(HarnessError, match=rf"bench\.threads is {threads}, .* {said}"):
        choose_cpus(machine(cores), threads)


@pytest.mark.parametrize(
    ("picture", "cores"),
    [
        (machine([[0]]), 1),
        (machine(SMT), 4),
        (machine(SMT, {2, 6}), 1),
        (machine(SOCKETS, nodes=NODES), 4),
        (machine(SOCKETS, {0, 8, 4, 5, 12, 13}, NODES), 2),
        (machine(HYBRID, speeds=KINDS), 4),
        (machine(HYBRID, range(8, 16), speeds=KINDS), 8),
        (machine(BIG_LITTLE, speeds=CAPACITIES), 2),
        (machine([], {0, 1, 2}), 3),
    ],
)
def test_usable_cores_are_the_fast_ones_of_one_node(picture: Topology, cores: int) -> None:
    assert picture.usable_cores == cores


@st.composite
def pictures(draw: st.DrawFn) -> Topology:
    """Any machine: cores with one to four threads, numbered anyhow, on some nodes, of some kinds, partly allowed."""
    widths = draw(st.lists(st.sampled_from([1, 2, 2, 4]), min_size=1, max_size=10))
    numbers = iter(draw(st.permutations(range(sum(widths)))))
    cores = [[next(numbers) for _ in range(width)] for width in widths]
    nodes = draw(st.lists(st.integers(0, 2), min_size=len(cores), max_size=len(cores)) | st.just([]))
    speeds = draw(st.lists(st.sampled_from([3, 5]), min_size=len(cores), max_size=len(cores)) | st.just([]))
    allowed = draw(st.sets(st.integers(0, sum(widths) - 1), min_size=1) | st.none())
    return machine(cores, allowed, nodes, speeds)


def chosen_cores(picture: Topology, threads: int) -> list[Core]:
    """The cores that a choice is of."""
    cpus = choose_cpus(picture, threads).cpus
    return [core for core in picture.cores if core.cpu in cpus]


def enough(picture: Topology) -> st.SearchStrategy[int]:
    """Any number of threads that the machine has cores for."""
    return st.integers(1, len(picture.cores))


@given(pictures(), st.integers(1, 12))
def test_a_choice_is_always_one_allowed_cpu_per_core(picture: Topology, threads: int) -> None:
    usable = len({picture.siblings[cpu] for cpu in picture.allowed})
    if threads > usable:
        with pytest.raises(HarnessError, match=rf"{threads}.*{usable}"):
            choose_cpus(picture, threads)
        return
    cpus = choose_cpus(picture, threads).cpus
    assert len(cpus) == len({picture.siblings[cpu] for cpu in cpus}) == threads
    assert cpus == sorted(cpus)
    assert set(cpus) <= picture.allowed


@given(st.data())
def test_half_a_core_is_chosen_after_whole_ones_and_with_a_warning(data: st.DataObject) -> None:
    picture = data.draw(pictures())
    threads = data.draw(enough(picture))
    found = chosen_cores(picture, threads)
    halves = [core for core in found if not core.whole]
    said = " ".join(choose_cpus(picture, threads).warnings)
    assert all(f"CPU {core.cpu} shares" in said for core in halves)
    for half in halves:
        alike = [core for core in picture.cores if (core.node, core.speed) == (half.node, half.speed)]
        assert all(core in found for core in alike if core.whole)


@given(st.data())
def test_kinds_of_cores_are_not_mixed_where_one_has_enough(data: st.DataObject) -> None:
    picture = data.draw(pictures())
    threads = data.draw(enough(picture))
    counts = {core.speed: sum(one.speed == core.speed for one in picture.cores) for core in picture.cores}
    plenty = [speed for speed, count in counts.items() if count >= threads]
    kinds = {core.speed for core in chosen_cores(picture, threads)}
    assert kinds == {max(plenty)} if plenty else len(kinds) > 1
    assert any("different speeds" in text for text in choose_cpus(picture, threads).warnings) == (len(kinds) > 1)


@given(st.data())
def test_a_node_with_enough_whole_cores_of_the_fastest_kind_gives_no_warning(data: st.DataObject) -> None:
    picture = data.draw(pictures())
    threads = data.draw(enough(picture))
    top = max(core.speed for core in picture.cores)
    fast = [core.node for core in picture.cores if core.whole and core.speed == top]
    if max((fast.count(node) for node in fast), default=0) < threads:
        return
    found = chosen_cores(picture, threads)
    assert {(core.speed, core.whole) for core in found} == {(top, True)}
    assert len({core.node for core in found}) == 1
    assert choose_cpus(picture, threads).warnings == []


@given(st.data())
def test_several_nodes_are_used_only_where_none_has_enough_and_with_a_warning(data: st.DataObject) -> None:
    picture = data.draw(pictures())
    threads = data.draw(enough(picture))
    found = chosen_cores(picture, threads)
    kinds, nodes = {core.speed for core in found}, {core.node for core in found}
    there = [core.node for core in picture.cores if core.speed in kinds]
    assert (len(nodes) > 1) == all(there.count(node) < threads for node in there)
    assert any("NUMA nodes" in text for text in choose_cpus(picture, threads).warnings) == (len(nodes) > 1)


@given(st.data())
def test_the_core_of_cpu_0_is_left_to_interrupts_where_there_is_another(data: st.DataObject) -> None:
    picture = data.draw(pictures())
    found = chosen_cores(picture, data.draw(enough(picture)))
    for zero in (core for core in found if core.first):
        alike = [core for core in picture.cores if (core.node, core.speed) == (zero.node, zero.speed)]
        assert all(core in found for core in alike if core.whole)


@given(st.data())
def test_the_order_in_which_a_machine_is_listed_does_not_change_the_choice(data: st.DataObject) -> None:
    picture = data.draw(pictures())
    threads = data.draw(enough(picture))
    shuffled = data.draw(st.permutations(list(picture.siblings.items())))
    again = Topology(picture.allowed, dict(shuffled), picture.node, picture.speed)
    assert choose_cpus(again, threads) == choose_cpus(picture, threads)


@given(pictures())
def test_all_usable_cores_are_of_one_kind_and_node(picture: Topology) -> None:
    found = chosen_cores(picture, picture.usable_cores)
    assert len({(core.speed, core.node) for core in found}) == 1


# --- What the kernel says --------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 500)))
def test_cpu_lists_are_read_as_the_kernel_writes_them(cpus: set[int]) -> None:
    assert parse_cpu_list(",".join(map(str, sorted(cpus))) + "\n") == cpus


def test_ranges_in_cpu_lists() -> None:
    assert parse_cpu_list("0-2,8,10-11\n") == {0, 1, 2, 8, 10, 11}


def test_the_picture_is_read_from_the_kernel(tree: Tree) -> None:
    files = {f"cpu{cpu}/topology/thread_siblings_list": f"{cpu % 2},{cpu % 2 + 2}\n" for cpu in range(4)}
    # links to the nodes' folders, which lie elsewhere
    files |= {f"cpu{cpu}/node{cpu % 2}/cpulist": "" for cpu in range(4)}
    # beside the CPUs there are other folders
    files |= {"cpufreq/boost": "1\n", "cpuidle/current_driver": "none\n", "online": "0-3\n"}
    picture = read_topology(tree(files))
    assert picture.siblings == {0: {0, 2}, 2: {0, 2}, 1: {1, 3}, 3: {1, 3}}
    assert picture.node == {0: 0, 1: 1, 2: 0, 3: 1}
    assert picture.physical_cores == 2
    assert picture.allowed == os.sched_getaffinity(0)


def recorded(tree: Tree, name: str, values: list[int], more: dict[str, str] | None = None) -> Topology:
    """A machine without SMT whose CPUs say this in one of their files."""
    files = {f"cpu{cpu}/topology/thread_siblings_list": f"{cpu}\n" for cpu in range(len(values))}
    files |= {f"cpu{cpu}/{name}": f"{value}\n" for cpu, value in enumerate(values)}
    return read_topology(tree(files | (more or {})), frozenset(range(len(values))))


def kinds(picture: Topology) -> list[set[int]]:
    """CPUs by their speed, the fastest first."""
    speeds = sorted(set(picture.speed.values()), reverse=True)
    return [{cpu for cpu, speed in picture.speed.items() if speed == one} for one in speeds]


CLOCK = "cpufreq/cpuinfo_max_freq"


def test_fast_and_slow_cores_are_told_apart_by_their_clock(tree: Tree) -> None:
    assert kinds(recorded(tree, CLOCK, [5_100_000, 5_100_000, 3_900_000, 3_900_000])) == [{0, 1}, {2, 3}]


def test_favoured_cores_are_of_the_same_kind_as_the_others(tree: Tree) -> None:
    # an i9-14900K: two favoured cores, six more fast ones, and slow ones
    clocks = [6_000_000] * 2 + [5_700_000] * 6 + [4_400_000] * 16
    picture = recorded(tree, CLOCK, clocks)
    assert kinds(picture) == [set(range(8)), set(range(8, 24))]
    assert choose_cpus(picture, 8).warnings == []
    assert picture.usable_cores == 8


def test_cores_of_arm_are_told_apart_by_their_capacity(tree: Tree) -> None:
    more = {f"cpu{cpu}/{CLOCK}": "2000000\n" for cpu in range(6)}
    assert kinds(recorded(tree, "cpu_capacity", CAPACITIES, more)) == [{4, 5}, {0, 1, 2, 3}]


def test_clocks_count_where_all_capacities_are_the_same(tree: Tree) -> None:
    """As newer kernels have it on hybrid x86 CPUs with SMT."""
    more = {f"cpu{cpu}/{CLOCK}": f"{clock}\n" for cpu, clock in enumerate([5_100_000, 5_100_000, 3_900_000])}
    assert kinds(recorded(tree, "cpu_capacity", [1024] * 3, more)) == [{0, 1}, {2}]


@pytest.mark.parametrize("name", ["online", "cpu0/uevent", "cpu0/topology/thread_siblings_list", f"cpu0/{CLOCK}"])
def test_in_a_sandbox_that_shows_nothing_each_cpu_is_a_core(tree: Tree, name: str) -> None:
    picture = read_topology(tree({name: ""}), frozenset({0, 1, 2}))
    assert (picture.node, picture.speed) == ({}, {})
    choice = choose_cpus(picture, 2)
    assert (choice.cpus, choice.warnings) == ([1, 2], [])


def test_this_machine_has_a_core_to_measure_on() -> None:
    picture = read_topology()
    assert set(choose_cpus(picture, 1).cpus) <= os.sched_getaffinity(0)
    assert len(choose_cpus(picture, picture.usable_cores).cpus) == picture.usable_cores


def test_a_process_on_other_cpus_notices_it() -> None:
    mine = sorted(os.sched_getaffinity(0))
    require_affinity(mine)
    with pytest.raises(HarnessError, match="not on the chosen"):
        require_affinity([*mine, 4096])
