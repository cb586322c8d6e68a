"""`harness test`: one ONNX file measured as the bench measures all of them, without leaving records behind."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from harness import datasets
from harness.bench.job import Identity, Job, ModelFile
from harness.commands.bench_job import bench_pythons, run_bench
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.cpus import whose_instruction_set
from harness.plan.loading import load_settings
from harness.plan.settings import Settings
from harness.store.paths import data_root
from harness.store.records import AccuracyRecord, Interval, LatencyRecord, load, record_path
from harness.store.revision import revision

CELL = "model"


@dataclass(frozen=True)
class Measured:
    """What the study's test.py prints, and what measured it: an engine like "onnxruntime 1.16.0", its threads, and in
    words the instruction set that it was shown."""

    params: int
    latency: Interval
    accuracy_pct: float
    runtime: str
    threads: int
    isa: str


def measure_one(path: Path, matrix: Path, profile: str, data_dir: Path | None = None) -> Measured:
    """Parameters, latency (ms) and accuracy (%) of an ONNX file; HarnessError where it cannot be read or measured.

    Accuracy is on the test images of the data set that the model was trained on, below `data_dir` or DATA_DIR.
    """
    try:
        model = onnx.load(path)
    except FileNotFoundError:
        raise HarnessError(f"{path}: no such file") from None
    except Exception as error:  # protobuf's decoding errors have no public class
        raise HarnessError(
            f"{path}: not a readable ONNX file ({error}); it may be cut short: export it again"
        ) from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if "key" not in metadata:
        raise HarnessError(f"{path}: has no provenance in its metadata; export it with `harness export`")
    weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    settings = load_settings(matrix, profile)
    # the headline condition alone
    engines, isa, threads = settings.bench.engines[:1], settings.bench.isa[:1], settings.bench.threads[:1]
    bench = settings.bench.model_copy(update={"engines": engines, "isa": isa, "threads": threads})
    # where the target's instruction set cannot be shown the bench takes the host's
    conditions = dict.fromkeys([*bench.conditions, *bench.as_host().conditions])
    # Its records are discarded, so nothing is ever compared with these.
    identity = Identity(key=metadata["key"], spec={}, code={})
    with tempfile.TemporaryDirectory(prefix="harness-test-") as folder:
        here = Path(folder)
        _save_testset(here / "testset.npz", settings, metadata.get("data"), data_dir or data_root())
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
                    key=metadata["key"],
                    onnx=path.resolve(),
                    onnx_sha256=file_sha256(path),
                    is_teacher=False,
                    latency=dict.fromkeys(conditions, identity),
                    accuracy={"target": identity, "host": identity},
                )
            ],
        )
        run_bench(job)
        paths = [record_path(job.results, profile, "latency", CELL, name) for name in conditions]
        latency = load(next(path for path in paths if path.exists()), LatencyRecord)
        accuracy = load(record_path(job.results, profile, "accuracy", CELL), AccuracyRecord)
    for record in (latency, accuracy):
        if record.failure:
            raise HarnessError(record.failure.message)
    assert latency.latency_ms and accuracy.accuracy_pct is not None, "done records carry their figures"
    target = "-target-" in latency.condition
    whose = whose_instruction_set(bench.target.name if target else "host")
    params = sum(weight.size for weight in weights if weight.dtype == np.float32)
    return Measured(params, latency.latency_ms, accuracy.accuracy_pct, latency.runtime, latency.threads, whose)


def _save_testset(path: Path, settings: Settings, trained_on: str | None, root: Path) -> None:
    """Write the test images of the data set that the model was trained on; the profile's where it does not say."""
    data = settings.data.model_copy(update={"dataset": trained_on or settings.data.dataset, "fallback": None})
    name = datasets.provide(settings.model_copy(update={"data": data}), root)
    images = datasets.load(name, settings.parameters("dataset", name), root, train=False)
    datasets.save_testset(path, images)
