"""For right.json: whether figures that are false are seen, and whether merged runs that are sound raise no alarm.

False figures are written into the records of a small matrix that was really trained and measured, one field each. The
runs that are merged have drawn samples, so that nothing that happens on this machine is in them.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import Figures
from harness.bench.history import keep
from harness.bench.latency import to_process
from harness.commands.bench_job import matrix_job, run_bench
from harness.commands.scope import Scope
from harness.commands.verification import verify
from harness.errors import HarnessError
from harness.intervals import interval, median_process, paired_ratio
from harness.plan.planning import Cell, Plan
from harness.store.paths import CIFAR_FOLDER, Paths
from harness.store.records import AccuracyRecord, LatencyRecord, Process, StageName, as_text, record_path, save
from harness.training.pipeline import make_cells
from harness.transfer.merging import merge
from tests.documents import DOCUMENT, as_toml, put
from tests.synthetic import records_for
from tests.training_kit import CPU, Told, below, tiny_settings

TEACHER, STUDENT = "teacher-s0", "p0.3-l1-base-s0"
# Changed so that its type and bounds allow it: nothing but the figures beside it or the files say that it is false.
Falsify = Callable[[Any], Any]


def planted_figures() -> Figures:
    """Every figure; `merged_runs` is how many ways of merging `verify_false_alarms` is counted over."""
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        caught = planted(finished(Path(folder) / "real"))
        alarms = false_alarms(Path(folder) / "merged")
    for name in (name for name, seen in caught.items() if not seen):
        print(f"not caught: {name}")
    for name, breaks in alarms.items():
        for line in breaks:
            print(f"false alarm: {name}: {line}")
    return {
        "planted_figures": len(caught),
        "planted_caught": sum(map(bool, caught.values())),
        "merged_runs": len(alarms),
        "verify_false_alarms": sum(map(len, alarms.values())),
    }


# --- False figures ----------------------------------------------------------------------------------------------------


def finished(folder: Path) -> Scope:
    """A matrix of a teacher and two students, trained and measured; HarnessError where that failed."""
    changes = {
        "profile__quick__data__dataset": "stand_in",
        "profile__quick__bench__engines": ["onnxruntime-current"],
        # the fewest that a 90th percentile can be of
        "profile__quick__bench__rounds": 64,
        "profile__quick__bench__sampling_s": 0.01,
        "profile__quick__bench__precision_pct": 1000.0,
        # no more blocks than there have to be
        "profile__quick__bench__minutes_per_model": 1e-6,
    }
    tiny_settings(folder, ["l1"], ["base", "gram"], **changes)
    scope = Scope(folder / "matrix.toml", "quick", below(folder))
    plan = scope.plan()
    if failures := make_cells(plan, scope.paths, CPU, Told()).failed:
        raise HarnessError(f"planted figures: cannot be trained: {failures}")
    if run_bench(matrix_job(plan, scope.paths)):
        raise HarnessError("planted figures: cannot be measured")
    return scope


@dataclass(frozen=True)
class Plant:
    """One field of one record, by its dotted name, and what becomes of its value."""

    stage: StageName
    field: str
    falsify: Falsify
    cell: str = STUDENT

    @property
    def name(self) -> str:
        """As a reader finds it."""
        return f"{self.cell} {self.stage} {self.field}"


def _more(value: float) -> float:
    return value + 1


def _slightly_more(value: float) -> float:
    return value * 1.001


def _tenth(value: int) -> int:
    return value // 10


def _shifted(found: Mapping[str, float]) -> dict[str, float]:
    """An interval, all of it a little higher."""
    return {name: value * 1.001 for name, value in found.items()}


def _bounded(found: Mapping[str, float]) -> dict[str, float]:
    """An interval where so few processes give none."""
    return {"value": found["value"], "low": 0.99 * found["value"], "high": 1.01 * found["value"]}


FALSE: Sequence[Plant] = (
    Plant("train", "accuracy_pct", lambda value: 60.0),
    Plant("train", "accuracy_pct", lambda value: value + 0.01, TEACHER),
    Plant("train", "params", _tenth),
    Plant("train", "params", _more, TEACHER),
    Plant("train", "macs", _tenth),
    Plant("train", "macs", _more, TEACHER),
    Plant("train", "macs", lambda value: -value),
    Plant("train", "image_size", _more),
    Plant("train", "widths.conv1", _more),
    Plant("train", "epochs", lambda value: value[:-1], TEACHER),
    Plant("train", "epochs.0.accuracy_pct", lambda value: 100.5),
    Plant("train", "seconds", lambda value: -value),
    Plant("train", "pruning.amount", _slightly_more),
    Plant("train", "pruning.params_before", _more),
    Plant("train", "pruning.params_after", lambda value: value - 1),
    Plant("train", "pruning.macs_before", _more),
    Plant("train", "pruning.macs_after", lambda value: value - 1),
    Plant("train", "pruning.channels_before", _more),
    Plant("train", "pruning.channels_after", lambda value: value - 1),
    Plant("train", "pruning.accuracy_after_pct", lambda value: 100 + value),
    Plant("export", "params", _tenth),
    Plant("export", "onnx_bytes", _more),
    Plant("export", "ir_version", lambda value: value - 1),
    Plant("export", "denormal_weights", _more),
    Plant("export", "parity_top1_agreement_pct", lambda value: 99.9),
    Plant("latency", "latency_ms.value", lambda value: value * 1.0001),
    Plant("latency", "latency_ms", _bounded),
    Plant("latency", "median_ms", lambda value: 0.001),
    Plant("latency", "p90_ms", _slightly_more),
    Plant("latency", "ratio_to_teacher", lambda value: {"value": 0.5, "low": 0.5, "high": 0.5}),
    Plant("latency", "ratio_to_teacher", _shifted),
    Plant("latency", "ratio_to_teacher.low", lambda value: value * 0.999),
    Plant("latency", "ratio_to_teacher.high", lambda value: value * 1.001),
    Plant("latency", "control_ratio", _shifted, TEACHER),
    Plant("latency", "processes.0.low_ms", lambda value: value * 0.999),
    Plant("latency", "processes.1.median_ms", lambda value: value * 1.00001),
    Plant("latency", "processes.0.p90_ms", _slightly_more),
    Plant("latency", "processes.0.rounds", _more),
    Plant("latency", "processes.0.first_inference_ms", _slightly_more),
    Plant("latency", "processes.0.peak_rss_bytes", _tenth),
    Plant("latency", "processes.0.distinct_inputs", lambda value: value - 1),
    Plant("latency", "control.0.low_ms", lambda value: value * 0.999, TEACHER),
    Plant("latency", "environment.steal_pct", _more),
    Plant("latency", "environment.nr_throttled", _more),
    Plant("latency", "environment.load_average_before", _more),
    Plant("accuracy", "accuracy_pct", lambda value: 60.0),
    Plant("accuracy", "correct", _more),
    Plant("accuracy", "images", _more),
    Plant("accuracy", "agreement_pct", lambda value: 99.999),
    Plant("accuracy", "convolutions", _more),
)


def planted(scope: Scope) -> dict[str, list[str]]:
    """Each false figure -> what `verify`, which runs all of check's checks as well, says of it and not without it.

    Leaves the records as they were.
    """
    plan, results = scope.plan(), scope.paths.results
    before, seen = set(verify(scope, []).breaks), {}
    for one in FALSE:
        condition = plan.settings.bench.conditions[0] if one.stage == "latency" else ""
        path = record_path(results, plan.profile, one.stage, one.cell, condition)
        text = path.read_text(encoding="utf-8")
        try:
            false, document = _falsified(json.loads(text), one)
            path.write_text(as_text(document), encoding="utf-8")
            seen[f"{one.name} = {false}"] = [line for line in verify(scope, []).breaks if line not in before]
        finally:
            path.write_text(text, encoding="utf-8")
    return seen


def _falsified(document: dict[str, Any], one: Plant) -> tuple[Any, dict[str, Any]]:
    *parents, name = one.field.split(".")
    table: Any = document
    for part in parents:
        table = table[int(part)] if part.isdigit() else table[part]
    if table[name] == (false := one.falsify(table[name])):
        raise HarnessError(f"planted figures: {one.name} is not falsified by {false}")
    table[name] = false
    return false, document


# --- Merged runs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One way of merging: what is here at first, what is merged, in which order, and which table is looked at."""

    here: str
    sources: tuple[str, ...]
    replace: bool = False
    experiment: str = ""

    @property
    def name(self) -> str:
        """Unique, and readable."""
        options = [*(["--replace"] if self.replace else []), *([self.experiment] if self.experiment else [])]
        return " ".join([self.here or "nothing", "<-", *self.sources, *options])


