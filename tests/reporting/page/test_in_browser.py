import csv
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from harness.reporting.page.build import page, page_path
from harness.reporting.reading import Reading
from harness.store.records import AccuracyRecord, Interval, LatencyRecord
from tests import browser
from tests.browser import DESKTOP, PHONE, Watched
from tests.synthetic import change, fill_results, keep_predictions, plan_for

pytestmark = pytest.mark.skipif(browser.chromium() is None, reason=browser.NO_BROWSER)

MISSING, FAILED = "p0.4-bn-gram-s0", "p0.4-gn-gram-s0"
HOSTILE = "<script>alert(1)</script> \"quoted\" & 'ünïcode'"
NAMES = "#models tbody .open"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of made-up results: in prune-0.4 a model is missing, and another has a title like markup and fails."""
    results, plan = tmp_path_factory.mktemp("results"), plan_for("reference")
    fill_results(plan, results, skip=[MISSING])
    keep_predictions(results, plan, [cell.id for cell in plan.cells if cell.id != MISSING])
    change(results, plan, FAILED, AccuracyRecord, accuracy_pct=12.34)
    change(results, plan, "p0.4-l1-base-s0", LatencyRecord, warnings=[HOSTILE])
    change(results, plan, "p0.4-l1-base-s0", LatencyRecord, ratio_to_teacher=Interval(value=0.5))
    path = page_path(results, plan)
    path.write_bytes(page(Reading(plan, results)))
    return path


@pytest.fixture(scope="module")
def started() -> Iterator[Browser]:
    with browser.started() as one:
        yield one


@pytest.fixture
def seen(started: Browser) -> Iterator[Watched]:
    """An empty page; when the test ends it has neither said anything wrong nor asked for anything."""
    with browser.watched(started) as one:
        yield one
        assert (one.errors, one.requests) == ([], [])


def names(seen: Watched) -> list[str]:
    return seen.page.locator(NAMES).all_inner_texts()


def ids(seen: Watched) -> list[str]:
    return [one.get_attribute("data-row") or "" for one in seen.page.locator(NAMES).all()]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_loads_in_silence_fits_and_is_accessible(
    started: Browser, file: Path, size: tuple[int, int], dark: bool
) -> None:
    with browser.watched(started, size, dark) as seen:
        for fragment in ("", "#experiment=seeds&table=means", f"#experiment=prune-0.4&row={FAILED}"):
            seen.open(file, fragment)
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= size[0]
            for unfold in seen.page.locator("#opened summary").all():
                unfold.click()
            assert [(one["id"], one["nodes"][0]["html"]) for one in browser.violations(seen.page)] == []
        assert (seen.errors, seen.requests) == ([], [])


def test_it_starts_with_the_teacher_the_chart_and_the_warnings(seen: Watched, file: Path) -> None:
    seen.open(file)
    assert names(seen)[0] == "ResNet50" and len(names(seen)) == 10
    assert seen.page.locator("#chart svg .mark-symbol path").count() >= 10
    expect(seen.page.locator("#warnings")).to_contain_text("warnings")
    expect(seen.page.locator("#says")).to_contain_text("Most accuracy per latency")


def test_a_profile_of_one_experiment_without_figures_offers_no_choice(seen: Watched, tmp_path: Path) -> None:
    plan = plan_for("quick")
    path = page_path(tmp_path, plan)
    path.parent.mkdir()
    path.write_bytes(page(Reading(plan, tmp_path)))
    seen.open(path)
    for part in ("experiments", "chart", "machines"):
        expect(seen.page.locator(f"#{part}")).to_be_hidden()
    expect(seen.page.locator("#says")).to_have_text("No model has both accuracy and latency yet.")
    expect(seen.page.locator("#models")).to_contain_text("no train record")
    assert browser.violations(seen.page) == []


def test_a_click_sorts_and_another_turns_it_round_with_missing_figures_last(seen: Watched, file: Path) -> None:
    seen.open(file, "#experiment=prune-0.4")
    header = seen.page.locator("#models thead th", has_text="Accuracy (%)").first
    header.locator(".dt-column-order").click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    upwards = ids(seen)
    header.locator(".dt-column-order").click()
    expect(header).to_have_attribute("aria-sort", "descending")
    assert upwards[0] == FAILED and upwards[-1] == ids(seen)[-1] == MISSING
    assert ids(seen)[:-1] == upwards[-2::-1]
    assert "sort=accuracy_pct+desc" in seen.page.url


def test_the_keyboard_sorts_opens_and_closes(seen: Watched, file: Path) -> None:
    seen.open(file)
    seen.page.locator("#models .dt-column-order").nth(1).focus()
    seen.page.keyboard.press("Enter")
    expect(seen.page.locator("#models thead th").nth(1)).to_have_attribute("aria-sort", "ascending")
    button = seen.page.locator(NAMES).first
    button.focus()
    seen.page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(seen.page.locator("#opened")).to_be_visible()
    seen.page.keyboard.press("Space")
    expect(button).to_have_attribute("aria-expanded", "false")
    assert seen.page.locator("#opened").count() == 0


def test_every_control_is_reached_by_the_tabulator_in_order(seen: Watched, file: Path) -> None:
    seen.open(file)
    reached = []
    for _ in range(45):
        seen.page.keyboard.press("Tab")
        reached.append(seen.page.evaluate("document.activeElement.dataset.row || document.activeElement.textContent"))
    wanted = ["Download CSV", "Download JSON", "teacher-s0", "p0.3-bn-gram-s0"]
    assert [one for one in reached if one in wanted] == sorted(set(wanted), key=reached.index)
    assert set(wanted) <= set(reached)


def test_search_and_choices_filter_and_the_chart_follows(seen: Watched, file: Path) -> None:
    seen.open(file)
    seen.page.locator("#filters").get_by_label("Search").fill("gram")
    assert len(names(seen)) == 3
    seen.page.locator("#filters").get_by_label("Pruning").select_option("BN")
    assert ids(seen) == ["p0.3-bn-gram-s0"]
    expect(seen.page.locator("#count")).to_contain_text("1 of 10 rows")
    expect(seen.page.locator('#chart svg .mark-symbol path[opacity="0.12"]')).to_have_count(9)
    seen.page.locator("#filters").get_by_label("Search").fill("nothing like it")
    expect(seen.page.locator("#models")).to_contain_text("No model matches.")


def test_a_row_opens_to_where_it_comes_from(seen: Watched, file: Path) -> None:
    seen.open(file)
    seen.page.locator(NAMES, has_text="P(0.3_BN)_KD(3)").click()
    opened = seen.page.locator("#opened")
    for text in (
        "checks passed",
        "train/p0.3-bn-gram-s0.json",
        "Some CPU",
        "the i9-9900K's (faulting)",
        "weights",
        "v2-",
    ):
        expect(opened).to_contain_text(text)
    opened.locator("summary", has_text="Student").click()
    expect(opened).to_contain_text("recipe.epochs")
    seen.page.locator(NAMES).first.click()
    assert seen.page.locator("#opened").count() == 1


def test_a_failing_row_says_which_check_and_what_to_do_and_markup_in_it_is_text(seen: Watched, file: Path) -> None:
    seen.open(file, f"#experiment=prune-0.4&row={FAILED}")
    expect(seen.page.locator("#opened")).to_contain_text("error: false-figure")
    expect(seen.page.locator("#opened")).to_contain_text("What to do:")
    expect(seen.page.locator("#warnings")).to_contain_text(HOSTILE)
    assert seen.page.locator("main script").count() == 0


def test_the_address_shows_the_same_again(seen: Watched, file: Path) -> None:
    seen.open(file)
    seen.page.get_by_role("link", name="Experiment 2").click()
    seen.page.locator("#filters").get_by_label("KD").select_option("GRAM+Base")
    seen.page.locator("#models thead th", has_text="Latency ratio").locator(".dt-column-order").click()
    seen.page.locator(NAMES).first.click()
    before, address = ids(seen), seen.page.url
    opened = seen.page.locator("#opened").inner_text()
    seen.page.goto("about:blank")
    seen.page.goto(address)
    seen.wait()
    assert ids(seen) == before and len(before) == 3
    assert seen.page.locator("#opened").inner_text() == opened
    expect(seen.page.locator("#experiment")).to_contain_text("Experiment 2")
    expect(seen.page.locator("#filters").get_by_label("KD")).to_have_value("GRAM+Base")


def test_back_returns_to_the_experiment_before(seen: Watched, file: Path) -> None:
    seen.open(file)
    seen.page.get_by_role("link", name="Experiment 3").click()
    seen.page.get_by_role("link", name="Means over seeds").click()
    assert len(names(seen)) == 3
    seen.page.go_back()
    seen.page.go_back()
    expect(seen.page.locator("#experiment")).to_contain_text("Experiment 1")


@pytest.mark.parametrize("fragment", ["#experiment=no&table=no&sort=no+asc&row=no", "#%", "#sort=rank+sideways"])
def test_an_address_of_something_else_shows_the_page(seen: Watched, file: Path, fragment: str) -> None:
    seen.open(file, fragment)
    assert len(names(seen)) == 10


def test_a_mean_opens_to_its_trainings_and_they_to_their_rows(seen: Watched, file: Path) -> None:
    seen.open(file, "#experiment=seeds&table=means")
    seen.page.locator(NAMES).first.click()
    assert seen.page.locator("#opened li").count() == 5
    seen.page.locator("#opened a").nth(1).click()
    expect(seen.page.locator("#opened")).to_contain_text("checks passed")


def test_a_mark_of_the_chart_opens_its_row(seen: Watched, file: Path) -> None:
    seen.open(file)
    seen.page.locator("#chart svg .mark-symbol path").nth(4).click(force=True)
    expect(seen.page.locator("#opened")).to_contain_text("Records")


def test_a_mark_says_what_it_is(seen: Watched, file: Path) -> None:
    seen.open(file)
    seen.page.locator("#chart svg .mark-symbol path").nth(4).hover(force=True)
    expect(seen.page.locator("#vg-tooltip-element")).to_contain_text("latency ratio")


def test_the_chart_follows_the_width_of_its_place_also_from_none(seen: Watched, file: Path) -> None:
    seen.open(file)
    chart = seen.page.locator("#chart svg")
    for width in ("0px", "500px", "0px", "700px"):
        seen.page.evaluate("width => (document.getElementById('chart').style.width = width)", width)
        expect(chart).to_have_attribute("width", width.removesuffix("px"))
    assert "BN Base" in " ".join(seen.page.locator("#chart svg text").all_text_contents())


def test_what_is_shown_can_be_downloaded(seen: Watched, file: Path) -> None:
    seen.open(file, "#search=gram&sort=latency_ratio+desc")
    texts = {}
    for kind in ("CSV", "JSON"):
        with seen.page.expect_download() as download:
            seen.page.get_by_role("button", name=f"Download {kind}").click()
        assert download.value.suggested_filename == f"reference-prune-0.3-models.{kind.lower()}"
        texts[kind] = Path(download.value.path()).read_text(encoding="utf-8")
    lines = list(csv.DictReader(StringIO(texts["CSV"])))
    rows = json.loads(texts["JSON"])["rows"]
    assert [line["id"] for line in lines] == [row["models"][0] for row in rows] == ids(seen)
    assert [float(line["latency_ratio_high"]) for line in lines] == [row["latency_ratio"]["high"] for row in rows]
    assert [float(line["accuracy_pct"]) for line in lines] == [row["accuracy_pct"] for row in rows]


def test_without_javascript_it_says_where_the_tables_are(started: Browser, file: Path) -> None:
    context = started.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(file.as_uri())
    assert "tables" in plain.inner_text("noscript")
    context.close()
