"""The latency stage: all models of a job measured together, a record each.

Records are saved together at the end, because each ratio needs the teacher's whole series. An interrupted run leaves
the records of the run before it in place.
"""

from collections.abc import Mapping
from typing import Any

from harness import intervals
from harness.bench.blocks import Settling, Subject, subjects
from harness.bench.context import Context
from harness.bench.history import keep
from harness.bench.job import Assignment, ModelFile
from harness.bench.latency import Run, Series, measure_blocks, what_happened
from harness.bench.remarks import remarks
from harness.host.facts import activity
from harness.store.records import LatencyRecord, now, save


def measure_latencies(context: Context, models: list[ModelFile]) -> None:
    """Measure these models together and save their records, done or failed."""
    # Blocks of an earlier, perhaps longer run must not be taken for this one's.
    for old in context.job.raw.glob("latency-block*-*"):
        old.unlink()
    job, settings, before = context.job, context.job.settings, activity()
    by_cell, by_name = {model.cell: model for model in models}, {one.name: one for one in context.conditions}
    teacher = next((model.cell for model in models if model.is_teacher), None)

    def assign(subject: Subject, block: int) -> Assignment:
        return context.assignment(by_cell[subject.model], by_name[subject.condition], block)

    run = Run(
        settings=settings,
        headline=context.headline.name,
        reference=teacher,
        series={
            subject: Series(by_cell[subject.model].title, by_name[subject.condition])
            for subject in subjects(list(by_cell), teacher, list(by_name))
        },
        assign=assign,
        pythons=job.pythons,
        raw=job.raw,
        process_s=context.limits.latency_s,
        settling=Settling.start(settings),
        least_blocks=settings.blocks,
    )
    remedy = f"raise bench.minutes_per_model ({settings.minutes_per_model:g})"
    measure_blocks(run, 60 * settings.minutes_per_model * len(models), remedy)
    _save_records(context, by_cell, run, before)


def _save_records(context: Context, models: Mapping[str, ModelFile], run: Run, before: dict[str, float]) -> None:
    facts, warnings = what_happened(before, activity())
    done = []
    for subject, one in run.series.items():
        model = models[subject.model]
        if one.failure and not subject.control:
            context.fail_latency(model, one.condition, one.failure, one.seconds)
        elif not subject.control:
            done.append(_record(context, model, run, subject, facts, warnings))
            save(context.job.results, done[-1])
    if done:
        keep(context.job.results, done)


def _record(
    context: Context, model: ModelFile, run: Run, subject: Subject, facts: dict[str, Any], warnings: list[str]
) -> LatencyRecord:
    one = run.series[subject]
    fields = context.latency_fields(model, one.condition)
    fields["environment"].update(facts)
    ratio, observed = run.ratio(subject), list(one.observations.values())
    no_teacher = ratio is None and context.job.teacher is not None
    control = Subject(subject.model, subject.condition, control=True)
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
            *remarks(one.said),
        ],
    )
