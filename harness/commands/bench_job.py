"""Runs the bench on this machine, in the environment with the pinned runtime, as a process of its own."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.bench.job import Job, Model
from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan
from harness.store.chain import cell_state
from harness.store.paths import Paths, answers_file
from harness.store.records import ExportRecord, find
from harness.store.revision import revision

ROOT = Path(__file__).parents[2]
# The bench itself runs where the reference study's runtime is; each runtime has an environment of its own.
HOME = "1.16.0"


def matrix_job(plan: Plan, paths: Paths, local: bool = True) -> Job:
    """The bench job for every model of the plan whose ONNX file is on this machine.

    It names the `local` interpreters of the runtimes, unless it is to run elsewhere. Raises HarnessError where no model
    is here, or no interpreter.
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
        pythons=bench_pythons(plan.settings.bench.runtimes) if local else {},
        models=models,
    )


def _model(plan: Plan, paths: Paths, cell: Cell) -> Model:
    export = find(paths.results, plan.profile, cell.id, cell.key, ExportRecord)
    assert export and export.onnx_sha256, "a cell that is done has its export on record"
    folder = cell.artifacts(paths.artifacts, plan.profile).resolve()
    answers = answers_file(folder)
    return Model(
        cell=cell.id,
        title=cell.title,
        key=cell.key,
        onnx=folder / "model.onnx",
        onnx_sha256=export.onnx_sha256,
        is_teacher=cell.is_teacher,
        answers=answers if answers.is_file() else None,
    )


def run_bench(job: Job) -> int:
    """Run a job to its end and return its exit code: 0 all done, 1 some failed, 2 bad input, 130 stopped."""
    python = bench_python(HOME)
    with tempfile.TemporaryDirectory(prefix="harness-job-") as folder:
        file = Path(folder) / "job.json"
        file.write_text(job.model_dump_json(), encoding="utf-8")
        process = subprocess.Popen([python, "-m", "harness.bench", str(file)], cwd=ROOT)
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # The child got the same Ctrl-C; it cleans up and says so.
                continue


def bench_pythons(runtimes: Sequence[str]) -> dict[str, Path]:
    """The interpreter of each runtime's environment."""
    return {runtime: bench_python(runtime) for runtime in runtimes}


def bench_python(runtime: str) -> Path:
    """The interpreter of a runtime's environment; HarnessError where that has not been made."""
    python = Path(".venvs") / f"bench-{runtime}" / "bin/python"
    for root in (Path.cwd(), ROOT):
        if (root / python).is_file():
            return (root / python).absolute()
    raise HarnessError(f"{python}: not there; run: make setup")


def untrained(plan: Plan, paths: Paths) -> Sequence[Cell]:
    """The cells that the bench has to leave out, because they have no ONNX file here."""
    return [cell for cell in plan.cells if cell_state(paths, plan, cell).training != "done"]
