"""Intervals as a table prints them: 0.62 ± 0.01, or 0.62 [0.61, 0.64] where the two halves differ; ≈ in front where no
difference was shown."""

from harness.store.records import Interval


def interval_text(interval: Interval, decimals: int, same: float, noise: float = 0.0, sign: str = "") -> str:
    """An estimate with its interval.

    "≈" where it covers `same`, or lies no further from it than the noise. `sign` is "+" where the figure is a
    difference. The halves count as the same where they differ by less than the last digit; the longer one is printed.
    """
    alike = interval.covers(same) or abs(interval.value - same) <= noise
    return f"{'≈ ' if alike else ''}{_bounded(interval, decimals, sign)}"


def _bounded(interval: Interval, decimals: int, sign: str) -> str:
    spec = f"{sign}z.{decimals}f"
    if interval.bounds is None:
        return interval.text(spec)
    halves = [abs(interval.value - bound) for bound in interval.bounds]
    half = f"{max(halves):.{decimals}f}"
    symmetric = max(halves) - min(halves) < 10**-decimals and float(half) > 0
    return f"{interval.value:{spec}} ± {half}" if symmetric else interval.text(spec)
