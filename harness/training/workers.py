"""The executor of one host: a worker process on each of its devices.

The process that starts the workers holds the profile's lock and every worker inherits it, so it is released when the
last one has ended. Workers write the same records as a single process would, so any later call finds what they made, on
whatever devices it runs.
"""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch

from harness.plan.planning import Cell, Plan
from harness.store.lock import alone
from harness.store.paths import Paths
from harness.training.allocation import spread
from harness.training.dispatch import LostWorkerError
from harness.training.worker import Order, python_path


class Worker:
    """A worker process."""

    def __init__(self, device: str, order: Order, lock: int, free: list[str]) -> None:
        self.place = device
        # where its device goes back to when it has ended
        self._free = free
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.training.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(device, order.threads),
            pass_fds=[lock],
        )
        assert self.process.stdin
        # If it died at once, `reports` says so.
        with suppress(BrokenPipeError):
            pickle.dump(order, self.process.stdin)
            self.process.stdin.flush()

    def reports(self) -> Iterator[dict[str, Any]]:
        """Its lines."""
        stream, ended = self.process.stdout, False
        assert stream
        with stream:
            for line in stream:
                said = json.loads(line)
                ended = not said.keys().isdisjoint(("made", "error", "broke"))
                yield said
        self.stop()
        code = self.process.wait()
        self._free.append(self.place)
        if not ended:
            raise LostWorkerError(f"the worker on {self.place} ended with exit code {code}")

    def stop(self) -> None:
        """Ask it to stop after its next step."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()


class Workers:
    """Devices of this host: "cuda:0", "cuda:1", or "cpu".

    Naming "cpu" n times has n workers share its cores and memory. Each device has its share of the students.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = devices
        self.free = list(devices)

    @property
    def about(self) -> str:
        """The devices in a few words."""
        return f"{', '.join(self.devices)}, a process each"

    @contextmanager
    def store(self, paths: Paths, profile: str) -> Iterator[None]:
        """Hold the profile's lock, which every worker inherits."""
        with alone(paths, profile) as self.lock:
            yield

    def units(self, students: Sequence[Cell], plan: Plan, by_value: bool) -> list[list[Cell]]:
        """A share for each device."""
        return [share for share in spread(students, len(self.devices)) if share]

    def room(self) -> int:
        """The devices that are free."""
        return len(self.free)

    def claim(self, unit: str) -> bool:
        """Every unit is this run's: it holds the lock."""
        return True

    def settle(self, unit: str) -> None:
        """There is no claim to give up."""

    def start(self, order: Order, unit: str) -> Worker:
        """A process on the first device that is free; the teacher has all cores to itself."""
        device = self.free.pop(0)
        cores = max(1, torch.get_num_threads() // (1 if order.for_teacher else len(self.devices)))
        share = 1 / self.devices.count(device)
        order = replace(order, cuda=device != "cpu", threads=cores, memory_share=share)
        return Worker(device, order, self.lock, self.free)


def _environment(device: str, threads: int) -> dict[str, str]:
    """The environment of a worker, in which only its own GPU is visible, or none."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    number = int(device.removeprefix("cuda:")) if device != "cpu" else None
    # Device numbers count the GPUs that are visible to this process.
    own = "" if number is None else visible[number] if number < len(visible) else str(number)
    more = {"CUDA_VISIBLE_DEVICES": own, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": python_path()}
    return {**os.environ, **more}
