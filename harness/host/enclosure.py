"""What this process's container is closed to, seen from the inside; every fact is the kernel's, read below `root`."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.host import cgroups
from harness.host.openings import openings

# Not on any disk, and gone with the container.
VOLATILE = {"tmpfs", "proc", "sysfs", "devpts", "devtmpfs", "mqueue", "cgroup", "cgroup2", "ramfs", "securityfs"}
SOCKETS = ("docker.sock", "containerd.sock", "podman.sock", "crio.sock", "dockershim.sock")
# The kernel's names by bit, capability.h; newer ones go by their number.
CAPABILITIES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service "
    "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin "
    "sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override "
    "mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)


@dataclass(frozen=True)
class Mounted:
    """One line of /proc/self/mountinfo."""

    place: Path
    writable: bool
    kind: str


REMEDY = "Start it through `make bench RUNNER=docker`, or see the engine's own configuration"


def check(
    asked: Mapping[str, Any],
    inputs: Sequence[Path],
    outputs: Sequence[Path],
    root: Path = Path("/"),
    remedy: str = REMEDY,
) -> dict[str, Any]:
    """The facts about this container, for the record.

    Raises HarnessError where it is not closed as it was asked to be: nothing is measured in such a container. The
    `remedy` is its last sentence.
    """
    found = facts(asked, inputs, outputs, root)
    if wrong := openings(found):
        raise HarnessError(f"the container is not closed as it should be: {'; '.join(wrong)}. {remedy}")
    return found


def facts(
    asked: Mapping[str, Any], inputs: Sequence[Path], outputs: Sequence[Path], root: Path = Path("/")
) -> dict[str, Any]:
    """What the container is closed to, and what it was asked to be (`cpus` and `memory_bytes`).

    It reads its `inputs`, which it must not be able to write, and writes to its `outputs` and nowhere else.
    """
    status = _status(root)
    mounts = list(mounted(root))
    return {
        "asked": dict(asked),
        "cpus": sorted(os.sched_getaffinity(0)),
        "memory_bytes": cgroups.limits(root)["memory_bytes"],
        "interfaces": interfaces(root),
        "read_only_root": not is_writable(Path("/"), mounts),
        "root": "0" in status.get("Uid", "0").split(),
        "capabilities": capabilities(status),
        "no_new_privileges": status.get("NoNewPrivs") == "1",
        "engine_sockets": engine_sockets(root, mounts),
        "writable_models": sorted({str(path) for path in inputs if is_writable(path, mounts)}),
        "writable_elsewhere": writable_elsewhere(mounts, outputs),
    }


def mounted(root: Path) -> Iterator[Mounted]:
    """All mounts, in their order: a later one covers an earlier one at the same place."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()[0]
        place = fields[4].encode().decode("unicode_escape")  # blanks are written as \040
        # both the mount and what is mounted can be read-only
        writable = "ro" not in fields[5].split(",") and "ro" not in after.split()[2].split(",")
        yield Mounted(Path(place), writable, kind)


def is_writable(path: Path, mounts: Iterable[Mounted]) -> bool:
    """Whether a path lies on a mount that can be written to."""
    over = None
    for mount in mounts:
        if path.is_relative_to(mount.place) and (over is None or mount.place.is_relative_to(over.place)):
            over = mount
    return over is None or over.writable


def writable_elsewhere(mounts: Iterable[Mounted], outputs: Iterable[Path]) -> list[str]:
    """Where something could be written that outlives the container, beside the outputs."""
    allowed = list(outputs)
    return sorted(
        str(mount.place)
        for mount in mounts
        if mount.writable
        and mount.kind not in VOLATILE
        and not any(mount.place.is_relative_to(place) for place in allowed)
    )


def interfaces(root: Path) -> list[str]:
    """Network interfaces other than the loopback."""
    lines = _text(root / "proc/net/dev").splitlines()[2:]
    return sorted(name for line in lines if (name := line.partition(":")[0].strip()) != "lo")


def capabilities(status: dict[str, str]) -> list[str]:
    """Capabilities that the process has or could get."""
    bits = 0
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        bits |= int(status.get(name, "0"), 16)
    names = dict(enumerate(CAPABILITIES.split()))
    return [names.get(bit, str(bit)) for bit in range(bits.bit_length()) if bits >> bit & 1]


def engine_sockets(root: Path, mounts: Iterable[Mounted]) -> list[str]:
    """Sockets through which a container could command its own engine."""
    places = [mount.place for mount in mounts if mount.place.name in SOCKETS]
    for folder in ("run", "var/run", "run/containerd", "run/podman", "run/crio"):
        places += [Path("/") / folder / name for name in SOCKETS if (root / folder / name).exists()]
    return sorted({str(place) for place in places})


def _status(root: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in _text(root / "proc/self/status").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise HarnessError(
            f"{path}: cannot be read ({error.strerror}), so it is not known what the container is closed to"
        ) from error
