"""`harness test`: one ONNX file measured as the bench measures all of them, without leaving records behind."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import datasets
from harness.bench.environments import bench_pythons
from harness.bench.job import Identity, Job, ModelFile
from harness.commands.any_classifier import Given, as_classifier
from harness.commands.bench_job import run_bench
from harness.datasets import Images
from harness.errors import HarnessError
from harness.model_files.onnx_file import read_facts
from harness.plan import registry
from harness.plan.cpu_table import whose_instruction_set
from harness.plan.loading import load_settings
from harness.plan.settings import Settings
from harness.store.paths import data_root
from harness.store.records import AccuracyRecord, Interval, LatencyRecord, load, record_path
from harness.store.revision import revision

CELL = "model"


@dataclass(frozen=True)
class Measured:
    """What the study's test.py prints, and what measured it: an engine like "onnxruntime 1.16.0", and its threads.

    `isa` says in words which instruction set the engine was shown. `measured_on` is the data set by its title;
    `trained_on_it` is whether the file says that it was trained on it.
    """

    params: int
    latency: Interval
    accuracy_pct: float
    runtime: str
    threads: int
    isa: str
    measured_on: str
    trained_on_it: bool
    # what the file does not say, and was assumed
    assumptions: tuple[str, ...]


def measure_one(
    path: Path,
    matrix: Path,
    profile: str,
    data_dir: Path | None = None,
    normalisation: Given = (None, None),
) -> Measured:
    """Parameters, latency (ms) and accuracy (%) of an ONNX file; HarnessError where it cannot be read or measured.

    Accuracy is on the test images of the data set that the model was trained on, below `data_dir` or DATA_DIR. A file
    that the harness did not write is taken for a classifier of the profile's data set, with a `normalisation` (mean and
    standard deviation per channel) that is given or the data set's.
    """
    facts = read_facts(path)
    metadata, ours = facts.metadata, "key" in facts.metadata
    if ours and normalisation != (None, None):
        raise HarnessError(f"{path}: says itself how its images are normalised; leave --mean and --std out")
    settings = load_settings(matrix, profile)
    # the headline condition alone
    engines, isa, threads = settings.bench.engines[:1], settings.bench.isa[:1], settings.bench.threads[:1]
    bench = settings.bench.model_copy(update={"engines": engines, "isa": isa, "threads": threads})
    # Its records are discarded, so nothing is ever compared with these.
    identity = Identity(key=metadata.get("key", "none"), spec={}, code={})
    with _folder() as here:
        name, images = _testset(settings, metadata.get("data"), data_dir)
        datasets.save_testset(here / "testset.npz", images)
        classes = registry.find("dataset", name).constants["CLASSES"]
        usual = images.mean, images.std
        assumed = None if ours else as_classifier(facts, classes, settings.data.image_size, usual, normalisation)
        job = Job(
            profile=profile,
            results=here / "results",
            raw=here / "raw",
            testset=here / "testset.npz",
            settings=bench,
            harness_revision=revision(),
            pythons=bench_pythons(engines),
            models=[
                ModelFile(
                    cell=CELL,
                    title=metadata.get("title", path.stem),
                    key=identity.key,
                    onnx=path.resolve(),
                    onnx_sha256=facts.sha256,
                    external_sha256=dict(facts.external_sha256),
                    is_teacher=False,
                    input=assumed.input if assumed else None,
                    latency={one.name: identity for one in bench.either},
                    accuracy={"target": identity, "host": identity},
                )
            ],
        )
        if (code := run_bench(job)) not in (0, 1):
            # it was stopped, or could not begin and has said why
            sys.exit(code)
        paths = {one: record_path(job.results, profile, "latency", CELL, one.name) for one in bench.either}
        measured = next(one for one, place in paths.items() if place.exists())
        latency = load(paths[measured], LatencyRecord)
        accuracy = load(record_path(job.results, profile, "accuracy", CELL), AccuracyRecord)
        for record in (latency, accuracy):
            if record.failure:
                raise HarnessError(record.failure.message)
    assert latency.latency_ms and accuracy.accuracy_pct is not None, "done records carry their figures"
    return Measured(
        params=facts.params,
        latency=latency.latency_ms,
        accuracy_pct=accuracy.accuracy_pct,
        runtime=latency.runtime,
        threads=latency.threads,
        isa=whose_instruction_set(bench.instruction_set(measured.isa)),
        measured_on=registry.find("dataset", name).title,
        trained_on_it="data" in metadata,
        assumptions=assumed.assumptions if assumed else (),
    )


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder, which stays if it holds the log of a process that failed: an error names it."""
    here = Path(tempfile.mkdtemp(prefix="harness-test-"))
    try:
        yield here
    finally:
        if not any(here.glob("raw/**/*.log")):
            shutil.rmtree(here, ignore_errors=True)


def _testset(settings: Settings, trained_on: str | None, data_dir: Path | None) -> tuple[str, Images]:
    """The data set that the model was trained on, the profile's where it does not say, and its test images."""
    data = settings.data.model_copy(update={"dataset": trained_on or settings.data.dataset, "fallback": None})
    root, given_by = data_root(data_dir), f"--data-dir {data_dir}" if data_dir else ""
    name = datasets.provide(settings.model_copy(update={"data": data}), root, given_by)
    return name, datasets.load(name, settings.parameters("dataset", name), root, train=False)
