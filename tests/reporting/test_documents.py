from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.reporting.documents import filled, own_documents
from harness.reporting.known_cpus import cpus_table
from harness.reporting.markers import Marker
from harness.reporting.reading import Reading
from harness.reporting.report import check_report, write_report
from tests.synthetic import fill_results, plan_for


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A README, a page with markers of every kind, and one without any."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# R\n\n<!-- table: quick prune-0.3 short -->\n<!-- end -->\n")
    (tmp_path / "docs/all.md").write_text(
        "".join(
            f"<!-- table: {what} -->\nold\n<!-- end -->\n"
            for what in ("quick prune-0.3", "cpus all", "benchmarks main", "studies estimators")
        )
    )
    (tmp_path / "docs/words.md").write_text("Only words.\r\n")
    return tmp_path


def test_a_checkouts_documents_are_its_readme_and_its_pages(checkout: Path) -> None:
    names = [str(path.relative_to(checkout)) for path in own_documents(checkout)]
    assert names == ["README.md", "docs/all.md", "docs/words.md"]
    (checkout / "README.md").unlink()
    assert own_documents(checkout) == []


def test_each_marker_gets_what_it_names_and_pages_without_any_are_left_alone(checkout: Path) -> None:
    asked: list[tuple[Marker, Path]] = []

    def matrix_table(marker: Marker, folder: Path) -> str:
        asked.append((marker, folder))
        return "of the matrix"

    readme, page = filled(own_documents(checkout), checkout, matrix_table)
    assert [(marker.short, folder) for marker, folder in asked] == [(True, checkout), (False, checkout / "docs")]
    assert "of the matrix" in readme.text and cpus_table() in page.text
    # neither a folder without benchmarks nor a study's own table is anything to be stale about
    assert [marker.profile for marker in page.stale] == ["quick", "cpus"]
    (checkout / "benchmarks").mkdir()
    _, page = filled(own_documents(checkout), checkout, matrix_table)
    assert "Not measured yet; `make benchmarks SUBJECT=main` does it." in page.text


def test_what_has_no_short_form_is_named_by_file_and_line(checkout: Path) -> None:
    page = checkout / "docs/all.md"
    page.write_text("\n<!-- table: cpus all short -->\n<!-- end -->\n")
    with pytest.raises(HarnessError, match=r"docs/all\.md:2: a table of cpus has no short form"):
        filled([page], checkout, lambda *_: "")


def test_a_report_fills_them_all_and_a_check_names_file_and_line_of_what_is_stale(checkout: Path) -> None:
    plan, documents, results = plan_for("quick"), own_documents(checkout), checkout / "results"
    fill_results(plan, results)
    report = write_report(Reading(plan, results), documents, ["quick"])
    readme, page, words = documents
    assert {readme, page} <= set(report.written) and words not in (*report.written, *report.unchanged)
    assert words.read_bytes() == b"Only words.\r\n"
    assert 'src="../results/quick/figures/prune-0.3.svg"' in page.read_text()
    assert check_report(documents, results, lambda _: plan) == []
    page.write_text(page.read_text().replace("Intel Xeon E5-2699 v4", "Intel Xeon E5-2699 v5"))
    line = page.read_text().split("\n").index("<!-- table: cpus all -->") + 1
    assert check_report(documents, results, lambda _: plan) == [
        f"{page}:{line}: the table of cpus all is stale; run: make report"
    ]
