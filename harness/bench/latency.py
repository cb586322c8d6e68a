"""Blocks of one fresh process per model and condition, in random order, until the ratios to the reference are known.

The reference is in every block, and a second time as its own control: what those two differ by is what the bench cannot
tell apart. A model that fails is left out of the blocks still to come, and the others are measured to the end.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import intervals
from harness.bench.bench_display import Progress, duration
from harness.bench.blocks import Condition, Settling, Subject, block_order
from harness.bench.job import Assignment
from harness.bench.process import measure
from harness.host.facts import disturbances, steal_pct
from harness.plan.bench_settings import Bench
from harness.store.records import Failure, InstructionSet, Interval, Process

NOTABLE_STEAL_PCT = 1.0
# Conditions beside the headline are measured in the first blocks, since an interval needs some, and then in every
# fourth: half as precise, at a quarter of the time each.
LEAST_BESIDE, BESIDE_EVERY = 3, 4
# Enough to see whether another block is needed; the figures on record are resampled more often.
INTERIM_RESAMPLES = 999


@dataclass
class Series:
    """The processes of one subject so far, or why there are no more.

    `said` holds the lines that they printed to stderr, each once: what the engine has to say about the model.
    """

    title: str
    condition: Condition
    seconds: float = 0.0
    processes: list[Process] = field(default_factory=list)
    # what its processes found; they have to agree
    instruction_set: InstructionSet | None = None
    failure: Failure | None = None
    output_shapes: list[list[int]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def observations(self) -> dict[int, float]:
        """Block -> what its process was observed to take, in ms."""
        return {process.block: process.low_ms for process in self.processes}


@dataclass
class Run:
    """All series of one run, and how far it has come.

    The `headline` condition decides when to stop. Ratios are taken to the `reference`, where there is one. `assign`
    says what a subject's process in a block gets to know, and `pythons` name the interpreters of engines.
    """

    settings: Bench
    headline: str
    reference: str | None
    series: dict[Subject, Series]
    assign: Callable[[Subject, int], Assignment]
    pythons: Mapping[str, Path]
    # where each process leaves pytest-benchmark's JSON
    raw: Path
    # seconds after which one process is given up
    process_s: float
    settling: Settling
    # so many blocks are measured however long they take
    least_blocks: int
    blocks: int = 0
    order: int = 0

    def wanted(self) -> list[Subject]:
        """What the next block has; empty when all has settled.

        The headline's subjects that have neither failed nor settled, with the reference that they are compared with; in
        the first blocks, and then now and then, all subjects under the other conditions as well.
        """
        alive = [subject for subject, one in self.series.items() if not one.failure]
        headline = [subject for subject in alive if self.is_headline(subject)]
        unsettled = [subject for subject in headline if not self.settling.rests(subject)]
        enough = self.blocks >= self.settings.blocks or not headline
        if enough and all(self.is_reference(subject) for subject in unsettled):
            return []
        chosen = {subject for subject in headline if subject in unsettled or subject.model == self.reference}
        beside = self.blocks < LEAST_BESIDE or self.blocks % BESIDE_EVERY == 0
        return [subject for subject in alive if subject in chosen or (beside and subject not in headline)]

    def is_headline(self, subject: Subject) -> bool:
        """Whether it is of the condition that decides when to stop."""
        return subject.condition == self.headline

    def is_reference(self, subject: Subject) -> bool:
        """Whether others are compared with it."""
        return subject.model == self.reference and not subject.control

    def reference_of(self, condition: str) -> Series | None:
        """The reference's series under a condition, unless it failed or there is none."""
        found = self.series.get(Subject(self.reference, condition)) if self.reference else None
        return found if found and not found.failure else None

    def ratio(self, subject: Subject, resamples: int = intervals.RESAMPLES) -> Interval | None:
        """A subject's ratio to the reference under its condition."""
        reference, own = self.reference_of(subject.condition), self.series[subject]
        if reference is None or own.failure:
            return None
        return intervals.paired_ratio(own.observations, reference.observations, self.settings.seed, resamples)

    def judged(self) -> dict[Subject, Interval]:
        """The intervals that have to become narrow: the headline's ratios; without a reference, its latencies."""
        found = {}
        for subject, one in self.series.items():
            if one.failure or not self.is_headline(subject) or one is self.reference_of(subject.condition):
                continue
            ratio = self.ratio(subject, INTERIM_RESAMPLES)
            observed = list(one.observations.values())
            found[subject] = ratio or intervals.interval(observed, self.settings.seed, INTERIM_RESAMPLES)
        return found


def measure_blocks(run: Run, limit_s: float, remedy: str) -> bool:
    """Add blocks until all has settled or the time is up; whether all has settled.

    Where the time is up, `remedy` says how to give it more.
    """
    started, spent = time.monotonic(), 0.0
    with Progress("latency") as progress:
        while (wanted := run.wanted()) and (run.blocks < run.least_blocks or spent * (1 + 1 / run.blocks) <= limit_s):
            _add_block(run, wanted, progress)
            spent = time.monotonic() - started
            judged = run.judged()
            run.settling.note(judged, run.blocks)
            progress.reached(_so_far(run, judged, spent, limit_s))
        if wanted and (imprecise := _imprecise(run, remedy)):
            progress.failed(imprecise)
    return not wanted


