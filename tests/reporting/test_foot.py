from pathlib import Path

import pytest

from harness.plan.planning import Plan
from harness.reporting.foot import foot, footnote_lines, network_line, recipe_line, stands_for, warnings
from harness.reporting.reading import read_rows
from harness.store.records import LatencyRecord, TrainRecord
from tests.documents import Load
from tests.reporting.plans import own_plan
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
        f"Trained on Some GPU ({plan.settings.precision}), torch 2.13.0, 2026-01-02 to 2026-01-05, harness 0123456789.",
        "Measured on Some CPU @ 2.00GHz",
        "onnxruntime 1.16.0, 1 thread, batch 1, 2026-01-02",
        "Not the target, Intel Core i9-9900K: another processor",
        "Processes per model: 12. Control, the teacher measured against itself: 1.001 [0.996, 1.006].",
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


def test_stand_in_images_and_a_part_of_a_data_set_are_named() -> None:
    plan = plan_for("quick", "stand_in")
    text = foot(plan, plan.tables[0], [])
    assert "Stand-in images, not ten classes of CIFAR-100, all 5,000 training images" in text
    assert "Measured on" not in text


def test_joint_training_is_given_as_a_whole() -> None:
    plan = plan_for("long", experiments=["controlled"])
    stages = plan.settings.protocol["controlled"].stages
    assert f"students {plan.settings.student.epochs * stages} epochs. Protocol controlled." in recipe_line(
        plan, plan.tables[0]
    )


def test_the_network_and_the_data_set_are_named_by_their_titles(load: Load) -> None:
    data = {"dataset": "image_folder", "train_images": 1000}
    changes = {"model": {"architecture": "resnet18"}, "data": data, "dataset": {"image_folder": {"classes": 10}}}
    line = network_line(own_plan(load, {}, changes))
    assert line == (
        "Profile long: ResNet18 at full width, cifar stem, 32 px. Image folder, the first 1,000 training images."
    )


def test_lengths_that_an_axis_varies_and_sizes_that_a_recipe_varies_are_given(load: Load) -> None:
    plan = own_plan(load, {"student": {"epochs": [20, 40]}}, {"teacher": {"image_sizes": [16, 16, 24, 32]}})
    assert recipe_line(plan, plan.tables[0]) == (
        "Teacher 150 epochs at 16, 24, 32 px, students 20 epochs per stage or 40 epochs per stage. Protocol study."
    )


def test_a_teacher_that_was_given_is_not_said_to_be_trained(load: Load, tmp_path: Path) -> None:
    checkpoint = tmp_path / "teacher.pt"
    checkpoint.write_bytes(b"weights")
    plan = own_plan(load, {}, {"teacher": {"checkpoint": str(checkpoint)}})
    assert recipe_line(plan, plan.tables[0]).startswith("Teacher from a given checkpoint, students")


def test_rows_that_were_not_made_on_equal_terms_have_footnotes_and_the_reader_is_told(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    lines = foot_of(plan, tmp_path).splitlines()
    assert lines[0].startswith("- ¹ ") and "not made on equal terms" in foot_of(plan, tmp_path)
    assert footnote_lines(read_rows(plan, plan.tables[0], tmp_path)[:2]) == [], "one student is like itself"


def test_what_is_missing_what_fails_a_check_and_what_the_bench_said_are_warnings(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path, skip={"p0.3-l1-base-s0"})
    change(tmp_path, plan, "p0.3-gn-base-s0", TrainRecord, code={"criterion gn": "0" * 64})
    change(tmp_path, plan, CELL, LatencyRecord, warnings=["CV 12 %"], environment={**BENCH, "run": "run-2"})
    found = warnings(read_rows(plan, plan.tables[0], tmp_path))
    assert f"{TITLE}: CV 12 %" in found
    assert "P(0.3_L1)_KD(0)_SEED(0): there is no train record" in found
    assert "P(0.3_GN)_KD(0)_SEED(0): made before the code of criterion gn was changed" in found
    assert f"{TITLE}: fails the check mixed-runs: bench run is run-2; run-1 in other rows of the table" in found


def test_rows_that_were_trained_apart_are_a_fact_and_no_warning(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, TrainRecord, environment={**TRAINING, "device": "Other GPU", "torch": "2.12.0"})
    text = foot_of(plan, tmp_path)
    precision = plan.settings.precision
    assert f"Trained on Other GPU ({precision}), Some GPU ({precision}), torch 2.12.0 and 2.13.0" in text
    assert "Warning" not in text


def test_what_holds_for_all_rows_is_said_once(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    assert warnings(read_rows(plan, plan.tables[0], tmp_path)) == ["all rows: there is no train record"]


@pytest.mark.parametrize("text", ["<!-- end -->", "a\n<!-- table: lite prune-0.3 -->\nb"])
def test_a_message_cannot_become_a_marker(tmp_path: Path, text: str) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    change(tmp_path, plan, CELL, LatencyRecord, warnings=[text])
    assert "<!--" not in foot_of(plan, tmp_path)


def test_the_first_line_says_whose_instruction_set_the_figures_are_of(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path / "target")
    fill_results(plan.as_host(), tmp_path / "host")
    rows = read_rows(plan, plan.tables[0], tmp_path / "target")
    assert stands_for(plan, rows) == (
        "Instruction set: the Intel Core i9-9900K's. Cores, caches and clock: the measuring machine's."
    )
    assert "AVX-512 (16 channels per block) instead of" not in foot_of(plan, tmp_path / "target")
    reason = "this CPU lacks avx2"
    for cell in plan.cells:
        change(tmp_path / "host", plan.as_host(), cell.id, LatencyRecord, environment={**BENCH, "isa_obstacle": reason})
    rows = read_rows(plan.as_host(), plan.tables[0], tmp_path / "host")
    assert stands_for(plan.as_host(), rows) == (
        "Instruction set, cores, caches and clock: the measuring machine's, not the Intel Core i9-9900K's "
        "(this CPU lacks avx2)."
    )
    assert "AVX-512 (16 channels per block) instead of AVX2 (8)" in foot_of(plan.as_host(), tmp_path / "host")
    assert stands_for(plan, []) == ""
