import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.host import enclosure
from harness.host.enclosure import check, facts, mounted, writable_elsewhere
from harness.host.openings import openings

Tree = Callable[[dict[str, str]], Path]
MEMORY = 4 << 30
CPUS = sorted(os.sched_getaffinity(0))
STATUS = """\
Name:\tpython
Uid:\t1000\t1000\t1000\t1000
CapInh:\t0
CapPrm:\t0
CapEff:\t0
CapBnd:\t0
CapAmb:\t0
NoNewPrivs:\t1
"""
NETWORK = "Inter-|   Receive |  Transmit\n face |bytes    packets\n    lo:       0       0\n"
# As engine 20.10 makes them, the cgroup lines apart.
MOUNTS = """\
118 71 0:49 / / ro,relatime master:3 - overlay overlay rw,lowerdir=/a:/b,upperdir=/c
119 118 0:52 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
120 118 0:53 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
121 120 0:54 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5
122 118 0:55 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
133 120 0:51 / /dev/mqueue rw,nosuid,nodev,noexec,relatime - mqueue mqueue rw
134 120 0:57 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
135 118 0:58 / /tmp rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw
138 118 254:0 /containers/8d/hosts /etc/hosts ro,relatime - ext4 /dev/vda rw,discard
"""
V1 = {
    "proc/self/cgroup": "4:memory:/docker/8d\n3:cpuset:/docker/8d\n0::/docker/8d\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{MEMORY}\n",
    "sys/fs/cgroup/cpuset/cpuset.effective_cpus": "0-1\n",
}
V2 = {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/memory.max": f"{MEMORY}\n",
    "sys/fs/cgroup/cpuset.cpus.effective": "0-1\n",
}
V1_MOUNTS = """\
123 122 0:56 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
127 123 0:32 /docker/8d /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime - cgroup cgroup rw,memory
"""
V2_MOUNTS = "123 122 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n"
VERSIONS = {"v1": (V1, V1_MOUNTS), "v2": (V2, V2_MOUNTS)}


ASKED = {"cpus": CPUS, "memory_bytes": MEMORY}
INPUTS = [Path("/artifacts/quick/testset.npz"), Path("/artifacts/quick/teacher/model.onnx")]
OUTPUTS = [Path("/results"), Path("/artifacts/quick/bench")]


def binds(models: str = "ro") -> str:
    """The mounts of a job, as its container has them."""
    outputs = [Path("/results/quick"), OUTPUTS[1]]
    lines = [f"200 118 254:0 {path} {path} rw,relatime - ext4 /dev/vda rw" for path in outputs]
    lines += [f"201 118 254:0 {path} {path} {models},relatime - ext4 /dev/vda rw" for path in INPUTS]
    return "\n".join(lines) + "\n"


def found_in(root: Path) -> dict[str, Any]:
    return facts(ASKED, INPUTS, OUTPUTS, root)


def container(tree: Tree, version: str = "v1", **changed: str) -> Path:
    cgroup, mounts = VERSIONS[version]
    files = {"proc/self/status": STATUS, "proc/net/dev": NETWORK, "proc/self/mountinfo": MOUNTS + mounts + binds()}
    return tree({**files, **cgroup, **{name.replace("__", "/"): text for name, text in changed.items()}})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_closed_container_is_closed_under_both_cgroup_versions(tree: Tree, version: str) -> None:
    found = check(ASKED, INPUTS, OUTPUTS, container(tree, version))
    assert openings(found) == []
    assert (found["memory_bytes"], found["cpus"]) == (MEMORY, CPUS)


def test_the_machine_that_runs_this_is_no_closed_container() -> None:
    with pytest.raises(HarnessError, match=r"the container is not closed as it should be: .*RUNNER=docker"):
        check(ASKED, INPUTS, OUTPUTS)


