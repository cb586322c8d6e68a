"""Durations as people write and read them, and a time box for training: stop cleanly before the time is up."""

import re
import time

from harness.errors import HarnessError

# Kept back for what follows the last step: writing checkpoints, at worst evaluating and exporting one model.
RESERVE = 0.05
LEAST_RESERVE_S = 5.0
LARGEST_RESERVE_S = 60.0


def seconds(text: str) -> float:
    """90s, 9m, 1h30m -> seconds; HarnessError on anything else."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not found or not any(found.groups()):
        raise HarnessError(f"--budget {text!r}: not a duration; write 90s, 9m or 1h30m")
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return 3600.0 * hours + 60.0 * minutes + rest


def clock(seconds: float) -> str:
    """A duration as people read it: 48 s, 12 min, 1 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Budget:
    """Counts from its making; an empty text is no limit."""

    def __init__(self, text: str) -> None:
        whole = seconds(text) if text else float("inf")
        reserve = min(max(LEAST_RESERVE_S, RESERVE * whole), LARGEST_RESERVE_S)
        self._end = time.monotonic() + max(whole - reserve, whole / 2)

    def lasts(self) -> bool:
        """Whether there is time for another step."""
        return time.monotonic() < self._end
