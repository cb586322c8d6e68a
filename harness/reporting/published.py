"""The reference study's published figures, as data: two tables (published.csv) and the means of its chart."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
TEACHER = "ResNet50"
# What the study compressed, by which protocol of matrix.toml, and on which images; drawn ones stand in for its own.
ARCHITECTURE, PROTOCOL = "resnet50", "study"
STAND_IN = "stand_in"
DATASETS = ("cifar100", STAND_IN)


@dataclass(frozen=True)
class Published:
    """One row of the study's tables: ms at batch 1 on its author's i9-9900K, %, millions."""

    latency_ms: float
    accuracy_pct: float
    params_m: float
    ratio_to_teacher: float


@cache
def published_rows() -> dict[str, Published]:
    """Figures by model title; the latency ratio is the row's latency divided by the teacher's."""
    lines = _read(HERE / "published.csv")
    teacher_ms = next(float(line["latency_ms"]) for line in lines if line["model"] == TEACHER)
    return {
        line["model"]: Published(
            latency_ms=float(line["latency_ms"]),
            accuracy_pct=float(line["accuracy_pct"]),
            params_m=float(line["params_m"]),
            ratio_to_teacher=float(line["latency_ms"]) / teacher_ms,
        )
        for line in lines
    }


@cache
def published_means() -> dict[tuple[float, str, str], float]:
    """Mean accuracy (%) over five seeds by (prune amount, Pruning column, KD column)."""
    return {
        (float(line["prune_amount"]), line["pruning"], line["kd"]): float(line["mean_accuracy_pct"])
        for line in _read(HERE / "published_means.csv")
    }


def _read(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))
