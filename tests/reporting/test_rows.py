from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.plan.planning import Cell, Plan
from harness.reporting.reading import read_rows
from harness.reporting.rows import Row, first_models, fronts, in_order
from harness.reporting.tables import note
from harness.store.records import (
    AccuracyRecord,
    ExportRecord,
    Failure,
    LatencyRecord,
    Record,
    Rounded,
    TrainRecord,
    failed,
    identity,
    save,
)
from harness.store.records import (
    load as load_record,
)
from tests.documents import Load
from tests.reporting.plans import own_plan
from tests.synthetic import TRAINING, change, common, fill_results, measure, path_of, plan_for

CELL = "p0.3-bn-gram-s0"


@pytest.fixture
def plan() -> Plan:
    return plan_for("lite", experiments=["prune-0.3"])


def rows_of(plan: Plan, results: Path) -> dict[str, Row]:
    return {row.cell.id: row for row in read_rows(plan, plan.tables[0], results)}


def test_the_teacher_comes_first_and_students_by_pareto_rank_and_accuracy(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, AccuracyRecord, accuracy_pct=99.0)
    rows = read_rows(plan, plan.tables[0], tmp_path)
    assert [row.cell.id for row in rows[:2]] == [plan.teacher.id, CELL]
    ranks = fronts([[row] for row in rows])
    order = [(rank or 0, -(row.accuracy_pct or 0)) for rank, row in zip(ranks[1:], rows[1:], strict=True)]
    assert order == sorted(order) and {1, 2} <= set(ranks)


def test_rows_without_a_figure_come_last_and_seeds_stay_together(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["seeds"])
    fill_results(plan, tmp_path)
    for seed in range(5):
        path_of(tmp_path, plan, f"p0.3-bn-base-s{seed}", LatencyRecord).unlink()
    change(tmp_path, plan, "p0.3-bn-gram-s3", AccuracyRecord, accuracy_pct=1.0)
    path_of(tmp_path, plan, "p0.3-bn-fmse-s0", AccuracyRecord).unlink()
    rows = read_rows(plan, plan.tables[0], tmp_path)
    # The means of the other seeds decide where a model stands, and its seeds are in their own order.
    assert [(row.kd, row.cell.seed) for row in rows[1:]] == [
        (kd, seed) for kd in ("FMSE+Base", "GRAM+Base", "Base") for seed in range(5)
    ]


def test_the_first_models_have_all_of_their_seeds_and_a_student_is_always_there(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["seeds"])
    fill_results(plan, tmp_path)
    rows = read_rows(plan, plan.tables[0], tmp_path)
    assert len(rows) == 16
    assert [len(first_models(rows, most)) for most in (16, 15, 11, 10, 6, 5, 1)] == [16, 11, 11, 6, 6, 6, 6]
    assert all(list(first_models(rows, most)) == rows[: len(first_models(rows, most))] for most in range(1, 17))
    students = rows[1:]
    assert list(first_models(students, 3)) == students[:5], "a model of more seeds than there is room for"


def test_no_planned_cell_is_dropped(plan: Plan, tmp_path: Path) -> None:
    rows = read_rows(plan, plan.tables[0], tmp_path)
    assert [row.cell for row in rows] == list(plan.tables[0].cells)
    assert all([(p.stage, p.state) for p in row.problems] == [("train", "missing")] for row in rows)


