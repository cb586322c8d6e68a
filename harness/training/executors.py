"""Who computes the steps of several learners: on a CPU one thread per core, each computing on that core alone.

PyTorch would put all cores on one operator after the other, which pays for wide layers and large batches. Thin networks
train faster with a core each (nine_students_together_vs_alone in results/benchmarks/training.json): they do not wait at
a barrier thousands of times a step while another process has a core, and they end with the same bits however many cores
there are. A GPU is kept busy by one thread.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch

from harness.training.device import Device


class Inline(Executor):
    """Does everything at once, in the thread that asks."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class ThreadPerCore(ThreadPoolExecutor):
    """A thread per core; leaving it early drops what has not begun."""

    def __init__(self, cores: int) -> None:
        super().__init__(cores, "core", initializer=torch.set_num_threads, initargs=(1,))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(cancel_futures=True)


def step_executor(device: Device, alone: bool) -> AbstractContextManager[Executor]:
    """The executor for learners side by side, or for one that is `alone` and has every core to itself."""
    # asked here, in the main thread: what a thread of the pool sets must not become this thread's default
    cores = torch.get_num_threads()
    return Inline() if alone or device.torch.type == "cuda" else ThreadPerCore(cores)
