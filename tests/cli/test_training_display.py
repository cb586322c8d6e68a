import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from harness.cli.tensorboard import Board
from harness.cli.training_display import Display
from harness.commands.budget import clock
from harness.commands.remaining import Network, Remaining
from harness.store.records import Epoch, Failure, TrainRecord
from tests.synthetic import plan_for, records_for
from tests.training_kit import Told


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (3540, "59 min"), (3900, "1 h 05 min")]
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_each_cell_is_told_on_whether_done_or_failed(capsys: pytest.CaptureFixture[str]) -> None:
    plan, told = plan_for("quick"), []
    record = next(one for one in records_for(plan, plan.teacher) if isinstance(one, TrainRecord))
    failure = Failure(kind="diverged", message="loss is not finite")
    with Display() as display:
        display.cell(plan.teacher, record)
        display.after_cell = lambda: told.append("cell")
        display.cell(plan.teacher, record)
        display.cell(plan.teacher, record.model_copy(update={"failure": failure}))
    assert told == ["cell", "cell"] and "loss is not finite" in capsys.readouterr().out


def test_without_a_terminal_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    time = [0.0]
    monkeypatch.setattr("harness.cli.training_display.time.monotonic", lambda: time[0])
    with Display() as display:
        display.remaining = Remaining({"teacher": Network("teacher", (1.0, 1.0))}, lambda: time[0])
        display.stage("teacher")
        for step in range(1, 11):
            time[0] += 10
            display.step(0, 2, step, 10, 1, 123.4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "teacher"
    # every 40 seconds here: more than 30 have to pass
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "20 %",
        "40 %",
    ]
    assert lines[1].endswith("epoch 1 of 2, step 4 of 10: 123 images/s, 3 min left")


EPOCH = Epoch(
    phase="feature",
    loss=12.345,
    accuracy_pct=45.67,
    image_size=32,
    test_accuracy_pct=44.32,
    lr=0.05,
    images_per_s=12345.6,
)


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_wider_than_80_columns(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    if terminal:
        monkeypatch.setattr(shown, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
    clock = iter(range(0, 100_000, 20))
    monkeypatch.setattr("harness.cli.training_display.time.monotonic", lambda: float(next(clock)))
    with Display() as display:
        assert display.live == terminal
        display.remaining = Remaining({f"{n}": Network("student", (1.0,) * 40) for n in range(18)}, lambda: next(clock))
        for step in range(1, 9):
            display.step(0, 40, 389 + step, 999, 18, 12345.6)
        display.epoch("p0.3-bn-fmse-s0", 40, 40, EPOCH)
        text = display.progress.get_renderable() if terminal else None
        if text is not None:
            display.console.print(text)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line) for line in shown.getvalue().splitlines()]
    assert any("left" in line for line in lines) and any("test 44.3 %" in line for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setenv("TERM", term)
    with Display() as display:
        assert not display.live
        display.epoch("a", 1, 2, EPOCH)
    assert "\x1b" not in shown.getvalue() and "epoch 1 of 2" in shown.getvalue()


def events(path: Path) -> Iterator[Event]:
    """What an event file holds: each event after its length (8 bytes) and a checksum (4), with another after it."""
    content = path.read_bytes()
    while content:
        length = int.from_bytes(content[:8], "little")
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_tensorboard_gets_a_point_per_epoch_and_the_display_what_it_always_gets(tmp_path: Path) -> None:
    told = Told()
    board = Board(tmp_path, told)
    board.stage("teacher")
    board.step(0, 2, 1, 10, 1, 99.0)
    for number in (1, 2):
        board.epoch("teacher-s0", number, 2, EPOCH)
    assert (told.stages, told.steps, told.epochs) == (["teacher"], 1, [("teacher-s0", 1, 2), ("teacher-s0", 2, 2)])
    points = [
        (value.tag, event.step, value.simple_value)
        for path in sorted((tmp_path / "teacher-s0").iterdir())
        for event in events(path)
        for value in event.summary.value
    ]
    assert ("loss", 1, pytest.approx(12.345)) in points and ("accuracy/test", 2, pytest.approx(44.32)) in points
