"""Which CPUs to measure on: whole physical cores, one thread on each, their SMT siblings left idle.

The choice is a pure function of a picture of the machine, so that it can be tested on machines one does not have.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError

SYSTEM_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Topology:
    """A picture of the machine. `allowed`: logical CPUs that this process may use, which is less than there are
    where a cpuset says so. `siblings`: for every online logical CPU, all logical CPUs of its physical core."""

    allowed: frozenset[int]
    siblings: Mapping[int, frozenset[int]]

    @property
    def physical_cores(self) -> int:
        """Physical cores that are online, allowed or not."""
        return len(set(self.siblings.values()))


@dataclass(frozen=True)
class Choice:
    """The logical CPUs to pin to, one per physical core, and what is not as it should be about them."""

    cpus: list[int]
    warnings: list[str]


def choose_cpus(topology: Topology, threads: int) -> Choice:
    """One logical CPU on each of `threads` physical cores.

    Cores come in the kernel's order (on hybrid CPUs the fast ones are first) with the core of CPU 0 last, because it
    serves most interrupts. A core of which only some siblings are allowed is taken last and with a warning: somebody
    else may use the rest of it. HarnessError where there are fewer cores than threads.
    """
    cores = sorted({topology.siblings.get(cpu, frozenset({cpu})) for cpu in topology.allowed}, key=min)
    if len(cores) < threads:
        raise HarnessError(
            f"bench.threads is {threads}, but this process may use {len(cores)} physical "
            f"core{'' if len(cores) == 1 else 's'}; set bench.threads to at most {len(cores)} or allow more CPUs"
        )
    cores.sort(key=lambda core: (not core <= topology.allowed, 0 in core))
    chosen = [min(core & topology.allowed) for core in cores[:threads]]
    shared = [cpu for cpu, core in zip(chosen, cores, strict=False) if not core <= topology.allowed]
    warnings = [
        f"CPU {cpu} shares its physical core with CPUs outside the cpuset, which others may keep busy" for cpu in shared
    ]
    return Choice(cpus=sorted(chosen), warnings=warnings)


def parse_cpu_list(text: str) -> frozenset[int]:
    """The kernel's list format: "0-2,8" is {0, 1, 2, 8}; empty text is no CPUs."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def read_topology(root: Path = SYSTEM_CPUS) -> Topology:
    """The picture of this machine. Where the kernel shows no siblings (some sandboxes), each CPU counts as a core."""
    siblings = {}
    for path in root.glob("cpu[0-9]*/topology/thread_siblings_list"):
        siblings[int(path.parts[-3].removeprefix("cpu"))] = parse_cpu_list(path.read_text())
    return Topology(allowed=frozenset(os.sched_getaffinity(0)), siblings=siblings)


def require_affinity(cpus: list[int]) -> None:
    """Asserted from inside the process that measures: it may run on exactly these CPUs."""
    really = sorted(os.sched_getaffinity(0))
    if really != sorted(cpus):
        raise HarnessError(
            f"the process may run on CPUs {really}, not on the chosen {sorted(cpus)}: figures would be wrong"
        )
