"""What is on record about the machine, so that rows from different machines are never taken for the same.

Everything is read below `root`, so that recorded machines can be tested. A fact that cannot be read is None or absent:
sandboxes hide much, and the bench has to work in them all the same.
"""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.host import cgroups
from harness.host.cpus import read_topology

# What MLAS chooses its kernels by: AVX-512 machines block channels by 16, AVX2 machines by 8.
ISA_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "sve")


def environment(cpus: Sequence[int], root: Path = Path("/")) -> dict[str, Any]:
    """Facts that stay the same during a run, for measuring on these logical CPUs."""
    system = root / "sys/devices/system/cpu"
    topology = read_topology(system)
    processor = parse_cpuinfo(_text(root / "proc/cpuinfo") or "")
    return {
        **processor,
        "logical_cpus": len(topology.siblings),
        "physical_cores": topology.physical_cores,
        "allowed_cpus": sorted(topology.allowed),
        "measured_cpus": list(cpus),
        "caches_kib": caches(system / f"cpu{cpus[0]}"),
        "governor": _text(system / f"cpu{cpus[0]}/cpufreq/scaling_governor"),
        "turbo": turbo(system),
        "cgroup": cgroups.limits(root),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def parse_cpuinfo(text: str) -> dict[str, Any]:
    """Model, instruction sets of interest, and whether this is a virtual machine, from /proc/cpuinfo (x86 or Arm)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name", "unknown"),
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
        "virtualised": "hypervisor" in flags,
    }


def caches(cpu: Path) -> dict[str, int]:
    """Cache sizes in KiB as one CPU sees them, e.g. {"L1d": 48, "L2": 2048, "L3": 16384}."""
    sizes = {}
    for index in sorted(cpu.glob("cache/index[0-9]*")):
        level, kind, size = (_text(index / name) for name in ("level", "type", "size"))
        if level and size and kind != "Instruction":
            sizes[f"L{level}{'d' if kind == 'Data' else ''}"] = _kib(size)
    return sizes


def turbo(system: Path) -> bool | None:
    """Whether the clock may rise above its base; None where the kernel does not say."""
    no_turbo, boost = _text(system / "intel_pstate/no_turbo"), _text(system / "cpufreq/boost")
    if no_turbo is not None:
        return no_turbo == "0"
    return None if boost is None else boost == "1"


def activity(root: Path = Path("/")) -> dict[str, float]:
    """What changes during a run; what the kernel does not say is 0.

    The load average over a minute; clock ticks in all, and those stolen by the hypervisor; how often a CPU quota has
    stopped this process's group, and heat has slowed the cores; pages swapped; how long (us) tasks have waited for CPU
    and for memory; the mean clock in kHz.
    """
    fields = (_text(root / "proc/stat") or "cpu").splitlines()[0].split()[1:]
    ticks = [int(field) for field in fields]
    swaps = cgroups.counts(_text(root / "proc/vmstat") or "")
    # guest time (from the ninth field on) is contained in user time already
    return {
        "load_average": float((_text(root / "proc/loadavg") or f"{os.getloadavg()[0]}").split()[0]),
        "ticks": float(sum(ticks[:8])),
        "stolen_ticks": float(ticks[7]) if len(ticks) > 7 else 0.0,
        "throttled": float(cgroups.throttled(root)),
        "thermal_throttled": float(_thermal(root / "sys/devices/system/cpu")),
        "swapped_pages": float(swaps.get("pswpin", 0) + swaps.get("pswpout", 0)),
        "cpu_pressure_us": _pressure_us(root / "proc/pressure/cpu"),
        "memory_pressure_us": _pressure_us(root / "proc/pressure/memory"),
        "khz": _mean_khz(root / "sys/devices/system/cpu"),
    }


def disturbances(before: dict[str, float], after: dict[str, float]) -> dict[str, float | None]:
    """What happened between two activities, under the names that records use; None where the kernel does not say."""
    grown = {name: after[name] - before[name] for name in before}
    return {
        "thermal_throttles": grown["thermal_throttled"],
        "swapped_pages": grown["swapped_pages"],
        "cpu_pressure_s": grown["cpu_pressure_us"] / 1e6,
        "memory_pressure_s": grown["memory_pressure_us"] / 1e6,
        "mhz_before": before["khz"] / 1e3 or None,
        "mhz_after": after["khz"] / 1e3 or None,
    }


def _thermal(system: Path) -> int:
    """How often heat has slowed any core."""
    return sum(int(_text(path) or 0) for path in system.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))


def _mean_khz(system: Path) -> float:
    """Mean clock of all CPUs at this moment."""
    clocks = [int(_text(path) or 0) for path in system.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return sum(clocks) / len(clocks) if clocks else 0.0


def _pressure_us(path: Path) -> float:
    """Time in which at least one task waited (PSI, "some ... total=")."""
    for line in (_text(path) or "").splitlines():
        if line.startswith("some"):
            return float(line.rpartition("total=")[2] or 0)
    return 0.0


def steal_pct(before: dict[str, float], after: dict[str, float]) -> float:
    """Share of CPU time between two activities that the hypervisor gave to others, in percent."""
    ticks = after["ticks"] - before["ticks"]
    return 100 * (after["stolen_ticks"] - before["stolen_ticks"]) / ticks if ticks > 0 else 0.0


def _kib(size: str) -> int:
    """A cache size as the kernel writes it: "48K", "32M" or plain bytes."""
    factors = {"K": 1.0, "M": 1024.0, "G": 1024.0**2}
    return int(int(size[:-1]) * factors[size[-1]]) if size[-1] in factors else int(size) // 1024


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def machine_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_bytes() -> int:
    """Bytes of memory that this process may use: the machine's, or less where a control group says so."""
    return min(machine_memory(), cgroups.limits()["memory_bytes"] or machine_memory())
