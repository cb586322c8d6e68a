import io
import threading
import time
from typing import Any

import pytest

from harness.bench.bench_display import Progress, duration, summary
from harness.store.records import AccuracyRecord, Failure, Interval, LatencyRecord, failed

HIDE_CURSOR, SHOW_CURSOR, ERASE = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3600, "1 h 00 min"), (3900, "1 h 05 min")],
)
def test_durations_are_for_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said


LONG = "failed (timeout): no result within 600 s; see " + "/a/folder" * 20


def drive(stream: io.StringIO) -> str:
    with Progress("latency", stream) as progress:
        progress.at("block 1, ResNet50")
        progress.reached("block 1 done")
        progress.at("block 2, ResNet50")
        progress.failed(f"[x] {LONG}")
        progress.reached("block 2 done")
    return stream.getvalue()


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As most terminals are, whatever these tests run in."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_a_log_gets_a_plain_line_for_each_milestone() -> None:
    assert drive(io.StringIO()).splitlines() == [
        "latency: block 1 done",
        f"latency: [x] {LONG}",
        "latency: block 2 done",
    ]


def test_a_terminal_gets_one_line_that_changes_and_keeps_failures() -> None:
    text = drive(Terminal())
    assert "latency: block 1, ResNet50" in text
    assert "latency: block 2, ResNet50 (block 1 done)" in text
    assert f"latency: [x] {LONG}\n" in text, "as it is, not broken into lines"
    assert "block 2 done" not in text, "there is nothing after it to show it beside"
    # the line is erased at the end
    assert text.rindex(ERASE) > text.rindex("latency: block 2, ResNet50")


def test_a_terminal_gets_its_cursor_back_after_an_interruption() -> None:
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), Progress("latency", stream) as progress:
        progress.at("block 1, ResNet50")
        raise KeyboardInterrupt
    text = stream.getvalue()
    assert text.rindex(SHOW_CURSOR) > text.index(HIDE_CURSOR)


def test_nothing_is_drawn_while_a_process_measures() -> None:
    """No thread of the display may wake up beside the measurement."""
    before = threading.active_count()
    with Progress("latency", stream := Terminal()) as progress:
        progress.at("block 1, ResNet50")
        drawn = stream.getvalue()
        assert threading.active_count() == before
        time.sleep(0.5)
        assert stream.getvalue() == drawn


COMMON: dict[str, Any] = {
    "cell": "p0.3-bn-gram-s0",
    "title": "P(0.3_BN)_KD(3)_SEED(0)",
    "profile": "quick",
    "key": "k",
    "spec": {},
    "seconds": 1.0,
    "environment": {},
    "onnx_sha256": "0" * 64,
    "runtime": "onnxruntime 1.16.0",
}


def latency(**changes: Any) -> LatencyRecord:
    fields = {
        "status": "done",
        "finished_at": "2026-01-02T03:04:05+00:00",
        "condition": "onnxruntime-1.16.0-host-threads-1",
        "threads": 1,
        "latency_ms": Interval(value=1.2344, low=1.2, high=1.3),
        "ratio_to_teacher": Interval(value=0.5, low=0.49, high=0.51),
    }
    return LatencyRecord(**COMMON | fields | changes)


TEACHER = {"cell": "teacher-s0", "title": "ResNet50", "ratio_to_teacher": Interval(value=1, low=1, high=1)}


def test_the_summary_has_a_row_per_model_and_the_reasons() -> None:
    bad = failed(AccuracyRecord, Failure(kind="timeout", message="no result within 1 s"), **COMMON)
    text = summary([latency()], [bad])
    (row,) = [line for line in text.splitlines() if line.startswith("P(0.3_BN)_KD(3)_SEED(0)")]
    assert "1.234 [1.200, 1.300]" in row
    assert "0.500 [0.490, 0.510]" in row
    assert row.endswith("failed")
    assert "p0.3-bn-gram-s0: accuracy failed (timeout): no result within 1 s" in text


def test_the_summary_says_where_there_is_no_interval() -> None:
    few = latency(latency_ms=Interval(value=1.2344), ratio_to_teacher=Interval(value=0.5))
    (row,) = [line for line in summary([few], []).splitlines() if line.startswith("P(0.3_BN)_KD(3)_SEED(0)")]
    assert "1.234 [too few processes]" in row
    assert "0.500 [too few processes]" in row


def test_the_summary_shows_how_far_the_teacher_differs_from_itself() -> None:
    teacher = latency(**TEACHER, control_ratio=Interval(value=1.004, low=0.99, high=1.012))
    good = AccuracyRecord(
        **COMMON | {"cell": "teacher-s0"},
        status="done",
        finished_at="2026-01-02T03:04:05+00:00",
        accuracy_pct=76.5,
        correct=7650,
    )
    lines = summary([teacher, latency()], [good]).splitlines()
    first, again = [line for line in lines if line.startswith("ResNet50")]
    assert "1.000 [1.000, 1.000]" in first
    assert first.endswith("76.50")
    assert again.startswith("ResNet50, again")
    assert again.endswith("1.004 [0.990, 1.012]")


def test_the_summary_gives_a_warning_once_and_says_how_many_rows_it_is_about() -> None:
    one, other = "the slowest process is 50 % or more off", "the hypervisor gave 2.0 % of the CPU time to others"
    text = summary([latency(**TEACHER, warnings=[other]), latency(warnings=[one, other])], [])
    assert text.splitlines()[-2:] == [f"all rows: {other}", f"1 row: {one}"]


def test_every_summary_names_the_engine_and_the_threads() -> None:
    two = latency(runtime="onnxruntime 1.32.0", threads=2)
    assert summary([two], []).startswith("onnxruntime 1.32.0, 2 threads, ")
    assert summary([latency()], []).startswith("onnxruntime 1.16.0, 1 thread, ")