def _add_block(run: Run, wanted: list[Subject], progress: Progress) -> None:
    by_id = {subject.id: subject for subject in wanted}
    for place, name in enumerate(block_order(list(by_id), run.blocks, run.settings.seed), start=1):
        one = run.series[by_id[name]]
        progress.at(f"block {run.blocks + 1}, {place} of {len(wanted)}: {one.title}")
        _add_process(run, by_id[name])
        if one.failure:
            progress.failed(f"{one.title} failed ({one.failure.kind}): {one.failure.message}")
    run.blocks += 1


def _so_far(run: Run, judged: dict[Subject, Interval], spent_s: float, limit_s: float) -> str:
    """Blocks done, how many ratios have settled, the widest interval, and how much longer it may take at most."""
    said = [f"block {run.blocks} done"]
    if judged:
        said.append(f"{sum(map(run.settling.rests, judged))} of {len(judged)} settled")
        said.append(_widest(run, judged))
    if run.wanted():
        least = spent_s / run.blocks * max(0, run.least_blocks - run.blocks)
        said.append(f"at most {duration(max(limit_s - spent_s, least))} left")
    return ", ".join(said)


def _widest(run: Run, judged: dict[Subject, Interval]) -> str:
    widths = {subject: intervals.halfwidth_pct(found) for subject, found in judged.items()}
    widest = max(widths, key=lambda subject: widths[subject])
    if not judged[widest].bounds:
        return "no intervals from so few blocks"
    return f"widest ±{widths[widest]:.2f} % ({run.series[widest].title})"


def _imprecise(run: Run, remedy: str) -> str:
    """What is still known less precisely than was asked for; nothing where that has been reached, if only just."""
    judged = run.judged()
    wide = {subject: found for subject, found in judged.items() if not run.settling.is_precise(found)}
    if not wide:
        return ""
    return (
        f"the time is up with {len(wide)} of {len(judged)} not known to ±{run.settings.precision_pct:g} %, "
        f"{_widest(run, wide)}; {remedy} or use a quieter machine"
    )


def _add_process(run: Run, subject: Subject) -> None:
    series = run.series[subject]
    started = time.monotonic()
    output = run.raw / f"latency-block{run.blocks:03d}-{subject.id}.json"
    python = run.pythons.get(series.condition.engine)
    entry = measure("latency_suite.py", run.assign(subject, run.blocks), output, run.process_s, python)
    result = entry if isinstance(entry, Failure) else to_process(entry, run.blocks, run.order, output)
    if not isinstance(entry, Failure) and not isinstance(result, Failure):
        found = InstructionSet.model_validate(entry["extra_info"]["instruction_set"])
        if found != (series.instruction_set or found):
            result = Failure(kind="error", message=f"{output}: another instruction set than in earlier processes")
        series.instruction_set = found
    series.seconds += time.monotonic() - started
    run.order += 1
    if isinstance(result, Failure):
        series.failure = result
        return
    assert not isinstance(entry, Failure), "a failure has no result"
    series.processes.append(result)
    series.output_shapes = entry["extra_info"]["output_shapes"]
    series.said = list(dict.fromkeys([*series.said, *entry["said"]]))


def to_process(entry: dict[str, Any], block: int, order: int, source: Path) -> Process | Failure:
    """pytest-benchmark's entry (seconds) as ours (ms), or a failure where samples are missing."""
    info, samples_ms = entry["extra_info"], [1000 * sample for sample in entry["stats"]["data"]]
    median_ms = intervals.percentile(samples_ms, 50)
    if median_ms is None or len(samples_ms) != info["rounds"]:
        return Failure(kind="error", message=f"{source}: {len(samples_ms)} samples where {info['rounds']} were timed")
    return Process(
        block=block,
        order=order,
        first_inference_ms=info["first_inference_ms"],
        warmup_rounds=info["warmup_rounds"],
        rounds=len(samples_ms),
        low_ms=intervals.undisturbed(samples_ms),
        median_ms=median_ms,
        p90_ms=intervals.percentile(samples_ms, 90),
        cpus=info["cpus"],
        peak_rss_bytes=info["peak_rss_bytes"],
        involuntary_switches=info["involuntary_switches"],
        distinct_inputs=info["distinct_inputs"],
    )


def what_happened(before: dict[str, float], after: dict[str, float]) -> tuple[dict[str, Any], list[str]]:
    """What the machine did during the run, and what of it the reader of a row should know."""
    stolen = steal_pct(before, after)
    facts = {
        "load_average_before": before["load_average"],
        "load_average_after": after["load_average"],
        "steal_pct": stolen,
        "nr_throttled": after["throttled"] - before["throttled"],
        **disturbances(before, after),
    }
    if stolen < NOTABLE_STEAL_PCT:
        return facts, []
    return facts, [f"the hypervisor gave {stolen:.1f} % of the CPU time to others; repeat when the host is quieter"]
