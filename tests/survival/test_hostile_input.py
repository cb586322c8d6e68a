import json
import random
from pathlib import Path

import pytest

from harness.errors import HarnessError, readable
from harness.reporting.foot import foot
from harness.reporting.page.content import content
from harness.reporting.reading import Reading
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, Record, TrainRecord
from tests.survival.fuzzing import VALUES, Verdict, changed, damaged, unclear
from tests.survival.subjects import matrices, records
from tests.synthetic import fill_results, path_of, plan_for

# `make benchmarks SUBJECT=survival` draws ten thousand of each.
SEEDS = [0, 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_any_matrix_is_a_plan_or_one_line(tmp_path: Path, seed: int) -> None:
    verdict = Verdict()
    matrices(tmp_path, 100, random.Random(seed), verdict)
    assert not verdict.faults, "\n".join(verdict.faults)
    assert verdict.taken and verdict.refused and verdict.inputs == 100


@pytest.mark.parametrize("seed", SEEDS)
def test_any_record_is_shown_or_named_in_one_line(tmp_path: Path, seed: int) -> None:
    verdict = Verdict()
    records(tmp_path, 60, random.Random(seed), verdict)
    assert not verdict.faults, "\n".join(verdict.faults)
    assert verdict.taken and verdict.refused and verdict.inputs == 60


def test_what_leads_to_a_traceback_is_noticed() -> None:
    verdict = Verdict()
    verdict.judge("one", lambda: int("a"))
    verdict.judge("two", lambda: _refuse("a\nb"))
    verdict.judge("three", lambda: _refuse("a"))
    verdict.judge("four", lambda: None)
    assert [fault.partition(":")[0] for fault in verdict.faults] == ["one", "two"]
    assert (verdict.taken, verdict.refused, verdict.inputs) == (1, 1, 4)


def _refuse(text: str) -> None:
    raise HarnessError(text)


def test_what_is_changed_is_a_copy_and_what_is_damaged_differs() -> None:
    document = {"a": [1, 2, {"b": "c"}], "d": 1.5}
    content = repr(document).encode()
    drawn = random.Random(0)
    assert any(changed(document, drawn) != document for _ in range(20))
    assert any(damaged(content, drawn) != content for _ in range(20))
    assert repr(document).encode() == content


@pytest.mark.parametrize("text", [value for value in VALUES if isinstance(value, str) and "\n" not in value])
def test_any_text_in_an_error_can_be_shown(text: str) -> None:
    assert not unclear(readable(f"file {text}: wrong"))


def test_an_error_keeps_what_can_be_shown_as_it_is() -> None:
    text = "größer als ✓ 3.5 × 10⁵ → «ja»; run: make bench"
    assert str(HarnessError(text)) == text
    assert str(HarnessError("a\x1b[31mb\udc80")) == "a\\x1b[31mb\\udc80"
    assert readable("x" * 5000).startswith("x" * 100) and len(readable("x" * 5000)) < 300
    assert len(readable("word\n" * 5000)) <= 4000


@pytest.mark.parametrize("value", [[1] * 2000, {"a b": ["c d"] * 2000}, "word " * 2000])
def test_an_error_keeps_cause_and_next_step_and_cuts_what_it_quotes(value: object) -> None:
    told = readable(f"record.json: of schema {value}; delete it\nand another line")
    assert told.startswith("record.json: of schema ") and told.endswith("; delete it\nand another line")
    assert not any(unclear(line) for line in told.splitlines()) and len(told) < 1100


# facts that no figure is made from, so that any machine may say of itself what it likes
UNTYPED = ("torch", "kernel", "packages", "of_a_plug_in")


@pytest.mark.parametrize("value", [[1, ["a"]], {"a": [1]}, 10**15, None])
def test_a_fact_may_be_anything_that_a_record_can_hold(value: object, tmp_path: Path) -> None:
    plan, results = plan_for("lite", experiments=["prune-0.3"]), tmp_path / "results"
    fill_results(plan, results)
    kinds: tuple[type[Record], ...] = (TrainRecord, ExportRecord, LatencyRecord, AccuracyRecord)
    for path in (path_of(results, plan, "p0.3-bn-gram-s0", kind) for kind in kinds):
        document = json.loads(path.read_text())
        document["environment"] |= dict.fromkeys(UNTYPED, value)
        path.write_text(json.dumps(document))
    reading = Reading(plan, results)
    assert {"mixed-training", "false-figure"} <= {finding.check for finding in reading.check(tmp_path / "artifacts")}
    assert json.dumps(content(reading)) and foot(plan, plan.tables[0], reading.rows(plan.tables[0]))
