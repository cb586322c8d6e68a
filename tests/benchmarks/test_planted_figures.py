import shutil
from pathlib import Path

from benchmarks.planted_figures import FALSE, WAYS, false_alarms, planted
from harness.commands.scope import Scope
from harness.commands.verification import verify
from tests.training_kit import below


def test_every_false_figure_is_caught_and_the_records_stay_as_they_were(finished_matrix: Scope, tmp_path: Path) -> None:
    shutil.copytree(finished_matrix.matrix.parent, tmp_path / "own")
    scope = Scope(tmp_path / "own/matrix.toml", finished_matrix.profile, below(tmp_path / "own"))
    before = verify(scope, []).breaks
    caught = planted(scope)
    assert [name for name, breaks in caught.items() if not breaks] == []
    assert len(caught) == len(FALSE) >= 30
    assert verify(scope, []).breaks == before


def test_runs_that_nothing_has_disturbed_raise_no_alarm_however_they_are_merged(tmp_path: Path) -> None:
    alarms = false_alarms(tmp_path)
    assert {name: breaks for name, breaks in alarms.items() if breaks} == {}
    assert len(alarms) == len(WAYS) >= 20
