"""`python -m harness.bench.pinned CPUS COMMAND...`: pin this process to CPUS (like 0,2), then run `python COMMAND...`.

It is pinned before numpy and the engine are loaded, so that every thread that they start is pinned as well.
"""

import ctypes
import os
import resource
import signal
import sys

from harness.host.memory_limit import machine_bytes

PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals) -> None:
    """Have this process get a signal when the one that started it ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def main() -> None:
    """Pin, make sure that this process does not outlive a killed parent on the measured CPUs, and exec.

    A model that asks for more memory than the machine has fails by itself, before the kernel has to end processes.
    """
    os.sched_setaffinity(0, {int(cpu) for cpu in sys.argv[1].split(",")})
    end_with_parent(signal.SIGKILL)
    memory = machine_bytes()
    least = min((limit for limit in resource.getrlimit(resource.RLIMIT_DATA) if limit >= 0), default=memory)
    resource.setrlimit(resource.RLIMIT_DATA, (min(memory, least), min(memory, least)))
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])


if __name__ == "__main__":
    main()
