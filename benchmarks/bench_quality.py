"""measurement.json: does the latency bench give the same figures twice, quiet and disturbed, and do other methods?

The bench runs four times on one teacher and nine students: twice on the machine as it is, and twice beside a process
that loads the machine in bursts. For comparison, the reference study's method and plain pytest-benchmark are repeated
on the same models, each for half the time of one run. Raw samples are kept for the study of estimators.

It takes most of an hour. If it was stopped, the runs that are complete are kept, provided that the models, the settings
and the bench's own code are the same.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import ROOT, Figures, estimator_study
from harness.bench.environments import bench_python
from harness.bench.job import Job
from harness.commands.bench_job import matrix_job, run_bench
from harness.errors import HarnessError
from harness.files import digest, file_sha256, write_text
from harness.intervals import halfwidth_pct
from harness.plan.loading import load_settings
from harness.plan.planning import make_plan
from harness.store.paths import Paths, data_root
from harness.store.records import LatencyRecord, load, record_path

PROFILE, EXPERIMENT, STUDENTS = "lite", "prune-0.3", 9
ENGINE = "onnxruntime-1.16.0"
HERE = Path(__file__).parent
FEWEST_REPEATS = 5
# What the figures of a run depend on: the bench, and how samples become figures.
CODE = ("harness/bench/**/*.py", "harness/intervals.py")
# in the folder of a complete run: how long it took
SECONDS = "seconds"


def measure() -> Figures:
    """Every figure; prints each as it comes."""
    paths = Paths(Path("results"), Path("artifacts"), data_root())
    settings = load_settings(Path("matrix.toml"), PROFILE)
    settings = settings.model_copy(
        update={"bench": settings.bench.model_copy(update={"engines": [ENGINE], "isa": ["host"], "threads": [1]})}
    )
    plan = make_plan(settings, PROFILE, paths.dataset(settings, PROFILE), [EXPERIMENT])
    # What has been measured before does not matter: each run has a results folder of its own.
    whole = matrix_job(plan, paths, code="redo")
    if len(whole.models) < 1 + STUDENTS:
        raise HarnessError(
            f"{len(whole.models)} models of profile {PROFILE} here; run: make train-matrix PROFILE={PROFILE}"
        )
    job = whole.model_copy(update={"models": whole.models[: 1 + STUDENTS], "measure_again": False})
    folder = _place(paths.artifacts / PROFILE / "measurement", job)
    figures: Figures = {}
    took = []
    for suffix, disturbed in (("", False), ("_disturbed", True)):
        runs = []
        for number in (1, 2):
            place = folder / f"{'disturbed' if disturbed else 'quiet'}-{number}"
            with disturbance(number) if disturbed else contextlib.nullcontext():
                runs.append(_run(job, place))
            took.append(float((place / SECONDS).read_text(encoding="utf-8")))
        figures |= _of_runs(runs, suffix)
        figures[f"minutes_per_model{suffix}"] = statistics.fmean(took[-2:]) / 60 / len(job.models)
        _say(figures, suffix)
    for name, repeat in (("reference_method", _reference_method), ("plain_pytest_benchmark", _plain_pytest_benchmark)):
        spreads = _spreads(_repeated(job, repeat, took[0] / 2))
        figures[f"{name}_cv_pct"] = statistics.median(spreads.values())
        figures[f"{name}_cv_max_pct"] = max(spreads.values())
        print(f"{name}: {figures[f'{name}_cv_pct']:.1f} % (median student), {max(spreads.values()):.1f} % (worst)")
    for path in estimator_study.study(folder, job):
        print(f"Written: {path}")
    return figures


def _place(root: Path, job: Job) -> Path:
    """A folder for these models, these settings and this bench; folders for others are removed."""
    models = [(model.cell, model.onnx_sha256) for model in job.models]
    code = [file_sha256(path) for pattern in CODE for path in sorted(ROOT.glob(pattern))]
    folder = root / digest([models, job.settings.model_dump(mode="json"), code], 16)
    for other in root.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _run(job: Job, folder: Path) -> dict[str, LatencyRecord]:
    """One whole run of the bench, from nothing, unless it is complete already; its latencies by cell."""
    if not (folder / SECONDS).is_file():
        shutil.rmtree(folder, ignore_errors=True)
    own = job.model_copy(update={"results": (folder / "results").resolve(), "raw": (folder / "raw").resolve()})
    started = time.monotonic()
    if run_bench(own):
        raise HarnessError(f"{folder}: the bench failed; see its output above")
    if not (folder / SECONDS).is_file():
        write_text(folder / SECONDS, f"{time.monotonic() - started}\n")
    condition = job.settings.conditions[0]
    found = (
        load(record_path(own.results, job.profile, "latency", model.cell, condition), LatencyRecord)
        for model in job.models
    )
    return {record.cell: record for record in found}


def _of_runs(runs: Sequence[Mapping[str, LatencyRecord]], suffix: str) -> dict[str, float]:
    """What two runs of the same models say about the bench."""
    teacher = next(record for record in runs[0].values() if record.control_ratio)
    control = teacher.control_ratio
    assert control, "the teacher has its control"
    students = [cell for cell in runs[0] if cell != teacher.cell]
    ratios = [[run[cell].ratio_to_teacher for cell in students] for run in runs]
    widths = [halfwidth_pct(ratio) for run in ratios for ratio in run if ratio]
    disagreements = [100 * abs(one.value / two.value - 1) for one, two in zip(*ratios, strict=True) if one and two]
    return {
        f"ratio_halfwidth_max_pct{suffix}": max(widths),
        f"rerun_disagreement_max_pct{suffix}": max(disagreements),
        f"aa_ratio{suffix}": control.value,
        f"aa_ratio_low{suffix}": control.low,
        f"aa_ratio_high{suffix}": control.high,
        f"processes_per_model{suffix}": statistics.fmean(len(run[cell].processes) for run in runs for cell in run),
    }


def _say(figures: Figures, suffix: str) -> None:
    for name, value in figures.items():
        if name.endswith("_disturbed") == bool(suffix):
            print(f"{name}: {value:.3f}")


@contextlib.contextmanager
def disturbance(seed: int) -> Iterator[None]:
    """Load the machine in bursts, in the same way for the same seed."""
    process = subprocess.Popen([bench_python(ENGINE), HERE / "disturbance.py", str(seed)])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


# --- Other methods ---------------------------------------------------------------------------------------------------

# model -> ms
Latencies = dict[str, float]


def _repeated(job: Job, repeat: Callable[[Job], Latencies], seconds: float) -> list[Latencies]:
    """As many whole repeats as fit into the time, and at least a few."""
    found: list[Latencies] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(found) < FEWEST_REPEATS:
        found.append(repeat(job))
    return found


def _reference_method(job: Job) -> Latencies:
    """As the study's test.py: timeit's mean of 100 inferences, default options, one process after another."""
    python = bench_python(ENGINE)
    return {
        model.cell: float(_output([str(python), str(HERE / "reference_method.py"), str(model.onnx)]))
        for model in job.models
    }


def _plain_pytest_benchmark(job: Job) -> Latencies:
    """pytest-benchmark as it comes: one session over all models, its own calibration, default options, its median."""
    with tempfile.TemporaryDirectory(prefix="harness-plain-") as folder:
        out = Path(folder) / "out.json"
        command = [str(bench_python(ENGINE)), "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider"]
        command += [f"--rootdir={HERE}", str(HERE / "plain_suite.py"), f"--benchmark-json={out}"]
        models = {model.cell: str(model.onnx) for model in job.models}
        _output([*command, f"--benchmark-storage=file://{folder}"], PLAIN_MODELS=json.dumps(models))
        entries = json.loads(out.read_text(encoding="utf-8"))["benchmarks"]
    return {entry["param"]: 1000 * entry["stats"]["median"] for entry in entries}


def _spreads(repeats: Sequence[Latencies]) -> dict[str, float]:
    """By student, the coefficient of variation (%) of its ratio to the teacher (the first model) over the repeats."""
    teacher, *students = repeats[0]
    ratios = {cell: [repeat[cell] / repeat[teacher] for repeat in repeats] for cell in students}
    return {cell: 100 * statistics.stdev(found) / statistics.fmean(found) for cell, found in ratios.items()}


def _output(command: Sequence[str], **variables: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise HarnessError(f"{' '.join(command)} exited {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout.strip()