def test_a_complete_row_has_its_figures_and_no_problem(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    row = rows_of(plan, tmp_path)[CELL]
    assert not row.problems
    assert (row.pruning, row.kd) == ("BN", "GRAM+Base")
    assert None not in (row.latency_ms, row.accuracy_pct, row.params)


def test_a_row_has_its_latencies_under_the_other_conditions_as_well(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    headline, *others = plan.settings.bench.conditions
    row = rows_of(plan, tmp_path)[CELL]
    assert row.latency is not None
    assert row.latency.condition == headline
    assert [record.condition for record in row.beside] == others


def test_a_latency_beside_the_headline_that_is_not_there_or_not_of_this_file_is_left_out(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    first, second, *others = plan.settings.bench.conditions[1:]
    path_of(tmp_path, plan, CELL, LatencyRecord, first).unlink()
    change(tmp_path, plan, CELL, LatencyRecord, second, onnx_sha256="f" * 64)
    row = rows_of(plan, tmp_path)[CELL]
    assert [record.condition for record in row.beside] == others
    assert not row.problems


@pytest.mark.parametrize("kind", [TrainRecord, ExportRecord, LatencyRecord, AccuracyRecord])
def test_a_record_under_another_key_is_stale(plan: Plan, tmp_path: Path, kind: type[Record]) -> None:
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, kind, key="0" * 16)
    row = rows_of(plan, tmp_path)[CELL]
    assert [(p.stage, p.state) for p in row.problems] == [(kind.stage, "stale")]
    assert getattr(row, kind.stage) is None


def test_figures_of_another_onnx_file_are_orphaned(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, LatencyRecord, onnx_sha256="f" * 64)
    row = rows_of(plan, tmp_path)[CELL]
    assert [(p.stage, p.state) for p in row.problems] == [("latency", "orphaned")]
    assert row.latency_ms is None
    assert row.accuracy_pct is not None


def test_an_export_of_other_weights_takes_its_measurements_with_it(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, ExportRecord, weights_sha256="f" * 64)
    row = rows_of(plan, tmp_path)[CELL]
    assert (row.export, row.latency, row.accuracy) == (None, None, None)
    assert [(p.stage, p.state) for p in row.problems] == [("export", "orphaned")]


def test_a_failed_cell_says_why(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    cell = next(cell for cell in plan.cells if cell.id == CELL)
    about = identity(plan.profile, cell.id, cell.title, cell.trained)
    why = Failure(kind="diverged", message="loss is nan")
    save(tmp_path, failed(TrainRecord, why, seconds=1.0, environment=TRAINING, **about))
    (problem,) = rows_of(plan, tmp_path)[CELL].problems
    assert problem.short == "train failed (diverged)"
    assert problem.detail.endswith("loss is nan")


def test_a_truncated_record_is_a_row_that_names_the_file(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    path = path_of(tmp_path, plan, CELL, LatencyRecord)
    path.write_text(path.read_text()[:100])
    row = rows_of(plan, tmp_path)[CELL]
    (problem,) = row.problems
    assert (problem.stage, problem.state, problem.short) == ("latency", "unreadable", "latency record is unreadable")
    assert problem.detail.startswith(f"{path.relative_to(tmp_path)}: not a latency record")
    assert row.latency is None
    assert row.accuracy is not None


def test_a_row_that_fails_a_check_says_so_and_stays(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, LatencyRecord, runtime="onnxruntime 1.23.0")
    rows = rows_of(plan, tmp_path)
    assert [row.cell.id for row in rows.values() if row.problems] == [CELL]
    (problem,) = rows[CELL].problems
    assert (problem.stage, problem.state, problem.short) == ("latency", "failed", "failed: wrong-runtime")
    assert "onnxruntime 1.23.0, not onnxruntime 1.16.0" in problem.detail
    assert note(rows[CELL]) == "1/8 width, failed: wrong-runtime"


def test_a_warning_does_not_fail_a_row(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    measure(tmp_path, plan, CELL, 1.2)
    assert not rows_of(plan, tmp_path)[CELL].problems


def test_labels_name_a_thin_model_and_other_images() -> None:
    def labels(profile: str, dataset: str) -> list[str]:
        plan = plan_for(profile, dataset)
        return Row(plan.cells[-1], None, None, None, None, ()).labels

    assert labels("long", "cifar100") == []
    assert labels("lite", "cifar100") == ["1/8 width"]
    assert labels("quick", "stand_in") == ["1/8 width", "stand-in images"]
    assert labels("quick", "cifar100_ten") == ["1/8 width", "ten classes of CIFAR-100"]


def test_a_row_of_rounded_weights_says_so_and_keeps_its_figures(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    rounded = Rounded(dtype="float16", weights_sha256="c" * 64, accuracy_pct=75.0)
    change(tmp_path, plan, CELL, TrainRecord, rounded_from=rounded)
    row = rows_of(plan, tmp_path)[CELL]
    assert row.labels == ["1/8 width", "half-precision weights"] and "half-precision weights" in note(row)
    assert row.accuracy_pct is not None and not row.problems


@pytest.mark.parametrize(
    ("removed_pct", "said"),
    [(12, "12 % of channels removed, 30 % asked"), (45, "45 % of channels removed, 30 % asked"), (21, ""), (39, "")],
)
def test_pruning_that_is_not_what_was_asked_for_is_noted(
    plan: Plan, tmp_path: Path, removed_pct: int, said: str
) -> None:
    fill_results(plan, tmp_path)
    pruning = load_record(path_of(tmp_path, plan, CELL, TrainRecord), TrainRecord).pruning
    assert pruning
    done = pruning.model_copy(update={"ranked_before": 1000, "ranked_after": 1000 - 10 * removed_pct})
    change(tmp_path, plan, CELL, TrainRecord, pruning=done)
    row = rows_of(plan, tmp_path)[CELL]
    assert note(row) == ", ".join(["1/8 width", *([said] if said else [])])
    assert not row.problems


def test_layers_that_would_have_lost_every_channel_are_named(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    pruning = load_record(path_of(tmp_path, plan, CELL, TrainRecord), TrainRecord).pruning
    assert pruning
    skipped = {"ranked_before": 100, "ranked_after": 95, "emptied_layers": ["layer1.0.conv1", "layer2.0.conv1"]}
    change(tmp_path, plan, CELL, TrainRecord, pruning=pruning.model_copy(update=skipped))
    (caution,) = rows_of(plan, tmp_path)[CELL].cautions
    layers = "layers that would have lost every channel: layer1.0.conv1, layer2.0.conv1"
    assert caution.detail == f"5 % of channels removed, 30 % asked for; {layers}"


def test_a_record_by_other_code_keeps_its_figures_and_says_so(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    code = load_record(path_of(tmp_path, plan, CELL, TrainRecord), TrainRecord).code
    assert {"method gram", "criterion bn"} <= set(code)
    change(tmp_path, plan, CELL, TrainRecord, code={**code, "method gram": "0" * 64})
    row = rows_of(plan, tmp_path)[CELL]
    assert "code changed" in note(row)
    assert [caution.detail for caution in row.cautions] == ["made before the code of method gram was changed"]
    assert row.accuracy_pct is not None and row.latency_ms is not None and not row.problems
    others = [one for one in rows_of(plan, tmp_path).values() if one.cell.id != CELL]
    assert not any(one.cautions for one in others)


def test_a_student_of_another_teacher_is_orphaned(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, TrainRecord, teacher_sha256="f" * 64)
    row = rows_of(plan, tmp_path)[CELL]
    assert [(p.stage, p.state, p.short) for p in row.problems] == [("train", "orphaned", "train record is orphaned")]
    assert "comes from a teacher with weights ffffffffffff" in row.problems[0].detail
    assert (row.train, row.export, row.latency, row.accuracy) == (None, None, None, None)


def test_a_record_of_the_first_schema_is_a_row_that_says_what_to_do(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    path = path_of(tmp_path, plan, CELL, TrainRecord)
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    (problem,) = rows_of(plan, tmp_path)[CELL].problems
    assert problem.short == "train record is unreadable"
    assert "a record of schema 1, and this harness writes 2" in problem.detail


def test_an_accuracy_that_is_no_number_orders_no_other_row(plan: Plan, tmp_path: Path) -> None:
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, AccuracyRecord, accuracy_pct=float("nan"))
    assert "NaN" in path_of(tmp_path, plan, CELL, AccuracyRecord).read_text()
    rows = read_rows(plan, plan.tables[0], tmp_path)
    assert rows[-1].cell.id == CELL
    assert rows[-1].accuracy_pct is None
    assert {row.cell.id for row in rows} == {cell.id for cell in plan.cells}


def test_the_studys_figures_stand_beside_its_own_models_only(load: Load) -> None:
    def published(experiment: dict[str, Any], model: dict[str, Any] | None = None) -> list[bool]:
        plan = own_plan(load, experiment, {"model": model or {}})
        return [bool(row.published) for row in (bare(cell) for cell in plan.cells)]

    assert published({}) == [True, True]
    assert published({"protocol": "controlled"}) == [True, False]
    assert published({}, {"architecture": "resnet18"}) == [False, False]
    assert published({"student": {"lr": [0.05]}}) == [True, False]


def test_the_studys_means_belong_to_its_own_protocol_and_recipe(load: Load) -> None:
    def mean(experiment: dict[str, Any]) -> float | None:
        return bare(own_plan(load, experiment).cells[1]).published_mean

    assert mean({}) == 73.36
    assert mean({"protocol": "controlled"}) is None
    assert mean({"student": {"lr": [0.05]}}) is None


def bare(cell: Cell) -> Row:
    return Row(cell, None, None, None, None, ())


@given(st.lists(st.none() | st.floats(0, 100), max_size=9))
def test_any_accuracies_keep_all_rows_in_order(accuracies: list[float | None]) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    teacher, *students = [Row(cell, None, None, None, None, ()) for cell in plan.cells]
    given_rows = [
        replace(row, accuracy=None if value is None else accuracy_of(plan, row, value))
        for row, value in zip(students, accuracies, strict=False)
    ]
    rows = in_order([*given_rows, teacher])
    assert rows[0] is teacher
    assert {row.cell.id for row in rows[1:]} == {row.cell.id for row in given_rows}
    present = [value for value in accuracies if value is not None]
    expected = sorted(present, reverse=True) + [None] * (len(accuracies) - len(present))
    assert [row.accuracy_pct for row in rows[1:]] == expected


def accuracy_of(plan: Plan, row: Row, value: float) -> AccuracyRecord:
    fields = common(plan, row.cell, plan.accuracy(row.cell), {})
    return AccuracyRecord(**fields, onnx_sha256="", runtime="", accuracy_pct=value)
