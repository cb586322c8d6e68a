from pathlib import Path

import pytest

from harness.reporting import study_chart
from harness.reporting.pareto_chart import drawable, points_of
from harness.reporting.reading import read_rows
from harness.store.records import AccuracyRecord, LatencyRecord
from tests.synthetic import fill_results, keep_predictions, path_of, plan_for


def test_every_model_is_a_point_with_what_is_uncertain_in_both_directions(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    keep_predictions(tmp_path, plan)
    rows = read_rows(plan, plan.tables[0], tmp_path)
    points = points_of(rows)
    assert {point.row.cell.id: point.ratio for point in points} == {row.cell.id: row.ratio for row in rows}
    assert {point.row.cell.id: point.accuracy.value for point in points} == {
        row.cell.id: row.accuracy_pct for row in rows
    }
    students = [point for point in points if not point.row.cell.is_teacher]
    assert all(point.accuracy.bounds and point.ratio.bounds for point in students)
    # those of the front are named first, where there may not be room for all
    assert [point.front for point in points] == sorted((point.front for point in points), reverse=True)
    assert {point.name for point in students} == {
        f"{p} {kd}" for p in ("L1", "BN", "GN") for kd in ("Base", "FMSE", "GRAM")
    }


def test_seeds_are_one_point_and_what_all_have_in_common_is_in_no_name(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["seeds"])
    fill_results(plan, tmp_path)
    assert sorted(point.name for point in points_of(read_rows(plan, plan.tables[0], tmp_path))) == [
        "Base",
        "FMSE",
        "GRAM",
        "teacher",
    ]


@pytest.mark.parametrize("kind", [AccuracyRecord, LatencyRecord])
def test_a_model_without_one_of_its_figures_is_no_point(
    kind: type[AccuracyRecord | LatencyRecord], tmp_path: Path
) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    path_of(tmp_path, plan, "p0.3-bn-gram-s0", kind).unlink()
    assert len(points_of(read_rows(plan, plan.tables[0], tmp_path))) == 9
    for cell in plan.cells[1:]:
        path_of(tmp_path, plan, cell.id, kind).unlink(missing_ok=True)
    assert not drawable(read_rows(plan, plan.tables[0], tmp_path))


def test_the_studys_models_are_shown_as_ratios_to_its_own_teacher(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    ours, theirs = study_chart.shown(read_rows(plan, plan.tables[0], tmp_path))
    base = next(point for point in theirs if point[0] == "BN Base")
    assert base[3]["value"] == pytest.approx(6.36 / 12.28) and base[4]["value"] == pytest.approx(73.23 / 76.53)
    assert next(point for point in ours if point[0] == "teacher")[4]["value"] == 1
    controlled = plan_for("lite", experiments=["controlled"])
    fill_results(controlled, tmp_path)
    assert not study_chart.drawable(read_rows(controlled, controlled.tables[0], tmp_path))
