"""What the control groups around this process allow it and have done to it; cgroup v1 and v2.

A limit holds for everything below the group that has it, so the narrowest one counts of this process's own group and of
all groups above it, as far as they can be seen: a container often sees its own group as the root of the hierarchy.
Everything is read below `root`, so that recorded machines can be tested.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

# cgroup v1 says "no limit" with a number near 2^63.
UNLIMITED_BYTES = 1 << 62
ROOT = Path("/")


def limits(root: Path = ROOT) -> dict[str, Any]:
    """`cpuset` as the kernel's list of CPUs, `cpu_quota` in cores, `memory_bytes`; None where there is no limit."""
    # The effective CPUs are those that the groups above leave.
    cpuset = _first(root, "", "cpuset.cpus.effective") or _first(root, "cpuset", "cpuset.effective_cpus")
    quotas = [_quota(text.split()) for text in _all(root, "", "cpu.max")]
    for folder in _folders(root, "cpu"):
        quotas.append(_quota([_text(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]))
    return {
        "cpuset": cpuset,
        "cpu_quota": min((quota for quota in quotas if quota is not None), default=None),
        "memory_bytes": min((most for most, _ in _memory(root)), default=None),
    }


def free_memory(root: Path = ROOT) -> int | None:
    """Bytes that this process may still take before a limit is reached; None where there is no limit.

    Pages of files that nobody has used for a while count as free: the kernel gives them up when memory is needed.
    """
    free = []
    for most, folder in _memory(root):
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
        stat = counts(_text(folder / "memory.stat") or "")
        free.append(max(0, most - used + stat.get("total_inactive_file", stat.get("inactive_file", 0))))
    return min(free, default=None)


def oom_kills(root: Path = ROOT) -> int:
    """How many processes of this group the kernel has killed for lack of memory so far; 0 where it does not say."""
    text = _first(root, "", "memory.events") or _first(root, "memory", "memory.oom_control") or ""
    return counts(text).get("oom_kill", 0)


def throttled(root: Path = ROOT) -> int:
    """How often a CPU quota has stopped this group so far; 0 where the kernel does not say."""
    return counts(_first(root, "", "cpu.stat") or _first(root, "cpu", "cpu.stat") or "").get("nr_throttled", 0)


def counts(text: str) -> dict[str, int]:
    """Lines of "name number", as many of the kernel's files have them."""
    pairs = (line.partition(" ") for line in text.splitlines())
    return {name: int(value) for name, _, value in pairs if value.isdigit()}


def _memory(root: Path) -> Iterator[tuple[int, Path]]:
    """Every limit of memory in bytes, with the folder of its group."""
    for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        for folder in _folders(root, controller):
            most = _number(folder / name)
            if most is not None and most < UNLIMITED_BYTES:
                yield most, folder


def _quota(fields: list[str]) -> float | None:
    quota, period = [*fields, "", ""][:2]
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _first(root: Path, controller: str, name: str) -> str | None:
    """A file of the innermost group that has it."""
    return next(_all(root, controller, name), None)


def _all(root: Path, controller: str, name: str) -> Iterator[str]:
    for folder in _folders(root, controller):
        if (text := _text(folder / name)) is not None:
            yield text


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """This process's group and those above it, innermost first; `controller` is "" for v2, else a v1 hierarchy's."""
    mount = root / "sys/fs/cgroup" / controller
    own = Path()
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        # A group outside of what this process can see is written with dots: /../elsewhere
        if controller in controllers.split(",") and ".." not in Path(path).parts:
            own = Path(path.lstrip("/"))
    for group in (own, *own.parents):
        yield mount / group


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
