import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.checks import limits
from harness.checks.catalogue import CHECKS, STRICT, check_results, errors
from harness.checks.evidence import read_evidence
from harness.checks.files_on_disk import walked
from harness.plan.planning import make_plan
from harness.store.records import (
    AccuracyRecord,
    ExportRecord,
    LatencyRecord,
    Rounded,
    TrainRecord,
    identity,
    parity_limit,
    save,
)
from tests.checks import faults_of_answers, faults_of_measurement, faults_of_models, faults_of_the_chain
from tests.checks.planted import BESIDE, CELL, FAULTS, HEADLINE, OTHER, TEACHER, Bench, Plant, make_bench
from tests.documents import Load, put
from tests.synthetic import CLOSED, keep_predictions, plan_for, records_for

# Each registers its faults when it is imported.
FAULT_FILES = (faults_of_the_chain, faults_of_measurement, faults_of_models, faults_of_answers)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_its_check_alone_in_its_rows_alone(bench: Bench, name: str) -> None:
    check, rows, plant = FAULTS[name]
    plant(bench)
    findings = bench.findings()
    assert {(finding.check, finding.cell, finding.stage) for finding in findings} == {(check, *row) for row in rows}
    for finding in findings:
        assert finding.reason
        assert finding.title == bench.cell(finding.cell).title
        assert "{" not in finding.remedy


def test_every_check_has_a_planted_fault() -> None:
    assert FAULT_FILES
    # this one takes real models: tests/checks/test_real_models.py
    assert {check for check, _, _ in FAULTS.values()} | {"other-model"} == {check.name for check in STRICT}


def test_checks_have_names_and_say_what_they_find_and_what_to_do() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert re.fullmatch("[a-z]+(-[a-z]+)+", check.name)
        assert check.finds.endswith(".")
        assert check.remedy


@pytest.mark.parametrize("profile", ["quick", "lite", "long"])
def test_sound_records_give_no_finding(profile: str, tmp_path: Path) -> None:
    assert make_bench(plan_for(profile), tmp_path).findings() == []


def test_sound_answers_a_sound_test_set_and_torchs_sound_answers_give_no_finding(bench: Bench) -> None:
    faults_of_answers.with_testset(bench)
    faults_of_answers.with_torchs_answers(bench)
    assert bench.findings() == []


def test_answers_are_checked_where_there_are_nothing_but_records(bench: Bench) -> None:
    faults_of_answers.an_accuracy_a_hundredth_above_what_the_predictions_give(bench)
    correct = bench.get(AccuracyRecord).correct
    (finding,) = check_results(bench.plan, bench.results)
    assert finding.reason == f"{correct - 1} of 10000 predictions are right, the record says {correct}"


def test_a_test_set_that_cannot_be_read_is_the_benchs_to_name(bench: Bench) -> None:
    faults_of_answers.with_testset(bench).write_bytes(b"cut short")
    assert bench.findings() == []


def test_answers_of_torch_from_before_they_were_hashed_still_have_to_give_its_accuracy(bench: Bench) -> None:
    faults_of_answers.with_torchs_answers(bench)
    bench.change(TrainRecord, answers_sha256=None)
    assert bench.findings() == []
    bench.change(TrainRecord, accuracy_pct=bench.get(TrainRecord).accuracy_pct + 0.01)
    assert [finding.check for finding in bench.findings()] == ["other-torch-figures"]


def test_facts_that_were_not_recorded_are_no_fault(bench: Bench) -> None:
    facts = {k: v for k, v in bench.get(LatencyRecord).environment.items() if k not in ("measured_cpus", "steal_pct")}
    bench.change(LatencyRecord, environment=facts, session={})
    bench.change(ExportRecord, denormal_weights=None, parity_max_abs_diff=None, parity_top1_agreement_pct=None)
    bench.change(ExportRecord, OTHER, parity_largest_logit=None)
    bench.change(TrainRecord, pruning=None, teacher_sha256=None)
    assert bench.findings() == []


