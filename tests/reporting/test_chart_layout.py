"""Nothing covers anything, however many seeds and methods there are."""

from pathlib import Path

import pytest

from harness.reporting import charts
from harness.reporting.chart_style import DARK, LIGHT
from harness.reporting.reading import read_rows
from tests.documents import Load
from tests.overlaps import faults
from tests.reporting.shown import all_that_can_be_shown
from tests.synthetic import fill_results, plan_for

CASES = {
    # methods, criteria, seeds
    "3 methods": (3, ["l1", "bn", "gn"], 1),
    "2 seeds": (3, ["bn"], 2),
    "5 seeds": (3, ["bn"], 5),
    "12 methods": (12, ["bn"], 1),
    "12 methods, 2 seeds": (12, ["bn"], 2),
    "12 methods, 3 criteria": (12, ["l1", "bn", "gn"], 1),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_covers_anything(case: str, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = all_that_can_be_shown(*CASES[case], load, tmp_path / "own", monkeypatch)
    found = {}
    for which, chart in charts.charts_of(rows).items():
        assert chart.drawable(rows), which
        with charts.drawn(
            chart, rows, "Controlled: the same pruned network, labels and length", SUBTITLE, LIGHT
        ) as figure:
            found[which] = faults(figure)
    assert not any(found.values()), found


SUBTITLE = (
    "Profile lite: ResNet50 at 1/8 width, cifar stem, 24 px. CIFAR-100, all 50,000 training images.\n"
    "Teacher 8 epochs, students 1 epoch per stage. Protocol study."
)


def test_the_projects_own_titles_fit(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["controlled", "seeds", "prune-0.3"])
    fill_results(plan, tmp_path)
    for table in plan.tables:
        rows = read_rows(plan, table, tmp_path)
        chart = charts.charts_of(rows)[charts.MAIN]
        with charts.drawn(chart, rows, table.title, SUBTITLE, DARK) as figure:
            assert faults(figure) == []
