"""The latency stage: blocks of one fresh process per model and condition, in random order, until the ratios are known.

The teacher is in every block, and a second time as its own control: what those two differ by is what the bench cannot
tell apart. Records are saved together at the end, because each ratio needs the teacher's whole series. A model that
fails is taken out of the blocks still to come; the others go on. An interrupted run leaves the records of the run
before it.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import intervals as statistics
from harness.bench.bench_display import Progress, duration
from harness.bench.blocks import Condition, Settling, Variant, block_order, variants
from harness.bench.context import Context
from harness.bench.history import keep
from harness.bench.job import Model
from harness.bench.process import measure
from harness.host.facts import activity, disturbances, steal_pct
from harness.store.records import Failure, Interval, LatencyRecord, Process, now, save

NOTABLE_STEAL_PCT = 1.0
# Conditions beside the headline are measured in the first blocks, since an interval needs some, and then in every
# fourth: half as precise, at a quarter of the time each.
LEAST_BESIDE, BESIDE_EVERY = 3, 4
# Enough to see whether to go on; the figures on record are resampled more often.
INTERIM_RESAMPLES = 999


@dataclass
class Series:
    """One variant's processes so far, or why there are no more."""

    model: Model
    condition: Condition
    seconds: float = 0.0
    processes: list[Process] = field(default_factory=list)
    failure: Failure | None = None

    @property
    def observations(self) -> dict[int, float]:
        """Block -> what its process was observed to take, in ms."""
        return {process.block: process.low_ms for process in self.processes}


@dataclass
class Run:
    """All series of one run, and how far it has come."""

    context: Context
    series: dict[Variant, Series]
    settling: Settling
    blocks: int = 0
    order: int = 0

    def standing(self) -> list[Variant]:
        """What the next block has: the headline's variants that have neither failed nor settled, with the teacher they
        are compared with; now and then all variants under the other conditions as well. Empty when all is settled."""
        alive = [variant for variant, one in self.series.items() if not one.failure]
        headline = [variant for variant in alive if self.is_headline(variant)]
        unsettled = [variant for variant in headline if not self.settling.rests(variant)]
        enough = self.blocks >= self.context.job.settings.blocks or not headline
        if enough and all(self.series[variant].model.is_teacher and not variant.control for variant in unsettled):
            return []
        chosen = {variant for variant in headline if variant in unsettled or self.series[variant].model.is_teacher}
        beside = self.blocks < LEAST_BESIDE or self.blocks % BESIDE_EVERY == 0
        return [variant for variant in alive if variant in chosen or (beside and variant not in headline)]

    def is_headline(self, variant: Variant) -> bool:
        """Whether it is of the condition that decides when to stop."""
        return variant.condition == self.context.headline.name

    def teacher(self, condition: str) -> Series | None:
        """The teacher's series under a condition, unless it failed."""
        teachers = (
            one
            for variant, one in self.series.items()
            if one.model.is_teacher and variant.condition == condition and not variant.control and not one.failure
        )
        return next(teachers, None)

    def ratio(self, variant: Variant, resamples: int = statistics.RESAMPLES) -> Interval | None:
        """A variant's ratio to the teacher under its condition."""
        teacher, own = self.teacher(variant.condition), self.series[variant]
        if teacher is None or own.failure:
            return None
        seed = self.context.job.settings.seed
        return statistics.paired_ratio(own.observations, teacher.observations, seed, resamples)

    def judged(self) -> dict[Variant, Interval]:
        """What has to become precise, as it stands: the headline's ratios; without a teacher, the latency itself."""
        found = {}
        for variant, one in self.series.items():
            if one.failure or not self.is_headline(variant) or one is self.teacher(variant.condition):
                continue
            ratio = self.ratio(variant, INTERIM_RESAMPLES)
            seed = self.context.job.settings.seed
            found[variant] = ratio or statistics.interval(list(one.observations.values()), seed)
        return found


def measure_latencies(context: Context, models: list[Model]) -> None:
    """Measure these models together and save their records, done or failed."""
    # Blocks of an earlier, perhaps longer run must not be taken for this one's.
    for old in context.job.raw.glob("latency-block*-*"):
        old.unlink()
    settings, before = context.job.settings, activity()
    by_cell, by_name = {model.cell: model for model in models}, {one.name: one for one in context.conditions}
    named = variants(models, list(by_name))
    series = {variant: Series(by_cell[variant.cell], by_name[variant.condition]) for variant in named}
    run = Run(context, series, Settling.start(settings))
    limit_s = 60 * settings.minutes_per_model * len(models)
    progress, started, spent = Progress("latency"), time.monotonic(), 0.0
    while (standing := run.standing()) and (run.blocks < settings.blocks or spent * (1 + 1 / run.blocks) <= limit_s):
        _add_block(run, standing, progress)
        spent = time.monotonic() - started
        judged = run.judged()
        run.settling.note(judged, run.blocks)
        progress.reached(_so_far(run, judged, spent, limit_s))
    if standing:
        progress.failed(_time_is_up(run))
    progress.close()
    _save_records(run, before)


