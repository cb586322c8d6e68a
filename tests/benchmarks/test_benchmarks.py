import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import benchmarks
from benchmarks import FOLDER, SUBJECTS, run
from benchmarks.user_commands import plan_seconds, seconds
from harness.errors import HarnessError
from tests.documents import ROOT


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_is_a_module(subject: str) -> None:
    assert find_spec(f"benchmarks.{SUBJECTS[subject].module}") is not None


def test_every_file_of_figures_is_of_a_subject_or_of_the_study_of_estimators() -> None:
    assert {path.stem for path in (ROOT / FOLDER).glob("*.json")} <= {*SUBJECTS, "estimators"}


def test_help_lists_the_subjects() -> None:
    done = cli("--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in SUBJECTS)


def test_an_unknown_subject_is_an_error_before_anything_is_measured() -> None:
    done = cli("main", "speed")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: unknown benchmark speed; allowed: {', '.join(SUBJECTS)}\n"


def test_figures_are_written_with_when_and_where_they_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "answers.py"
    package.write_text("def measure():\n    return {'answer': 42}\n")
    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(tmp_path)])
    monkeypatch.setitem(SUBJECTS, "deep", benchmarks.Subject("answers", "of everything"))
    monkeypatch.chdir(tmp_path)
    assert run(["deep"]) == [Path("results/benchmarks/deep.json")]
    figures = json.loads(Path("results/benchmarks/deep.json").read_text())
    assert list(figures) == ["measured_at", "harness_revision", "cores", "answer"]
    assert figures["answer"] == 42 and figures["cores"] >= 1


def test_planning_is_timed_over_ten_thousand_cells() -> None:
    assert 0.1 < plan_seconds(ROOT, times=1) < 300


def test_a_command_that_fails_is_not_timed(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"-c exit\(\'no data\'\) exited 1: no data"):
        seconds([sys.executable, "-c", "exit('no data')"], tmp_path)
