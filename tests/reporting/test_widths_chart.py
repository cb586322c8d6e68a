from pathlib import Path

import pytest

from harness.plan.planning import Plan
from harness.reporting import widths_chart
from harness.reporting.chart_style import LIGHT
from harness.reporting.charts import drawn
from harness.reporting.reading import read_rows
from harness.store.records import TrainRecord
from tests.synthetic import change, fill_results, plan_for


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    plan = plan_for("lite", experiments=["controlled-bn"])
    fill_results(plan, tmp_path)
    return plan


def test_students_that_were_pruned_to_the_same_widths_share_a_panel(plan: Plan, tmp_path: Path) -> None:
    for cell in plan.cells:
        change(tmp_path, plan, cell.id, TrainRecord, widths={"conv1": 8, "fc": 100 if cell.is_teacher else 50})
    change(tmp_path, plan, "p0.3-bn-gram-s0-controlled", TrainRecord, widths={"conv1": 4, "fc": 50})
    rows = read_rows(plan, plan.tables[0], tmp_path)
    with drawn(widths_chart, rows, "Title", "subtitle", LIGHT) as figure:
        titles = sorted(axes.get_title(loc="left") for axes in figure.axes)
    assert titles == ["BN 0.3, 4 models: 54 %", "BN 0.3, GRAM+Base: 50 %"]


def test_without_the_teachers_widths_or_a_students_there_is_no_chart(plan: Plan, tmp_path: Path) -> None:
    assert not widths_chart.drawable(read_rows(plan, plan.tables[0], tmp_path))
    change(tmp_path, plan, plan.teacher.id, TrainRecord, widths={"conv1": 8})
    assert not widths_chart.drawable(read_rows(plan, plan.tables[0], tmp_path))
    change(tmp_path, plan, plan.cells[1].id, TrainRecord, widths={"conv1": 4})
    assert widths_chart.drawable(read_rows(plan, plan.tables[0], tmp_path))
