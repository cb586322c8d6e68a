from pathlib import Path

import pytest

from harness.plan.planning import Plan
from harness.reporting import charts, recovery_chart
from harness.reporting.chart_style import LIGHT
from harness.reporting.reading import Reading, read_rows
from harness.reporting.recovery_chart import CALIBRATED, PRUNED, recovery
from harness.reporting.report import check_files, write_report
from harness.reporting.rows import Row
from harness.reporting.table_document import figure_path, table_path
from harness.store.records import Epoch, TrainRecord
from tests.documents import Load
from tests.overlaps import faults
from tests.reporting.plans import own_plan
from tests.synthetic import change, fill_results, plan_for

CELL = "p0.3-bn-gram-s0"


def epochs(phase: str, *tested: float | None) -> list[Epoch]:
    return [
        Epoch(phase=phase, loss=1.0, image_size=24, test_accuracy_pct=pct, lr=0.1, images_per_s=100.0) for pct in tested
    ]


def with_tests(plan: Plan, results: Path, *tested: float) -> None:
    """Give every student of the plan epochs in which it was tested, after a sparse one in which it was not."""
    for cell in plan.cells:
        if not cell.is_teacher:
            change(results, plan, cell.id, TrainRecord, epochs=[*epochs("sparse", None), *epochs("base", *tested)])


def rows_of(plan: Plan, results: Path) -> list[Row]:
    return read_rows(plan, plan.tables[0], results)


def row_of(rows: list[Row], cell: str) -> Row:
    return next(row for row in rows if row.cell.id == cell)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    return plan


def test_a_student_comes_back_from_pruning_to_its_last_epoch(plan: Plan, tmp_path: Path) -> None:
    with_tests(plan, tmp_path, 60.0, 66.0)
    row = row_of(rows_of(plan, tmp_path), CELL)
    assert row.train is not None and row.train.pruning is not None
    assert list(recovery(row).items()) == [
        (PRUNED, row.train.pruning.accuracy_before_calibration_pct),
        (CALIBRATED, row.train.pruning.accuracy_after_pct),
        ("1", 60.0),
        ("2", 66.0),
    ]


def test_new_weights_come_back_from_nothing(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["controlled"])
    fill_results(plan, tmp_path)
    with_tests(plan, tmp_path, 30.0, 40.0)
    rows = rows_of(plan, tmp_path)
    assert recovery(row_of(rows, "p0.3-bn-scratch-s0-controlled")) == {"1": 30.0, "2": 40.0}
    assert list(recovery(row_of(rows, "p0.3-bn-none-s0-controlled"))) == [PRUNED, CALIBRATED, "1", "2"]
    assert recovery(rows[0]) == {}, "the teacher"


def test_without_tests_while_training_there_is_no_chart(plan: Plan, tmp_path: Path) -> None:
    assert not recovery_chart.drawable(rows_of(plan, tmp_path))
    report = write_report(Reading(plan, tmp_path), [], ["lite"])
    assert not figure_path(tmp_path, plan, plan.tables[0], charts.RECOVERY).exists()
    assert "recovery" not in report.text + table_path(tmp_path, plan, plan.tables[0]).read_text()


@pytest.mark.parametrize(
    ("experiment", "tested"), [("prune-0.3", [60.0]), ("seeds", [60.0] * 12), ("controlled", [60.0, 61.0])]
)
def test_every_experiment_has_one_beside_its_main_chart(experiment: str, tested: list[float], tmp_path: Path) -> None:
    plan = plan_for("long", experiments=[experiment])
    fill_results(plan, tmp_path)
    with_tests(plan, tmp_path, *tested)
    write_report(Reading(plan, tmp_path), [], ["long"])
    table, figure = plan.tables[0], figure_path(tmp_path, plan, plan.tables[0], charts.RECOVERY)
    assert f'src="../figures/{experiment}-recovery.svg"' in table_path(tmp_path, plan, table).read_text()
    assert b"pruned</text>" in figure.read_bytes()
    assert check_files(Reading(plan, tmp_path)) == []
    figure.unlink()
    assert [line.split(";")[0] for line in check_files(Reading(plan, tmp_path))] == [f"{figure} is missing"]


def test_it_is_stale_where_an_epoch_or_the_teacher_has_changed(plan: Plan, tmp_path: Path) -> None:
    with_tests(plan, tmp_path, 60.0, 66.0)
    write_report(Reading(plan, tmp_path), [], ["lite"])
    figure = figure_path(tmp_path, plan, plan.tables[0], charts.RECOVERY)
    for cell, fields in (
        (CELL, {"epochs": epochs("base", 60.0, 66.1)}),
        (plan.teacher.id, {"accuracy_pct": 77.0}),
    ):
        assert not [line for line in check_files(Reading(plan, tmp_path)) if str(figure) in line]
        change(tmp_path, plan, cell, TrainRecord, **fields)
        assert [line for line in check_files(Reading(plan, tmp_path)) if line.startswith(f"{figure} is stale")]
        write_report(Reading(plan, tmp_path), [], ["lite"])


@pytest.mark.parametrize("ways", [1, 2, 3, 4, 5, 7])
def test_every_way_of_pruning_has_a_panel_and_nothing_else_has(ways: int, load: Load, tmp_path: Path) -> None:
    amounts = [round(0.1 + 0.1 * number, 1) for number in range(ways)]
    plan = own_plan(load, {"prune_amount": amounts, "kd_method": ["base", "gram"]})
    fill_results(plan, tmp_path)
    with_tests(plan, tmp_path, 60.0, 66.0)
    rows = rows_of(plan, tmp_path)
    with charts.drawn(recovery_chart, rows, "Title", "subtitle", LIGHT) as figure:
        titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
        # two students and the teacher
        assert [len(axes.get_lines()) for axes in figure.axes] == [3] * ways
        assert faults(figure) == []
    assert titles == [f"BN, {amount:g} pruned" for amount in amounts]


def test_moments_of_long_training_are_named_as_far_as_there_is_room(plan: Plan, tmp_path: Path) -> None:
    with_tests(plan, tmp_path, *[60.0] * 40)
    with charts.drawn(recovery_chart, rows_of(plan, tmp_path), "Title", "subtitle", LIGHT) as figure:
        names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert names == [PRUNED, CALIBRATED, "7", "14", "21", "28", "35"]
        assert faults(figure) == []
