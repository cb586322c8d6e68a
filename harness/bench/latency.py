"""The latency stage: blocks of one fresh process per model and condition, in random order, until the ratios are known.

The teacher is in every block, and a second time as its own control: what those two differ by is what the bench cannot
tell apart. Records are saved together at the end, because each ratio needs the teacher's whole series. A model that
fails is left out of the blocks still to come, and the others are measured to the end. An interrupted run leaves the
records of the run before it in place.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import intervals
from harness.bench.bench_display import Progress, duration
from harness.bench.blocks import Condition, Settling, Subject, block_order, subjects
from harness.bench.context import Context
from harness.bench.history import keep
from harness.bench.job import ModelFile
from harness.bench.process import measure
from harness.host.facts import activity, disturbances, steal_pct
from harness.store.records import Failure, InstructionSet, Interval, LatencyRecord, Process, now, save

NOTABLE_STEAL_PCT = 1.0
# Conditions beside the headline are measured in the first blocks, since an interval needs some, and then in every
# fourth: half as precise, at a quarter of the time each.
LEAST_BESIDE, BESIDE_EVERY = 3, 4
# Enough to see whether another block is needed; the figures on record are resampled more often.
INTERIM_RESAMPLES = 999


@dataclass
class Series:
    """The processes of one subject so far, or why there are no more."""

    model: ModelFile
    condition: Condition
    seconds: float = 0.0
    processes: list[Process] = field(default_factory=list)
    # what its processes found; they have to agree
    instruction_set: InstructionSet | None = None
    failure: Failure | None = None

    @property
    def observations(self) -> dict[int, float]:
        """Block -> what its process was observed to take, in ms."""
        return {process.block: process.low_ms for process in self.processes}


@dataclass
class Run:
    """All series of one run, and how far it has come."""

    context: Context
    series: dict[Subject, Series]
    settling: Settling
    blocks: int = 0
    order: int = 0

    def wanted(self) -> list[Subject]:
        """What the next block has; empty when all has settled.

        The headline's subjects that have neither failed nor settled, with the teacher that they are compared with; in
        the first blocks, and then now and then, all subjects under the other conditions as well.
        """
        alive = [subject for subject, one in self.series.items() if not one.failure]
        headline = [subject for subject in alive if self.is_headline(subject)]
        unsettled = [subject for subject in headline if not self.settling.rests(subject)]
        enough = self.blocks >= self.context.job.settings.blocks or not headline
        if enough and all(self.series[subject].model.is_teacher and not subject.control for subject in unsettled):
            return []
        chosen = {subject for subject in headline if subject in unsettled or self.series[subject].model.is_teacher}
        beside = self.blocks < LEAST_BESIDE or self.blocks % BESIDE_EVERY == 0
        return [subject for subject in alive if subject in chosen or (beside and subject not in headline)]

    def is_headline(self, subject: Subject) -> bool:
        """Whether it is of the condition that decides when to stop."""
        return subject.condition == self.context.headline.name

    def teacher(self, condition: str) -> Series | None:
        """The teacher's series under a condition, unless it failed."""
        teachers = (
            one
            for subject, one in self.series.items()
            if one.model.is_teacher and subject.condition == condition and not subject.control and not one.failure
        )
        return next(teachers, None)

    def ratio(self, subject: Subject, resamples: int = intervals.RESAMPLES) -> Interval | None:
        """A subject's ratio to the teacher under its condition."""
        teacher, own = self.teacher(subject.condition), self.series[subject]
        if teacher is None or own.failure:
            return None
        seed = self.context.job.settings.seed
        return intervals.paired_ratio(own.observations, teacher.observations, seed, resamples)

    def judged(self) -> dict[Subject, Interval]:
        """The intervals that have to become narrow: the headline's ratios; without a teacher, its latencies."""
        found = {}
        for subject, one in self.series.items():
            if one.failure or not self.is_headline(subject) or one is self.teacher(subject.condition):
                continue
            ratio = self.ratio(subject, INTERIM_RESAMPLES)
            seed = self.context.job.settings.seed
            found[subject] = ratio or intervals.interval(list(one.observations.values()), seed)
        return found


