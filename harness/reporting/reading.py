"""A profile's records -> the rows of its tables, each with the records that stand, and what is wrong with the others.

harness.store.chain says which records stand, so a figure in a table always belongs to its row. A cell without a figure
is a row that says why; none is ever dropped.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import predictions
from harness.checks.catalogue import Check, Finding, as_finding, faults
from harness.checks.evidence import read_evidence
from harness.checks.fault import Fault
from harness.checks.provenance import changed_file, code_changed
from harness.errors import HarnessError
from harness.plan.planning import Cell, Plan, Table, make_plan
from harness.predictions import Predictions
from harness.reporting.rows import Problem, Row, in_order
from harness.store.chain import Chain, Link
from harness.store.records import AccuracyRecord


class Reading:
    """What the records say about the tables of a plan's profile. Each is read and checked once, whoever asks."""

    def __init__(self, plan: Plan, results: Path) -> None:
        self.plan, self.results = plan, results
        self.chain = Chain(plan, results)
        self._faults: dict[str, list[tuple[Check, Fault]]] = {}
        self._rows: dict[str, list[Row]] = {}

    @cached_property
    def whole(self) -> Plan:
        """The plan of all of the profile's experiments, whichever this reading's own is of."""
        plan = self.plan
        if [table.name for table in plan.tables] == list(plan.settings.experiments):
            return plan
        return make_plan(plan.settings, plan.profile, plan.dataset)

    def rows(self, table: Table) -> list[Row]:
        """The rows of a table in order; a row that fails a check (harness.checks) says so.

        Only this table's records count, and no other file: the table is the same in every checkout and every report.
        """
        if table.name not in self._rows:
            failing = self._failing(table)
            rows = (read_row(self.chain, cell, self.results) for cell in table.cells)
            self._rows[table.name] = in_order([_with_findings(row, failing.get(row.cell.id, [])) for row in rows])
        return self._rows[table.name]

    def findings(self, table: Table) -> list[Finding]:
        """What the checks find in this table's records."""
        return [as_finding(self.plan, check, fault) for check, fault in self._table_faults(table)]

    def check(self, artifacts: Path) -> list[Finding]:
        """What the checks find in the records of the whole plan, and in the ONNX files."""
        found = list(faults(read_evidence(self.plan, self.results, artifacts, chain=self.chain)))
        if len(self.plan.tables) == 1:
            # nothing else was looked at but the files, which a table does not depend on
            self._faults[self.plan.tables[0].name] = [one for one in found if one[0].find is not changed_file]
        return [as_finding(self.plan, check, fault) for check, fault in found]

    def _table_faults(self, table: Table) -> list[tuple[Check, Fault]]:
        if table.name not in self._faults:
            alone = replace(self.plan, tables=(table,))
            self._faults[table.name] = list(faults(read_evidence(alone, self.results, chain=self.chain)))
        return self._faults[table.name]

    def _failing(self, table: Table) -> dict[str, list[Problem]]:
        """By cell, what makes a row of a table fail."""
        headline = self.chain.conditions[0]
        failing: dict[str, list[Problem]] = {}
        for check, fault in self._table_faults(table):
            # Changed code is among a row's cautions: its figures are what that code gave.
            if check.severity != "error" or check.find is code_changed:
                continue
            cell = fault.entry.cell
            beside = fault.condition not in ("", headline)
            # What does not stand beside the headline is not shown, so it cannot make the row fail.
            if not beside or self.chain.latency(cell, fault.condition).standing:
                detail = f"fails the check {check.name}: {fault.reason}"
                problem = Problem(f"failed: {check.name}", detail, fault.stage, "failed")
                failing.setdefault(cell.id, []).append(problem)
        return failing


def read_rows(plan: Plan, table: Table, results: Path) -> list[Row]:
    """The rows of one table alone (Reading.rows)."""
    return Reading(plan, results).rows(table)


def _with_findings(row: Row, failing: list[Problem]) -> Row:
    # A record that does not stand is a problem already, in words of its own.
    known = {problem.stage for problem in row.problems}
    new = tuple(problem for problem in failing if problem.stage not in known)
    return replace(row, problems=(*row.problems, *new)) if new else row


def read_row(chain: Chain, cell: Cell, results: Path) -> Row:
    """One cell's records. Of those that do not stand, the first in a row is named: the others wait for it."""
    train, export, latency, accuracy = chain.train(cell), chain.export(cell), chain.latency(cell), chain.accuracy(cell)
    # A condition beside the headline is one figure more or less: a row without it is complete.
    beside = [chain.latency(cell, condition) for condition in chain.plan.settings.bench.conditions[1:]]
    links: list[Link[Any]] = [train, export, latency, accuracy]
    if not export.standing:
        links = [train, export] if train.standing else [train]
    standing = [link for link in (*links, *beside) if link.standing]
    return Row(
        cell,
        train.standing,
        export.standing,
        latency.standing,
        accuracy.standing,
        tuple(_problem(link, results) for link in links if not link.standing),
        tuple(link.standing for link in beside if link.standing),
        tuple(dict.fromkeys(name for link in standing for name in link.changed)),
        _predictions(accuracy.standing, results),
    )


def _predictions(record: AccuracyRecord | None, results: Path) -> Predictions | None:
    try:
        return predictions.read(results / record.profile, record) if record else None
    except HarnessError:
        # a check names them, and the row says that it fails
        return None


def _problem(link: Link[Any], results: Path) -> Problem:
    # A message may hold a record's path, and a table must not depend on where the results folder lies.
    stage, reason = link.stage, link.reason.replace(f"{results}/", "")
    if link.state == "missing":
        return Problem(f"no {stage} record", reason, stage, link.state)
    if link.state == "failed":
        kind = link.record.failure.kind if link.record and link.record.failure else "error"
        return Problem(f"{stage} failed ({kind})", f"{stage} failed ({kind}): {reason}", stage, link.state)
    return Problem(f"{stage} record is {link.state}", reason, stage, link.state)
