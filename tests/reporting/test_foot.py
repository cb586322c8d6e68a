from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.plan.planning import Plan
from harness.reporting.foot import foot, one_line, recipe_line, warnings
from harness.reporting.rows import read_rows
from harness.store.records import LatencyRecord, TrainRecord
from tests.synthetic import BENCH, TRAINING, change, fill_results, plan_for, processes

CELL, TITLE = "p0.3-bn-gram-s0", "P(0.3_BN)_KD(3)_SEED(0)"


def foot_of(plan: Plan, results: Path) -> str:
    return foot(plan, plan.tables[0], read_rows(plan, plan.tables[0], results))


def test_it_says_how_where_when_and_with_what(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, TrainRecord, finished_at="2026-01-05T00:00:00+00:00")
    text = foot_of(plan, tmp_path)
    epochs = plan.settings.teacher.epochs
    for part in (
        "Profile lite: ResNet50 at 1/8 width",
        "CIFAR-100, all 50,000 training images",
        f"Teacher {epochs} epochs, students 1 epoch per stage. Protocol study.",
        "Trained on Some GPU (bf16), torch 2.13.0, 2026-01-02 to 2026-01-05, harness 0123456789.",
        "Benched on Some CPU @ 2.00GHz",
        "onnxruntime 1.16.0, 1 thread, batch 1, 2026-01-02",
        "Not the target, Intel Core i9-9900K: another processor",
        "Processes per model: 12. Control, the teacher by itself: 1.001 [0.998, 1.004].",
        "10,000 test images",
    ):
        assert part in text
    assert "Warning" not in text


def test_rows_of_one_run_may_have_different_numbers_of_processes(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    timed = processes(plan, 1.0)
    change(tmp_path, plan, CELL, LatencyRecord, processes=[*timed, *timed])
    change(tmp_path, plan, plan.teacher.id, LatencyRecord, control_ratio=None)
    text = foot_of(plan, tmp_path)
    assert "Processes per model: 12 to 24." in text
    assert "Control" not in text


def test_stand_in_data_and_a_slice_are_said() -> None:
    plan = plan_for("quick", "stand-in")
    text = foot(plan, plan.tables[0], [])
    assert "Stand-in data, not CIFAR-100, the first 4,000 training images" in text
    assert "Benched on" not in text


def test_joint_training_is_counted_in_whole_epochs() -> None:
    plan = plan_for("full", experiments=["controlled"])
    stages = plan.settings.protocol["controlled"].stages
    assert f"students {plan.settings.student.epochs * stages} epochs. Protocol controlled." in recipe_line(
        plan, plan.tables[0]
    )


def test_what_is_missing_what_fails_a_check_and_what_the_bench_said_are_warnings(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path, skip={"p0.3-l1-base-s0"})
    change(tmp_path, plan, CELL, LatencyRecord, warnings=["CV 12 %"], environment={**BENCH, "run": "run-2"})
    found = warnings(read_rows(plan, plan.tables[0], tmp_path))
    assert f"{TITLE}: CV 12 %" in found
    assert "P(0.3_L1)_KD(0)_SEED(0): no train record yet" in found
    assert f"{TITLE}: fails the check mixed-runs: bench run is run-2; run-1 in other rows of the table" in found


def test_rows_trained_apart_are_said_as_facts_and_not_as_a_warning(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, TrainRecord, environment={**TRAINING, "device": "Other GPU", "torch": "2.12.0"})
    text = foot_of(plan, tmp_path)
    assert "Trained on Other GPU (bf16), Some GPU (bf16), torch 2.12.0 and 2.13.0" in text
    assert "Warning" not in text


def test_what_holds_for_all_rows_is_said_once(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    assert warnings(read_rows(plan, plan.tables[0], tmp_path)) == ["all rows: no train record yet"]


@pytest.mark.parametrize("text", ["<!-- end -->", "a\n<!-- table: lite prune-0.3 -->\nb"])
def test_a_message_cannot_become_a_marker(tmp_path: Path, text: str) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, LatencyRecord, warnings=[text])
    assert "<!--" not in foot_of(plan, tmp_path)


@given(st.text())
def test_any_message_becomes_one_bounded_line(text: str) -> None:
    line = one_line(text, 40)
    assert len(line) <= 40
    assert len(line.splitlines()) <= 1
