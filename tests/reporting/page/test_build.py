import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.reporting.page.build import page, page_of, page_path
from harness.reporting.reading import Reading
from harness.reporting.report import check_files, write_report
from harness.store.records import AccuracyRecord
from tests.synthetic import change, fill_results, plan_for

HOSTILE = "</script><script>alert(1)</script><!-- {{vega}} \"quotes\" 'and' & ünïcode \u2028 \ud800"


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """A document with next to nothing in it."""
    return {"profile": "lite", "experiments": []}


def in_page(content: bytes) -> Any:
    """The document in a page, as a browser reads it: up to the first end of a script element."""
    found = re.search(rb'<script type="application/json" id="document">(.*?)</script', content, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_document_is_in_the_page_whatever_is_in_it(small: dict[str, Any]) -> None:
    document = {**small, "network": HOSTILE}
    assert in_page(page_of(document)) == document


def test_a_profiles_name_is_no_markup() -> None:
    assert b"<title>Profile &lt;b&gt;: " in page_of({"profile": "<b>"})


def test_only_its_own_script_elements_are_in_the_page(small: dict[str, Any]) -> None:
    content = page_of({**small, "network": HOSTILE}).decode()
    assert "<!--" not in content
    assert len(re.findall("</script", content, re.IGNORECASE)) == 4


def test_nothing_is_loaded_from_elsewhere(small: dict[str, Any]) -> None:
    head = page_of(small).decode().partition('<script type="application/json"')[0]
    assert "default-src 'none'" in head
    assert re.findall(r'(?:src|href)="([^"]*)"', head) == ["data:,"]


def test_the_libraries_leave_room_for_a_thousand_rows(small: dict[str, Any]) -> None:
    assert len(page_of(small)) < 1_100_000


def test_a_report_writes_the_page_once_and_a_check_finds_it_stale(tmp_path: Path) -> None:
    plan = plan_for("quick")
    fill_results(plan, tmp_path)
    place = page_path(tmp_path, plan)
    assert place in write_report(Reading(plan, tmp_path), [], ["quick"]).written
    assert place in write_report(Reading(plan, tmp_path), [], ["quick"]).unchanged
    assert place.read_bytes() == page(Reading(plan, tmp_path))
    assert check_files(Reading(plan, tmp_path)) == []
    # no table shows how long anything took
    change(tmp_path, plan, "p0.3-bn-gram-s0", AccuracyRecord, seconds=2.0)
    assert check_files(Reading(plan, tmp_path)) == [f"{place} is stale; run: make report PROFILE=quick"]


def test_without_a_page_nothing_is_stale(tmp_path: Path) -> None:
    plan = plan_for("quick")
    fill_results(plan, tmp_path)
    write_report(Reading(plan, tmp_path), [], ["quick"])
    page_path(tmp_path, plan).unlink()
    assert check_files(Reading(plan, tmp_path)) == []
