"""The bench from end to end: a job in, a latency and an accuracy record per model out.

What is measured again: an accuracy where its own record is missing or out of date; latencies all together as soon as
one is, because a ratio to the teacher is only valid within the run it was paired in.
"""

import os
import secrets
import tempfile
from pathlib import Path

from harness.bench.accuracy import measure_accuracies
from harness.bench.bench_display import summary
from harness.bench.blocks import accuracy_is_current, conditions, latencies_are_current
from harness.bench.context import Context, Limits
from harness.bench.job import Job, Model
from harness.bench.latency import measure_latencies
from harness.bench.process import describe, runtime_of
from harness.bench.session import read_checked, session_options
from harness.bench.testset import load_testset
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.host import enclosure
from harness.host.cpus import read_topology
from harness.host.facts import environment
from harness.store.records import now, record_path


def run(job: Job, limits: Limits | None = None) -> int:
    """Measure what is not up to date; exit code 0 when every model has both records, 1 when some failed.

    Raises HarnessError, before anything is measured, where the job as a whole cannot be done.
    """
    enclosed = enclosure.check(job)
    load_testset(job.testset)
    found = conditions(job.settings, read_topology())
    facts = {
        **environment(found[0].cpus),
        # Records of one run, whose ratios are to the same teacher's processes, share this.
        "run": f"{now()} {secrets.token_hex(4)}",
        "harness_revision": job.harness_revision,
        "image": job.image,
        "enclosure": enclosed,
    }
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as scratch:
        context = Context(
            job=job,
            limits=limits or Limits(),
            conditions=found,
            runtimes={name: runtime_of(job.pythons.get(name), name) for name in job.settings.runtimes},
            testset_sha256=file_sha256(job.testset),
            environment=facts,
            scratch=Path(scratch),
        )
        return _measure_all(context)


def _measure_all(context: Context) -> int:
    models = context.job.models
    problems = {model.cell: problem for model in models if (problem := _problem(model))}
    sound = [model for model in models if model.cell not in problems]
    stale = [model for model in sound if not _accuracy_is_current(context, model)]
    again = sound if not _latencies_are_current(context, sound) else []
    if not problems and not stale and not again:
        print(f"Nothing to bench: {len(sound)} {'model is' if len(sound) == 1 else 'models are'} up to date.")
        return 0
    _require_writable(context)
    for model in models:
        if model.cell in problems:
            failure = describe(problems[model.cell])
            context.fail_accuracy(model, failure, 0.0)
            for condition in context.conditions:
                context.fail_latency(model, condition, failure, 0.0)
    if stale:
        measure_accuracies(context, stale)
    if again:
        measure_latencies(context, again)
    return _close(context)


def _accuracy_is_current(context: Context, model: Model) -> bool:
    runtime, session = context.runtimes[context.headline.runtime], session_options(context.headline.threads)
    return accuracy_is_current(model, context.accuracy(model), runtime, context.testset_sha256, session)


def _latencies_are_current(context: Context, models: list[Model]) -> bool:
    """All conditions and models, or none: one missing or changed has all measured again, in one run."""
    runs = set()
    for condition in context.conditions:
        records = [context.latency(model, condition) for model in models]
        runs |= {record.environment.get("run") for record in records if record}
        runtime = context.runtimes[condition.runtime]
        if not latencies_are_current(models, records, runtime, context.settings(condition)):
            return False
    return len(runs) <= 1


def _problem(model: Model) -> HarnessError | None:
    """What is wrong with a model's file, if anything; no process is started for such a model."""
    try:
        read_checked(model)
    except HarnessError as error:
        return error
    return None


def _require_writable(context: Context) -> None:
    """Find out now, not after an hour of measuring, that results cannot be kept."""
    job = context.job
    latencies = [
        record_path(job.results, job.profile, "latency", "x", condition.name).parent for condition in context.conditions
    ]
    for folder in [*latencies, record_path(job.results, job.profile, "accuracy", "x").parent, job.raw]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HarnessError(f"{folder}: cannot be made ({error.strerror}); name another folder") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise HarnessError(f"{folder}: cannot write here; make the folder writable or name another")


def _close(context: Context) -> int:
    """Print how all models of the job stand now; the exit code that goes with it."""
    accuracies = [context.accuracy(model) for model in context.job.models]
    failed = any(record is None or record.status == "failed" for record in accuracies)
    for condition in context.conditions:
        latencies = [context.latency(model, condition) for model in context.job.models]
        failed |= any(record is None or record.status == "failed" for record in latencies)
        print(
            summary([one for one in latencies if one], [one for one in accuracies if one], len(context.conditions) > 1)
        )
    return int(failed)