@pytest.mark.parametrize(
    ("status", "fact", "value"),
    [
        (STATUS.replace("1000\t1000\t1000\t1000", "1000\t0\t1000\t1000"), "root", True),
        (STATUS.replace("CapBnd:\t0", "CapBnd:\t2000"), "capabilities", ["net_raw"]),
        (STATUS.replace("CapEff:\t0", "CapEff:\t80000000000"), "capabilities", ["43"]),
        (STATUS.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0"), "no_new_privileges", False),
        (STATUS.replace("NoNewPrivs:\t1\n", ""), "no_new_privileges", False),
    ],
)
def test_rights_that_a_closed_container_lacks(tree: Tree, status: str, fact: str, value: object) -> None:
    found = found_in(container(tree, proc__self__status=status))
    assert found[fact] == value and len(openings(found)) == 1


def test_a_network_interface_is_named(tree: Tree) -> None:
    root = container(tree, proc__net__dev=NETWORK + "  eth0:     100       1\n")
    assert found_in(root)["interfaces"] == ["eth0"]


@pytest.mark.parametrize(
    ("version", "name", "text", "expected"),
    [
        ("v1", "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712", None),
        ("v2", "sys/fs/cgroup/memory.max", "max", None),
        ("v2", "sys/fs/cgroup/memory.max", "1073741824", 1 << 30),
    ],
)
def test_another_memory_limit_is_noticed(tree: Tree, version: str, name: str, text: str, expected: int | None) -> None:
    root = container(tree, version)
    (root / name).write_text(text)
    found = found_in(root)
    assert found["memory_bytes"] == expected and len(openings(found)) == 1


def test_other_cpus_are_noticed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.host.enclosure.os.sched_getaffinity", lambda _: {0, 1, 2, 3, 99})
    assert openings(found_in(container(tree))) == [
        f"it may use CPUs 0,1,2,3,99, not the chosen {','.join(map(str, CPUS))}"
    ]


def test_a_root_file_system_that_can_be_written_to_is_noticed(tree: Tree) -> None:
    mounts = MOUNTS.replace("/ / ro,", "/ / rw,") + binds()
    found = found_in(container(tree, proc__self__mountinfo=mounts))
    assert found["read_only_root"] is False


def test_models_that_can_be_written_to_are_named(tree: Tree) -> None:
    found = found_in(container(tree, proc__self__mountinfo=MOUNTS + binds(models="rw")))
    assert found["writable_models"] == sorted(map(str, INPUTS))


def test_a_writable_folder_beside_the_outputs_is_named(tree: Tree) -> None:
    mounts = MOUNTS + binds() + r"300 118 254:0 /home /home/a\040b rw,relatime - ext4 /dev/vda rw" + "\n"
    assert found_in(container(tree, proc__self__mountinfo=mounts))["writable_elsewhere"] == ["/home/a b"]


@pytest.mark.parametrize("place", ["/var/run/docker.sock", "/somewhere/docker.sock"])
def test_the_socket_of_an_engine_is_found_wherever_it_is_mounted(tree: Tree, place: str) -> None:
    mounts = MOUNTS + binds() + f"300 118 0:24 /docker.sock {place} ro,relatime - tmpfs tmpfs rw\n"
    assert found_in(container(tree, proc__self__mountinfo=mounts))["engine_sockets"] == [place]


def test_the_socket_of_an_engine_is_found_in_its_usual_place(tree: Tree) -> None:
    root = container(tree, run__containerd__containerd_sock="")
    (root / "run/containerd/containerd_sock").rename(root / "run/containerd/containerd.sock")
    assert found_in(root)["engine_sockets"] == ["/run/containerd/containerd.sock"]


def test_the_innermost_mount_decides(tree: Tree) -> None:
    root = tree(
        {
            "proc/self/mountinfo": "1 0 0:1 / / ro - overlay o rw\n2 1 8:1 / /a rw - ext4 d rw\n"
            "3 2 8:1 /b /a/b ro - ext4 d rw\n"
        }
    )
    mounts = list(mounted(root))
    answers = [enclosure.is_writable(Path(place), mounts) for place in ("/x", "/a/x", "/a/b/x", "/ab")]
    assert answers == [False, True, False, False]
    assert writable_elsewhere(mounts, [Path("/a")]) == []
    assert writable_elsewhere(mounts, [Path("/a/b")]) == ["/a"]


def test_a_fact_that_cannot_be_read_is_an_error_rather_than_a_pass(tree: Tree) -> None:
    root = container(tree)
    (root / "proc/net/dev").unlink()
    with pytest.raises(HarnessError, match=r"proc/net/dev: cannot be read .* not known what the container"):
        check(ASKED, INPUTS, OUTPUTS, root)
