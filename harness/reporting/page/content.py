"""A profile's records -> all that the page shows, as one JSON document. The same records give the same document."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.checks.catalogue import CHECKS, Finding
from harness.plan.cpu_table import Cpu
from harness.plan.planning import Plan, Table
from harness.reporting import machine
from harness.reporting.differences import to_teacher
from harness.reporting.foot import (
    footnote_lines,
    how_to_read,
    measured_lines,
    network_line,
    recipe_line,
    stands_for,
    warnings,
)
from harness.reporting.front import most_per_latency
from harness.reporting.page.origins import JSON, origins
from harness.reporting.page.picture import picture
from harness.reporting.page.shown_tables import name_of, place_of, shown_tables
from harness.reporting.reading import Reading
from harness.reporting.rows import Row, first_models, fronts, models_of
from harness.store.records import LatencyRecord

MOST = "Most accuracy per latency: the highest accuracy divided by the latency ratio."


def content(reading: Reading) -> JSON:
    """The document of a profile: all experiments of its own, whichever the plan of the reading is of.

    `experiments` are the tables with what stands around them; `teacher`, `models`, `settings` and `shared` say where
    their figures come from (harness.reporting.page.origins); `checks` are those that every row went through.
    """
    plan = reading.whole
    rows = {table.name: first_models(reading.rows(table)) for table in plan.tables}
    every = {row.cell.id: row for found in rows.values() for row in found}
    return {
        "profile": plan.profile,
        "network": network_line(plan),
        "teacher": plan.teacher.id,
        "machines": _machines(plan, every[plan.teacher.id].latency),
        "experiments": [_experiment(reading, table, rows[table.name]) for table in plan.tables],
        "checks": [{"name": check.name, "finds": check.finds, "severity": check.severity} for check in CHECKS],
        **origins(plan, list(every.values())),
    }


def in_a_sentence(document: JSON) -> str:
    """What the first table of a document says that has figures; what the first one says where none has."""
    found = sorted(document["experiments"], key=lambda one: one["picture"] is None)[0]
    return f"{found['title']}. {found['says']}"


def _experiment(reading: Reading, table: Table, shown: Sequence[Row]) -> JSON:
    plan, rows = reading.whole, reading.rows(table)
    left_out = len(rows) - len(shown)
    cut = f"The page shows the first {len(shown):,} rows; {left_out:,} more are in tables/{table.name}.csv and .json."
    ids = {row.cell.id for row in shown}
    findings = [finding for finding in reading.findings(table) if finding.cell in ids]
    return {
        "name": table.name,
        "title": table.title,
        "lines": [recipe_line(plan, table), *measured_lines(plan, rows)],
        "stands_for": stands_for(plan, rows),
        "says": _says(rows),
        "reading": [*footnote_lines(shown), *how_to_read(shown), MOST],
        "warnings": [*([cut] if left_out else []), *warnings(shown)],
        "findings": _by_cell(findings, reading.results),
        "tables": [one.document for one in shown_tables(shown)],
        "picture": picture(shown),
    }


def _says(rows: Sequence[Row]) -> str:
    """What the table says, in a few words: the best of its models, and by what; and how many have no figures yet."""
    models = models_of(rows)
    places = [place_of(model) for model in models]
    best = most_per_latency(places)
    place = None if best is None else places[best]
    missing = places.count(None)
    if best is None or place is None:
        return "No model has both accuracy and latency yet."
    told = to_teacher(models[best], rows)
    against = f" ({told.value:+.1f} points)" if told and told.value else ""
    front = fronts(models).count(1)
    return (
        f"Most accuracy per latency: {name_of(models[best])}, {place.accuracy_pct:.2f} %{against} at "
        f"{place.ratio:.2f} of the teacher's latency. {front} of {len(places) - missing} models are on the front."
        + (f" {missing} more {'has' if missing == 1 else 'have'} no figures yet." if missing else "")
    )


def _by_cell(findings: Sequence[Finding], results: Path) -> dict[str, list[JSON]]:
    by_cell: dict[str, list[JSON]] = {}
    for one in findings:
        # the page must not depend on where the results folder lies
        reason = one.reason.replace(f"{results}/", "")
        by_cell.setdefault(one.cell, []).append(
            {"check": one.check, "severity": one.severity, "stage": one.stage, "reason": reason, "remedy": one.remedy}
        )
    return by_cell


def _machines(plan: Plan, measured: LatencyRecord | None) -> list[list[str]]:
    """What sets the host apart from the target: a fact, the host's, the target's; no lines before the first figure."""
    return [list(line) for line in _compared(measured, plan.settings.bench.target.cpu)] if measured else []


def _compared(measured: LatencyRecord, target: Cpu) -> Iterator[tuple[str, str, str]]:
    host: Mapping[str, Any] = measured.environment
    shown = machine.shown_cpu(measured)
    own = machine.vectors_of(host)
    l3_mib = machine.l3_mib_of(host)
    yield "Processor", str(host.get("cpu", "unknown")), target.title
    yield "Physical cores", str(host.get("physical_cores") or "unknown"), str(target.physical_cores)
    yield "Vector instructions", own.words if own else "unknown", target.vectors.words
    yield "Instruction set that the engine saw", f"the {shown.title}'s" if shown else "the host's", "its own"
    yield "L3 cache", f"{l3_mib:g} MiB" if l3_mib else "unknown", f"{target.l3_mib:g} MiB"
    yield "Virtual machine", "yes" if host.get("virtualised") else "no", "no"
    yield "Image", str(host.get("image") or "none: measured outside a container"), ""
    yield "Kernel", str(host.get("kernel") or "unknown"), ""
