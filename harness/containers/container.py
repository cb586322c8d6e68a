"""One hardened container from its creation to its removal; nothing is left of it but what it wrote, and its log.

Where this process ends by itself or is interrupted, it removes the container in a `finally`. Where it is killed, a
small process that waits for its end removes the container (reaper.py); where that is killed as well, the next run does.
"""

import contextlib
import secrets
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError
from docker.models.containers import Container
from docker.types import DeviceRequest, Mount

from harness.containers import ownership as owner
from harness.containers.docker_engine import ContainerError, refusal, worded
from harness.errors import HarnessError

ROOT = Path(__file__).parents[2]
RUN, OWNER, ROLE = "compression-harness.run", "compression-harness.owner", "compression-harness.role"
# Exit codes that a shell gives a process ended by a signal: 128 and the signal's number.
SIGKILLED = 128 + signal.SIGKILL
# An engine keeps a container's output as well, for `docker logs` while it runs.
ENGINE_LOG = {"type": "json-file", "config": {"max-size": "16m", "max-file": "2"}}
FULL = "No space left on device"
MEBIBYTE = 2**20


@dataclass(frozen=True)
class ContainerSpec:
    """What to run. Paths are the same inside as outside, so that records and messages name them correctly in both.

    `cpus` are the logical CPUs that it may use, None for all; `gpus` are NVIDIA GPUs by index, `("all",)`, or none.
    `hint` tells the user what to do about too little memory.
    """

    role: str
    image: str
    command: Sequence[str]
    readable: Sequence[Path]
    writable: Sequence[Path]
    log: Path
    memory_bytes: int
    hint: str
    cpus: Sequence[int] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    shm_bytes: int = 64 * MEBIBYTE
    pids: int = 512
    gpus: Sequence[str] = ()
    entrypoint: Sequence[str] | None = None


def run(client: docker.DockerClient, spec: ContainerSpec) -> int:
    """Run it to its end and return its exit code; its output is shown, and kept in `spec.log`.

    Ctrl-C and SIGTERM are passed on to it as Ctrl-C, and the second one kills it. Raises ContainerError where it could
    not be run, was killed from outside, or ran out of memory or disk.
    """
    sweep(client)
    run_id = secrets.token_hex(8)
    spec.log.parent.mkdir(parents=True, exist_ok=True)
    with owner.handed_over(spec.writable) as user, _reaper(run_id, user.restore), _interruptible():
        owner.require_readable(spec.readable, user)
        try:
            with worded():
                container = client.containers.create(**options(spec, run_id, user.name))
            return _follow(container, spec)
        finally:
            remove(client, f"{RUN}={run_id}")


def options(spec: ContainerSpec, run_id: str, user: str) -> dict[str, Any]:
    """The arguments of the Docker engine's `create`."""
    mounts = [Mount(str(path), str(path), type="bind", read_only=True) for path in spec.readable]
    mounts += [Mount(str(path), str(path), type="bind") for path in spec.writable]
    gpus = None
    if spec.gpus:
        named: dict[str, Any] = {"count": -1} if tuple(spec.gpus) == ("all",) else {"device_ids": list(spec.gpus)}
        gpus = [DeviceRequest(capabilities=[["gpu"]], **named)]
    # An engine whose default runtime is NVIDIA's gives all GPUs to every container that does not refuse them.
    refused = {} if spec.gpus else {"NVIDIA_VISIBLE_DEVICES": "void"}
    return {
        "image": spec.image,
        "command": list(spec.command),
        "entrypoint": list(spec.entrypoint) if spec.entrypoint else None,
        "labels": {RUN: run_id, OWNER: owner.this_process(), ROLE: spec.role},
        "user": user,
        "environment": {**refused, **spec.environment},
        "mounts": mounts,
        "network_mode": "none",
        "read_only": True,
        "tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": spec.pids,
        "init": True,
        # Swapping would distort measurements; with equal limits there is none.
        "mem_limit": spec.memory_bytes,
        "memswap_limit": spec.memory_bytes,
        "shm_size": spec.shm_bytes,
        "cpuset_cpus": None if spec.cpus is None else ",".join(map(str, sorted(spec.cpus))),
        "device_requests": gpus,
        "log_config": ENGINE_LOG,
        "tty": sys.stdout.isatty(),
        "stdin_open": False,
    }


