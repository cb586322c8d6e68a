from pathlib import Path

from harness.plan.planning import Plan
from harness.reporting.reading import read_rows
from harness.reporting.study_tables import study_means, study_table
from tests.synthetic import fill_results, plan_for


def tables_of(plan: Plan, results: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    rows = read_rows(plan, plan.tables[0], results)
    one, two = ({column.header: column.cells for column in show(rows)} for show in (study_table, study_means))
    return one, two


def test_the_published_figures_have_a_table_of_their_own(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["prune-0.4"])
    fill_results(plan, tmp_path)
    table, means = tables_of(plan, tmp_path)
    rows = {row[0]: row[1:] for row in zip(*table.values(), strict=True)}
    assert list(table)[1:] == [
        "Latency (ms)",
        "Accuracy (%)",
        "Parameters (M)",
        "Δ accuracy (points)",
        "Latency ratio",
    ]
    assert rows["ResNet50"] == ("12.28", "76.53", "23", "0", "1.00")
    assert rows["P(0.4_BN)_KD(0)_SEED(0)"] == ("4.77", "70.80", "9", "-5.7", "0.39")
    # the study has no GN row at 0.4
    assert not [name for name in rows if "GN" in name]
    assert means == {}


def test_its_means_stand_beside_tables_over_seeds(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["seeds"])
    _, means = tables_of(plan, tmp_path)
    assert dict(zip(means["KD"], means["Mean accuracy (%)"], strict=True))["Base"] == "73.36"


def test_of_a_protocol_that_it_did_not_run_there_is_nothing(tmp_path: Path) -> None:
    assert tables_of(plan_for("long", experiments=["controlled"]), tmp_path) == ({}, {})
