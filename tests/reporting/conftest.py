"""What the tests of reports share."""

from collections.abc import Sequence

import pytest

from harness.files import digest
from harness.reporting import charts
from harness.reporting.charts import Chart, Picture
from harness.reporting.rows import Row

DRAWN: dict[str, dict[Picture, bytes]] = {}
draw = charts.draw


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same chart is drawn once for all tests of a process, since that takes a second: the same rows give the same
    bytes (tests/reporting/test_charts.py)."""

    def once(chart: Chart, rows: Sequence[Row], title: str, subtitle: str, form: str) -> dict[Picture, bytes]:
        what = digest([repr(chart), title, subtitle, form, chart.shown(rows)])
        if what not in DRAWN:
            DRAWN[what] = draw(chart, rows, title, subtitle, form)
        return DRAWN[what]

    monkeypatch.setattr(charts, "draw", once)