def remove(client: docker.DockerClient, label: str) -> None:
    """Remove all containers with a label, in whatever state. One that is removed by somebody else meanwhile is fine."""
    with worded():
        for container in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
            _remove(container)


def sweep(client: docker.DockerClient) -> list[str]:
    """Remove the containers of runs whose process is gone, and return their names."""
    swept = []
    with worded():
        for container in client.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True):
            if owner.is_gone(container.labels[OWNER]):
                _remove(container)
                swept.append(str(container.name))
    return swept


def _remove(container: Container) -> None:
    try:
        container.remove(force=True, v=True)
    except APIError as error:
        # gone, or being removed already
        if error.status_code not in (404, 409):
            raise


# --- While it runs ---------------------------------------------------------------------------------------------------


def _follow(container: Container, spec: ContainerSpec) -> int:
    """Start it, show and keep what it prints, pass interrupts on, and return its exit code."""
    with spec.log.open("wb") as log, worded():
        tail: deque[bytes] = deque(maxlen=50)
        stream = container.attach(stdout=True, stderr=True, stream=True, logs=True, demux=True)
        container.start()
        printing = threading.Thread(target=_print, args=(stream, log, tail), daemon=True)
        printing.start()
        interrupts = 0
        while printing.is_alive():
            try:
                printing.join()
            except KeyboardInterrupt:
                interrupts += 1
                with contextlib.suppress(APIError):  # it may have just ended
                    container.kill("SIGINT" if interrupts == 1 else "SIGKILL")
        code = int(container.wait()["StatusCode"])
        container.reload()
    return _judged(code, container.attrs["State"], spec, b"".join(tail).decode(errors="replace"), interrupts)


def _print(stream: Iterator[tuple[bytes | None, bytes | None]], log: Any, tail: deque[bytes]) -> None:
    """Copy both streams to those of this process, and to the log."""
    with contextlib.suppress(OSError, docker.errors.DockerException):
        for out, err in stream:
            for chunk, terminal in ((out, sys.stdout), (err, sys.stderr)):
                if chunk:
                    log.write(chunk)
                    log.flush()
                    tail.append(chunk)
                    terminal.write(chunk.decode(errors="replace"))
                    terminal.flush()


def _judged(code: int, state: Mapping[str, Any], spec: ContainerSpec, said: str, interrupts: int) -> int:
    """The exit code, or the ContainerError that it stands for."""
    if interrupts:
        return 130
    if state.get("Error"):
        raise refusal(str(state["Error"]))
    if code == SIGKILLED and state.get("OOMKilled"):
        raise ContainerError(
            "out-of-memory",
            f"the {spec.role} container needed more than its {spec.memory_bytes / 2**30:.1f} GiB; "
            f"{spec.hint} (log: {spec.log})",
        )
    if code == SIGKILLED:
        raise ContainerError(
            "killed",
            f"the {spec.role} container was killed from outside; what it has finished is kept, "
            f"and the same command resumes from there (log: {spec.log})",
        )
    if code and FULL in said:
        places = ", ".join(map(str, spec.writable))
        raise ContainerError(
            "full-disk", f"no space left in one of {places}; free some, then repeat the command (log: {spec.log})"
        )
    return code


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Have SIGTERM raise KeyboardInterrupt as Ctrl-C does: the container must not outlive this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _reaper(run_id: str, restore: Sequence[owner.Folder]) -> Iterator[None]:
    """Keep a process that removes the run's containers and gives the folders back, should this one be killed."""
    folders = [f"{folder.uid}:{folder.gid}:{folder.path}" for folder in restore]
    try:
        # A session of its own, so that Ctrl-C does not reach it.
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.containers.reaper", f"{RUN}={run_id}", *folders],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise HarnessError(f"no process could be started beside the container ({error.strerror})") from error
    assert process.stdin
    try:
        yield
    finally:
        # Without this word, the end of its input tells it to clean up.
        with contextlib.suppress(OSError):
            process.stdin.write(b"done\n")
            process.stdin.close()
        process.wait()