def test_conditions_beside_the_headline_may_have_fewer_processes(bench: Bench) -> None:
    bench.measured(bench.get(LatencyRecord, under=BESIDE).processes[: limits.LEAST_PROCESSES], under=BESIDE)
    assert bench.findings() == []


def test_without_artifacts_only_the_records_are_checked(bench: Bench) -> None:
    bench.onnx().write_bytes(b"cut short")
    bench.onnx(OTHER).unlink()
    assert [finding.check for finding in bench.findings()] == ["changed-file"]
    bench.onnx().unlink()
    assert bench.findings() == []


def test_nothing_on_disk_is_one_finding_for_each_cell(tmp_path: Path) -> None:
    plan = plan_for("lite")
    findings = Bench(plan, tmp_path, tmp_path).findings()
    assert [(finding.check, finding.cell) for finding in findings] == [("missing-record", c.id) for c in plan.cells]


def test_where_two_halves_disagree_the_teachers_counts_as_usual(bench: Bench) -> None:
    cells = [cell.id for cell in bench.plan.cells]
    odd = set(cells[len(cells) // 2 :])
    for cell in odd:
        bench.environment(LatencyRecord, cell, image="sha256:0123", enclosure=CLOSED)
    findings = bench.findings()
    assert {finding.check for finding in findings} == {"mixed-images"}
    assert {finding.cell for finding in findings} == odd


def test_tables_are_judged_one_by_one(tmp_path: Path) -> None:
    bench = make_bench(plan_for("lite"), tmp_path)
    for cell in bench.plan.cells:
        if cell.prune_amount == 0.4:
            bench.environment(LatencyRecord, cell.id, run="run-2")
    # The teacher is in both tables, and in the second one it is the odd one out.
    assert [(finding.check, finding.cell) for finding in bench.findings()] == [("mixed-runs", TEACHER)]


def test_a_remedy_names_the_profile(bench: Bench) -> None:
    bench.change(AccuracyRecord, onnx_sha256="f" * 64)
    (finding,) = bench.findings()
    assert finding.remedy == "run: make bench PROFILE=lite"


def test_warnings_are_no_errors(bench: Bench) -> None:
    faults_of_measurement.wide_interval(bench)
    faults_of_measurement.throttled(bench)
    findings = bench.findings()
    assert {finding.check: finding.severity for finding in findings} == {
        "wide-interval": "warning",
        "throttled-run": "error",
    }
    assert {finding.check for finding in errors(findings)} == {"throttled-run"}


def test_other_export_forms_of_one_model_share_its_weights_but_no_file(bench: Bench) -> None:
    (table,) = bench.plan.tables
    cell = bench.cell()
    forms = replace(cell, id=f"{cell.id}-int8", spec=replace(cell.spec, form="int8"))
    plan = replace(bench.plan, tables=(replace(table, cells=(*table.cells, forms)),))
    both = Bench(plan, bench.results, bench.artifacts)
    for record in records_for(plan, forms):
        save(bench.results, record)
    assert both.path(TrainRecord, cell.id).exists() and not both.path(TrainRecord, forms.id).exists()
    assert both.findings() == []
    both.path(ExportRecord, forms.id).unlink()
    assert [(finding.check, finding.cell) for finding in both.findings()] == [("missing-record", forms.id)]
    export = bench.get(ExportRecord, cell.id)
    save(bench.results, export.model_copy(update=identity(plan.profile, forms.id, forms.title, forms.spec)))
    assert {(finding.check, finding.cell) for finding in both.findings()} == {
        ("duplicate-model", cell.id),
        ("duplicate-model", forms.id),
        ("broken-chain", forms.id),
    }


def test_a_file_that_passes_the_parity_gate_passes_the_check(bench: Bench) -> None:
    """One limit, relative to the largest logit, and no other."""
    bench.change(ExportRecord, parity_largest_logit=400.0, parity_max_abs_diff=parity_limit(400.0))
    assert bench.findings() == []


def test_a_share_that_rounding_explains_is_no_finding_and_emptied_layers_are_named(bench: Bench) -> None:
    faults_of_models.pruned(bench, 0.3 - 0.09)
    assert bench.findings() == []
    faults_of_models.less_pruned_than_was_asked_for(bench)
    (finding,) = bench.findings()
    assert finding.reason == (
        "19% of the ranked channels are gone, 30% were asked for; "
        "layers that would have lost every channel: layer4.0.conv1, layer4.2.conv2"
    )


def test_chance_depends_on_the_number_of_classes(load: Load, document: dict[str, Any], tmp_path: Path) -> None:
    """Of ten classes, guessing gets one image in ten right."""
    put(document, "profile.lite.data", {"dataset": "image_folder", "train_images": 100})
    put(document, "dataset.image_folder.classes", 10)
    ten = make_bench(make_plan(load(document, "lite"), "lite", experiments=["prune-0.3"]), tmp_path / "ten")
    hundred = make_bench(plan_for("lite", experiments=["prune-0.3"]), tmp_path / "hundred")
    for bench in (ten, hundred):
        faults_of_models.accuracy(bench, 10.1)
    assert [finding.check for finding in ten.findings()] == ["chance-accuracy"]
    assert hundred.findings() == []


@pytest.mark.parametrize(
    ("plant", "plugin", "verb"),
    [
        (faults_of_the_chain.a_method_whose_code_has_changed, "method gram", "train-matrix bench"),
        (faults_of_the_chain.an_engine_whose_code_has_changed, "engine onnxruntime", "bench"),
    ],
)
def test_changed_code_names_the_plug_in_and_both_choices(bench: Bench, plant: Plant, plugin: str, verb: str) -> None:
    plant(bench)
    (finding,) = bench.findings()
    assert (finding.severity, finding.reason) == ("error", f"code has changed since: {plugin}")
    assert finding.remedy.endswith(f"run: make {verb} CODE=redo PROFILE=lite") and "CODE=keep" in finding.remedy


def test_code_that_was_declared_equivalent_is_no_finding(bench: Bench) -> None:
    code = bench.get(TrainRecord).code
    bench.change(TrainRecord, code=code, code_kept=[{**code, "method gram": "0" * 64}])
    assert bench.findings() == []


def test_raw_files_of_another_run_and_unreadable_ones_are_ignored(bench: Bench) -> None:
    faults_of_measurement.raw(bench, 3, [1.0], run="run-2")
    (bench.artifacts / "lite/bench" / f"latency-block004-{CELL}.{HEADLINE}.json").write_text("{")
    assert bench.findings() == []


def test_a_student_of_the_teacher_before_rounding_is_a_student_of_the_teacher(bench: Bench) -> None:
    trained = bench.get(TrainRecord, TEACHER)
    rounded = Rounded(dtype="float16", weights_sha256="c" * 64, accuracy_pct=trained.accuracy_pct)
    bench.change(TrainRecord, TEACHER, rounded_from=rounded)
    bench.change(TrainRecord, teacher_sha256="c" * 64)
    assert bench.findings() == []


def test_what_verify_compared_is_counted(bench: Bench) -> None:
    cells = len(bench.plan.cells)
    bench.onnx().with_name("weights.safetensors").touch()
    bench.onnx(OTHER).unlink()
    faults_of_measurement.kept(bench)
    faults_of_measurement.raw(bench, 3, [1.0])
    keep_predictions(bench.results, bench.plan, [CELL])
    assert walked(read_evidence(bench.plan, bench.results, bench.artifacts)) == {
        "models": cells,
        "train records": cells,
        "weights here": 1,
        "ONNX files here": cells - 1,
        "accuracies": cells,
        "accuracies with answers": 1,
        "latencies": 4 * cells,
        "latencies in pytest-benchmark's files": 4 * cells,
        "processes with raw samples here": 1,
    }
