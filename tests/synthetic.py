"""Records of every stage for any plan, as the harness would leave them: the figures are made up but fit together."""

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness import predictions
from harness.files import digest
from harness.intervals import interval, median_process, paired_ratio
from harness.plan.bench_settings import engine_version
from harness.plan.cpu_table import find_cpu
from harness.plan.loading import load_settings
from harness.plan.planning import Cell, Plan, make_plan
from harness.plan.specs import Sparse, Stage
from harness.store.records import (
    AccuracyRecord,
    Epoch,
    ExportRecord,
    InstructionSet,
    Interval,
    LatencyRecord,
    Process,
    Pruning,
    Record,
    TrainRecord,
    identity,
    load,
    record_path,
    save,
)

MATRIX = Path(__file__).parents[1] / "matrix.toml"
TRAINING = {
    "device": "Some GPU",
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
# What processes on that machine see, where nothing is masked and where the target's instruction set is shown.
INSTRUCTION_SETS = {
    "host": InstructionSet(
        way="none",
        cpuid=["avx2", "avx512f"],
        numpy=["AVX2", "AVX512F"],
        engine={"nchwc_block": 16, "exact_byte_sums": False},
    ),
    "target": InstructionSet(
        way="faulting",
        cpuid=sorted(find_cpu("i9-9900K").features),
        numpy=["AVX2"],
        engine={"nchwc_block": 8, "exact_byte_sums": False},
    ),
}
# What "all" threads are on that machine.
ALL = 2
# What the teacher measured once more takes, by what it took the first time.
CONTROL = 1.001
TEACHER_PARAMS, TEACHER_MACS, TEACHER_CHANNELS, TEACHER_MS = 23_705_252, 1_308_000_000, 26_560, 15.5
LEFT = {"base": 0.49, "fmse": 0.64, "gram": 0.66, "none": 0.55, "scratch": 0.55}
ACCURACY = {"base": 73.0, "fmse": 74.6, "gram": 75.2, "none": 72.0, "scratch": 70.0}


def plan_for(profile: str = "long", dataset: str = "cifar100", experiments: list[str] | None = None) -> Plan:
    """The project's own matrix."""
    return make_plan(load_settings(MATRIX, profile), profile, dataset, experiments)


def common(plan: Plan, cell: Cell, stage: Stage, environment: dict[str, Any]) -> dict[str, Any]:
    """The fields that all records of a cell have; a train record is that of the model, which export forms share."""
    name = cell.model_id if stage is cell.trained else cell.id
    return {
        **identity(plan.profile, name, cell.title, stage),
        "status": "done",
        "finished_at": "2026-01-02T03:04:05+00:00",
        "seconds": 1.0,
        "environment": environment,
    }


def weights_hash(cell: Cell) -> str:
    """The made-up hash of a model's weights."""
    return digest([cell.trained.key, "weights"])


def onnx_hash(cell: Cell) -> str:
    """The made-up hash of a model file."""
    return digest([cell.spec.key, "onnx"])


def records_for(plan: Plan, cell: Cell) -> list[Record]:
    """Train, export, latency under every condition and accuracy of one cell, all done and fitting one another."""
    left = LEFT.get(cell.kd_method or "", 1.0)
    width = cell.teacher.network.width
    wobble = (cell.seed * 7 % 5 - 2) * 0.17 + {"l1": -1.6, "bn": 0.0, "gn": -0.7}.get(cell.prune_method or "", 0)
    accuracy = 76.5 if cell.is_teacher else ACCURACY[cell.kd_method or ""] + wobble
    ratio = 1.0 if cell.is_teacher else left * 0.95 + {"l1": 0.05, "gn": 0.12}.get(cell.prune_method or "", 0)
    params, macs = int(TEACHER_PARAMS * left * width**2), int(TEACHER_MACS * left * width**2)
    return [
        TrainRecord(
            **common(plan, cell, cell.trained, TRAINING),
            weights_sha256=weights_hash(cell),
            image_size=cell.teacher.data.image_size,
            teacher_sha256=None if cell.is_teacher else weights_hash(plan.teacher),
            accuracy_pct=accuracy,
            params=params,
            macs=macs,
            pruning=None if cell.is_teacher else pruning(cell, params, macs, accuracy),
            epochs=epochs(cell),
        ),
        ExportRecord(
            **common(plan, cell, cell.spec, TRAINING),
            weights_sha256=weights_hash(cell),
            onnx_sha256=onnx_hash(cell),
            params=params,
            flushed_weights=0,
            denormal_weights=0,
            parity_images=256,
            parity_largest_logit=21.5,
            parity_max_abs_diff=1e-5,
            parity_top1_agreement_pct=100.0,
        ),
        *latencies(plan, cell, TEACHER_MS * width, ratio),
        AccuracyRecord(
            **common(plan, cell, plan.accuracy(cell), {k: v for k, v in BENCH.items() if k != "steal_pct"}),
            onnx_sha256=onnx_hash(cell),
            runtime=engine_version(plan.settings.bench.engines[0]),
            accuracy_pct=accuracy,
            correct=round(accuracy * 100),
            images=10_000,
            testset_sha256="ab" * 32,
            agreement_pct=99.98,
            convolutions=53,
            nchwc_convolutions=52,
            instruction_set=INSTRUCTION_SETS[plan.settings.bench.isa[0]],
        ),
    ]


def epochs(cell: Cell) -> list[Epoch]:
    """As many as the recipes of training, and of sparse training before it, have."""
    stages = [stage for stage in cell.trained.lineage if isinstance(stage, Sparse) or stage is cell.trained]
    common = {"loss": 1.5, "accuracy_pct": 50.0, "lr": 0.1, "images_per_s": 100.0}
    return [
        Epoch.model_validate({**common, "phase": "base" if stage.kind == "student" else stage.kind})
        for stage in stages
        if stage.recipe
        for _ in range(stage.recipe.epochs)
    ]


def pruning(cell: Cell, params: int, macs: int, accuracy: float) -> Pruning:
    """What pruning did: as much as was asked."""
    width, amount = cell.teacher.network.width, cell.prune_amount or 0.0
    channels = int(TEACHER_CHANNELS * width)
    ranked = channels // 2
    removed = round(ranked * amount)
    return Pruning(
        amount=amount,
        channels_before=channels,
        channels_after=channels - removed,
        ranked_before=ranked,
        ranked_after=ranked - removed,
        params_before=int(TEACHER_PARAMS * width**2),
        params_after=params,
        macs_before=int(TEACHER_MACS * width**2),
        macs_after=macs,
        kept_layers=[],
        accuracy_before_calibration_pct=1.0,
        accuracy_after_pct=accuracy / 2,
    )


def latencies(plan: Plan, cell: Cell, teacher_ms: float, ratio: float, again: float = CONTROL) -> list[LatencyRecord]:
    """A record for each condition; the teacher's hold the control, which takes `again` times as long."""
    bench, found = plan.settings.bench, []
    for one in bench.combinations:
        engine, isa, asked = one
        threads = ALL if asked == "all" else asked
        took = teacher_ms * ratio * (1 if threads == 1 else 0.6) * (1 if engine == bench.engines[0] else 0.98)
        cpus = list(range(threads))
        timed = processes(plan, took, cpus, against=not cell.is_teacher)
        spread, paired = _spreads(bench.blocks, bench.seed)
        alike = Interval(value=1, low=1, high=1)
        control = {
            "control_ratio": _times(paired, again),
            "control": processes(plan, again * took, cpus, against=True),
        }
        found.append(
            LatencyRecord(
                **common(plan, cell, plan.latency(cell, one.name), {**BENCH, "measured_cpus": cpus}),
                condition=one.name,
                onnx_sha256=onnx_hash(cell),
                runtime=engine_version(engine),
                threads=threads,
                latency_ms=_times(spread, took),
                median_ms=median_process(process.median_ms for process in timed),
                p90_ms=median_process(process.p90_ms for process in timed),
                ratio_to_teacher=alike if cell.is_teacher else _times(paired, ratio),
                processes=timed,
                session={"intra_op_num_threads": threads},
                instruction_set=INSTRUCTION_SETS[isa],
                **(control if cell.is_teacher else {}),
            )
        )
    return found


def _pattern(blocks: int) -> list[float]:
    """How processes are spread, around their lower quartile."""
    return [1 + 0.001 * (block - (blocks - 1) / 4) for block in range(blocks)]


@cache
def _spreads(blocks: int, seed: int) -> tuple[Interval, Interval]:
    """The intervals of a latency, and of a ratio to the teacher whose fast blocks are the model's slow ones."""
    spread = _pattern(blocks)
    ratio = paired_ratio(dict(enumerate(reversed(spread))), dict(enumerate(spread)), seed)
    assert ratio
    return interval(spread, seed), ratio


def _times(unit: Interval, factor: float) -> Interval:
    ends = [bound * factor for bound in unit.bounds or ()]
    return Interval(value=unit.value * factor, **dict(zip(("low", "high"), ends, strict=False)))


def processes(plan: Plan, latency_ms: float, cpus: Sequence[int] = (0,), against: bool = False) -> list[Process]:
    """As many as the plan asks for, evenly spread, the fastest first or (`against`) last."""
    bench = plan.settings.bench
    observed = [latency_ms * one for one in _pattern(bench.blocks)]
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
        for block, low in enumerate(reversed(observed) if against else observed)
    ]


