import subprocess
import sys
from pathlib import Path

import pytest

from harness.plan.planning import Plan
from harness.reporting.charts import draw, drawable
from harness.reporting.rows import Row, read_rows
from tests.synthetic import fill_results, plan_for

PNG = b"\x89PNG\r\n\x1a\n"


def rows_of(plan: Plan, results: Path) -> list[Row]:
    return read_rows(plan, plan.tables[0], results)


@pytest.mark.parametrize("experiment", ["seeds", "prune-0.3", "controlled"])
def test_the_same_rows_give_the_same_bytes(experiment: str, tmp_path: Path) -> None:
    plan = plan_for("full", experiments=[experiment])
    fill_results(plan, tmp_path)
    rows = rows_of(plan, tmp_path)
    assert drawable(rows)
    one, two = draw(rows, "Title", "subtitle"), draw(rows, "Title", "subtitle")
    assert one.startswith(PNG)
    assert one == two
    assert b"tIME" not in one
    assert b"Software" not in one


@pytest.mark.parametrize("experiment", ["seeds", "prune-0.3"])
def test_gaps_are_no_obstacle(experiment: str, tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=[experiment])
    fill_results(plan, tmp_path, skip={plan.teacher.id, "p0.3-bn-base-s0", "p0.3-bn-fmse-s0"})
    rows = rows_of(plan, tmp_path)
    assert drawable(rows)
    assert len(draw(rows, "Title", "subtitle")) > 10_000


def test_without_a_student_there_is_no_chart(tmp_path: Path) -> None:
    for experiment in ("seeds", "prune-0.3"):
        plan = plan_for("lite", experiments=[experiment])
        fill_results(plan, tmp_path, skip={cell.id for cell in plan.cells if not cell.is_teacher})
        assert not drawable(rows_of(plan, tmp_path))


def test_matplotlib_is_not_imported_before_a_chart_is_drawn() -> None:
    program = "import sys, harness.reporting.report; sys.exit('matplotlib' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
