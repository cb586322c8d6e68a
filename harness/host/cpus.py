"""Which CPUs to measure on: whole physical cores, one thread on each, their SMT siblings left idle.

The choice is a pure function of a picture of the machine, so that it can be tested on machines one does not have.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError

SYSTEM_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Topology:
    """A picture of the machine.

    `allowed`: logical CPUs that this process may use, fewer than there are where a cpuset says so. `siblings`: for
    every online logical CPU, all logical CPUs of its physical core. `node` is its NUMA node and `speed` how fast its
    kind of core is (cpu_capacity, or else the highest clock in kHz), each where the kernel says so.
    """

    allowed: frozenset[int]
    siblings: Mapping[int, frozenset[int]]
    node: Mapping[int, int] = field(default_factory=dict)
    speed: Mapping[int, int] = field(default_factory=dict)

    @property
    def physical_cores(self) -> int:
        """Physical cores that are online, allowed or not."""
        return len(set(self.siblings.values()))

    @property
    def cores(self) -> list["Core"]:
        """The physical cores of which this process may use at least a part, by their first logical CPU."""
        groups = {self.siblings.get(cpu, frozenset({cpu})) for cpu in self.allowed}
        return [self._core(group) for group in sorted(groups, key=min)]

    def _core(self, group: frozenset[int]) -> "Core":
        cpu = min(group & self.allowed)
        return Core(cpu, group <= self.allowed, 0 in group, self.node.get(cpu, 0), self.speed.get(cpu, 0))

    @property
    def usable_cores(self) -> int:
        """Cores of the fastest kind on the NUMA node that has most of them: as many as one session may run on."""
        return max(Counter((core.speed, core.node) for core in _fastest(self.cores)).values(), default=1)


class Core(NamedTuple):
    """A physical core: the logical CPU to use, whether all its siblings are ours, whether it has CPU 0."""

    cpu: int
    whole: bool
    first: bool
    node: int
    speed: int


@dataclass(frozen=True)
class ChosenCpus:
    """The logical CPUs to pin to, one per physical core, and warnings about what is not ideal about them."""

    cpus: list[int]
    warnings: list[str]


def choose_cpus(topology: Topology, threads: int) -> ChosenCpus:
    """One logical CPU on each of `threads` physical cores.

    All of one kind, on hybrid CPUs the fastest that has enough cores, and on one NUMA node where one has enough of
    them. Cores of which only some siblings are allowed come last, with a warning: somebody else may use the rest. The
    core of CPU 0 comes just before those, because it serves most interrupts. HarnessError where there are fewer cores
    than threads.
    """
    cores = topology.cores
    if len(cores) < threads:
        raise HarnessError(
            f"bench.threads is {threads}, but this process may use {len(cores)} physical "
            f"core{'' if len(cores) == 1 else 's'}; set bench.threads to at most {len(cores)} or allow more CPUs"
        )
    warnings = []
    alike = [core for core in cores if core.speed == _speed(cores, threads)]
    if len(alike) < threads:
        alike = sorted(cores, key=lambda core: -core.speed)
        warnings.append("the threads run on cores of different speeds: there are not enough of any one kind")
    near = _on_one_node(alike, threads)
    if len({core.node for core in near[:threads]}) > 1:
        warnings.append("the threads run on several NUMA nodes: none has enough cores")
    chosen = near[:threads]
    warnings += [
        f"CPU {core.cpu} shares its physical core with CPUs outside the cpuset, which others may keep busy"
        for core in chosen
        if not core.whole
    ]
    return ChosenCpus(cpus=sorted(core.cpu for core in chosen), warnings=warnings)


def _fastest(cores: Sequence[Core]) -> list[Core]:
    top = max((core.speed for core in cores), default=0)
    return [core for core in cores if core.speed == top]


def _speed(cores: Sequence[Core], threads: int) -> int:
    """The fastest speed that enough cores have; 0 where none has."""
    counts = Counter(core.speed for core in cores)
    return max((speed for speed, count in counts.items() if count >= threads), default=0)


def _on_one_node(cores: Sequence[Core], threads: int) -> list[Core]:
    """The cores in the order to take them: those of the node with most whole ones first, if it has enough."""
    whole = Counter(core.node for core in cores if core.whole)
    there = Counter(core.node for core in cores)
    best = max(there, key=lambda node: (there[node] >= threads, whole[node] >= threads, whole[node], -node))
    # sorting is stable: within a group cores keep the order that they came in, by speed or by number
    return sorted(cores, key=lambda core: (core.node != best, not core.whole, core.first))


def parse_cpu_list(text: str) -> frozenset[int]:
    """The kernel's list format: "0-2,8" is {0, 1, 2, 8}; empty text is no CPUs."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def read_topology(root: Path = SYSTEM_CPUS, allowed: frozenset[int] | None = None) -> Topology:
    """The picture of this machine, or of a recorded one.

    Where the kernel shows no siblings, as in some sandboxes, each CPU counts as a core.
    """
    siblings, node = {}, {}
    capacity: dict[int, int] = {}
    clock: dict[int, int] = {}
    for folder in root.glob("cpu[0-9]*"):
        cpu = int(folder.name.removeprefix("cpu"))
        if listed := _read(folder / "topology/thread_siblings_list"):
            siblings[cpu] = parse_cpu_list(listed)
        for number in folder.glob("node[0-9]*"):
            node[cpu] = int(number.name.removeprefix("node"))
        for found, name in ((capacity, "cpu_capacity"), (clock, "cpufreq/cpuinfo_max_freq")):
            if value := _read(folder / name):
                found[cpu] = int(value)
    # Newer kernels show a capacity everywhere; on hybrid x86 CPUs with SMT it is the same for both kinds of core.
    speed = capacity if len(set(capacity.values())) > 1 else clock
    mine = frozenset(os.sched_getaffinity(0)) if allowed is None else allowed
    return Topology(allowed=mine, siblings=siblings, node=node, speed=_kinds(speed))


def _kinds(speed: Mapping[int, int]) -> dict[int, int]:
    """Speeds with favoured cores counted among their kind: a tenth more clock is turbo, not another kind of core."""
    kinds: list[int] = []
    for value in sorted(set(speed.values()), reverse=True):
        if not kinds or value < 0.85 * kinds[-1]:
            kinds.append(value)
    return {cpu: next(kind for kind in kinds if value >= 0.85 * kind) for cpu, value in speed.items()}


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def require_affinity(cpus: list[int]) -> None:
    """Raise HarnessError unless this process may run on exactly these CPUs."""
    really = sorted(os.sched_getaffinity(0))
    if really != sorted(cpus):
        raise HarnessError(
            f"the process may run on CPUs {really}, not on the chosen {sorted(cpus)}: figures would be wrong"
        )
