import pytest

from harness.cli.training_display import Display
from harness.commands.budget import clock
from harness.store.records import Failure, TrainRecord
from tests.synthetic import plan_for, records_for


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
        display.stage("teacher")
        for step in range(1, 11):
            time[0] += 10
            display.step(0, 2, step, 10, 1, 123.4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "teacher"
    # every 40 seconds here: more than 30 have to pass
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "epoch 1 of 2, step 4 of 10",
        "epoch 1 of 2, step 8 of 10",
    ]
    assert lines[1].endswith("123 images/s, 3 min left")
