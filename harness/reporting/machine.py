"""The machine that was measured on, in words, and how it differs from the one its figures stand in for."""

from collections.abc import Mapping
from typing import Any

from harness.plan.cpu_table import Cpu, Vectors, find_cpu, vectors
from harness.store.records import AccuracyRecord, LatencyRecord

# What a record says of its machine. Nothing checks it, so any value may be of any type.
Environment = Mapping[str, Any]


def bench_machine(environment: Environment) -> str:
    """Processor, physical cores and vector extension, as on record."""
    facts = [str(environment.get("cpu", "unknown processor"))]
    cores = environment.get("physical_cores")
    if cores:
        facts.append(f"{cores} physical core{'' if cores == 1 else 's'}")
    kind = vectors_of(environment)
    if kind:
        facts.append(kind.words)
    if environment.get("virtualised"):
        facts.append("virtualised")
    return f"{facts[0]} ({', '.join(facts[1:])})" if facts[1:] else facts[0]


def shown_cpu(record: LatencyRecord | AccuracyRecord) -> Cpu | None:
    """The CPU whose instruction set a measurement was made under; None where it was the machine's own."""
    isa = record.spec.get("isa", "host")
    return None if isa == "host" else find_cpu(str(isa))


def target_differences(environment: Environment, target: Cpu, shown: bool = False) -> list[str]:
    """What sets the machine apart from the target; empty only where name, cores, kernels and cache all agree.

    Where the target's instruction set was `shown`, kernels do agree.
    """
    differences = []
    name = str(environment.get("cpu", "unknown")).lower()
    # "Intel(R) Xeon(R) CPU E5-2699 v4 @ 2.20GHz" is an Intel Xeon E5-2699 v4
    if not all(word.lower() in name for word in target.title.split() if any(map(str.isdigit, word))):
        differences.append("another processor")
    cores = environment.get("physical_cores")
    if cores != target.physical_cores:
        differences.append(f"{cores or 'unknown'} instead of {target.physical_cores} physical cores")
    kind = vectors_of(environment)
    if not shown and kind != target.vectors:
        found = f"{kind.words} ({kind.channels} channels per block)" if kind else "an unknown vector extension"
        differences.append(f"{found} instead of {target.vectors.words} ({target.vectors.channels})")
    l3_mib = l3_mib_of(environment)
    if l3_mib != target.l3_mib:
        found = f"{l3_mib:g} MiB" if l3_mib else "unknown"
        differences.append(f"L3 cache {found} instead of {target.l3_mib:g} MiB")
    return differences


def vectors_of(environment: Environment) -> Vectors | None:
    """The machine's own vector instructions; None where they are of no kind that is known here."""
    extensions = environment.get("isa")
    return vectors(extensions) if isinstance(extensions, list) else None


def l3_mib_of(environment: Environment) -> float | None:
    """The size of its L3 cache in MiB; None where that is not on record."""
    caches = environment.get("caches_kib")
    found = caches.get("L3") if isinstance(caches, dict) else None
    return found / 1024 if isinstance(found, int | float) else None
