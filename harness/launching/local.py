"""Runs the bench on this machine, in the environment with the pinned runtime, as a process of its own."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.benchmarking.job import Job, Model
from harness.errors import HarnessError
from harness.matrix import Cell, Plan
from harness.paths import Paths
from harness.records import ExportRecord, find
from harness.revision import revision
from harness.status import cell_state

ROOT = Path(__file__).parents[2]
BENCH_PYTHON = Path(".venvs/bench/bin/python")


def matrix_job(plan: Plan, paths: Paths) -> Job:
    """The bench job for every model of the plan whose ONNX file is on this machine.

    Raises HarnessError where there is none.
    """
    models = [_model(plan, paths, cell) for cell in plan.cells if cell_state(paths, plan, cell).training == "done"]
    if not models:
        raise HarnessError(
            f"profile {plan.profile} has no exported model here; run: make train-matrix PROFILE={plan.profile}"
        )
    return Job(
        profile=plan.profile,
        results=paths.results.resolve(),
        raw=(paths.artifacts / plan.profile / "bench").resolve(),
        testset=paths.testset(plan.profile, plan.data).resolve(),
        settings=plan.settings.bench,
        harness_revision=revision(),
        models=models,
    )


def _model(plan: Plan, paths: Paths, cell: Cell) -> Model:
    export = find(paths.results, plan.profile, cell.id, cell.key, ExportRecord)
    assert export and export.onnx_sha256, "a cell that is done has its export on record"
    return Model(
        cell=cell.id,
        title=cell.title,
        key=cell.key,
        onnx=(cell.artifacts(paths.artifacts, plan.profile) / "model.onnx").resolve(),
        onnx_sha256=export.onnx_sha256,
        is_teacher=cell.is_teacher,
    )


def run_bench(job: Job) -> int:
    """Run a job to its end and return its exit code: 0 all done, 1 some failed, 2 bad input, 130 stopped."""
    python = bench_python()
    with tempfile.TemporaryDirectory(prefix="harness-job-") as folder:
        file = Path(folder) / "job.json"
        file.write_text(job.model_dump_json(), encoding="utf-8")
        process = subprocess.Popen([python, "-m", "harness.benchmarking", str(file)], cwd=ROOT)
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # The child got the same Ctrl-C; it cleans up and says so.
                continue


def bench_python() -> Path:
    """The interpreter of the bench's environment; HarnessError where it has not been made."""
    for root in (Path.cwd(), ROOT):
        if (root / BENCH_PYTHON).is_file():
            return root / BENCH_PYTHON
    raise HarnessError(f"{BENCH_PYTHON}: not there; run: make setup")


def untrained(plan: Plan, paths: Paths) -> Sequence[Cell]:
    """The cells that the bench has to leave out, because they have no ONNX file here."""
    return [cell for cell in plan.cells if cell_state(paths, plan, cell).training != "done"]
