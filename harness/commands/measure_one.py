"""`harness test`: one ONNX file measured as the bench measures all of them, without leaving records behind."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from harness.bench.job import Job, Model
from harness.commands.bench_job import bench_pythons, run_bench
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.settings import load_settings
from harness.store.paths import data_root
from harness.store.records import AccuracyRecord, Interval, LatencyRecord, load, record_path
from harness.store.revision import revision
from harness.training import data

CELL = "model"


@dataclass(frozen=True)
class Measured:
    """What the study's test.py prints."""

    params: int
    latency: Interval
    accuracy_pct: float


def measure_one(path: Path, matrix: Path, profile: str) -> Measured:
    """Parameters, latency (ms) and accuracy (%) of an ONNX file; HarnessError where it cannot be read or measured."""
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
    bench = load_settings(matrix, profile).bench
    name = data.provide(data_root(), allow_stand_in=metadata.get("data") == "stand-in")
    with tempfile.TemporaryDirectory(prefix="harness-test-") as folder:
        here = Path(folder)
        data.save_testset(here / "testset.npz", data.load(name, data_root(), train=False))
        job = Job(
            profile=profile,
            results=here / "results",
            raw=here / "raw",
            testset=here / "testset.npz",
            # the headline condition alone
            settings=bench.model_copy(update={"runtimes": bench.runtimes[:1], "threads": bench.threads[:1]}),
            harness_revision=revision(),
            pythons=bench_pythons(bench.runtimes[:1]),
            models=[
                Model(
                    cell=CELL,
                    title=metadata.get("title", path.stem),
                    key=metadata["key"],
                    onnx=path.resolve(),
                    onnx_sha256=file_sha256(path),
                    is_teacher=False,
                )
            ],
        )
        run_bench(job)
        latency = load(record_path(job.results, profile, "latency", CELL, bench.conditions[0]), LatencyRecord)
        accuracy = load(record_path(job.results, profile, "accuracy", CELL), AccuracyRecord)
    for record in (latency, accuracy):
        if record.failure:
            raise HarnessError(record.failure.message)
    assert latency.latency_ms and accuracy.accuracy_pct is not None, "done records carry their figures"
    params = sum(weight.size for weight in weights if weight.dtype == np.float32)
    return Measured(params, latency.latency_ms, accuracy.accuracy_pct)
