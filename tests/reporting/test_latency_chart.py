from pathlib import Path

import numpy as np

from harness.reporting import latency_chart
from harness.reporting.chart_style import LIGHT
from harness.reporting.charts import drawn
from harness.reporting.reading import read_rows
from harness.store.records import LatencyRecord
from tests.synthetic import fill_results, path_of, plan_for


def test_every_process_of_every_model_is_shown_in_the_tables_order(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    path_of(tmp_path, plan, "p0.3-bn-gram-s0", LatencyRecord).unlink()
    rows = [row for row in read_rows(plan, plan.tables[0], tmp_path) if row.latency]
    with drawn(latency_chart, rows, "Title", "subtitle", LIGHT) as figure:
        (axes,) = figure.axes
        assert [label.get_text() for label in axes.get_yticklabels()] == [row.cell.title for row in rows]
        medians = [line for line in axes.get_lines() if line.get_marker() == "|"]
        for row, line in zip(rows, medians, strict=True):
            assert row.latency
            assert np.asarray(line.get_xdata()).tolist() == [process.median_ms for process in row.latency.processes]
    assert len(latency_chart.shown(rows)) == 9 and not latency_chart.drawable([])
