"""The gate of `harness latency`: whether a file has become, or is, slower than is allowed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import intervals
from harness.bench.job import DrawnInput
from harness.bench.latency import Series
from harness.commands.latency_document import FileFound, Gate, LatencyDocument, Verdict
from harness.errors import HarnessError
from harness.store.records import Interval

# What is allowed where a baseline is given and no ratio.
GATE = 1.05


def require_comparable(
    baseline: LatencyDocument,
    source: Path,
    files: Mapping[str, list[DrawnInput]],
    *,
    cpu: Any,
    engine: str,
    threads: int,
    target: str | None,
) -> None:
    """HarnessError where a change since the baseline would be another machine's, engine's or input's.

    `source` is the baseline's file; `files` are the inputs of the present ones, by title. The others are the machine's
    and those of the first condition.
    """
    before, first = {one.title: one for one in baseline.files}, baseline.conditions[0]
    for what, now_is, was in (
        ("CPU", cpu, baseline.machine.get("cpu")),
        ("engine", engine, first.runtime),
        ("number of threads", threads, first.threads),
        ("instruction set", target or "the machine's own", first.target or "the machine's own"),
    ):
        if now_is != was:
            raise HarnessError(f"{source}: its {what} is {was}, and here it is {now_is}: not comparable")
    for title, drawn in files.items():
        if title not in before:
            raise HarnessError(f"{source}: has no file {title}; it has {', '.join(before)}")
        if before[title].inputs != drawn:
            raise HarnessError(f"{source}: {title} had other inputs: {_spelled(before[title].inputs)}")


def _spelled(inputs: Sequence[DrawnInput]) -> str:
    return ", ".join(f"{one.name}: {one.dtype} {one.shape}" for one in inputs)


def change(baseline: LatencyDocument, title: str, one: Series, reference: Series | None) -> Interval | None:
    """What became of a file since the baseline."""
    before = next(file for file in baseline.files if file.title == title).timings[0]
    anchor = baseline.files[0].timings[0]
    if not before.processes:
        return None
    if reference and reference is not one and len(baseline.files) > 1 and anchor.processes:
        was, is_ = (before.observations, anchor.observations), (one.observations, reference.observations)
        return intervals.change_of_ratios(was, is_)
    return intervals.change_of_estimates(list(before.observations.values()), list(one.observations.values()))


def judge(files: Sequence[FileFound], max_ratio: float, precision_pct: float, by_baseline: bool) -> Gate:
    """The verdict on every file: on its change since the baseline, or else on its ratio to the first one."""
    noise = files[0].timings[0].again_ratio
    verdicts = {}
    for number, one in enumerate(files):
        timing = one.timings[0]
        judged = timing.change if by_baseline else timing.ratio if number else None
        if judged:
            verdicts[one.title] = verdict(judged, max_ratio, precision_pct, noise)
        elif by_baseline:
            verdicts[one.title] = "unclear"
    return Gate(against="baseline" if by_baseline else "reference", max_ratio=max_ratio, verdicts=verdicts)


def verdict(found: Interval, most: float, precision_pct: float, noise: Interval | None) -> Verdict:
    """Whether a ratio lies beyond what is allowed.

    It does only where all of its interval does, by more than the first file is off itself in the A/A control. An
    interval that holds the limit says that no such thing was shown, provided that it is as narrow as was wanted.
    """
    off = abs(noise.value - 1) if noise else 0.0
    if not found.bounds:
        return "unclear"
    low, high = found.bounds
    if low > most * (1 + off):
        return "beyond"
    if low > most:
        return "unclear"
    narrow = intervals.halfwidth_pct(found) <= precision_pct
    return "within" if high <= most or narrow else "unclear"
