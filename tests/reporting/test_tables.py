from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import change, fill_results, plan_for, processes

from harness.matrix import Plan
from harness.records import AccuracyRecord, ExportRecord, Interval, LatencyRecord, TrainRecord
from harness.reporting.rows import read_rows
from harness.reporting.tables import ABSENT, Column, columns, interval_text, markdown, seed_means, terminal

SIX = ["Model Name", "Latency (ms)", "Accuracy (%)", "Parameters (M)", "Pruning", "KD"]


def table_of(plan: Plan, results: Path, number: int = 0) -> dict[str, list[str]]:
    return {column.header: column.cells for column in columns(read_rows(plan, plan.tables[number], results))}


def test_the_studys_six_columns_come_first_and_verbatim(tmp_path: Path) -> None:
    plan = plan_for("full", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    assert list(table_of(plan, tmp_path))[:6] == SIX
    header = markdown(columns(read_rows(plan, plan.tables[0], tmp_path))).splitlines()[0]
    assert [cell.strip() for cell in header.split("|")[1:7]] == SIX


def test_figures_are_the_records(tmp_path: Path) -> None:
    plan = plan_for("full", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    cell = "p0.3-bn-gram-s0"
    change(tmp_path, plan, cell, AccuracyRecord, accuracy_pct=99.88, correct=9_988)
    change(tmp_path, plan, cell, TrainRecord, accuracy_pct=99.88)
    change(tmp_path, plan, cell, ExportRecord, params=12_345_678)
    ratio = Interval(value=0.6249, low=0.6151, high=0.6349)
    latency = Interval(value=9.8765, low=9.8, high=9.9)
    timed = processes(plan, latency.value)
    change(tmp_path, plan, cell, LatencyRecord, latency_ms=latency, ratio_to_teacher=ratio, processes=timed)
    row = {header: cells[1] for header, cells in table_of(plan, tmp_path).items()}
    assert row["Model Name"] == "P(0.3_BN)_KD(3)_SEED(0)"
    assert (row["Latency (ms)"], row["Accuracy (%)"], row["Parameters (M)"]) == ("9.88", "99.88", "12.3")
    assert row["Latency ratio"] == "0.62 [0.62, 0.63]"
    assert row["MACs ratio"] == "0.66"
    assert "Note" not in row


def test_the_published_figures_stand_beside_each_row(tmp_path: Path) -> None:
    plan = plan_for("full", experiments=["prune-0.4"])
    fill_results(plan, tmp_path)
    table = table_of(plan, tmp_path)
    by_title = dict(
        zip(
            table["Model Name"],
            zip(
                table["Study: latency (ms)"],
                table["Study: accuracy (%)"],
                table["Study: parameters (M)"],
                table["Study: latency ratio"],
                strict=True,
            ),
            strict=True,
        )
    )
    assert by_title["ResNet50"] == ("12.28", "76.53", "23", "1.00")
    assert by_title["P(0.4_BN)_KD(0)_SEED(0)"] == ("4.77", "70.80", "9", "0.39")
    # the study has no GN row at 0.4
    assert by_title["P(0.4_GN)_KD(0)_SEED(0)"] == (ABSENT,) * 4


def test_a_protocol_that_the_study_did_not_run_has_no_published_columns(tmp_path: Path) -> None:
    plan = plan_for("full", experiments=["controlled"])
    fill_results(plan, tmp_path)
    assert not [header for header in table_of(plan, tmp_path) if header.startswith("Study")]


def test_thin_models_keep_digits_and_say_so(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    table = table_of(plan, tmp_path)
    assert set(table["Note"]) == {"1/8 width"}
    assert table["Parameters (M)"][0] == "0.37"
    assert table["Latency (ms)"][0] == "1.938"


def test_stand_in_data_is_named_in_every_row(tmp_path: Path) -> None:
    plan = plan_for("quick", "stand-in")
    fill_results(plan, tmp_path)
    assert set(table_of(plan, tmp_path)["Note"]) == {"1/16 width, stand-in data"}


def test_a_row_without_figures_stays_and_says_why(tmp_path: Path) -> None:
    plan = plan_for("full", experiments=["prune-0.3"])
    fill_results(plan, tmp_path, skip={"p0.3-l1-base-s0"})
    change(tmp_path, plan, "p0.3-gn-base-s0", LatencyRecord, onnx_sha256="0" * 64)
    table = table_of(plan, tmp_path)
    last = {header: cells[-1] for header, cells in table.items()}
    assert last["Model Name"] == "P(0.3_L1)_KD(0)_SEED(0)"
    assert [last[header] for header in SIX[1:4]] == [ABSENT] * 3
    assert last["Note"] == "no train record"
    stale = table["Model Name"].index("P(0.3_GN)_KD(0)_SEED(0)")
    assert (table["Latency (ms)"][stale], table["Latency ratio"][stale]) == (ABSENT, ABSENT)
    assert table["Note"][stale] == "latency record is stale"
    assert len(table["Model Name"]) == len(plan.tables[0].cells)


def test_a_table_without_any_record_can_be_shown(tmp_path: Path) -> None:
    plan = plan_for("full", experiments=["prune-0.3"])
    rows = read_rows(plan, plan.tables[0], tmp_path)
    assert markdown(columns(rows)).count("\n") == len(rows) + 1
    assert terminal(columns(rows)).count("no train record") == len(rows)


@given(st.floats(0.01, 3), st.floats(0, 1), st.floats(0, 1))
def test_the_mark_is_there_exactly_where_the_interval_covers_one(value: float, below: float, above: float) -> None:
    interval = Interval(value=value, low=value - below, high=value + above)
    assert interval_text(interval).startswith("≈") == (interval.low <= 1 <= interval.high)


def test_the_teachers_ratio_is_one_without_an_interval(tmp_path: Path) -> None:
    plan = plan_for("full", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    assert table_of(plan, tmp_path)["Latency ratio"][0] == "1"


def test_means_over_seeds_with_how_many_and_the_studys(tmp_path: Path) -> None:
    plan = plan_for("full", experiments=["seeds"])
    fill_results(plan, tmp_path, skip={"p0.3-bn-base-s4"})
    for seed, accuracy in enumerate([70.0, 71.0, 72.0, 73.0]):
        change(tmp_path, plan, f"p0.3-bn-base-s{seed}", AccuracyRecord, accuracy_pct=accuracy)
    means = seed_means(read_rows(plan, plan.tables[0], tmp_path))
    base = [column.cells[-1] for column in means]
    assert base == ["BN", "Base", "4 of 5", "71.50", "1.29", "73.36"]


def test_a_table_of_one_seed_has_no_means(tmp_path: Path) -> None:
    plan = plan_for("full", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    assert seed_means(read_rows(plan, plan.tables[0], tmp_path)) == []


@pytest.mark.parametrize("show", [markdown, terminal])
def test_figures_are_shown_as_given(show: object) -> None:
    # tabulate would print 0.50 as 0.5 and align it as a number
    assert callable(show)
    assert "0.50" in show([Column("A", ["0.50"]), Column("B", ["1e5"])])