# Two whole runs over both tables, and one over the first table alone.
RUNS = {"early": 1, "late": 2}
WAYS: Sequence[Way] = (
    *(
        Way(here, sources, replace)
        for here, sources, replace in product(
            ("", "early", "late"), (("early",), ("late",), ("early", "late"), ("late", "early")), (False, True)
        )
        if (here,) != sources
    ),
    *(Way("early", ("late",), replace, table) for replace in (False, True) for table in ("prune-0.3", "prune-0.4")),
    *(Way(here, ("part",), replace) for here in RUNS for replace in (False, True)),
    *(Way("", ("part", *sources), experiment="prune-0.3") for sources in ((), ("late",), ("early", "late"))),
)


def false_alarms(folder: Path) -> dict[str, list[str]]:
    """Each way of merging runs that nothing has disturbed -> what `verify` says of what came of it."""
    scope = Scope(folder / "matrix.toml", "lite", Paths(folder, folder, folder / "data"))
    (scope.paths.data / CIFAR_FOLDER).mkdir(parents=True)
    # one engine under both instruction sets: a headline, and a condition beside it
    document = deepcopy(DOCUMENT)
    put(document, "bench.engines", ["onnxruntime-1.16.0"])
    scope.matrix.write_text(as_toml(document), encoding="utf-8")
    plan = scope.plan()
    machines = {name: _machine(plan, folder / name, day) for name, day in RUNS.items()}
    machines["part"] = _machine(scope_of(scope, folder / "part", "prune-0.3").plan(), folder / "part", 3)
    found = {}
    for number, way in enumerate(WAYS):
        here = scope_of(scope, folder / f"way-{number}", way.experiment)
        _copy(machines[way.here] if way.here else None, here.paths)
        for source in way.sources:
            merge(plan, here.paths, [machines[source].results / plan.profile], way.replace)
        found[way.name] = verify(here, []).breaks
    return found


