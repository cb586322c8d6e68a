import os
import signal
import threading
from pathlib import Path

import pytest

from harness.commands import subprocess_stage as stage
from harness.commands.subprocess_stage import CommandRunner

# What `python -m harness` is in these tests: a package of one file that does as it is told.
SCRIPT = """
import os, signal, sys, time
word = sys.argv[1]
print("begun", word, flush=True)
if word == "sleep":
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("saved", flush=True)
elif word == "stubborn":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(60)
elif word == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
elif word == "fail":
    print("error: no such thing")
    sys.exit(2)
"""


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").touch()
    (tmp_path / "harness" / "__main__.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_command_that_ends_is_shown_and_done(capsys: pytest.CaptureFixture[str]) -> None:
    ended = CommandRunner().run(["well"], 60)
    assert (ended.code, ended.outcome, ended.last_words) == (0, "done", ["begun well"])
    assert capsys.readouterr().out == "begun well\n"


def test_one_that_fails_leaves_its_code_and_last_words() -> None:
    ended = CommandRunner().run(["fail"], float("inf"))
    assert (ended.code, ended.outcome, ended.last_words[-1]) == (2, "failed", "error: no such thing")


def test_one_that_crashes_is_a_failure_like_any_other() -> None:
    ended = CommandRunner().run(["crash"], 60)
    assert (ended.code, ended.outcome) == (-signal.SIGSEGV, "failed")


def test_when_its_time_is_up_it_is_asked_and_may_save() -> None:
    ended = CommandRunner().run(["sleep"], 5)
    assert ended.outcome == "stopped" and ended.last_words == ["begun sleep", "saved"]
    assert ended.seconds < 30


def test_it_is_asked_even_where_a_script_started_all_of_it_in_the_background() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ended = CommandRunner().run(["sleep"], 5)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.last_words == ["begun sleep", "saved"]


def test_one_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "PATIENCE_S", (0.0, 0.5, 0.5))
    ended = CommandRunner().run(["stubborn"], 5)
    assert (ended.code, ended.outcome) == (-signal.SIGKILL, "stopped")


def test_stopping_ends_the_present_command_and_every_later_one() -> None:
    runner = CommandRunner()
    threading.Timer(2, runner.stop).start()
    assert runner.run(["sleep"], 60).outcome == "stopped"
    assert runner.stopping and os.getpid()
    assert runner.run(["sleep"], 60).outcome == "stopped"
