"""Records as the other rooms would leave them, for any plan: figures are made up, but fit together."""

from collections.abc import Collection, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from harness.checks import limits
from harness.files import digest
from harness.intervals import ESTIMATOR
from harness.plan.planning import Cell, Plan, ancestry, make_plan
from harness.plan.settings import load_settings
from harness.store.records import (
    AccuracyRecord,
    ExportRecord,
    Interval,
    LatencyRecord,
    Process,
    Record,
    TrainRecord,
    load,
    record_path,
    save,
)

MATRIX = Path(__file__).parents[1] / "matrix.toml"
TRAINING = {
    "device": "Some GPU",
    "precision": "bf16",
    "torch": "2.13.0",
    "torchvision": "0.28.0",
    "torch-pruning": "1.6.1",
    "onnx": "1.19.0",
    "onnxruntime": "1.23.0",
    "harness_revision": "0123456789abcdef",
}
BENCH = {
    "run": "run-1",
    "cpu": "Some CPU @ 2.00GHz",
    "isa": ["avx2", "avx512f"],
    "virtualised": True,
    "physical_cores": 2,
    "caches_kib": {"L3": 32768},
    "steal_pct": 0.1,
    "kernel": "6.1",
    "image": None,
    "harness_revision": "0123456789abcdef",
}
# What a closed container says of itself.
CLOSED = {
    "asked": {"cpus": [0, 1], "memory_bytes": 4 << 30},
    "cpus": [0, 1],
    "memory_bytes": 4 << 30,
    "interfaces": [],
    "read_only_root": True,
    "root": False,
    "capabilities": [],
    "no_new_privileges": True,
    "engine_sockets": [],
    "writable_models": [],
    "writable_elsewhere": [],
}
# What "all" threads are on that machine.
ALL = 2
TEACHER_PARAMS, TEACHER_MACS = 23_705_252, 1_308_000_000
LEFT = {"base": 0.49, "fmse": 0.64, "gram": 0.66, "none": 0.55, "scratch": 0.55}
ACCURACY = {"base": 73.0, "fmse": 74.6, "gram": 75.2, "none": 72.0, "scratch": 70.0}


def plan_for(profile: str = "full", data: Any = "cifar100", experiments: list[str] | None = None) -> Plan:
    """The project's own matrix."""
    return make_plan(load_settings(MATRIX, profile), profile, data, experiments)


def common(plan: Plan, cell: Cell, environment: dict[str, Any]) -> dict[str, Any]:
    return {
        "cell": cell.id,
        "title": cell.title,
        "profile": plan.profile,
        "key": cell.key,
        "status": "done",
        "finished_at": "2026-01-02T03:04:05+00:00",
        "seconds": 1.0,
        "environment": environment,
    }


def records_for(plan: Plan, cell: Cell) -> list[Record]:
    """Train, export, latency under every condition and accuracy of one cell, all done and fitting one another."""
    left = LEFT.get(cell.kd_method or "", 1.0)
    width = ancestry(cell.settings)[0]["model"]["width"]
    wobble = (cell.seed * 7 % 5 - 2) * 0.17 + {"l1": -1.6, "bn": 0.0, "gn": -0.7}.get(cell.prune_method or "", 0)
    accuracy = 76.5 if cell.is_teacher else ACCURACY[cell.kd_method or ""] + wobble
    ratio = 1.0 if cell.is_teacher else left * 0.95 + {"l1": 0.05, "gn": 0.12}.get(cell.prune_method or "", 0)
    params = int(TEACHER_PARAMS * left * width**2)
    weights, onnx = digest([cell.key, "weights"]), digest([cell.key, "onnx"])
    done, benched = common(plan, cell, TRAINING), common(plan, cell, BENCH)
    return [
        TrainRecord(
            **done,
            settings=cell.settings,
            weights_sha256=weights,
            accuracy_pct=accuracy,
            params=params,
            macs=int(TEACHER_MACS * left * width**2),
        ),
        ExportRecord(
            **done,
            weights_sha256=weights,
            onnx_sha256=onnx,
            params=params,
            flushed_weights=0,
            denormal_weights=0,
            parity_images=256,
            parity_max_abs_diff=1e-5,
            parity_top1_agreement_pct=100.0,
        ),
        *latencies(plan, cell, onnx, 15.5 * width, ratio),
        AccuracyRecord(
            **benched,
            onnx_sha256=onnx,
            runtime="onnxruntime 1.16.0",
            accuracy_pct=accuracy,
            correct=round(accuracy * 100),
            images=10_000,
            testset_sha256="ab" * 32,
            agreement_pct=99.98,
            convolutions=53,
            nchwc_convolutions=52,
        ),
    ]


