"""Ctrl-C and a polite kill: training ends after its next step, and what it has made is kept."""

import signal
import sys
from collections.abc import Callable
from typing import Any

# The exit code of a command that was stopped before its end.
STOPPED = 130


def until_interrupted() -> Callable[[], bool]:
    """A function that is True until Ctrl-C or a polite kill; the second one ends the process at once."""
    stopped = False

    def stop(number: int, frame: Any) -> None:
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True
        print("\nStopping after this step, work is kept. Again to stop at once.", file=sys.stderr)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return lambda: not stopped
