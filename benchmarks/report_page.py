"""report.json: the documents, and the page of a report as a browser sees it: sizes, speed, what is wrong.

The results are made up, of the profile with the most experiments, so that the figures are of the largest page. The
documents' commands are run, which takes minutes.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import Figures
from harness.errors import HarnessError
from harness.plan.specs import key_of
from harness.reporting.page.build import page_of, page_path
from harness.reporting.page.content import content
from harness.reporting.page.shown_tables import PUBLISHED
from harness.reporting.reading import Reading
from tests import browser
from tests.docs_commands import running
from tests.docs_commands.blocks import DOCUMENTS, README
from tests.synthetic import fill_results, keep_predictions, plan_for
from tests.test_docs import dead_links

PROFILE = "full"
TIMES = 5


def measure() -> Figures:
    """Every figure. HarnessError where there is no browser."""
    if browser.chromium() is None:
        raise HarnessError(browser.NO_BROWSER)
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        plan, results = plan_for(PROFILE), Path(folder)
        fill_results(plan, results)
        keep_predictions(results, plan)
        document = content(Reading(plan, results))
        file = page_path(results, plan)
        file.write_bytes(page_of(document))
        return {
            "page_profile": PROFILE,
            "page_rows": sum(len(table["rows"]) for one in document["experiments"] for table in one["tables"]),
            "page_kb": file.stat().st_size / 1000,
            **_in_browser(file),
            "rows_traceable_pct": rows_traceable_pct(document),
            "readme_kb": README.stat().st_size / 1000,
            "dead_links": sum(len(dead_links(document)) for document in DOCUMENTS),
            **{f"doc_commands_{name}": count for name, count in running.counts().items()},
        }


def _in_browser(file: Path) -> Figures:
    """The page by day and in the dark, wide and on a phone, each with a row opened."""
    ready, errors, requests, violations = [], 0, 0, 0
    with browser.started() as started:
        for size in (browser.DESKTOP, browser.PHONE):
            for dark in (False, True):
                with browser.watched(started, size, dark) as seen:
                    for _ in range(TIMES):
                        seen.open(file)
                        ready.append(seen.page.evaluate("performance.now()"))
                    seen.page.click(".open >> nth=1")
                    violations += len(browser.violations(seen.page))
                    errors += len(seen.errors)
                    requests += len(seen.requests)
    return {
        "page_ready_ms": round(median(ready)),
        "console_errors": errors,
        "requests": requests,
        "axe_violations": violations,
    }


def rows_traceable_pct(document: dict[str, Any]) -> float:
    """The share of rows in the page's tables of which every figure can be walked back (`breaks`)."""
    rows = [
        (table, row)
        for experiment in document["experiments"]
        for table in experiment["tables"]
        for row in table["rows"]
    ]
    return 100 * sum(not any(breaks(document, table, row)) for table, row in rows) / len(rows) if rows else 100.0


def breaks(document: dict[str, Any], table: dict[str, Any], row: dict[str, Any]) -> Iterator[str]:
    """Where the figures of a row cannot be walked back by the page alone, in words.

    A figure comes from records that the page tells of. Each has a key, which is the hash of the settings that the page
    shows for it and for all stages before it; and its hashes lead by way of those of file and weights to the teacher's.
    """
    for column, cell in zip(table["columns"], row["cells"], strict=True):
        if len(cell) == 1 or not column.get("sources"):
            continue
        for source in column["sources"]:
            of_teacher, name = source.startswith("teacher."), source.removeprefix("teacher.")
            models = [document["teacher"]] if of_teacher else row["models"]
            # a mean is over the seeds that have figures
            behind = [model for model in models if name in document["models"][model]["records"]]
            if not behind and name != PUBLISHED:
                yield f"{column['name']}: no {name} record"
            for model in behind:
                for reason in _breaks(document, model, name):
                    yield f"{column['name']}: the {name} record of {model} {reason}"


def _breaks(document: dict[str, Any], model: str, name: str) -> Iterator[str]:
    records = document["models"][model]["records"]
    key = records[name]["key"]
    while key:
        settings = document["settings"].get(key, {})
        parent = settings.get("parent")
        if key_of({**document["shared"].get(settings.get("own"), {}), **({"parent": parent} if parent else {})}) != key:
            yield f"has settings that are not those of the key {key}"
            return
        key = parent
    train, export, own = (_hashes(document, model, stage) for stage in ("train", "export", name))
    teachers = _hashes(document, document["teacher"], "train")
    if name not in ("train", "export") and own.get("onnx_sha256") not in export.values():
        yield "is of another file than was exported"
    if name != "train" and export.get("weights_sha256") not in train.values():
        yield "is of other weights than were trained"
    if model != document["teacher"] and train.get("teacher_sha256") not in teachers.values():
        yield "is of another teacher"


def _hashes(document: dict[str, Any], model: str, stage: str) -> dict[str, str]:
    """What a record says of files; a teacher's weights may have been rounded since."""
    record = document["models"][model]["records"].get(stage, {})
    hashes = document["shared"].get(record.get("hashes"), {})
    return {**hashes, "rounded_from": record.get("rounded_from", {}).get("weights_sha256", "")}