def _add_block(run: Run, standing: list[Variant], progress: Progress) -> None:
    by_id = {variant.id: variant for variant in standing}
    for place, name in enumerate(block_order(list(by_id), run.blocks, run.context.job.settings.seed), start=1):
        one = run.series[by_id[name]]
        progress.at(f"block {run.blocks + 1}, {place} of {len(standing)}: {one.model.title}")
        _add_process(run, by_id[name])
        if one.failure:
            progress.failed(f"{one.model.title} failed ({one.failure.kind}): {one.failure.message}")
    run.blocks += 1


def _so_far(run: Run, judged: dict[Variant, Interval], spent_s: float, limit_s: float) -> str:
    """Blocks done, how many ratios have settled, the widest interval, and the time that is left at most."""
    said = [f"block {run.blocks} done"]
    if judged:
        widths = {variant: statistics.halfwidth_pct(found) for variant, found in judged.items()}
        widest = max(widths, key=lambda variant: widths[variant])
        said.append(f"{sum(map(run.settling.rests, judged))} of {len(judged)} settled")
        said.append(f"widest ±{widths[widest]:.1f} % ({run.series[widest].model.title})")
    if run.standing():
        least = spent_s / run.blocks * max(0, run.context.job.settings.blocks - run.blocks)
        said.append(f"at most {duration(max(limit_s - spent_s, least))} left")
    return ", ".join(said)


def _time_is_up(run: Run) -> str:
    judged, settings = run.judged(), run.context.job.settings
    open_ = sum(not run.settling.rests(variant) for variant in judged)
    return (
        f"the time is up with {open_} of {len(judged)} not known to ±{settings.precision_pct:g} %; "
        f"raise bench.minutes_per_model ({settings.minutes_per_model:g}) or use a quieter machine"
    )


def _add_process(run: Run, variant: Variant) -> None:
    context, series = run.context, run.series[variant]
    started = time.monotonic()
    output = context.job.raw / f"latency-block{run.blocks:03d}-{variant.id}.json"
    assignment = context.assignment(series.model, series.condition, run.blocks)
    python = context.job.pythons.get(series.condition.runtime)
    entry = measure("latency_suite.py", assignment, output, context.limits.latency_s, python)
    result = entry if isinstance(entry, Failure) else to_process(entry, run.blocks, run.order, output)
    series.seconds += time.monotonic() - started
    run.order += 1
    if isinstance(result, Failure):
        series.failure = result
    else:
        series.processes.append(result)


def to_process(entry: dict[str, Any], block: int, order: int, source: Path) -> Process | Failure:
    """pytest-benchmark's entry (seconds) as ours (ms), or a failure where samples are missing."""
    info, samples_ms = entry["extra_info"], [1000 * sample for sample in entry["stats"]["data"]]
    median_ms = statistics.percentile(samples_ms, 50)
    if median_ms is None or len(samples_ms) != info["rounds"]:
        return Failure(kind="error", message=f"{source}: {len(samples_ms)} samples where {info['rounds']} were timed")
    return Process(
        block=block,
        order=order,
        first_inference_ms=info["first_inference_ms"],
        warmup_rounds=info["warmup_rounds"],
        rounds=len(samples_ms),
        low_ms=statistics.undisturbed(samples_ms),
        median_ms=median_ms,
        p90_ms=statistics.percentile(samples_ms, 90),
        cpus=info["cpus"],
        peak_rss_bytes=info["peak_rss_bytes"],
        involuntary_switches=info["involuntary_switches"],
        distinct_inputs=info["distinct_inputs"],
    )


def _save_records(run: Run, before: dict[str, float]) -> None:
    context, (facts, warnings) = run.context, _what_happened(before, activity())
    done = []
    for variant, one in run.series.items():
        if one.failure and not variant.control:
            context.fail_latency(one.model, one.condition, one.failure, one.seconds)
        elif not variant.control:
            done.append(_record(run, variant, facts, warnings))
            save(context.job.results, done[-1])
    if done:
        keep(context.job.results, done)


def _record(run: Run, variant: Variant, facts: dict[str, Any], warnings: list[str]) -> LatencyRecord:
    context, one = run.context, run.series[variant]
    fields = context.identity(one.model, one.condition)
    fields["environment"] = {**fields["environment"], **facts}
    ratio, observed = run.ratio(variant), list(one.observations.values())
    alone = ratio is None and context.job.teacher is not None
    control = Variant(variant.cell, variant.condition, control=True)
    again = run.series.get(control)
    return LatencyRecord(
        **fields,
        status="done",
        finished_at=now(),
        seconds=one.seconds,
        condition=one.condition.name,
        threads=one.condition.threads,
        latency_ms=statistics.interval(observed, context.job.settings.seed),
        median_ms=_median(process.median_ms for process in one.processes),
        p90_ms=_median(process.p90_ms for process in one.processes),
        ratio_to_teacher=ratio,
        processes=one.processes,
        control_ratio=run.ratio(control) if again else None,
        control=again.processes if again else [],
        settings=context.settings(one.condition),
        warnings=[
            *warnings,
            *one.condition.warnings,
            *(["no ratio: the teacher's latency could not be measured"] if alone else []),
            *statistics.instability(observed),
        ],
    )


def _what_happened(before: dict[str, float], after: dict[str, float]) -> tuple[dict[str, Any], list[str]]:
    """What the machine did meanwhile, and what of it the reader of a row should know."""
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


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(sorted(known)[len(known) // 2]) if known else None
