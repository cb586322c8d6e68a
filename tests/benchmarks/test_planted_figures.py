from pathlib import Path

from benchmarks.planted_figures import FALSE, WAYS, false_alarms, planted
from harness.commands.scope import Scope
from harness.commands.verification import verify


def test_every_false_figure_is_caught_and_the_records_stay_as_they_were(finished_matrix: Scope) -> None:
    before = verify(finished_matrix, []).breaks
    caught = planted(finished_matrix)
    assert [name for name, breaks in caught.items() if not breaks] == []
    assert len(caught) == len(FALSE) >= 30
    assert verify(finished_matrix, []).breaks == before


def test_runs_that_nothing_has_disturbed_raise_no_alarm_however_they_are_merged(tmp_path: Path) -> None:
    alarms = false_alarms(tmp_path)
    assert {name: breaks for name, breaks in alarms.items() if breaks} == {}
    assert len(alarms) == len(WAYS) >= 20