def scope_of(scope: Scope, folder: Path, experiment: str = "") -> Scope:
    """The same matrix with records and files below a folder, all of it or one table."""
    places = Paths(folder / "results", folder / "artifacts", scope.paths.data)
    return Scope(scope.matrix, scope.profile, places, (experiment,) if experiment else ())


def _copy(machine: Paths | None, into: Paths) -> None:
    if machine:
        shutil.copytree(machine.results, into.results)
        shutil.copytree(machine.artifacts, into.artifacts)


def _machine(plan: Plan, folder: Path, day: int) -> Paths:
    """A machine that has measured a plan's models in one run, of drawn samples, on this day of January.

    The models are the same on all machines; their files are on none.
    """
    places, run, random = below(folder), f"run-{day}", np.random.default_rng(day)
    teachers: dict[str, list[Process]] = {}
    measured = []
    for cell in plan.cells:
        for record in records_for(plan, cell):
            if isinstance(record, LatencyRecord | AccuracyRecord):
                at = f"2026-01-{day:02d}T03:04:05+00:00"
                facts = {**record.environment, "run": run}
                record = record.model_copy(update={"environment": facts, "finished_at": at})
            if isinstance(record, LatencyRecord):
                record = _drawn(plan, cell, record, places, teachers, random)
                measured.append(record)
            save(places.results, record)
    keep(places.results, measured)
    return places


def _drawn(
    plan: Plan,
    cell: Cell,
    record: LatencyRecord,
    places: Paths,
    teachers: dict[str, list[Process]],
    random: np.random.Generator,
) -> LatencyRecord:
    """The record with processes of drawn samples, whose raw files it leaves, and the figures that follow from them."""

    def series(name: str) -> list[Process]:
        return [
            _process(places.artifacts / plan.profile / "bench", f"{name}.{record.condition}", record, process, random)
            for process in record.processes
        ]

    processes = series(cell.id)
    teacher = teachers.setdefault(record.condition, processes)
    control = series(f"{cell.id}-control") if cell.is_teacher else []
    seed = plan.settings.bench.seed

    def ratio(some: Sequence[Process]) -> Any:
        return paired_ratio(_observations(some), _observations(teacher), seed)

    return record.model_copy(
        update={
            "processes": processes,
            "latency_ms": interval(list(_observations(processes).values()), seed),
            "median_ms": median_process(process.median_ms for process in processes),
            "p90_ms": median_process(process.p90_ms for process in processes),
            "ratio_to_teacher": ratio(processes),
            "control": control,
            "control_ratio": ratio(control) if control else None,
        }
    )


def _observations(processes: Sequence[Process]) -> dict[int, float]:
    return {process.block: process.low_ms for process in processes}


def _process(raw: Path, name: str, record: LatencyRecord, like: Process, random: np.random.Generator) -> Process:
    """A process like one on record, with drawn samples; leaves its raw file as pytest-benchmark writes it."""
    samples = like.low_ms / 1000 * (1 + random.exponential(0.02, like.rounds))
    info = {**like.model_dump(exclude={"low_ms", "median_ms", "p90_ms"}), "run": record.environment["run"]}
    entry = {"extra_info": info, "stats": {"data": samples.tolist()}}
    path = raw / f"latency-block{like.block:03d}-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"benchmarks": [entry]}), encoding="utf-8")
    process = to_process(entry, like.block, like.order, path)
    assert isinstance(process, Process)
    return process
