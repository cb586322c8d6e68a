import shutil
from pathlib import Path

from harness.plan.cpu_table import cpus
from harness.reporting.report import check_report, write_report
from harness.reporting.target_document import DOCUMENT, cpus_table, filled
from tests.documents import ROOT
from tests.synthetic import fill_results, plan_for


def test_the_documents_table_is_that_of_the_file() -> None:
    text, stale = filled(ROOT / DOCUMENT, ROOT / "results")
    assert [marker for marker in stale if marker.profile == "cpus"] == [], "run: make report"
    assert cpus_table() in text


def test_every_cpu_is_a_row_with_what_it_adds_to_one_above_it() -> None:
    lines = cpus_table().splitlines()
    rows = {line.split("|")[1].strip(" `"): line for line in lines if line.startswith("| `")}
    assert list(rows) == list(cpus())
    assert "those of Xeon-8180, avx512_vnni " in rows["Xeon-8280"]
    assert "AVX-512 with BF16 and AMX" in rows["Xeon-8480"]
    assert "fma" in lines[-1] and "avx512f" not in lines[-1], "the first one's features are listed whole"


def test_report_fills_the_document_beside_the_readme_and_report_check_finds_it_stale(tmp_path: Path) -> None:
    plan = plan_for("quick")
    results, readme, document = tmp_path / "results", tmp_path / "README.md", tmp_path / DOCUMENT
    fill_results(plan, results)
    readme.write_text("# Nothing to fill\n")
    document.parent.mkdir()
    shutil.copy(ROOT / DOCUMENT, document)
    written = write_report(plan, results, readme, ["quick"])
    assert document in written.unchanged
    document.write_text(document.read_text().replace("Intel Xeon E5-2699 v4", "Intel Xeon E5-2699 v5"))
    (line,) = check_report(readme, results, lambda _: plan)
    assert line.startswith(f"{DOCUMENT}:") and line.endswith("the table all is stale; run: make report")
    assert document in write_report(plan, results, readme, ["quick"]).written
    assert check_report(readme, results, lambda _: plan) == []


def test_figures_that_are_not_measured_yet_are_no_staleness(tmp_path: Path) -> None:
    document = tmp_path / "target.md"
    document.write_text("<!-- table: benchmarks latency -->\n\nNot measured yet.\n\n<!-- end -->\n")
    assert filled(document, tmp_path)[1] == []
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/latency.json").write_text('{"targets_proven": 7, "isa_overhead_pct": 0.12}')
    text, stale = filled(document, tmp_path)
    assert len(stale) == 1
    assert "| `targets_proven`" in text and "≥ 4" in text and "Not measured yet" not in text
