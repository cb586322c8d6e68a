"""A new engine, onnx's own reference implementation: the one file that it takes. tests.drop_in has the other kinds."""

import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import onnx

from harness.bench.job import Job
from harness.plan.bench_settings import Combination
from harness.reporting.tables import ABSENT
from harness.store.records import AccuracyRecord, LatencyRecord, load, record_path
from tests.bench_kit import SETTINGS, Workshop, model_file
from tests.command import environment, table
from tests.documents import ROOT
from tests.drop_in import ARCHITECTURE, DATASET
from tests.training_kit import tiny_matrix_file

# slow, and in every environment that has onnx
REFERENCE = dedent(
    f"""
    import onnx
    from onnx.reference import ReferenceEvaluator

    from harness.bench.engines import Engine

    TITLE = "ONNX reference"
    VARIANTS = {{"slow": {{"version": "{onnx.__version__}", "environment": "bench-current"}}}}


    class Reference(Engine):
        def version(self):
            return onnx.__version__

        def options(self, threads):
            return {{"threads": threads}}

        def open(self, model, threads):
            evaluator = ReferenceEvaluator(onnx.load_model_from_string(model))
            return lambda inputs: evaluator.run(None, inputs)

        def facts(self, model, threads):
            return {{"nodes": len(onnx.load_model_from_string(model).graph.node)}}


    ENGINE = Reference()
    """
)
CONDITION = "reference-slow-host-threads-1"


def walk(folder: Path) -> int:
    """Add the engine to a copy of the package and measure a table's models with it; how many files that took.

    In a copy, because a file in the package's own folder of engines would be there for everything else as well. The
    network and the data set are small ones, since the reference implementation takes its time. AssertionError where a
    row of the table lacks a figure, or the table does not name the engine.
    """
    checkout = folder / "checkout"
    shutil.copytree(ROOT / "harness", checkout / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".venvs").symlink_to(ROOT / ".venvs")
    before = _files(checkout / "harness")
    (checkout / "harness/bench/engines/reference.py").write_text(REFERENCE)
    after = _files(checkout / "harness")
    for added in (ARCHITECTURE, DATASET):
        added.write(folder)
    bench = {**SETTINGS, "engines": ["reference-slow"], "threads": [1]}
    changes = {f"profile__quick__bench__{name}": value for name, value in bench.items()}
    tiny_matrix_file(folder, ["l1"], ["base"], **ARCHITECTURE.settings, **DATASET.settings, **changes)
    for verb in ("train-matrix", "bench", "report"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "harness",
                verb,
                "--profile",
                "quick",
                *(["--runner", "local"] if verb != "report" else []),
            ],
            cwd=folder,
            env={**environment(), "PYTHONPATH": f"{checkout}:{folder}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{verb}: {done.stdout}{done.stderr}"
    place = folder / "results/quick/tables/prune-0.3.md"
    rows = table(place)
    assert sorted(row["Model Name"] for row in rows) == ["P(0.3_L1)_KD(0)_SEED(0)", "Small"]
    assert all(row[figure] != ABSENT for row in rows for figure in ("Latency (ms)", "Accuracy (%)", "Latency ratio"))
    assert f"reference {onnx.__version__}, 1 thread" in place.read_text(encoding="utf-8")
    return sum(before.get(name) != content for name, content in after.items())


def _files(folder: Path) -> dict[Path, bytes]:
    """All source files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*.py")}


def reference_job(workshop: Workshop, engine: str, **changes: Any) -> Job:
    """A job that measures a teacher and a student with an engine."""
    workshop.testset(count=30, wrong=3)
    condition = [Combination(engine, "host", 1).name]
    files = [workshop.model("teacher", teacher=True), workshop.model("student", weight=2.0)]
    models = [model_file(one.cell, one.onnx, one.onnx_sha256, one.is_teacher, condition) for one in files]
    return workshop.job(*models, settings={**SETTINGS, "engines": [engine]}, **changes)


def check_records(results: Path) -> None:
    """Both models have a latency and an accuracy, measured with the reference engine."""
    for cell in ("teacher", "student"):
        latency = load(record_path(results, "quick", "latency", cell, CONDITION), LatencyRecord)
        accuracy = load(record_path(results, "quick", "accuracy", cell), AccuracyRecord)
        assert latency.latency_ms is not None and latency.ratio_to_teacher is not None
        assert latency.session == accuracy.environment["session"] == {"threads": 1}
        assert latency.runtime == accuracy.runtime == f"reference {onnx.__version__}"
        assert (accuracy.correct, accuracy.images) == (27, 30)
        assert (accuracy.convolutions, accuracy.environment["engine_facts"]) == (None, {"nodes": 3})
