import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from harness.checks import limits
from harness.checks.catalogue import CHECKS, STRICT, errors
from harness.checks.evidence import read_evidence
from harness.checks.files_on_disk import walked
from harness.plan.settings import Runtime
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, Rounded, TrainRecord
from tests.checks import faults_of_measurement, faults_of_models, faults_of_the_chain
from tests.checks.planted import BESIDE, CELL, FAULTS, HEADLINE, OTHER, TEACHER, Bench, make_bench
from tests.documents import ROOT
from tests.synthetic import CLOSED, plan_for

# Each registers its faults when it is imported.
FAULT_FILES = (faults_of_the_chain, faults_of_measurement, faults_of_models)


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
    assert {check for check, _, _ in FAULTS.values()} == {check.name for check in STRICT}


def test_checks_have_names_and_say_what_they_find_and_what_to_do() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert re.fullmatch("[a-z]+(-[a-z]+)+", check.name)
        assert check.finds.endswith(".")
        assert check.remedy


@pytest.mark.parametrize("profile", ["quick", "lite", "full"])
def test_sound_records_give_no_finding(profile: str, tmp_path: Path) -> None:
    assert make_bench(plan_for(profile), tmp_path).findings() == []


def test_facts_that_were_not_recorded_are_no_fault(bench: Bench) -> None:
    facts = {k: v for k, v in bench.get(LatencyRecord).environment.items() if k not in ("measured_cpus", "steal_pct")}
    bench.change(LatencyRecord, environment=facts, settings={})
    bench.change(ExportRecord, denormal_weights=None, parity_max_abs_diff=None, parity_top1_agreement_pct=None)
    assert bench.findings() == []


def test_conditions_beside_the_headline_may_have_fewer_processes(bench: Bench) -> None:
    bench.measured(bench.get(LatencyRecord, under=BESIDE).processes[: limits.LEAST_PROCESSES], under=BESIDE)
    assert bench.findings() == []


def test_without_artifacts_only_records_count(bench: Bench) -> None:
    bench.onnx().write_bytes(b"cut short")
    bench.onnx(OTHER).unlink()
    assert [finding.check for finding in bench.findings()] == ["changed-file"]
    bench.onnx().unlink()
    assert bench.findings() == []


def test_nothing_on_disk_is_one_finding_for_each_cell(tmp_path: Path) -> None:
    plan = plan_for("lite")
    findings = Bench(plan, tmp_path, tmp_path).findings()
    assert [(finding.check, finding.cell) for finding in findings] == [("missing-record", c.id) for c in plan.cells]


def test_where_halves_disagree_the_teachers_side_is_the_tables(bench: Bench) -> None:
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


def test_a_remedy_names_profile_and_file(bench: Bench) -> None:
    bench.change(AccuracyRecord, onnx_sha256="f" * 64)
    (finding,) = bench.findings()
    assert f"results/lite/accuracy/{CELL}.json" in finding.remedy
    assert finding.remedy.endswith("make bench PROFILE=lite")


def test_warnings_are_no_errors(bench: Bench) -> None:
    faults_of_measurement.wide_interval(bench)
    faults_of_measurement.throttled(bench)
    findings = bench.findings()
    assert {finding.check: finding.severity for finding in findings} == {
        "wide-interval": "warning",
        "throttled-run": "error",
    }
    assert [finding.check for finding in errors(findings)] == ["throttled-run"]


def test_the_expected_runtimes_are_those_that_the_bench_environments_pin() -> None:
    assert set(limits.RUNTIMES) == set(get_args(Runtime))
    for name, runtime in limits.RUNTIMES.items():
        pins = (ROOT / "requirements" / f"bench-{name}.txt").read_text(encoding="utf-8")
        (version,) = re.findall(r"^onnxruntime==(\S+)", pins, re.MULTILINE)
        assert runtime == f"onnxruntime {version}"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (pin,) = [line for line in extras["bench"] if line.startswith("onnxruntime")]
    assert pin.replace("==", " ") == limits.RUNTIMES["1.16.0"]


def test_raw_files_of_a_later_broken_off_run_and_unreadable_ones_are_not_held_against_a_record(bench: Bench) -> None:
    faults_of_measurement.raw(bench, 3, [1.0], at="2026-01-02T03:04:06+00:00")
    (bench.artifacts / "lite/bench" / f"latency-block004-{CELL}.{HEADLINE}.json").write_text("{")
    assert bench.findings() == []


def test_a_student_of_the_unrounded_teacher_is_one_of_the_teacher(bench: Bench) -> None:
    trained = bench.get(TrainRecord, TEACHER)
    rounded = Rounded(dtype="float16", weights_sha256="c" * 64, accuracy_pct=trained.accuracy_pct)
    bench.change(TrainRecord, TEACHER, rounded_from=rounded)
    bench.change(TrainRecord, teacher_sha256="c" * 64)
    assert bench.findings() == []


def test_what_a_clean_answer_is_worth_is_counted(bench: Bench) -> None:
    cells = len(bench.plan.cells)
    bench.onnx().with_name("weights.safetensors").touch()
    bench.onnx(OTHER).unlink()
    faults_of_measurement.kept(bench)
    faults_of_measurement.raw(bench, 3, [1.0])
    assert walked(read_evidence(bench.plan, bench.results, bench.artifacts)) == {
        "models": cells,
        "train records": cells,
        "weights here": 1,
        "ONNX files here": cells - 1,
        "accuracies": cells,
        "latencies": 2 * cells,
        "latencies in pytest-benchmark's files": 2 * cells,
        "processes with raw samples here": 1,
    }
