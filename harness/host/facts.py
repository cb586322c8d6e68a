"""What is on record about the machine, so that rows from different machines are never taken for the same.

Everything is read below `root`, so that recorded machines can be tested. A fact that cannot be read is None or absent:
sandboxes hide much, and a bench that stopped for that would be of no use.
"""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.host.cpus import read_topology

# What MLAS chooses its kernels by: AVX-512 machines block channels by 16, AVX2 machines by 8.
ISA_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "sve")
# cgroup v1 says "no limit" with a number near 2^63.
UNLIMITED_BYTES = 1 << 62


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
        "cgroup": cgroup_limits(root),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def parse_cpuinfo(text: str) -> dict[str, Any]:
    """Model, instruction sets of interest and whether a hypervisor is below, from /proc/cpuinfo (x86 or Arm)."""
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


def cgroup_limits(root: Path) -> dict[str, Any]:
    """This process's limits: `cpus` as a list, `cpu_quota` in cores, `memory_bytes`; None is no limit."""
    cpuset = _cgroup_file(root, "cpuset", "cpuset.cpus.effective") or _cgroup_file(
        root, "cpuset", "cpuset.effective_cpus"
    )
    v2_cpu = _cgroup_file(root, "", "cpu.max")
    if v2_cpu is not None:
        quota, period = v2_cpu.split()[0], v2_cpu.split()[-1]
    else:
        quota = _cgroup_file(root, "cpu", "cpu.cfs_quota_us") or "-1"
        period = _cgroup_file(root, "cpu", "cpu.cfs_period_us") or "100000"
    memory = _cgroup_file(root, "", "memory.max") or _cgroup_file(root, "memory", "memory.limit_in_bytes") or "max"
    return {
        "cpuset": cpuset,
        "cpu_quota": None if quota in ("max", "-1") else int(quota) / int(period),
        "memory_bytes": None if memory == "max" or int(memory) >= UNLIMITED_BYTES else int(memory),
    }


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes of this cgroup the kernel has killed for memory so far; 0 where it does not say."""
    text = _cgroup_file(root, "", "memory.events") or _cgroup_file(root, "memory", "memory.oom_control") or ""
    return _counts(text).get("oom_kill", 0)


def activity(root: Path = Path("/")) -> dict[str, float]:
    """What changes during a run: load average over a minute, clock ticks in all and stolen by the hypervisor, how often
    a CPU quota has stopped the group and heat has slowed the cores, pages swapped, and how long (us) tasks have waited
    for CPU and memory. What the kernel does not say is 0."""
    fields = (_text(root / "proc/stat") or "cpu").splitlines()[0].split()[1:]
    ticks = [int(field) for field in fields]
    swaps = _counts(_text(root / "proc/vmstat") or "")
    # guest time (from the ninth field on) is contained in user time already
    return {
        "load_average": float((_text(root / "proc/loadavg") or f"{os.getloadavg()[0]}").split()[0]),
        "ticks": float(sum(ticks[:8])),
        "stolen_ticks": float(ticks[7]) if len(ticks) > 7 else 0.0,
        "throttled": float(_throttled(root)),
        "thermal_throttled": float(_thermal(root / "sys/devices/system/cpu")),
        "swapped_pages": float(swaps.get("pswpin", 0) + swaps.get("pswpout", 0)),
        "cpu_pressure_us": _pressure_us(root / "proc/pressure/cpu"),
        "memory_pressure_us": _pressure_us(root / "proc/pressure/memory"),
        "khz": _mean_khz(root / "sys/devices/system/cpu"),
    }


def disturbances(before: dict[str, float], after: dict[str, float]) -> dict[str, float | None]:
    """What went on between two activities, in words of a record; None where the kernel does not say."""
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


def _counts(text: str) -> dict[str, int]:
    """Lines of "name number"."""
    return {
        name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines()) if value.isdigit()
    }


def _throttled(root: Path) -> int:
    text = _cgroup_file(root, "", "cpu.stat") or _cgroup_file(root, "cpu", "cpu.stat") or ""
    return _counts(text).get("nr_throttled", 0)


def steal_pct(before: dict[str, float], after: dict[str, float]) -> float:
    """Share of CPU time between two activities that the hypervisor gave to others, in percent."""
    ticks = after["ticks"] - before["ticks"]
    return 100 * (after["stolen_ticks"] - before["stolen_ticks"]) / ticks if ticks > 0 else 0.0


def _cgroup_file(root: Path, controller: str, name: str) -> str | None:
    """A cgroup file, v1 (a folder per controller) or v2 (controller ""), of this process's group or of the root."""
    own = ""
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = path.lstrip("/")
    for mount in dict.fromkeys([root / "sys/fs/cgroup" / controller, root / "sys/fs/cgroup"]):
        for folder in dict.fromkeys([mount / own, mount]):
            text = _text(folder / name)
            if text is not None:
                return text
    return None


def _kib(size: str) -> int:
    """A cache size as the kernel writes it: "48K", "32M" or plain bytes."""
    factors = {"K": 1.0, "M": 1024.0, "G": 1024.0**2}
    return int(int(size[:-1]) * factors[size[-1]]) if size[-1] in factors else int(size) // 1024


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