def measure_latencies(context: Context, models: list[ModelFile]) -> None:
    """Measure these models together and save their records, done or failed."""
    # Blocks of an earlier, perhaps longer run must not be taken for this one's.
    for old in context.job.raw.glob("latency-block*-*"):
        old.unlink()
    settings, before = context.job.settings, activity()
    by_cell, by_name = {model.cell: model for model in models}, {one.name: one for one in context.conditions}
    named = subjects(models, list(by_name))
    series = {subject: Series(by_cell[subject.cell], by_name[subject.condition]) for subject in named}
    run = Run(context, series, Settling.start(settings))
    limit_s = 60 * settings.minutes_per_model * len(models)
    started, spent = time.monotonic(), 0.0
    with Progress("latency") as progress:
        while (wanted := run.wanted()) and (run.blocks < settings.blocks or spent * (1 + 1 / run.blocks) <= limit_s):
            _add_block(run, wanted, progress)
            spent = time.monotonic() - started
            judged = run.judged()
            run.settling.note(judged, run.blocks)
            progress.reached(_so_far(run, judged, spent, limit_s))
        if wanted:
            progress.failed(_time_is_up(run))
    _save_records(run, before)


def _add_block(run: Run, wanted: list[Subject], progress: Progress) -> None:
    by_id = {subject.id: subject for subject in wanted}
    for place, name in enumerate(block_order(list(by_id), run.blocks, run.context.job.settings.seed), start=1):
        one = run.series[by_id[name]]
        progress.at(f"block {run.blocks + 1}, {place} of {len(wanted)}: {one.model.title}")
        _add_process(run, by_id[name])
        if one.failure:
            progress.failed(f"{one.model.title} failed ({one.failure.kind}): {one.failure.message}")
    run.blocks += 1


def _so_far(run: Run, judged: dict[Subject, Interval], spent_s: float, limit_s: float) -> str:
    """Blocks done, how many ratios have settled, the widest interval, and how much longer it may take at most."""
    said = [f"block {run.blocks} done"]
    if judged:
        widths = {subject: intervals.halfwidth_pct(found) for subject, found in judged.items()}
        widest = max(widths, key=lambda subject: widths[subject])
        said.append(f"{sum(map(run.settling.rests, judged))} of {len(judged)} settled")
        said.append(f"widest ±{widths[widest]:.1f} % ({run.series[widest].model.title})")
    if run.wanted():
        least = spent_s / run.blocks * max(0, run.context.job.settings.blocks - run.blocks)
        said.append(f"at most {duration(max(limit_s - spent_s, least))} left")
    return ", ".join(said)


def _time_is_up(run: Run) -> str:
    judged, settings = run.judged(), run.context.job.settings
    open_ = sum(not run.settling.rests(subject) for subject in judged)
    return (
        f"the time is up with {open_} of {len(judged)} not known to ±{settings.precision_pct:g} %; "
        f"raise bench.minutes_per_model ({settings.minutes_per_model:g}) or use a quieter machine"
    )


def _add_process(run: Run, subject: Subject) -> None:
    context, series = run.context, run.series[subject]
    started = time.monotonic()
    output = context.job.raw / f"latency-block{run.blocks:03d}-{subject.id}.json"
    assignment = context.assignment(series.model, series.condition, run.blocks)
    python = context.job.pythons.get(series.condition.engine)
    entry = measure("latency_suite.py", assignment, output, context.limits.latency_s, python)
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
    else:
        series.processes.append(result)


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


def _save_records(run: Run, before: dict[str, float]) -> None:
    context, (facts, warnings) = run.context, _what_happened(before, activity())
    done = []
    for subject, one in run.series.items():
        if one.failure and not subject.control:
            context.fail_latency(one.model, one.condition, one.failure, one.seconds)
        elif not subject.control:
            done.append(_record(run, subject, facts, warnings))
            save(context.job.results, done[-1])
    if done:
        keep(context.job.results, done)


def _record(run: Run, subject: Subject, facts: dict[str, Any], warnings: list[str]) -> LatencyRecord:
    context, one = run.context, run.series[subject]
    fields = context.latency_fields(one.model, one.condition)
    fields["environment"].update(facts)
    ratio, observed = run.ratio(subject), list(one.observations.values())
    no_teacher = ratio is None and context.job.teacher is not None
    control = Subject(subject.cell, subject.condition, control=True)
    again = run.series.get(control)
    return LatencyRecord(
        **fields,
        status="done",
        finished_at=now(),
        seconds=one.seconds,
        latency_ms=intervals.interval(observed, context.job.settings.seed),
        median_ms=intervals.median_process(process.median_ms for process in one.processes),
        p90_ms=intervals.median_process(process.p90_ms for process in one.processes),
        ratio_to_teacher=ratio,
        processes=one.processes,
        control_ratio=run.ratio(control) if again else None,
        control=again.processes if again else [],
        instruction_set=one.instruction_set,
        warnings=[
            *warnings,
            *one.condition.warnings,
            *(["no ratio: the teacher's latency could not be measured"] if no_teacher else []),
            *intervals.instability(observed),
        ],
    )


def _what_happened(before: dict[str, float], after: dict[str, float]) -> tuple[dict[str, Any], list[str]]:
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
