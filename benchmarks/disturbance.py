"""`python disturbance.py SEED`: loads every CPU in bursts until it is ended, in the same rhythm for the same seed.

A burst is arithmetic on a working set larger than the second-level cache, so that it takes time slices, shared cache
and memory bandwidth from the measurement beside it. The process ends with its parent.
"""

import ctypes
import os
import signal
import sys
import time

import numpy as np

BUSY_S, IDLE_S = 0.4, 0.8
WORKING_SET_BYTES = 8 * 2**20
PR_SET_PDEATHSIG = 1


def main(seed: int) -> None:
    """Start one process per CPU, all in the same rhythm, and wait."""
    started = time.monotonic()
    cpus = sorted(os.sched_getaffinity(0))
    for cpu in cpus:
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, {cpu})
            _bursts(seed, started)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # the children end with this process, however it ends
    signal.pause()


def _bursts(seed: int, started: float) -> None:
    """Be busy and idle by turns, for exponentially distributed times."""
    random = np.random.default_rng(seed)
    values = np.ones(WORKING_SET_BYTES // 8)
    until = started
    while True:
        until += random.exponential(BUSY_S)
        while time.monotonic() < until:
            values *= 1.0000001
        until += random.exponential(IDLE_S)
        time.sleep(max(0.0, until - time.monotonic()))


if __name__ == "__main__":
    main(int(sys.argv[1]))
