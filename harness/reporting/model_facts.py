"""What explains a latency: each model's size, work, memory layout in the runtime, memory use and first inference."""

from collections.abc import Sequence
from statistics import median_high

from harness.reporting.rows import Row
from harness.reporting.tables import ABSENT, Column


def model_facts(rows: Sequence[Row]) -> list[Column]:
    """One row per model; all but the first column come from its train, export, latency and accuracy records."""
    return [
        Column("Model Name", [row.cell.title for row in rows], figures=False),
        Column("Parameters (M)", [_scaled(row.params, 1e6, 3) for row in rows]),
        Column("MACs (M)", [_scaled(row.macs, 1e6, 2) for row in rows]),
        Column("ONNX file (MB)", [_scaled(row.export.onnx_bytes if row.export else None, 1e6, 2) for row in rows]),
        Column(
            "Same answer as torch (%)",
            [_figure(row.accuracy.agreement_pct if row.accuracy else None, 2) for row in rows],
        ),
        Column("Convolutions in NCHWc", [_layout(row) for row in rows]),
        Column("Denormal weights", [_count(row.export.denormal_weights if row.export else None) for row in rows]),
        Column("First inference (ms)", [_figure(_middle(_first(row)), 2) for row in rows]),
        Column("Median inference (ms)", [_figure(row.latency.median_ms if row.latency else None, 3) for row in rows]),
        Column("90th percentile (ms)", [_figure(row.latency.p90_ms if row.latency else None, 3) for row in rows]),
        Column("Peak memory (MiB)", [_scaled(_peak(row), 2**20, 0) for row in rows]),
    ]


def _layout(row: Row) -> str:
    accuracy = row.accuracy
    if accuracy is None or accuracy.convolutions is None or accuracy.nchwc_convolutions is None:
        return ABSENT
    return f"{accuracy.nchwc_convolutions} of {accuracy.convolutions}"


def _first(row: Row) -> list[float]:
    return [process.first_inference_ms for process in row.latency.processes] if row.latency else []


def _peak(row: Row) -> int | None:
    return max((process.peak_rss_bytes for process in row.latency.processes), default=None) if row.latency else None


def _middle(values: Sequence[float]) -> float | None:
    return median_high(values) if values else None


def _scaled(value: float | None, unit: float, decimals: int) -> str:
    return _figure(None if value is None else value / unit, decimals)


def _figure(value: float | None, decimals: int) -> str:
    return ABSENT if value is None else f"{value:.{decimals}f}"


def _count(value: int | None) -> str:
    return ABSENT if value is None else str(value)
