import json
from collections.abc import Iterable, Sequence
from functools import partial

import pytest

from harness.checks.catalogue import CHECKS
from harness.checks.findings import MOST_WARNINGS, WIDTH, as_document, as_text
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord
from tests.checks.planted import CELL, OTHER, Bench


def test_sound_results_are_one_line(bench: Bench) -> None:
    text = as_text(bench.plan, bench.findings())
    assert text == f"check lite: 10 models, {len(CHECKS)} checks: nothing found."


def _cycled(values: Sequence[float], place: int) -> float:
    return values[place % len(values)]


def widen(bench: Bench, cells: Iterable[str]) -> None:
    """Ratios known less precisely than wanted, each by another number."""
    for place, cell in enumerate(cells):
        steps = [0.6, 0.62 + 0.004 * place, 0.64 + 0.008 * place]
        bench.measured(bench.slowed(partial(_cycled, steps)), cell)


def test_errors_come_first_and_each_check_says_rows_reasons_and_remedy(bench: Bench) -> None:
    widen(bench, [OTHER])
    bench.change(ExportRecord, denormal_weights=7)
    bench.change(ExportRecord, OTHER, denormal_weights=8)
    lines = as_text(bench.plan, bench.findings()).splitlines()
    assert lines[:3] == [
        "error: denormal-weights (2 rows)",
        f"  {OTHER}: 8 weights of the ONNX file are denormal numbers",
        f"  {CELL}: 7 weights of the ONNX file are denormal numbers",
    ]
    assert lines[3:5] == [
        "  remedy: today's exporter sets weights below 1e-20 to zero; run (likewise for the others):",
        f"    rm results/lite/export/{OTHER}.json && make train-matrix bench PROFILE=lite",
    ]
    head = lines.index("warning: wide-interval (1 row)")
    assert lines[head + 1].startswith(f"  {OTHER}: ")
    assert lines[head + 2].startswith("  remedy: ") and "likewise" not in lines[head + 2]
    assert lines[-1].endswith(": 2 errors, 1 warning.")
    assert all(len(line) <= WIDTH for line in lines)


def test_a_reason_that_many_rows_share_is_printed_once(bench: Bench) -> None:
    for cell in bench.plan.cells:
        bench.change(LatencyRecord, cell.id, runtime="onnxruntime 1.31.0")
    text = as_text(bench.plan, bench.findings())
    assert text.startswith("error: wrong-runtime (10 rows)\n")
    assert (text.count("1.31.0"), text.count("remedy")) == (1, 1)
    assert all(cell.id in text for cell in bench.plan.cells)
    assert text.endswith("10 errors, 0 warnings.")


def test_a_row_with_two_findings_of_a_check_is_one_row(bench: Bench) -> None:
    for kind in (LatencyRecord, AccuracyRecord):
        bench.path(kind).unlink()
    lines = as_text(bench.plan, bench.findings()).splitlines()
    assert lines[:3] == [
        "error: missing-record (1 row)",
        f"  {CELL}: there is no latency record",
        f"  {CELL}: there is no accuracy record",
    ]


def test_errors_list_every_row(bench: Bench) -> None:
    for count, cell in enumerate(bench.plan.cells):
        bench.change(ExportRecord, cell.id, denormal_weights=count + 1)
    lines = as_text(bench.plan, bench.findings()).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:11]] == [cell.id for cell in bench.plan.cells]


@pytest.mark.parametrize(("count", "more"), [(3, None), (4, "and 1 more row;"), (9, "and 6 more rows;")])
def test_of_many_warnings_the_first_are_listed_and_the_rest_counted(bench: Bench, count: int, more: str | None) -> None:
    cells = [cell.id for cell in bench.plan.cells if not cell.is_teacher][:count]
    widen(bench, cells)
    head, *rows, remedy, command, _ = as_text(bench.plan, bench.findings()).splitlines()
    assert head == f"warning: wide-interval ({count} rows)"
    assert [row.split(":")[0].strip() for row in rows[:MOST_WARNINGS]] == cells[:MOST_WARNINGS]
    assert rows[MOST_WARNINGS:] == ([f"  {more} check --json lists all"] if more else [])
    assert remedy.startswith("  remedy: ") and remedy.endswith("run:")
    assert command == "    make bench AGAIN=1 PROFILE=lite"


def test_the_document_is_json_and_whole(bench: Bench) -> None:
    bench.change(ExportRecord, denormal_weights=7)
    document = json.loads(json.dumps(as_document(bench.plan, bench.findings())))
    assert (document["profile"], document["cells"], document["errors"], document["warnings"]) == ("lite", 10, 1, 0)
    (finding,) = document["findings"]
    assert set(finding) == {"check", "severity", "cell", "title", "stage", "reason", "remedy"}
    assert (finding["check"], finding["cell"], finding["stage"]) == ("denormal-weights", CELL, "export")
    assert [check["name"] for check in document["checks"]] == [check.name for check in CHECKS]
