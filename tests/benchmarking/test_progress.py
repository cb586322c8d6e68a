import io

import pytest

from harness.benchmarking.progress import Progress, duration, summary
from harness.records import AccuracyRecord, Failure, Interval, LatencyRecord, failed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3600, "1 h 00 min"), (3900, "1 h 05 min")],
)
def test_durations_are_for_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def drive(stream: io.StringIO) -> str:
    progress = Progress("latency", 4, stream)
    progress.at("block 1 of 2, ResNet50")
    progress.advance()
    progress.reached("block 1 of 2 done")
    progress.advance()
    progress.failed("x failed (timeout): y")
    progress.advance(2)
    progress.reached("block 2 of 2 done")
    progress.close()
    return stream.getvalue()


def test_a_log_gets_plain_lines() -> None:
    lines = drive(io.StringIO()).splitlines()
    assert lines[0] == "latency 1/4, 0 s left: block 1 of 2 done"
    assert "x failed (timeout): y" in lines[1]
    assert lines[2:] == ["latency 4/4: block 2 of 2 done"]


def test_a_terminal_gets_one_line_that_changes_and_keeps_failures() -> None:
    text = drive(Terminal())
    assert text.count("\n") == 1
    assert "\r\x1b[Klatency 0/4: block 1 of 2, ResNet50" in text
    assert text.endswith("\r\x1b[K")


def test_the_summary_has_a_row_per_model_and_the_reasons() -> None:
    common = {
        "cell": "p0.3-bn-gram-s0",
        "title": "P(0.3_BN)_KD(3)_SEED(0)",
        "profile": "quick",
        "key": "k",
        "seconds": 1.0,
    }
    common |= {"environment": {}, "onnx_sha256": "0" * 64, "runtime": "onnxruntime 1.16.0"}
    good = LatencyRecord(
        **common,
        status="done",
        finished_at="",
        threads=1,
        settings={},
        latency_ms=Interval(value=1.234, low=1.2, high=1.3),
        ratio_to_teacher=Interval(value=0.5, low=0.49, high=0.51),
        warnings=["the slowest process is 60 % off"],
    )
    bad = failed(AccuracyRecord, Failure(kind="timeout", message="no result within 1 s"), **common)
    text = summary([good], [bad])
    assert "P(0.3_BN)_KD(3)_SEED(0)" in text
    assert "1.23 [1.20, 1.30]" in text
    assert "0.500 [0.490, 0.510]" in text
    assert "p0.3-bn-gram-s0: accuracy failed (timeout): no result within 1 s" in text
    assert "p0.3-bn-gram-s0: the slowest process is 60 % off" in text
