"""The latency stage: blocks of one fresh process per model, the teacher in every block, all models interleaved.

Records are saved together at the end, because each ratio needs the teacher's whole series. A model that fails is taken
out of the blocks still to come; the others go on. An interrupted run leaves the records of the run before it.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import statistics
from harness.benchmarking.context import Context
from harness.benchmarking.facts import activity, steal_pct
from harness.benchmarking.job import Model
from harness.benchmarking.plan import block_order
from harness.benchmarking.process import measure
from harness.benchmarking.progress import Progress
from harness.records import Failure, Interval, LatencyRecord, Process, now, save

NOTABLE_STEAL_PCT = 1.0


@dataclass
class Series:
    """One model's processes so far, or why there are no more."""

    model: Model
    seconds: float = 0.0
    processes: list[Process] = field(default_factory=list)
    failure: Failure | None = None

    @property
    def medians(self) -> dict[int, float]:
        """Block -> median of its process, in ms."""
        return {process.block: process.median_ms for process in self.processes}


def measure_latencies(context: Context, models: list[Model]) -> None:
    """Measure these models together and save their records, done or failed."""
    settings = context.job.settings
    # Blocks of an earlier, perhaps longer run must not be taken for this one's.
    for old in context.job.raw.glob("latency-block*-*"):
        old.unlink()
    before = activity()
    series = {model.cell: Series(model) for model in models}
    progress = Progress("latency", settings.blocks * len(models))
    order = 0
    for block in range(settings.blocks):
        standing = [cell for cell, one in series.items() if not one.failure]
        for cell in block_order(standing, block, settings.seed):
            one = series[cell]
            progress.at(f"block {block + 1} of {settings.blocks}, {one.model.title}")
            _add_process(context, one, block, order)
            order += 1
            progress.advance()
            if one.failure:
                progress.advance(settings.blocks - block - 1)
                progress.failed(f"{one.model.title} failed ({one.failure.kind}): {one.failure.message}")
        progress.reached(f"block {block + 1} of {settings.blocks} done")
    progress.close()
    _save_records(context, list(series.values()), before)


def _add_process(context: Context, series: Series, block: int, order: int) -> None:
    started = time.monotonic()
    output = context.job.raw / f"latency-block{block:02d}-{series.model.cell}.json"
    entry = measure("latency_suite.py", context.assignment(series.model, block), output, context.limits.latency_s)
    series.seconds += time.monotonic() - started
    if isinstance(entry, Failure):
        series.failure = entry
    else:
        result = to_process(entry, block, order, context.job.settings.rounds, output)
        if isinstance(result, Failure):
            series.failure = result
        else:
            series.processes.append(result)


def to_process(entry: dict[str, Any], block: int, order: int, rounds: int, source: Path) -> Process | Failure:
    """pytest-benchmark's entry (seconds) as ours (ms), or a failure where samples are missing."""
    info, samples_ms = entry["extra_info"], [1000 * sample for sample in entry["stats"]["data"]]
    median_ms = statistics.percentile(samples_ms, 50)
    if median_ms is None or len(samples_ms) != rounds:
        return Failure(kind="error", message=f"{source}: {len(samples_ms)} samples where {rounds} were asked for")
    return Process(
        block=block,
        order=order,
        first_inference_ms=info["first_inference_ms"],
        warmup_rounds=info["warmup_rounds"],
        samples_ms=samples_ms,
        median_ms=median_ms,
        cpus=info["cpus"],
        peak_rss_bytes=info["peak_rss_bytes"],
        involuntary_switches=info["involuntary_switches"],
        distinct_inputs=info["distinct_inputs"],
    )


def _save_records(context: Context, all_series: list[Series], before: dict[str, float]) -> None:
    after = activity()
    stolen = steal_pct(before, after)
    run = {
        "load_average_before": before["load_average"],
        "load_average_after": after["load_average"],
        "steal_pct": stolen,
        "nr_throttled": after["throttled"] - before["throttled"],
    }
    warnings = list(context.warnings)
    if stolen >= NOTABLE_STEAL_PCT:
        warnings.append(
            f"the hypervisor gave {stolen:.1f} % of the CPU time to others; repeat when the host is quieter"
        )
    teacher = next((one for one in all_series if one.model.is_teacher and not one.failure), None)
    if teacher is None and context.job.teacher is not None:
        warnings.append("no ratio: the teacher's latency could not be measured")
    for one in all_series:
        if one.failure:
            context.fail_latency(one.model, one.failure, one.seconds)
            continue
        fields = context.identity(one.model)
        fields["environment"] = {**fields["environment"], **run}
        medians = list(one.medians.values())
        record = LatencyRecord(
            **fields,
            status="done",
            finished_at=now(),
            seconds=one.seconds,
            threads=context.job.settings.threads,
            latency_ms=statistics.median_interval(medians, context.job.settings.seed),
            p90_ms=statistics.percentile([s for process in one.processes for s in process.samples_ms], 90),
            ratio_to_teacher=_ratio(one, teacher, context.job.settings.seed),
            processes=one.processes,
            settings=context.settings,
            warnings=[*warnings, *statistics.instability(medians)],
        )
        save(context.job.results, record)


def _ratio(one: Series, teacher: Series | None, seed: int) -> Interval | None:
    return statistics.paired_ratio(one.medians, teacher.medians, seed) if teacher else None
