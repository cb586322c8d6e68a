"""The plan and its state, for people (text) and for programs (one JSON document)."""

from typing import Any

from tabulate import tabulate

from harness.files import digest
from harness.plan.planning import Plan, ancestry, kd_label
from harness.store.chain import CellState, counts

MEANING = {
    "missing": "to be trained",
    "failed": "failed, to be tried again",
    "recorded": "on record; its weights are not on this machine, to be trained again for a new bench",
    "trained": "to be exported",
    "done": "trained and exported",
}


def as_document(plan: Plan, states: list[CellState]) -> dict[str, Any]:
    """Everything that `as_text` shows, and the keys and settings behind it."""
    return {
        "profile": plan.profile,
        "data": plan.data,
        "experiments": {table.name: [cell.id for cell in table.cells] for table in plan.tables},
        "counts": counts(states),
        "cells": [
            {
                "id": state.cell.id,
                "title": state.cell.title,
                "key": state.cell.key,
                "training": state.training,
                "benching": state.benching,
                "reason": state.reason,
                "settings": state.cell.settings,
            }
            for state in states
        ],
    }


def as_text(plan: Plan, states: list[CellState], only_counts: bool) -> str:
    """A table of cells and what would run; or, with `only_counts`, the sums and the failures."""
    lines = [f"Profile {plan.profile}, data {plan.data}: {len(plan.cells)} models"]
    for table in plan.tables:
        lines.append(f"  {table.name}: {table.title} ({len(table.cells)} rows, protocol {table.protocol})")
    lines.append("")
    if not only_counts:
        rows = [
            (s.cell.title, "" if s.cell.kd_method is None else kd_label(s.cell.kd_method), s.training, s.benching)
            for s in states
        ]
        lines += [tabulate(rows, headers=("Model", "KD", "Training", "Bench")), ""]
    found = counts(states)
    for state, meaning in MEANING.items():
        if found.get(state):
            lines.append(f"{found[state]:>5} {meaning}")
    lines.append(f"{found['benched']:>5} benched")
    if found["bench_failed"]:
        lines.append(f"{found['bench_failed']:>5} failed in the bench")
    lines += [f"failed: {s.cell.id}: {s.reason}" for s in states if "failed" in (s.training, s.benching)]
    if not only_counts:
        lines += ["", _would_run(plan, states)]
    return "\n".join(lines)


def _would_run(plan: Plan, states: list[CellState]) -> str:
    todo = [state for state in states if state.training not in ("trained", "done")]
    to_export = sum(state.training == "trained" for state in states)
    if not todo and not to_export:
        return "Nothing to train."
    settings = plan.settings
    sparse = {digest(part) for s in todo for part in ancestry(s.cell.settings) if part["kind"] == "sparse"}
    teacher = any(state.cell.is_teacher for state in todo)
    parts = []
    if teacher:
        origin = (
            "take the given checkpoint as"
            if settings.teacher.checkpoint
            else f"train {settings.teacher.epochs} epochs of"
        )
        parts.append(f"{origin} the teacher")
    if sparse:
        parts.append(f"train {len(sparse)} networks sparsely for {settings.pruning.sparse.epochs} epoch(s)")
    students = len(todo) - teacher
    if students:
        parts.append(f"distil {students} students, {settings.student.epochs} epoch(s) a stage")
    if to_export:
        parts.append(f"export {to_export} models that are trained already")
    return "train-matrix would " + ", ".join(parts) + "."
