from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.plan.planning import Plan
from harness.plan.settings import load_settings
from harness.reporting.own_figures import MARKER_PROFILE
from harness.reporting.readme import find_markers
from harness.reporting.report import check_report, figure_path, stale_tables, table_path, write_report
from harness.reporting.rows import width_text
from harness.store.records import AccuracyRecord, ExportRecord, Interval, LatencyRecord
from tests.synthetic import change, fill_results, plan_for

PROFILES = ["quick", "lite", "full", "reference"]
MARKERS = """# Harness

<!-- table: lite prune-0.3 -->
<!-- end -->

<!-- table: lite prune-0.4 -->
<!-- end -->

<!-- table: full prune-0.3 -->
<!-- end -->
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(MARKERS)
    return path


@pytest.fixture
def plan(results: Path) -> Plan:
    plan = plan_for("lite")
    fill_results(plan, results)
    return plan


def test_it_writes_tables_and_charts_and_returns_them(plan: Plan, results: Path) -> None:
    report = write_report(plan, results, None, PROFILES)
    for table in plan.tables:
        assert {table_path(results, plan, table), figure_path(results, plan, table)} <= set(report.written)
        assert table.title in report.text
    assert all(path.is_file() for path in report.written)
    text = table_path(results, plan, plan.tables[0]).read_text()
    assert "(../figures/prune-0.3.png)" in text
    assert text.startswith("# Experiment 1")


def test_it_fills_the_markers_of_its_profile_only(plan: Plan, results: Path, readme: Path) -> None:
    write_report(plan, results, readme, PROFILES)
    text = readme.read_text()
    assert text.count("### Experiment") == 2
    assert "(results/lite/figures/prune-0.4.png)" in text
    assert "<!-- table: full prune-0.3 -->\n<!-- end -->" in text


def test_a_report_of_one_experiment_leaves_the_other_table(plan: Plan, results: Path, readme: Path) -> None:
    write_report(plan, results, readme, PROFILES)
    before = readme.read_text()
    change(results, plan, "p0.4-bn-gram-s0", AccuracyRecord, accuracy_pct=12.34)
    write_report(plan_for("lite", experiments=["prune-0.3"]), results, readme, PROFILES)
    assert readme.read_text() == before


def test_writing_again_changes_no_byte_and_says_so(plan: Plan, results: Path, readme: Path) -> None:
    first = write_report(plan, results, readme, PROFILES)
    assert (len(first.written), first.unchanged) == (5, ())
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in first.written]
    again = write_report(plan, results, readme, PROFILES)
    assert (again.written, again.unchanged) == ((), first.written)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in first.written] == before


def test_only_what_changed_is_written(plan: Plan, results: Path, readme: Path) -> None:
    write_report(plan, results, readme, PROFILES)
    change(results, plan, "p0.4-bn-gram-s0", ExportRecord, params=123_456)
    report = write_report(plan, results, readme, PROFILES)
    # The chart does not show parameters.
    assert report.written == (readme, table_path(results, plan, plan.tables[1]))
    assert set(report.unchanged) == {
        table_path(results, plan, plan.tables[0]),
        *(figure_path(results, plan, table) for table in plan.tables),
    }


def test_a_readme_without_this_profiles_tables_is_unchanged(plan: Plan, results: Path, readme: Path) -> None:
    readme.write_bytes(b"# Nothing to fill\r\n")
    report = write_report(plan, results, readme, PROFILES)
    assert report.unchanged == (readme,)
    assert readme.read_bytes() == b"# Nothing to fill\r\n"


def full_check(readme: Path, results: Path) -> list[str]:
    return check_report(readme, results, plan_for)


def test_check_finds_nothing_after_a_report(plan: Plan, results: Path, readme: Path) -> None:
    write_report(plan, results, readme, PROFILES)
    full = plan_for("full", experiments=["prune-0.3"])
    write_report(full, results, readme, PROFILES)
    assert full_check(readme, results) == []


def test_check_catches_a_changed_digit(plan: Plan, results: Path, readme: Path) -> None:
    readme.write_text(MARKERS.split("<!-- table: full")[0])
    write_report(plan, results, readme, PROFILES)
    text = readme.read_text()
    assert "76.50" in text
    readme.write_text(text.replace("76.50", "76.51", 1))
    (stale,) = full_check(readme, results)
    assert stale.startswith("README.md:3: table prune-0.3 of profile lite is stale")
    assert readme.read_text() == text.replace("76.50", "76.51", 1)


def test_check_catches_a_record_that_changed(plan: Plan, results: Path, readme: Path) -> None:
    readme.write_text(MARKERS.split("<!-- table: full")[0])
    write_report(plan, results, readme, PROFILES)
    interval = Interval(value=0.5, low=0.4, high=0.6)
    change(results, plan, "p0.4-bn-gram-s0", LatencyRecord, ratio_to_teacher=interval)
    assert [line.split(":")[2].split()[1] for line in full_check(readme, results)] == ["prune-0.4"]


def test_unknown_names_in_markers_are_errors_with_file_and_line(plan: Plan, results: Path, readme: Path) -> None:
    readme.write_text("<!-- table: tiny prune-0.3 -->\n<!-- end -->\n")
    with pytest.raises(HarnessError, match=r"README\.md:1: profile 'tiny' does not exist; allowed: quick, lite"):
        write_report(plan, results, readme, PROFILES)
    with pytest.raises(HarnessError, match=r"README\.md:1: .*profile 'tiny' does not exist; allowed: quick, lite"):
        full_check(readme, results)
    readme.write_text("\n<!-- table: lite prune-0.9 -->\n<!-- end -->\n")
    message = r"README\.md:2: profile lite has no experiment 'prune-0.9'; allowed: prune-0.3, prune-0.4"
    with pytest.raises(HarnessError, match=message):
        write_report(plan, results, readme, PROFILES)
    with pytest.raises(HarnessError, match=message):
        full_check(readme, results)
    assert not table_path(results, plan, plan.tables[0]).exists(), "nothing is written before the README is sound"


def test_a_table_file_that_the_records_do_not_bear_out_is_stale(plan: Plan, results: Path) -> None:
    assert stale_tables(plan, results) == [], "what is not there cannot be stale"
    write_report(plan, results, None, PROFILES)
    assert stale_tables(plan, results) == []
    change(results, plan, "p0.4-l1-base-s0", AccuracyRecord, accuracy_pct=12.34, correct=1234)
    (line,) = stale_tables(plan, results)
    assert line == f"{table_path(results, plan, plan.tables[1])} is stale; run: make report PROFILE=lite"


def test_a_missing_readme_is_named(plan: Plan, results: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"none\.md: not found"):
        write_report(plan, results, tmp_path / "none.md", PROFILES)


def test_the_text_for_the_terminal_has_the_warnings_and_the_place(results: Path) -> None:
    plan = plan_for("quick", "stand-in")
    fill_results(plan, results, skip={"p0.3-l1-base-s0"})
    text = write_report(plan, results, None, PROFILES).text
    assert f"{width_text(plan.settings.model.width)} width, stand-in data, no train record" in text
    assert "Warning: P(0.3_L1)_KD(0)_SEED(0): no train record yet" in text
    assert text.endswith(f"Full table: {table_path(results, plan, plan.tables[0])}")


def test_a_report_of_nothing_has_a_row_for_everything(results: Path) -> None:
    plan = plan_for("lite")
    report = write_report(plan, results, None, PROFILES)
    assert [path.suffix for path in report.written] == [".md", ".md"]
    assert report.text.count("no train record") >= len(plan.cells)


def test_the_projects_own_readme_has_sound_markers() -> None:
    root = Path(__file__).parents[2]
    profiles = {name: load_settings(root / "matrix.toml", name) for name in PROFILES}
    markers = find_markers((root / "README.md").read_text(encoding="utf-8"), "README.md")
    assert {"prune-0.3", "prune-0.4"} <= {marker.experiment for marker in markers if marker.profile == "lite"}
    own = [marker for marker in markers if marker.profile == MARKER_PROFILE]
    assert all((root / "results/benchmarks" / f"{marker.experiment}.json").is_file() for marker in own)
    assert all(marker.experiment in profiles[marker.profile].experiments for marker in markers if marker not in own)
