from pathlib import Path

import pytest

from harness.commands import live_page
from harness.commands.live_page import LivePage
from harness.commands.scope import Scope
from tests.synthetic import MATRIX, fill_results, plan_for

HOUR_S = 3600.0
# seconds
clock = [0.0]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def live(tmp_path: Path, said: list[str]) -> LivePage:
    """The page of results that are there, in a run that has just begun; the tests move its clock."""
    fill_results(plan_for("quick"), tmp_path)
    clock[0] = 0.0
    return LivePage(Scope.of(MATRIX, "quick", tmp_path, tmp_path / "artifacts"), said.append, lambda: clock[0])


def page(live: LivePage) -> Path:
    return live.scope.paths.results / "quick" / "report.html"


def test_a_cell_that_lands_is_on_the_page(live: LivePage, said: list[str]) -> None:
    clock[0] = HOUR_S
    live.cell_done()
    assert "p0.3-bn-gram-s0" in page(live).read_text(encoding="utf-8") and said == []


def test_no_more_than_a_hundredth_of_the_time_goes_into_it(live: LivePage, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[float] = []

    def run(*_: object, **__: object) -> None:
        ran.append(clock[0])
        clock[0] += 4.0

    monkeypatch.setattr("harness.commands.live_page.subprocess.run", run)
    for _ in range(200):
        clock[0] += 10.0
        live.cell_done()
    assert 3 <= len(ran) <= 5 and ran[0] >= 500.0


@pytest.mark.parametrize(("seconds", "there"), [(60.0, False), (HOUR_S, True)])
def test_the_end_of_a_long_run_is_on_the_page_and_after_a_short_one_the_report_is_near(
    live: LivePage, seconds: float, there: bool
) -> None:
    clock[0] = seconds
    live.ended()
    assert page(live).exists() == there


@pytest.mark.parametrize("spoil", ["matrix", "results"])
def test_what_goes_wrong_is_said_and_raises_nothing(
    live: LivePage, said: list[str], tmp_path: Path, spoil: str
) -> None:
    clock[0] = HOUR_S
    if spoil == "matrix":
        live.scope = Scope.of(tmp_path / "no.toml", "quick", tmp_path, tmp_path)
    else:
        (tmp_path / "quick" / "report.html").mkdir()
    live.cell_done()
    assert [line.startswith("The page of the report was not rewritten: ") for line in said] == [True]
    assert "Traceback" not in said[0]


def test_a_page_that_takes_for_ever_is_given_up(
    live: LivePage, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_page, "PATIENCE_S", 0.01)
    clock[0] = HOUR_S
    live.cell_done()
    assert "timed out" in said[0] and not page(live).exists()
