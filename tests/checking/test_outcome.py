import json

from checking.planted import CELL, OTHER, Bench
from harness.checking.checks import CHECKS
from harness.checking.outcome import WIDTH, as_document, as_text
from harness.records import ExportRecord, Interval, LatencyRecord


def test_sound_results_are_one_line(bench: Bench) -> None:
    text = as_text(bench.plan, bench.findings())
    assert text == f"check lite: 10 models, {len(CHECKS)} checks: nothing found."


def test_errors_come_first_and_each_says_reason_and_remedy(bench: Bench) -> None:
    bench.change(LatencyRecord, OTHER, ratio_to_teacher=Interval(value=0.6, low=0.59, high=0.61))
    bench.change(ExportRecord, denormal_weights=7)
    lines = as_text(bench.plan, bench.findings()).splitlines()
    assert lines[0] == f"error: {CELL}: denormal-weights"
    assert lines[1] == "  7 weights of the ONNX file are denormal numbers"
    assert lines[2].startswith(f"  remedy: delete results/lite/export/{CELL}.json")
    assert f"warning: {OTHER}: wide-interval" in lines
    assert lines[-1].endswith(": 1 error, 1 warning.")
    assert all(len(line) <= WIDTH for line in lines)


def test_what_hits_many_rows_is_said_once(bench: Bench) -> None:
    for cell in bench.plan.cells:
        bench.change(LatencyRecord, cell.id, runtime="onnxruntime 1.31.0")
    text = as_text(bench.plan, bench.findings())
    assert text.count("wrong-runtime") == 1
    assert "and alike for the other 9" in text
    assert all(cell.id in text for cell in bench.plan.cells)
    assert text.endswith("10 errors, 0 warnings.")


def test_the_document_is_json_and_whole(bench: Bench) -> None:
    bench.change(ExportRecord, denormal_weights=7)
    document = json.loads(json.dumps(as_document(bench.plan, bench.findings())))
    assert (document["profile"], document["cells"], document["errors"], document["warnings"]) == ("lite", 10, 1, 0)
    (finding,) = document["findings"]
    assert set(finding) == {"check", "severity", "cell", "title", "stage", "reason", "remedy"}
    assert (finding["check"], finding["cell"], finding["stage"]) == ("denormal-weights", CELL, "export")
    assert [check["name"] for check in document["checks"]] == [check.name for check in CHECKS]
