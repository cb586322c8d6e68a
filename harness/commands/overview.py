"""The plan and how far it has come, for people (text) and for programs (one JSON document)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate

from harness.plan.planning import Plan, kd_label
from harness.plan.specs import Sparse, Student
from harness.store.states import CellState, counts

CHOOSE = "made by code that has changed since: choose CODE=redo or CODE=keep"
# How many models are listed.
MOST_MODELS = 1000
# How many records that cannot be used are listed with their reasons.
MOST_REASONS = 3
MEANING = {
    "missing": "to be trained",
    "failed": "failed, to be tried again",
    "recorded": "on record; the weights are not on this machine, so a new bench needs to train them again",
    "trained": "to be exported",
    "changed": CHOOSE,
    "done": "trained and exported",
}


def as_document(plan: Plan, states: Sequence[CellState]) -> dict[str, Any]:
    """Everything that `as_text` shows, where each cell stands on the axes, and its keys. Settings are in records."""
    return {
        "profile": plan.profile,
        "dataset": plan.dataset,
        "experiments": {table.name: [cell.id for cell in table.cells] for table in plan.tables},
        "counts": counts(states),
        "cells": [
            {
                "id": state.cell.id,
                "title": state.cell.title,
                "protocol": state.cell.protocol,
                "point": state.cell.point,
                "keys": {stage.kind: stage.key for stage in state.cell.spec.lineage},
                "training": state.training,
                "benching": state.benching,
                "reason": state.reason,
            }
            for state in states
        ],
    }


def as_text(plan: Plan, states: Sequence[CellState], only_counts: bool) -> str:
    """A table of cells and what would run; or, with `only_counts`, the counts, the failures and changed code."""
    lines = [f"Profile {plan.profile}, data set {plan.dataset}: {len(plan.cells)} models"]
    for table in plan.tables:
        lines.append(f"  {table.name}: {table.title} ({len(table.cells)} rows, protocol {table.protocol})")
    lines.append("")
    if not only_counts:
        rows = [
            (s.cell.title, "" if s.cell.kd_method is None else kd_label(s.cell.kd_method), s.training, s.benching)
            for s in states[:MOST_MODELS]
        ]
        lines += [tabulate(rows, headers=("Model", "KD", "Training", "Bench"), disable_numparse=True)]
        if (more := len(states) - MOST_MODELS) > 0:
            lines.append(f"... and {_count(more, 'more model')}; --json lists all")
        lines.append("")
    found = counts(states)
    lines += [f"{found[state]:>5} {meaning}" for state, meaning in MEANING.items() if found.get(state)]
    lines.append(f"{found['benched']:>5} benched")
    if found["bench_changed"]:
        lines.append(f"{found['bench_changed']:>5} benched, {CHOOSE}")
    if found["bench_failed"]:
        lines.append(f"{found['bench_failed']:>5} failed in the bench")
    lines += [f"failed: {s.cell.id}: {s.reason}" for s in states if "failed" in (s.training, s.benching)]
    # Records that are there and do not stand: after a change of settings often all of them.
    unfit = [f"not usable: {s.cell.id}: {s.reason}" for s in states if s.training == "missing" and s.reason]
    more = len(unfit) - MOST_REASONS
    lines += unfit[:MOST_REASONS] + ([f"... and {_count(more, 'record')} more; --json lists all"] if more > 0 else [])
    # One edit of a plug-in usually concerns many cells.
    changed = Counter(s.reason for s in states if "changed" in (s.training, s.benching))
    lines += [f"{reason} ({number} model{'' if number == 1 else 's'})" for reason, number in changed.items()]
    if not only_counts:
        lines += ["", _would_run(plan, states)]
    return "\n".join(lines)


def _would_run(plan: Plan, states: Sequence[CellState]) -> str:
    todo = [state for state in states if state.training in ("missing", "failed", "recorded")]
    to_export = sum(state.training == "trained" for state in states)
    if any(state.training == "changed" for state in states):
        return "train-matrix would stop and ask for CODE=redo or CODE=keep."
    if not todo and not to_export:
        return "Nothing to train."
    settings = plan.settings
    sparse = {stage.key: stage for s in todo for stage in s.cell.spec.lineage if isinstance(stage, Sparse)}
    teacher = any(state.cell.is_teacher for state in todo)
    parts = []
    if teacher:
        given = settings.teacher.checkpoint
        origin = "take the given checkpoint as" if given else f"train {settings.teacher.epochs} epochs of"
        parts.append(f"{origin} the teacher")
    if sparse:
        parts.append(f"train {_count(len(sparse), 'network')} sparsely for {_epochs(sparse.values())}")
    students = [state.cell.student for state in todo if not state.cell.is_teacher]
    if students:
        parts.append(f"distil {_count(len(students), 'student')}, {_epochs(students)} a stage")
    if to_export:
        parts.append(f"export {_count(to_export, 'model')} already trained")
    return "train-matrix would " + ", ".join(parts) + "."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _epochs(stages: Iterable[Sparse | Student]) -> str:
    """The epochs of these stages, which an axis may vary."""
    numbers = sorted({stage.recipe.epochs for stage in stages})
    return f"{' or '.join(map(str, numbers))} epoch{'' if numbers == [1] else 's'}"
