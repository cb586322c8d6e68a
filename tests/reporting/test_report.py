import html
import re
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from harness.errors import HarnessError
from harness.plan.planning import Plan, make_plan
from harness.reporting import charts, report, rows
from harness.reporting.chart_style import LIGHT
from harness.reporting.charts import MAIN, PICTURES, STUDY, Picture
from harness.reporting.page.build import page_path
from harness.reporting.reading import Reading
from harness.reporting.report import check_files, check_report, write_report
from harness.reporting.rows import width_text
from harness.reporting.table_document import KINDS, figure_path, table_path
from harness.store.records import AccuracyRecord, ExportRecord, Interval, LatencyRecord, Record, TrainRecord
from tests.documents import Load
from tests.synthetic import change, fill_results, path_of, plan_for

AGAIN = "run: make report PROFILE=lite"
PNG = Picture(LIGHT, "png")
PROFILES = ["quick", "lite", "long", "reference"]
MARKERS = """# Harness

<!-- table: lite prune-0.3 -->
<!-- end -->

<!-- table: lite prune-0.4 -->
<!-- end -->

<!-- table: long prune-0.3 -->
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
    report = write_report(Reading(plan, results), [], PROFILES)
    for table in plan.tables:
        assert {table_path(results, plan, table), figure_path(results, plan, table)} <= set(report.written)
        assert table.title in report.text
    assert all(path.is_file() for path in report.written)
    text = table_path(results, plan, plan.tables[0]).read_text()
    for which in ("", "-study", "-latency", "-training"):
        assert f'srcset="../figures/prune-0.3{which}-dark.svg"><img' in text
        assert f' src="../figures/prune-0.3{which}.svg"></picture>' in text
    assert "-widths" not in text, "synthetic records know of no widths"
    assert text.startswith("# Experiment 1")


def test_it_fills_the_markers_of_its_profile_only(plan: Plan, results: Path, readme: Path) -> None:
    write_report(Reading(plan, results), [readme], PROFILES)
    text = readme.read_text()
    assert text.count("### Experiment") == 2
    assert 'src="results/lite/figures/prune-0.4.svg"' in text
    assert "<!-- table: long prune-0.3 -->\n<!-- end -->" in text


def test_a_report_of_one_experiment_leaves_the_other_table(plan: Plan, results: Path, readme: Path) -> None:
    write_report(Reading(plan, results), [readme], PROFILES)
    before = readme.read_text()
    change(results, plan, "p0.4-bn-gram-s0", AccuracyRecord, accuracy_pct=12.34)
    write_report(Reading(plan_for("lite", experiments=["prune-0.3"]), results), [readme], PROFILES)
    assert readme.read_text() == before


def test_writing_again_changes_no_byte_and_says_so(plan: Plan, results: Path, readme: Path) -> None:
    first = write_report(Reading(plan, results), [readme], PROFILES)
    # the README and the page; three files of each table, and four charts of it in two themes
    assert (len(first.written), first.unchanged) == (2 + 2 * (3 + 4 * 2), ())
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in first.written]
    again = write_report(Reading(plan, results), [readme], PROFILES)
    assert (again.written, again.unchanged) == ((), first.written)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in first.written] == before


def test_only_what_changed_is_written(plan: Plan, results: Path, readme: Path) -> None:
    write_report(Reading(plan, results), [readme], PROFILES)
    change(results, plan, "p0.4-bn-gram-s0", ExportRecord, params=123_456)
    report = write_report(Reading(plan, results), [readme], PROFILES)
    # No chart shows parameters.
    tables = (table_path(results, plan, plan.tables[1], kind) for kind in KINDS)
    assert report.written == (readme, *tables, page_path(results, plan))
    assert set(report.unchanged) > {
        *(table_path(results, plan, plan.tables[0], kind) for kind in KINDS),
        *(figure_path(results, plan, table) for table in plan.tables),
    }


def test_a_readme_without_this_profiles_tables_is_unchanged(plan: Plan, results: Path, readme: Path) -> None:
    readme.write_bytes(b"<!-- table: long seeds -->\n<!-- end -->\r\n")
    report = write_report(Reading(plan, results), [readme], PROFILES)
    assert report.unchanged == (readme,)
    assert readme.read_bytes() == b"<!-- table: long seeds -->\n<!-- end -->\r\n"


def test_a_short_table_has_six_columns_and_says_where_the_others_are(plan: Plan, results: Path, readme: Path) -> None:
    readme.write_text("<!-- table: lite prune-0.3 short -->\n<!-- end -->\n")
    write_report(Reading(plan, results), [readme], PROFILES)
    _, table, below, _ = readme.read_text().split("\n\n")
    header, _, teacher, *students = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert header == ["Model Name", "Latency (ms)", "Accuracy (%)", "Parameters (M)", "Pruning", "KD"]
    figures = re.compile(r"[\d.]+ \([\d.]+ (± [\d.]+|\[[\d.]+, [\d.]+\])\)")
    assert "(" not in teacher[1] and all(figures.fullmatch(row[1]) for row in students)
    assert "(" not in teacher[2] and all(re.fullmatch(r"[\d.]+ \([-+][\d.]+\)( ★)?", row[2]) for row in students)
    assert sum("★" in row[2] for row in students) < len(students)
    assert below.count("\n") == 0 and "1/8 width" in below and "Measured on Some CPU" in below
    assert "[All columns](results/lite/tables/prune-0.3.md)." in below
    (results / "lite/figures/prune-0.3.svg").unlink()
    assert any("prune-0.3.svg is missing" in line for line in full_check(readme, results))


def full_check(readme: Path, results: Path) -> list[str]:
    return check_report([readme], results, plan_for)


def test_check_finds_nothing_after_a_report(plan: Plan, results: Path, readme: Path) -> None:
    write_report(Reading(plan, results), [readme], PROFILES)
    full = plan_for("long", experiments=["prune-0.3"])
    write_report(Reading(full, results), [readme], PROFILES)
    assert full_check(readme, results) == []


def test_check_catches_a_changed_digit(plan: Plan, results: Path, readme: Path) -> None:
    readme.write_text(MARKERS.split("<!-- table: long")[0])
    write_report(Reading(plan, results), [readme], PROFILES)
    text = readme.read_text()
    assert "76.50" in text
    readme.write_text(text.replace("76.50", "76.51", 1))
    (stale,) = full_check(readme, results)
    assert stale.startswith(f"{readme}:3: table prune-0.3 of profile lite is stale")
    assert readme.read_text() == text.replace("76.50", "76.51", 1)


def test_check_catches_a_record_that_changed(plan: Plan, results: Path, readme: Path) -> None:
    readme.write_text(MARKERS.split("<!-- table: long")[0])
    write_report(Reading(plan, results), [readme], PROFILES)
    interval = Interval(value=0.5, low=0.4, high=0.6)
    change(results, plan, "p0.4-bn-gram-s0", LatencyRecord, ratio_to_teacher=interval)
    table, chart = table_path(results, plan, plan.tables[1]), figure_path(results, plan, plan.tables[1])
    line = readme.read_text().split("\n").index("<!-- table: lite prune-0.4 -->") + 1
    stale = full_check(readme, results)
    assert stale[:3] == [
        f"{readme}:{line}: table prune-0.4 of profile lite is stale; {AGAIN}",
        f"{table} is stale; {AGAIN}",
        f"{chart} is stale; {AGAIN}",
    ]
    # The other charts may show the models in another order.
    assert f"{figure_path(results, plan, plan.tables[1], STUDY)} is stale; {AGAIN}" in stale
    assert not [line for line in stale if "prune-0.3" in line]


def test_unknown_names_in_markers_are_errors_with_file_and_line(plan: Plan, results: Path, readme: Path) -> None:
    readme.write_text("<!-- table: tiny prune-0.3 -->\n<!-- end -->\n")
    with pytest.raises(HarnessError, match=r"README\.md:1: profile 'tiny' does not exist; allowed: quick, lite"):
        write_report(Reading(plan, results), [readme], PROFILES)
    with pytest.raises(HarnessError, match=r"README\.md:1: .*profile 'tiny' does not exist; allowed: quick, lite"):
        full_check(readme, results)
    readme.write_text("\n<!-- table: lite prune-0.9 -->\n<!-- end -->\n")
    message = r"README\.md:2: profile lite has no experiment 'prune-0.9'; allowed: prune-0.3, prune-0.4"
    with pytest.raises(HarnessError, match=message):
        write_report(Reading(plan, results), [readme], PROFILES)
    with pytest.raises(HarnessError, match=message):
        full_check(readme, results)
    assert not table_path(results, plan, plan.tables[0]).exists(), "nothing is written before the README is sound"


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_a_table_is_compared_with_the_records(plan: Plan, results: Path, kind: str) -> None:
    write_report(Reading(plan, results), [], PROFILES)
    path = table_path(results, plan, plan.tables[0], kind)
    written = path.read_bytes()
    path.write_bytes(written.replace(b"76.5", b"76.6"))
    assert check_files(Reading(plan, results)) == [f"{path} is stale; {AGAIN}"]
    if kind != "md":
        path.unlink()
        assert check_files(Reading(plan, results)) == [f"{path} is missing; {AGAIN}"]


def test_a_table_file_that_the_records_do_not_bear_out_is_stale(plan: Plan, results: Path) -> None:
    assert check_files(Reading(plan, results)) == [], "what is not there cannot be stale"
    write_report(Reading(plan, results), [], PROFILES)
    assert check_files(Reading(plan, results)) == []
    change(results, plan, "p0.4-l1-base-s0", ExportRecord, params=123_456)
    # No chart shows parameters.
    assert check_files(Reading(plan, results)) == [f"{table_path(results, plan, plan.tables[1])} is stale; {AGAIN}"]
    change(results, plan, "p0.4-l1-base-s0", AccuracyRecord, accuracy_pct=12.34, correct=1234)
    assert check_files(Reading(plan, results)) == [
        f"{table_path(results, plan, plan.tables[1])} is stale; {AGAIN}",
        f"{figure_path(results, plan, plan.tables[1])} is stale; {AGAIN}",
        f"{figure_path(results, plan, plan.tables[1], STUDY)} is stale; {AGAIN}",
    ]


@pytest.mark.parametrize("experiment", ["prune-0.3", "seeds"])
def test_a_chart_is_stale_where_any_figure_that_it_shows_has_changed(experiment: str, results: Path) -> None:
    plan = plan_for("lite", experiments=[experiment])
    fill_results(plan, results)
    write_report(Reading(plan, results), [], PROFILES)
    figure, cell = figure_path(results, plan, plan.tables[0]), "p0.3-bn-gram-s0"
    interval = Interval(value=0.5, low=0.4, high=0.6)
    changes: dict[str, list[tuple[type[Record], dict[str, Any]]]] = {
        "prune-0.3": [
            (AccuracyRecord, {"accuracy_pct": 74.0, "correct": 7400}),
            (LatencyRecord, {"ratio_to_teacher": interval}),
        ],
        "seeds": [
            (AccuracyRecord, {"accuracy_pct": 74.0, "correct": 7400}),
            (ExportRecord, {"params": 200_000}),
            (TrainRecord, {"macs": 9_000_000}),
        ],
    }
    for kind, fields in changes[experiment]:
        assert not [line for line in check_files(Reading(plan, results)) if str(figure) in line]
        change(results, plan, cell, kind, **fields)
        assert f"{figure} is stale; {AGAIN}" in check_files(Reading(plan, results))
        write_report(Reading(plan, results), [], PROFILES)


def test_a_png_that_is_another_chart_or_was_edited_or_damaged_is_stale(results: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, results)
    write_report(Reading(plan, results), [], PROFILES, png=True)
    one, other = (figure_path(results, plan, plan.tables[0], which, PNG) for which in (MAIN, STUDY))
    drawn = one.read_bytes()
    one.write_bytes(other.read_bytes())
    assert check_files(Reading(plan, results)) == [f"{one} is stale; {AGAIN}"]
    with Image.open(BytesIO(drawn)) as image:
        about = PngInfo()
        about.add_text("Source", image.info["Source"])
        # what another encoder wrote is current, and what was edited is not
        image.save(one, pnginfo=about, compress_level=1)
        assert one.read_bytes() != drawn and check_files(Reading(plan, results)) == []
        image.putpixel((700, 400), (0, 0, 0))
        image.save(one, pnginfo=about)
    assert check_files(Reading(plan, results)) == [f"{one} is stale; {AGAIN}"]
    for damaged in (drawn[:5000], b"", b"no picture"):
        one.write_bytes(damaged)
        assert check_files(Reading(plan, results)) == [f"{one} is stale; {AGAIN}"]
    one.unlink()
    assert check_files(Reading(plan, results)) == [], "it is not committed"
    write_report(Reading(plan, results), [], PROFILES)
    assert one.is_file(), "its dark twin is there, so both are kept current"


def test_an_svg_that_is_another_experiments_or_was_edited_or_is_missing_is_stale(plan: Plan, results: Path) -> None:
    write_report(Reading(plan, results), [], PROFILES)
    for picture in (picture for picture in PICTURES if picture.form == "svg"):
        one, other = (figure_path(results, plan, table, picture=picture) for table in plan.tables)
        drawn = one.read_bytes()
        for damaged in (other.read_bytes(), drawn.replace(b"teacher", b"TEACHER"), drawn[:5000], b""):
            one.write_bytes(damaged)
            assert check_files(Reading(plan, results)) == [f"{one} is stale; {AGAIN}"]
        one.unlink()
        assert check_files(Reading(plan, results)) == [f"{one} is missing; {AGAIN}"]
        one.write_bytes(drawn)
    assert check_files(Reading(plan, results)) == []


def test_files_that_no_experiment_owns_are_named(plan: Plan, results: Path) -> None:
    write_report(Reading(plan, results), [], PROFILES)
    table, figure = table_path(results, plan, plan.tables[0]), figure_path(results, plan, plan.tables[0])
    # an experiment of matrix.toml that this plan leaves out is an owner too
    controlled = plan_for("lite", experiments=["controlled"])
    fill_results(controlled, results)
    write_report(Reading(controlled, results), [], PROFILES)
    assert check_files(Reading(plan, results)) == []
    for path in (table.with_stem("renamed"), figure.with_stem("renamed"), figure.with_suffix(".pdf")):
        path.write_bytes(b"")
        assert check_files(Reading(plan, results)) == [
            f"{path}: no experiment has this name; delete the file if the experiment was renamed or removed"
        ]
        path.unlink()


def test_a_table_that_is_no_text_is_stale(plan: Plan, results: Path) -> None:
    write_report(Reading(plan, results), [], PROFILES)
    table_path(results, plan, plan.tables[0]).write_bytes(b"\xff\xfe")
    assert check_files(Reading(plan, results)) == [f"{table_path(results, plan, plan.tables[0])} is stale; {AGAIN}"]


def test_a_chart_goes_when_there_is_nothing_left_to_draw(plan: Plan, results: Path) -> None:
    write_report(Reading(plan, results), [], PROFILES)
    for folder in ("accuracy", "latency"):
        shutil.rmtree(results / plan.profile / folder)
    stale = check_files(Reading(plan, results))
    figure = figure_path(results, plan, plan.tables[0])
    assert f"{figure} shows models that have no figures now; {AGAIN}" in stale
    write_report(Reading(plan, results), [], PROFILES)
    assert not figure.exists()
    assert check_files(Reading(plan, results)) == []


def test_a_chart_that_the_readme_shows_has_to_be_there(plan: Plan, results: Path, readme: Path) -> None:
    readme.write_text(MARKERS.split("<!-- table: long")[0])
    write_report(Reading(plan, results), [readme], PROFILES)
    assert full_check(readme, results) == []
    for folder in ("tables", "figures"):
        shutil.rmtree(results / "lite" / folder)
    missing = full_check(readme, results)
    assert {f"{figure_path(results, plan, table)} is missing; {AGAIN}" for table in plan.tables} <= set(missing)
    assert len(missing) == 2 * 4 and all("figures" in line for line in missing)
    # of a profile that no document shows, nothing was reported yet
    assert check_files(Reading(plan, results)) == []


def test_without_a_readme_no_document_is_touched(
    plan: Plan, results: Path, readme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(readme.parent)
    report = write_report(Reading(plan, results), [], PROFILES)
    assert readme.read_text() == MARKERS
    assert readme not in {*report.written, *report.unchanged}


def test_where_the_results_lie_makes_no_difference(
    plan: Plan, results: Path, readme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(readme.parent)
    readme.write_text(MARKERS.split("<!-- table: long")[0])
    path_of(results, plan, "p0.3-bn-gram-s0", TrainRecord).write_text("{")
    write_report(Reading(plan, results), [readme], PROFILES)
    text = readme.read_text()
    assert "lite/train/p0.3-bn-gram-s0.json: not a train record" in text
    assert str(results) not in text
    assert check_report([readme], Path("results"), plan_for) == []


HOSTILE = "a $x_1$ and $y | <!-- end --> <b>*bold*</b> `code` [link](http://x) \\ _it_\nsecond"


def test_titles_are_shown_as_they_are(results: Path, document: dict[str, Any], load: Load) -> None:
    document["experiment"][0]["title"] = HOSTILE
    plan = make_plan(load(document, "lite"), "lite", experiments=["prune-0.3"])
    fill_results(plan, results)
    write_report(Reading(plan, results), [], PROFILES)
    text = table_path(results, plan, plan.tables[0]).read_text()
    shown = (
        "a \\$x_1\\$ and \\$y \\| &lt;!-- end --> &lt;b>\\*bold\\*&lt;/b> "
        "\\`code\\` [link\\](http://x) \\\\ \\_it\\_ second"
    )
    assert text.splitlines()[0] == f"# {shown} (profile lite)"
    alternative = re.search(r'<img alt="([^"]*)"', text)
    assert alternative and html.unescape(alternative[1]) == (
        f"Accuracy against latency: {' '.join(HOSTILE.split())}, profile lite"
    )
    assert check_files(Reading(plan, results)) == []


def test_a_folder_with_blanks_and_brackets_is_linked(plan: Plan, tmp_path: Path, readme: Path) -> None:
    results = tmp_path / "results (of) [mine]"
    fill_results(plan, results)
    write_report(Reading(plan, results), [readme], PROFILES)
    assert 'src="results%20%28of%29%20%5Bmine%5D/lite/figures/prune-0.3.svg"' in readme.read_text()


def test_a_missing_readme_is_named(plan: Plan, results: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"none\.md: not found"):
        write_report(Reading(plan, results), [tmp_path / "none.md"], PROFILES)


def test_the_text_for_the_terminal_has_the_warnings_and_the_place(results: Path) -> None:
    plan = plan_for("quick", "stand_in")
    fill_results(plan, results, skip={"p0.3-l1-base-s0"})
    text = write_report(Reading(plan, results), [], PROFILES).text
    assert f"{width_text(plan.settings.model.width)} width, stand-in images, no train record" in text
    assert "Warning: P(0.3_L1)_KD(0)_SEED(0): there is no train record" in text
    assert text.endswith(f"Full table: {table_path(results, plan, plan.tables[0])}")


def test_a_report_of_nothing_has_a_row_for_everything(results: Path) -> None:
    plan = plan_for("lite")
    report = write_report(Reading(plan, results), [], PROFILES)
    assert [path.suffix for path in report.written] == [*[".md", ".csv", ".json"] * 2, ".html"]
    assert report.text.count("no train record") >= len(plan.cells)


def test_of_a_very_long_table_documents_and_terminal_show_the_first_models_and_say_so(
    plan: Plan, results: Path, readme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows.first_models, "__defaults__", (4,))
    monkeypatch.setattr(report, "MOST_PRINTED", 3)
    written = write_report(Reading(plan, results), [readme], PROFILES)
    place = table_path(results, plan, plan.tables[0])
    cut = "The first 4 of [all 10 rows](prune-0.3.csv), those of the best Pareto ranks."
    own = place.read_text().split("##")[0]
    assert cut in own and own.count("\n| ") == 5, "a header and four rows"
    assert cut.replace("(", "(results/lite/tables/") in readme.read_text()
    assert len(place.with_suffix(".csv").read_text().splitlines()) == 11
    assert f"Full table: {place} (7 more rows)" in written.text
    assert written.text.split("Full table")[0].count("P(0.3") == 4, "two students, here and under other conditions"
    assert check_files(Reading(plan, results)) == []


def test_a_table_too_long_for_charts_has_none_for_the_rows_that_are_shown_of_it(
    plan: Plan, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "MOST_ROWS", 9)
    monkeypatch.setattr(rows.first_models, "__defaults__", (4,))
    write_report(Reading(plan, results), [], PROFILES)
    assert not list((results / "lite").glob("figures/prune-0.3*"))
    assert "<picture>" not in table_path(results, plan, plan.tables[0]).read_text()


def test_what_a_killed_report_has_left_is_swept_away_and_nothing_else(plan: Plan, results: Path, readme: Path) -> None:
    tables = results / "lite" / "tables"
    left = [tables / ".prune-0.3.md.abcd_123.md", readme.with_name(".README.md.wxyz0123.md")]
    kept = [readme.with_name(".notes.md"), readme.parent / "elsewhere" / ".README.md.wxyz0123.md"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half of it")
    write_report(Reading(plan, results), [readme], PROFILES)
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)
