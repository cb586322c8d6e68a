"""What is on record about the machine, so that rows from different machines are never taken for the same.

Everything is read below `root`, so that recorded machines can be tested. A fact that cannot be read is None or absent:
sandboxes hide much, and a bench that stopped for that would be of no use.
"""

import os
import platform
from pathlib import Path
from typing import Any

from harness.benchmarking.host import read_topology

# What MLAS chooses its kernels by: AVX-512 machines block channels by 16, AVX2 machines by 8.
ISA_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "sve")
# cgroup v1 says "no limit" with a number near 2^63.
UNLIMITED_BYTES = 1 << 62


def environment(cpus: list[int], root: Path = Path("/")) -> dict[str, Any]:
    """Facts that stay the same during a run, for measuring on these logical CPUs."""
    system = root / "sys/devices/system/cpu"
    topology = read_topology(system)
    processor = parse_cpuinfo(_text(root / "proc/cpuinfo") or "")
    return {
        **processor,
        "logical_cpus": len(topology.siblings),
        "physical_cores": topology.physical_cores,
        "allowed_cpus": sorted(topology.allowed),
        "measured_cpus": cpus,
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
    counts = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
    return int(counts.get("oom_kill", 0))


def activity(root: Path = Path("/")) -> dict[str, float]:
    """What changes during a run: load average over a minute, clock ticks in all and stolen by the hypervisor, and how
    often a CPU quota has stopped the group."""
    fields = (_text(root / "proc/stat") or "cpu").splitlines()[0].split()[1:]
    ticks = [int(field) for field in fields]
    # guest time (from the ninth field on) is contained in user time already
    return {
        "load_average": float((_text(root / "proc/loadavg") or f"{os.getloadavg()[0]}").split()[0]),
        "ticks": float(sum(ticks[:8])),
        "stolen_ticks": float(ticks[7]) if len(ticks) > 7 else 0.0,
        "throttled": float(_throttled(root)),
    }


def _throttled(root: Path) -> int:
    text = _cgroup_file(root, "", "cpu.stat") or _cgroup_file(root, "cpu", "cpu.stat") or ""
    counts = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
    return int(counts.get("nr_throttled", 0))


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
