from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.plan.planning import Plan
from harness.reporting.reading import read_rows
from harness.reporting.tables import (
    ABSENT,
    Column,
    axis_headers,
    columns,
    conditions,
    markdown,
    ratio_text,
    seed_means,
    students,
    terminal,
)
from harness.store.records import AccuracyRecord, ExportRecord, Interval, LatencyRecord, TrainRecord
from harness.store.records import load as load_record
from tests.documents import Load
from tests.reporting.plans import own_plan, write_methods
from tests.synthetic import TEACHER_MS, change, fill_results, measure, path_of, plan_for

SIX = ["Model Name", "Latency (ms)", "Accuracy (%)", "Parameters (M)", "Pruning", "KD"]


def table_of(plan: Plan, results: Path, number: int = 0) -> dict[str, list[str]]:
    return {column.header: column.cells for column in columns(read_rows(plan, plan.tables[number], results))}


def test_the_studys_six_columns_come_first_and_verbatim(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    assert list(table_of(plan, tmp_path))[:6] == SIX
    header = markdown(columns(read_rows(plan, plan.tables[0], tmp_path))).splitlines()[0]
    assert [cell.strip() for cell in header.split("|")[1:7]] == SIX


def test_figures_are_the_records(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    cell = "p0.3-bn-gram-s0"
    change(tmp_path, plan, cell, AccuracyRecord, accuracy_pct=99.88, correct=9_988)
    change(tmp_path, plan, cell, TrainRecord, accuracy_pct=99.88)
    change(tmp_path, plan, cell, ExportRecord, params=12_345_678)
    measure(tmp_path, plan, cell, 9.8765 / TEACHER_MS)
    row = {header: cells[1] for header, cells in table_of(plan, tmp_path).items()}
    assert row["Model Name"] == "P(0.3_BN)_KD(3)_SEED(0)"
    assert (row["Latency (ms)"], row["Accuracy (%)"], row["Parameters (M)"]) == ("9.88", "99.88", "12.3")
    assert row["Latency ratio"] == "0.637 ± 0.003"
    assert row["MACs ratio"] == "0.66"
    assert row["Pareto"] == "★ 1"


def test_thin_models_keep_digits_and_say_so(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    table = table_of(plan, tmp_path)
    assert all(note.endswith("1/8 width") for note in table["Note"])
    assert table["Parameters (M)"][0] == "0.37"
    assert table["Latency (ms)"][0] == "1.938"


def test_stand_in_images_are_named_in_every_row(tmp_path: Path) -> None:
    plan = plan_for("quick", "stand_in")
    fill_results(plan, tmp_path)
    assert all(note.endswith("1/8 width, stand-in images") for note in table_of(plan, tmp_path)["Note"])


def test_a_row_without_figures_stays_and_says_why(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.3"])
    fill_results(plan, tmp_path, skip={"p0.3-l1-base-s0"})
    change(tmp_path, plan, "p0.3-gn-base-s0", LatencyRecord, onnx_sha256="0" * 64)
    table = table_of(plan, tmp_path)
    last = {header: cells[-1] for header, cells in table.items()}
    assert last["Model Name"] == "P(0.3_L1)_KD(0)_SEED(0)"
    assert [last[header] for header in SIX[1:4]] == [ABSENT] * 3
    assert last["Note"] == "no train record"
    orphan = table["Model Name"].index("P(0.3_GN)_KD(0)_SEED(0)")
    assert (table["Latency (ms)"][orphan], table["Latency ratio"][orphan]) == (ABSENT, ABSENT)
    assert table["Note"][orphan].endswith("latency record is orphaned")
    assert len(table["Model Name"]) == len(plan.tables[0].cells)


def test_a_table_without_any_record_can_be_shown(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.3"])
    rows = read_rows(plan, plan.tables[0], tmp_path)
    assert markdown(columns(rows)).count("\n") == len(rows) + 1
    assert terminal(columns(rows)).count("no train record") == len(rows)


@given(st.floats(0.01, 3), st.floats(0, 1), st.floats(0, 1), st.just(0.0) | st.floats(0, 0.1))
def test_the_mark_is_there_exactly_where_no_difference_was_shown(
    value: float, below: float, above: float, noise: float
) -> None:
    interval = Interval(value=value, low=value - below, high=value + above)
    shown = not value - below <= 1 <= value + above and abs(value - 1) > noise
    assert ratio_text(interval, noise).startswith("≈") != shown


def test_what_the_teacher_differs_from_itself_by_is_no_difference(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    cell = "p0.3-bn-gram-s0"
    measure(tmp_path, plan, cell, 0.985)
    row = table_of(plan, tmp_path)["Model Name"].index("P(0.3_BN)_KD(3)_SEED(0)")
    assert table_of(plan, tmp_path)["Latency ratio"][row] == "0.985 ± 0.005"
    measure(tmp_path, plan, plan.teacher.id, 1, again=1.02)
    assert table_of(plan, tmp_path)["Latency ratio"][row] == "≈ 0.985 ± 0.005"


def conditions_of(plan: Plan, results: Path) -> dict[str, list[str]]:
    return {column.header: column.cells for column in conditions(read_rows(plan, plan.tables[0], results))}


def test_the_other_conditions_are_a_table_of_their_own(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    table = conditions_of(plan, tmp_path)
    target, host = "instruction set of the i9-9900K", "the machine's own instruction set"
    others = [
        f"onnxruntime {engine}, {threads}, {isa}"
        for engine in ("1.16.0", "1.32.0")
        for isa in (target, host)
        for threads in ("1 thread", "2 threads")
    ][1:]
    assert list(table) == ["Model Name", *(f"{one}: {what}" for one in others for what in ("latency (ms)", "ratio"))]
    assert table["Model Name"] == table_of(plan, tmp_path)["Model Name"]
    # 15.5 ms, of which two threads take 0.6 times as long
    assert float(table[f"{others[0]}: latency (ms)"][0]) == pytest.approx(15.5 * 0.6, abs=0.01)
    assert table[f"{others[0]}: ratio"][0] == "1"
    assert all("±" in cell or "[" in cell for cell in table[f"{others[-1]}: ratio"][1:])


def test_a_condition_that_some_rows_lack_has_gaps(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    path_of(tmp_path, plan, plan.cells[1].id, LatencyRecord, "onnxruntime-current-target-threads-1").unlink()
    table = conditions_of(plan, tmp_path)
    assert table["onnxruntime 1.32.0, 1 thread, instruction set of the i9-9900K: ratio"].count(ABSENT) == 1
    assert table["onnxruntime 1.32.0, 1 thread, the machine's own instruction set: ratio"].count(ABSENT) == 0


def test_one_condition_alone_has_no_table_beside_it(tmp_path: Path) -> None:
    plan = plan_for("quick")
    fill_results(plan, tmp_path)
    assert conditions_of(plan, tmp_path) == {}


def test_the_teachers_ratio_is_one_without_an_interval(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    assert table_of(plan, tmp_path)["Latency ratio"][0] == "1"


def test_means_over_seeds_with_how_many(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["seeds"])
    fill_results(plan, tmp_path, skip={"p0.3-bn-base-s4"})
    for seed, accuracy in enumerate([70.0, 71.0, 72.0, 73.0]):
        change(tmp_path, plan, f"p0.3-bn-base-s{seed}", AccuracyRecord, accuracy_pct=accuracy)
    means = seed_means(read_rows(plan, plan.tables[0], tmp_path))
    base = [column.cells[-1] for column in means]
    assert base == ["BN", "Base", "4 of 5", "71.50", "1.29", "-5.0", "0.465 [0.465, 0.465]", "★ 1"]


def test_a_table_of_one_seed_has_no_means(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    assert seed_means(read_rows(plan, plan.tables[0], tmp_path)) == []


def test_the_axes_of_an_experiments_own_are_columns(load: Load, tmp_path: Path) -> None:
    axes = {"student": {"lr": [0.05, 0.1]}, "method": {"gram": {"scale": [0.1, 1.0]}}}
    plan = own_plan(load, {"kd_method": ["base", "gram"], **axes})
    fill_results(plan, tmp_path)
    rows = read_rows(plan, plan.tables[0], tmp_path)
    headers = [column.header for column in columns(rows)]
    assert headers[:9] == [*SIX, "scale", "lr", "Δ accuracy (points)"]
    table = table_of(plan, tmp_path)
    found = set(zip(table["KD"], table["scale"], table["lr"], strict=True))
    assert found == {
        ("None", ABSENT, ABSENT),
        *(("Base", ABSENT, lr) for lr in ("0.05", "0.1")),
        *(("GRAM+Base", scale, lr) for scale in ("0.1", "1.0") for lr in ("0.05", "0.1")),
    }


def test_axes_that_end_alike_have_their_whole_names(load: Load, tmp_path: Path) -> None:
    axes = {"student": {"epochs": [9]}, "pruning": {"sparse": {"epochs": [1, 2]}, "round_to": ["auto"]}}
    rows = read_rows(own_plan(load, axes), own_plan(load, axes).tables[0], tmp_path)
    assert axis_headers(rows) == {
        "pruning.round_to": "round_to",
        "pruning.sparse.epochs": "pruning.sparse.epochs",
        "student.epochs": "student.epochs",
    }


def test_lists_and_truth_values_of_an_axis_can_be_read(load: Load, tmp_path: Path) -> None:
    axes = {"student": {"image_sizes": [[16, 32], [32]], "nesterov": [True]}}
    plan = own_plan(load, axes)
    table = table_of(plan, tmp_path)
    assert set(table["image_sizes"]) == {ABSENT, "16, 32", "32"}
    assert set(table["nesterov"]) == {ABSENT, "true"}


def test_means_over_seeds_are_taken_at_each_point_of_the_other_axes(load: Load, tmp_path: Path) -> None:
    plan = own_plan(load, {"seed": [0, 1], "student": {"lr": [0.05, 0.1]}})
    fill_results(plan, tmp_path)
    for cell in plan.cells[1:]:
        accuracy = 70 + 10 * cell.point["student.lr"] + cell.seed
        change(tmp_path, plan, cell.id, AccuracyRecord, accuracy_pct=accuracy, correct=round(100 * accuracy))
        change(tmp_path, plan, cell.id, TrainRecord, accuracy_pct=accuracy)
    means = {column.header: column.cells for column in seed_means(read_rows(plan, plan.tables[0], tmp_path))}
    assert means["lr"] == ["0.1", "0.05"]
    assert means["Mean accuracy (%)"] == ["71.50", "71.00"]
    assert means["Seeds"] == ["2 of 2", "2 of 2"]


def test_methods_of_one_title_are_groups_of_their_own(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    methods = write_methods(tmp_path, ["Same", "Same"])
    plan = own_plan(load, {"kd_method": methods, "seed": [0, 1]})
    rows = read_rows(plan, plan.tables[0], tmp_path)
    assert [len(members) for members in students(rows)] == [2, 2]


def test_a_group_without_an_accuracy_is_the_last(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["seeds"])
    fill_results(plan, tmp_path)
    for seed in range(5):
        path_of(tmp_path, plan, f"p0.3-bn-gram-s{seed}", AccuracyRecord).unlink()
    means = {column.header: column.cells for column in seed_means(read_rows(plan, plan.tables[0], tmp_path))}
    assert means["KD"] == ["FMSE+Base", "Base", "GRAM+Base"]
    assert means["Mean accuracy (%)"][-1] == ABSENT


def test_pruning_that_is_not_what_was_asked_for_is_in_the_table(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    cell = "p0.3-gn-base-s0"
    pruning = load_record(path_of(tmp_path, plan, cell, TrainRecord), TrainRecord).pruning
    assert pruning
    little = pruning.model_copy(update={"ranked_before": 100, "ranked_after": 88})
    change(tmp_path, plan, cell, TrainRecord, pruning=little)
    table = table_of(plan, tmp_path)
    noted = [name for name, text in zip(table["Model Name"], table["Note"], strict=True) if "12 % of channels" in text]
    assert noted == ["P(0.3_GN)_KD(0)_SEED(0)"]
    assert table["Note"][table["Model Name"].index(noted[0])].endswith("12 % of channels removed, 30 % asked")


def test_text_from_elsewhere_cannot_break_the_table() -> None:
    table = [Column("A|B", ["<!-- end -->", "a | b"], figures=False), Column("C", ["1 [0, 2]", "`x`"], markup=True)]
    lines = markdown(table).splitlines()
    assert [line.replace(r"\|", "").count("|") for line in lines] == [3, 3, 3, 3]
    assert "&lt;!-- end -->" in lines[2]
    assert "`x`" in lines[3]


@pytest.mark.parametrize("show", [markdown, terminal])
def test_figures_are_shown_as_given(show: object) -> None:
    # tabulate would print 0.50 as 0.5 and align it as a number
    assert callable(show)
    assert "0.50" in show([Column("A", ["0.50"]), Column("B", ["1e5"])])