def latencies(plan: Plan, cell: Cell, onnx: str, teacher_ms: float, ratio: float) -> list[LatencyRecord]:
    """A record for each condition; the teacher's hold the control."""
    bench, spread = plan.settings.bench, 0.0 if cell.is_teacher else 0.004
    found = []
    for name, (runtime, asked) in zip(bench.conditions, product(bench.runtimes, bench.threads), strict=True):
        threads = ALL if asked == "all" else asked
        took = teacher_ms * ratio * (1 if threads == 1 else 0.6) * (1 if runtime == bench.runtimes[0] else 0.98)
        cpus = list(range(threads))
        timed = processes(plan, took, cpus)
        control = {"control_ratio": Interval(value=1.001, low=0.998, high=1.004), "control": timed}
        found.append(
            LatencyRecord(
                **common(plan, cell, {**BENCH, "measured_cpus": cpus}),
                condition=name,
                onnx_sha256=onnx,
                runtime=limits.RUNTIMES[runtime],
                threads=threads,
                latency_ms=Interval(value=took, low=took * 0.99, high=took * 1.01),
                median_ms=took * 1.05,
                p90_ms=took * 1.3,
                ratio_to_teacher=Interval(value=ratio, low=ratio - spread, high=ratio + spread),
                processes=timed,
                **(control if cell.is_teacher else {}),
                settings={
                    "bench": bench.model_dump(mode="json"),
                    "estimator": ESTIMATOR,
                    "session": {"intra_op_num_threads": threads},
                },
            )
        )
    return found


def processes(plan: Plan, latency_ms: float, cpus: Sequence[int] = (0,)) -> list[Process]:
    """As many as the plan asks for, evenly spread; a latency is their lower quartile."""
    bench = plan.settings.bench
    observed = [latency_ms * (1 + 0.001 * (block - (bench.blocks - 1) / 4)) for block in range(bench.blocks)]
    return [
        Process(
            block=block,
            order=10 * block,
            first_inference_ms=3 * low,
            warmup_rounds=bench.warmup_rounds,
            rounds=bench.rounds,
            low_ms=low,
            median_ms=low * 1.05,
            p90_ms=low * 1.3,
            cpus=list(cpus),
            peak_rss_bytes=100_000_000,
            involuntary_switches=0,
            distinct_inputs=bench.rounds,
        )
        for block, low in enumerate(observed)
    ]


def fill_results(plan: Plan, results: Path, skip: Collection[str] = ()) -> None:
    """Records of every cell of the plan but those skipped."""
    for cell in plan.cells:
        if cell.id not in skip:
            for record in records_for(plan, cell):
                save(results, record)


def path_of(results: Path, plan: Plan, cell: str, kind: type[Record], under: str = "") -> Path:
    """Where a record lies; a latency's under this condition, or else under the headline."""
    condition = under or plan.settings.bench.conditions[0] if kind is LatencyRecord else ""
    return record_path(results, plan.profile, kind.stage, cell, condition)


def change(results: Path, plan: Plan, cell: str, kind: type[Record], under: str = "", **fields: Any) -> None:
    """Rewrite some fields of one stored record."""
    record = load(path_of(results, plan, cell, kind, under), kind)
    save(results, record.model_copy(update=fields))
