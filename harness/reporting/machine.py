"""The machine that was measured on, in words, and how it differs from the one its figures stand in for."""

from collections.abc import Mapping
from typing import Any

from harness.plan.settings import Target

# The vector extension by which the runtime picks its kernels, widest first, and fp32 channels per block with it.
KERNELS = {"avx512f": ("AVX-512", 16), "avx2": ("AVX2", 8), "asimd": ("NEON", 4)}
# What a record says of its machine. Nothing checks it, so any value may be of any type.
Environment = Mapping[str, Any]


def bench_machine(environment: Environment) -> str:
    """Processor, physical cores and vector extension, as on record."""
    facts = [str(environment.get("cpu", "unknown processor"))]
    cores = environment.get("physical_cores")
    if cores:
        facts.append(f"{cores} physical core{'' if cores == 1 else 's'}")
    kernel = _kernel(environment)
    if kernel:
        facts.append(kernel[0])
    if environment.get("virtualised"):
        facts.append("virtualised")
    return f"{facts[0]} ({', '.join(facts[1:])})" if facts[1:] else facts[0]


def target_differences(environment: Environment, target: Target) -> list[str]:
    """What sets the machine apart from the target; empty only where name, cores, kernels and cache all agree."""
    differences = []
    name = str(environment.get("cpu", "unknown"))
    if target.name.split()[-1].lower() not in name.lower():
        differences.append("another processor")
    cores = environment.get("physical_cores")
    if cores != target.physical_cores:
        differences.append(f"{cores or 'unknown'} instead of {target.physical_cores} physical cores")
    kernel = _kernel(environment)
    if kernel is None or kernel[0] != target.isa:
        found = f"{kernel[0]} ({kernel[1]} channels per block)" if kernel else "an unknown vector extension"
        differences.append(f"{found} instead of {target.isa} ({target.vector_channels})")
    l3_mib = _l3_mib(environment)
    if l3_mib != target.l3_mib:
        found = f"{l3_mib:g} MiB" if l3_mib else "unknown"
        differences.append(f"L3 cache {found} instead of {target.l3_mib:g} MiB")
    return differences


def _kernel(environment: Environment) -> tuple[str, int] | None:
    extensions = environment.get("isa")
    known = extensions if isinstance(extensions, list) else []
    return next((kernel for flag, kernel in KERNELS.items() if flag in known), None)


def _l3_mib(environment: Environment) -> float | None:
    caches = environment.get("caches_kib")
    found = caches.get("L3") if isinstance(caches, dict) else None
    return found / 1024 if isinstance(found, int | float) else None
