from collections.abc import Callable
from pathlib import Path

import pytest

from harness.host.cgroups import free_memory, limits, oom_kills, throttled

Tree = Callable[[dict[str, str]], Path]
GIB = 1 << 30
NONE = {"cpuset": None, "cpu_quota": None, "memory_bytes": None}

V1 = {
    "proc/self/cgroup": "5:memory:/box\n4:cpuset:/box\n3:cpu,cpuacct:/box\n0::/\n",
    "sys/fs/cgroup/cpuset/box/cpuset.effective_cpus": "0-1\n",
    "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/box/cpu.stat": "nr_periods 9\nnr_throttled 7\n",
    "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{GIB}\n",
    "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "700000000\n",
    "sys/fs/cgroup/memory/box/memory.stat": "cache 9\ninactive_file 1\ntotal_inactive_file 50000000\n",
    "sys/fs/cgroup/memory/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "20000000000\n",
}
# A container sees its own group as the root, whatever /proc says of it.
V2 = {
    "proc/self/cgroup": "0::/../somewhere\n",
    "sys/fs/cgroup/cpuset.cpus.effective": "2,4\n",
    "sys/fs/cgroup/cpu.max": "50000 100000\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 9\nnr_throttled 7\n",
    "sys/fs/cgroup/memory.max": f"{GIB}\n",
    "sys/fs/cgroup/memory.current": "700000000\n",
    "sys/fs/cgroup/memory.stat": "anon 5\ninactive_file 50000000\n",
    "sys/fs/cgroup/memory.events": "low 0\noom 1\noom_kill 2\n",
}
FREE = GIB - 700_000_000 + 50_000_000
UNLIMITED_V1 = {
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "700000000\n",
}
UNLIMITED_V2 = {"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}
# A container of Docker's on a machine with cgroup v1: its group is named as on the host, and mounted as the root.
DOCKER_V1 = {
    "proc/self/cgroup": "4:memory:/docker/8d\n3:cpuset:/docker/8d\n0::/docker/8d\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "0\n",
    "sys/fs/cgroup/cpuset/cpuset.effective_cpus": "0-1\n",
}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (V1, {"cpuset": "0-1", "cpu_quota": 1.5, "memory_bytes": GIB}),
        (V2, {"cpuset": "2,4", "cpu_quota": 0.5, "memory_bytes": GIB}),
        (DOCKER_V1, {"cpuset": "0-1", "cpu_quota": None, "memory_bytes": GIB}),
        (UNLIMITED_V1, NONE),
        (UNLIMITED_V2, NONE),
        ({"proc/none": ""}, NONE),
    ],
    ids=["v1", "v2", "v1-docker", "v1-unlimited", "v2-unlimited", "hidden"],
)
def test_both_versions_of_cgroups_are_read(tree: Tree, files: dict[str, str], found: dict[str, object]) -> None:
    assert limits(tree(files)) == found


@pytest.mark.parametrize(
    ("files", "kills", "stops"),
    [(V1, 3, 7), (V2, 2, 7), (UNLIMITED_V1, 0, 0), ({"proc/none": ""}, 0, 0)],
    ids=["v1", "v2", "unlimited", "hidden"],
)
def test_what_has_happened_to_the_group_is_counted(tree: Tree, files: dict[str, str], kills: int, stops: int) -> None:
    root = tree(files)
    assert (oom_kills(root), throttled(root)) == (kills, stops)


@pytest.mark.parametrize(
    ("files", "free"),
    [(V1, FREE), (V2, FREE), (DOCKER_V1, GIB), (UNLIMITED_V1, None), (UNLIMITED_V2, None), ({"proc/none": ""}, None)],
    ids=["v1", "v2", "v1-docker", "v1-unlimited", "v2-unlimited", "hidden"],
)
def test_free_is_what_the_limit_leaves_with_files_that_the_kernel_can_drop(
    tree: Tree, files: dict[str, str], free: int | None
) -> None:
    assert free_memory(tree(files)) == free


def test_a_group_that_uses_more_than_its_limit_has_nothing_free(tree: Tree) -> None:
    assert free_memory(tree(V2 | {"sys/fs/cgroup/memory.current": f"{2 * GIB}\n"})) == 0


# --- Nested groups: the narrowest limit counts, wherever it is -------------------------------------------------------


def nested(version: int, levels: list[tuple[str, int, int]]) -> dict[str, str]:
    """Groups in one another, outermost first, each with its limit and use of memory, and its quota (0 is none)."""
    path, files = "", {}
    base = "sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/memory"
    limit, used = (
        ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    for number, (most, now, quota) in enumerate(levels):
        path += f"/level{number}"
        files[f"{base}{path}/{limit}"] = f"{most}\n"
        files[f"{base}{path}/{used}"] = f"{now}\n"
        if version == 2:
            files[f"{base}{path}/cpu.max"] = f"{quota or 'max'} 100000\n"
        else:
            files[f"sys/fs/cgroup/cpu{path}/cpu.cfs_quota_us"] = f"{quota or -1}\n"
            files[f"sys/fs/cgroup/cpu{path}/cpu.cfs_period_us"] = "100000\n"
    files["proc/self/cgroup"] = f"0::{path}\n" if version == 2 else f"2:memory:{path}\n1:cpu,cpuacct:{path}\n"
    return files


NO_LIMIT = {1: "9223372036854771712", 2: "max"}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_limit_holds_for_all_groups_below(tree: Tree, version: int, place: int) -> None:
    levels = [(NO_LIMIT[version], 900, 0)] * 3
    levels[place] = ("1000", 900, 50_000)
    root = tree(nested(version, levels))
    assert limits(root) == {"cpuset": None, "cpu_quota": 0.5, "memory_bytes": 1000}
    assert free_memory(root) == 100


@pytest.mark.parametrize("version", [1, 2])
def test_of_several_limits_the_narrowest_counts(tree: Tree, version: int) -> None:
    root = tree(nested(version, [("4000", 3900, 300_000), ("1000", 500, 200_000), ("2000", 500, 400_000)]))
    assert limits(root) == {"cpuset": None, "cpu_quota": 2, "memory_bytes": 1000}
    # the outermost group has a wider limit and less of it left: its other groups use it as well
    assert free_memory(root) == 100


def test_this_machine_can_be_read() -> None:
    assert limits().keys() == NONE.keys()
    assert oom_kills() >= 0 and throttled() >= 0
    free = free_memory()
    assert free is None or free > 0
