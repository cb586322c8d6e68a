"""What the study published for the models of a table, as tables of their own: another machine, another resolution."""

import math
from collections.abc import Sequence

from harness.reporting.published import Published
from harness.reporting.rows import Row
from harness.reporting.tables import DIFFERENCE, Column, made_by, over_seeds, students

SOURCE = "As published for ckdghk77/Network-Compression-Gram: full width, 224 px, i9-9900K."


def of_study(rows: Sequence[Row]) -> bool:
    """Whether the study published any of these students. The teacher alone has nothing to be compared with."""
    return any(row.published for row in rows if not row.cell.is_teacher)


def study_rows(rows: Sequence[Row]) -> list[tuple[Row, Published]]:
    """The rows that the study published as well, in the table's order."""
    return [(row, row.published) for row in rows if row.published] if of_study(rows) else []


def study_table(rows: Sequence[Row]) -> list[Column]:
    """The study's figures of its own models; ratio and difference are computed from these. No columns without any."""
    found = study_rows(rows)
    if not found:
        return []
    teacher_pct = next((published.accuracy_pct for row, published in found if row.cell.is_teacher), math.nan)
    differences = [0 if row.cell.is_teacher else one.accuracy_pct - teacher_pct for row, one in found]
    figures = [published for _, published in found]
    return [
        Column("Model Name", [row.cell.title for row, _ in found], figures=False),
        Column("Latency (ms)", [f"{one.latency_ms:.2f}" for one in figures]),
        Column("Accuracy (%)", [f"{one.accuracy_pct:.2f}" for one in figures]),
        Column("Parameters (M)", [f"{one.params_m:g}" for one in figures]),
        Column(DIFFERENCE, [f"{points:+z.1f}" if points else "0" for points in differences]),
        Column("Latency ratio", [f"{one.ratio_to_teacher:.2f}" for one in figures]),
    ]


def study_means(rows: Sequence[Row]) -> list[Column]:
    """The study's mean accuracies over seeds of models like these; no columns without any."""
    models = students(rows) if over_seeds(rows) else []
    found = [(model[0], mean) for model in models if (mean := model[0].published_mean) is not None]
    if not found:
        return []
    return [
        *made_by([row for row, _ in found]),
        Column("Mean accuracy (%)", [f"{mean:.2f}" for _, mean in found]),
    ]
