"""The accuracy stage: one process per model over the whole test set; each record is saved as soon as it is known."""

import base64
import io
import time

import numpy as np

from harness.bench.bench_display import Progress
from harness.bench.context import Context
from harness.bench.job import ModelFile
from harness.bench.process import measure
from harness.bench.testset import load_testset
from harness.predictions import Classes, keep
from harness.store.records import AccuracyRecord, Failure, now, save


def measure_accuracies(context: Context, models: list[ModelFile]) -> None:
    """Measure these models and save their answers and their records, done or failed."""
    labels = load_testset(context.job.testset).labels
    with Progress("accuracy") as progress:
        for number, model in enumerate(models, start=1):
            progress.at(f"{number} of {len(models)}: {model.title}")
            record = _measure(context, model, labels)
            if record.failure:
                progress.failed(f"{model.title} failed ({record.failure.kind}): {record.failure.message}")
            else:
                progress.reached(f"{number} of {len(models)}: {model.title} {record.accuracy_pct:.2f} %")


def _measure(context: Context, model: ModelFile, labels: Classes) -> AccuracyRecord:
    started = time.monotonic()
    output = context.job.raw / f"accuracy-{model.cell}.json"
    assignment = context.assignment(model, context.headline)
    python = context.job.pythons.get(context.headline.engine)
    entry = measure("accuracy_suite.py", assignment, output, context.limits.accuracy_s, python)
    seconds = time.monotonic() - started
    if isinstance(entry, Failure):
        return context.fail_accuracy(model, entry, seconds)
    info = entry["extra_info"]
    facts = dict(info["facts"])
    given = np.load(io.BytesIO(base64.b64decode(info["predictions"])), allow_pickle=False)
    correct, images = int((given == labels).sum()), len(labels)
    convolutions, nchwc = facts.pop("convolutions", None), facts.pop("nchwc_convolutions", None)
    fields = context.accuracy_fields(model)
    if facts:
        fields["environment"]["engine_facts"] = facts
    record = AccuracyRecord(
        **fields,
        status="done",
        finished_at=now(),
        seconds=seconds,
        accuracy_pct=100 * correct / images,
        correct=correct,
        images=images,
        testset_sha256=context.testset_sha256,
        **keep(context.job.results, context.job.profile, model.cell, given, labels),
        agreement_pct=None if info["agreeing"] is None else 100 * info["agreeing"] / images,
        convolutions=convolutions,
        nchwc_convolutions=nchwc,
        instruction_set=info["instruction_set"],
    )
    save(context.job.results, record)
    return record
