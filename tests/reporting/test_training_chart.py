from pathlib import Path

import numpy as np

from harness.reporting import training_chart
from harness.reporting.chart_style import LIGHT
from harness.reporting.charts import drawn
from harness.reporting.reading import read_rows
from harness.store.records import Epoch, TrainRecord
from tests.synthetic import change, fill_results, plan_for


def epochs(phase: str, *accuracies: float) -> list[Epoch]:
    return [Epoch(phase=phase, loss=1.0, lr=0.1, images_per_s=100.0, accuracy_pct=one) for one in accuracies]


def test_every_epoch_of_every_model_is_in_the_curve_of_its_way_of_pruning(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    for cell in plan.cells:
        trained = (
            epochs("teacher", *range(10, 40)) if cell.is_teacher else epochs("sparse", 30.0) + epochs("base", 35.0)
        )
        change(tmp_path, plan, cell.id, TrainRecord, epochs=trained)
    rows = read_rows(plan, plan.tables[0], tmp_path)
    with drawn(training_chart, rows, "Title", "subtitle", LIGHT) as figure:
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        curves = [line for axes in figure.axes for line in axes.get_lines() if np.size(line.get_xdata()) > 1]
        marks = [line for line in figure.axes[0].get_lines() if np.size(line.get_xdata()) == 1]
    assert titles == ["The teacher", "BN, 0.3 pruned", "GN, 0.3 pruned", "L1, 0.3 pruned"]
    assert [np.size(curve.get_xdata()) for curve in curves] == [30, *[2] * 9]
    assert len(marks) == 1, "of a long curve only the first epoch of a phase has a mark"