def fill_results(plan: Plan, results: Path, skip: Collection[str] = ()) -> None:
    """Write records of every cell of the plan except those in `skip`."""
    for cell in plan.cells:
        if cell.id not in skip:
            for record in records_for(plan, cell):
                save(results, record)


def keep_predictions(results: Path, plan: Plan, cells: Collection[str] = ()) -> None:
    """Answers that give the accuracies on record, to the same images for all cells, or for those named.

    Each model is wrong on images of its own choosing, but most on those that are hard.
    """
    random = np.random.default_rng(0)
    labels, hardness = random.integers(0, 100, 10_000), random.normal(size=10_000)
    for cell in plan.cells:
        wrong = np.argsort(hardness + 0.5 * random.normal(size=10_000))
        if cells and cell.id not in cells:
            continue
        record = load(path_of(results, plan, cell.id, AccuracyRecord), AccuracyRecord)
        assert record.correct is not None
        given = labels.copy()
        given[wrong[record.correct :]] = (labels[wrong[record.correct :]] + 1) % 100
        fields = predictions.keep(results, plan.profile, cell.id, given, labels)
        save(results, record.model_copy(update=fields))


def path_of(results: Path, plan: Plan, cell: str, kind: type[Record], under: str = "") -> Path:
    """Where a record lies; a latency under this condition, or else under the headline."""
    condition = under or plan.settings.bench.conditions[0] if kind is LatencyRecord else ""
    return record_path(results, plan.profile, kind.stage, cell, condition)


def change(results: Path, plan: Plan, cell: str, kind: type[Record], under: str = "", **fields: Any) -> None:
    """Rewrite some fields of one stored record."""
    record = load(path_of(results, plan, cell, kind, under), kind)
    save(results, record.model_copy(update=fields))


def measure(results: Path, plan: Plan, cell: str, ratio: float, again: float = CONTROL) -> None:
    """Put a cell's latencies in place that are as many times the teacher's, or give the teacher another control."""
    (found,) = plan.named([cell])
    for record in latencies(plan, found, TEACHER_MS * found.teacher.network.width, ratio, again):
        save(results, record)
