"""The bench from end to end: a job in, a latency and an accuracy record per model out.

What is measured again: an accuracy where its own record is missing or out of date; latencies all together as soon as
one of them is, because a ratio to the teacher is only valid within the run that it was paired in.
"""

import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import predictions
from harness.bench.accuracy import measure_accuracies
from harness.bench.bench_display import summary
from harness.bench.blocks import Condition, accuracy_is_current, conditions, latencies_are_current
from harness.bench.context import Context, Limits
from harness.bench.job import Job, ModelFile, ModelInput
from harness.bench.latency_records import measure_latencies
from harness.bench.model_input import model_input
from harness.bench.process import EngineAnswer, ask_engine, describe
from harness.bench.testset import load_testset
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.host import enclosure
from harness.host.cpus import read_topology
from harness.host.facts import environment
from harness.host.isa.shown import HOST, Shown, show
from harness.plan.bench_settings import Isa
from harness.store.records import now, record_path

# Records, raw files of a long run, and what engines write while they load a model.
LEAST_ROOM_BYTES = 20 * 2**20


def run(job: Job, limits: Limits | None = None) -> int:
    """Measure what is not up to date; exit code 0 when every model has both records, 1 when some failed.

    Raises HarnessError, before anything is measured, where the job as a whole cannot be done.
    """
    enclosed = _enclosure(job)
    load_testset(job.testset)
    job, shown, obstacle = _shown(job)
    found = conditions(job.settings, read_topology())
    facts = {
        **environment(found[0].cpus),
        # Records of one run, whose ratios are to the same teacher's processes, share this.
        "run": f"{now()} {secrets.token_hex(4)}",
        "harness_revision": job.harness_revision,
        "image": job.image,
        "enclosure": enclosed,
        # why it is the host's instruction set, where the target's was asked for
        "isa_obstacle": obstacle,
    }
    inputs, problems = _inputs(job)
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as scratch:
        context = Context(
            job=job,
            limits=limits or Limits(),
            conditions=found,
            engines=_engines(job, found),
            shown=shown,
            inputs=inputs,
            testset_sha256=file_sha256(job.testset),
            environment=facts,
            scratch=Path(scratch),
        )
        return _measure_all(context, problems)


def _enclosure(job: Job) -> dict[str, Any] | None:
    """What the container is closed to; None where the job names no container. HarnessError where it is open."""
    if job.enclosure is None:
        return None
    models = [model.onnx for model in job.models] + [model.answers for model in job.models if model.answers]
    asked = job.enclosure.model_dump(mode="json")
    return enclosure.check(asked, inputs=[job.testset, *models], outputs=[job.results, job.raw])


def _shown(job: Job) -> tuple[Job, dict[tuple[str, Isa], Shown], str | None]:
    """How each engine is shown each instruction set; the host's alone, and why, where the target's cannot be shown."""
    settings, target = job.settings, job.settings.target.cpu
    try:
        pairs = [(engine, isa) for engine in settings.engines for isa in settings.isa]
        pythons = {engine: job.pythons.get(engine, Path(sys.executable)) for engine in settings.engines}
        return job, {(engine, isa): show(isa, target, engine, pythons[engine]) for engine, isa in pairs}, None
    except HarnessError as error:
        print(f"Measured under the instruction set of this machine, not the {target.title}'s: {error}", file=sys.stderr)
        as_host = job.model_copy(update={"settings": settings.as_host()})
        return as_host, {(engine, "host"): HOST for engine in settings.engines}, str(error)


def _engines(job: Job, found: list[Condition]) -> dict[str, EngineAnswer]:
    threads = list(dict.fromkeys(condition.threads for condition in found))
    return {name: ask_engine(name, job.pythons.get(name), threads) for name in job.settings.engines}


def _inputs(job: Job) -> tuple[dict[str, ModelInput], dict[str, HarnessError]]:
    """What each model takes, or what is wrong with its file; no process is started for such a model."""
    inputs, problems = {}, {}
    for model in job.models:
        try:
            inputs[model.cell] = model.input or model_input(model)
        except HarnessError as error:
            problems[model.cell] = error
    return inputs, problems


def _measure_all(context: Context, problems: dict[str, HarnessError]) -> int:
    models = context.job.models
    sound = [model for model in models if model.cell not in problems]
    everything = context.job.measure_again
    accuracies = [model for model in sound if everything or not _accuracy_is_current(context, model)]
    latencies = sound if everything or not _latencies_are_current(context, sound) else []
    if not problems and not accuracies and not latencies:
        models_are = f"{len(sound)} {'model is' if len(sound) == 1 else 'models are'}"
        engines = ", ".join(answer.runtime for answer in context.engines.values())
        print(f"Nothing to bench: {models_are} up to date ({engines}).")
        return 0
    _require_writable(context)
    for model in models:
        if model.cell in problems:
            failure = describe(problems[model.cell])
            context.fail_accuracy(model, failure, 0.0)
            for condition in context.conditions:
                context.fail_latency(model, condition, failure, 0.0)
    if accuracies:
        measure_accuracies(context, accuracies)
    if latencies:
        measure_latencies(context, latencies)
    return _close(context)


def _accuracy_is_current(context: Context, model: ModelFile) -> bool:
    runtime, session = context.runtime(context.headline), context.session(context.headline)
    record = context.accuracy(model)
    if record and not predictions.are_here(context.job.results / context.job.profile, record):
        return False
    isa = context.headline.isa
    return accuracy_is_current(model, record, isa, runtime, context.testset_sha256, session)


def _latencies_are_current(context: Context, models: list[ModelFile]) -> bool:
    """All conditions and models, or none: one missing or changed has all measured again, in one run."""
    runs = set()
    for condition in context.conditions:
        records = [context.latency(model, condition) for model in models]
        runs |= {record.environment.get("run") for record in records if record}
        runtime, session = context.runtime(condition), context.session(condition)
        if not latencies_are_current(models, records, condition.name, runtime, session):
            return False
    return len(runs) <= 1


def _require_writable(context: Context) -> None:
    """Find out now, not after an hour of measuring, that results cannot be kept."""
    job = context.job
    latencies = [record_path(job.results, job.profile, "latency", "x", one.name).parent for one in context.conditions]
    for folder in [*latencies, record_path(job.results, job.profile, "accuracy", "x").parent, job.raw]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HarnessError(f"{folder}: cannot be made ({error.strerror}); name another folder") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise HarnessError(f"{folder}: cannot write here; make the folder writable or name another")
    # A process that finds no room fails in the engine's words, and would take a sound model's record along.
    largest = max((model.onnx.stat().st_size for model in job.models if model.onnx.is_file()), default=0)
    needed = LEAST_ROOM_BYTES + 2 * largest
    for folder in (job.results, job.raw, Path(tempfile.gettempdir())):
        if (free := shutil.disk_usage(folder).free) < needed:
            raise HarnessError(
                f"{folder}: {free / 2**20:.1f} MiB are free, and measuring needs {needed / 2**20:.0f} MiB; free space "
                "there, or name another folder (--results, --artifacts, TMPDIR)"
            )


def _close(context: Context) -> int:
    """Print how all models of the job are now; the exit code that goes with it."""
    accuracies = [context.accuracy(model) for model in context.job.models]
    failed = any(record is None or record.status == "failed" for record in accuracies)
    for condition in context.conditions:
        latencies = [context.latency(model, condition) for model in context.job.models]
        failed |= any(record is None or record.status == "failed" for record in latencies)
        print(summary([one for one in latencies if one], [one for one in accuracies if one]))
    return int(failed)
