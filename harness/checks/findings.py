"""Findings for people (text) and for programs (one JSON document)."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.checks.catalogue import CHECKS, Finding, errors
from harness.plan.planning import Plan

WIDTH = 116
# How many reasons of one warning are listed; those of errors all are.
MOST_WARNINGS = 3


def as_document(plan: Plan, findings: Sequence[Finding]) -> dict[str, Any]:
    """All findings, and all checks that ran, with what each looks for."""
    failing = len(list(errors(findings)))
    return {
        "profile": plan.profile,
        "cells": len(plan.cells),
        "errors": failing,
        "warnings": len(findings) - failing,
        "findings": [asdict(finding) for finding in findings],
        "checks": [{"name": check.name, "severity": check.severity, "finds": check.finds} for check in CHECKS],
    }


def as_text(plan: Plan, findings: Sequence[Finding]) -> str:
    """A group for each check, errors first, with its rows, their reasons and the remedy; then the summary line."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: finding.severity != "error"):
        groups.setdefault((finding.severity, finding.check), []).append(finding)
    return "\n".join([*(_group(group) for group in groups.values()), summary(plan, findings)])


def summary(plan: Plan, findings: Sequence[Finding]) -> str:
    """One line: how much was checked, and how many errors and warnings there are."""
    failing = len(list(errors(findings)))
    counts = [_count(failing, "error"), _count(len(findings) - failing, "warning")]
    said = ", ".join(counts) if findings else "nothing found"
    return f"check {plan.profile}: {_count(len(plan.cells), 'model')}, {_count(len(CHECKS), 'check')}: {said}."


def _group(group: Sequence[Finding]) -> str:
    first = group[0]
    # One cause often affects every row for the same reason, which is printed once.
    by_reason: dict[str, list[str]] = {}
    for finding in group:
        by_reason.setdefault(finding.reason, []).append(finding.cell)
    lines = [f"{', '.join(dict.fromkeys(cells))}: {reason}" for reason, cells in by_reason.items()]
    if first.severity == "warning" and len(lines) > MOST_WARNINGS:
        rest = {cell for cells in list(by_reason.values())[MOST_WARNINGS:] for cell in cells}
        lines[MOST_WARNINGS:] = [f"and {_count(len(rest), 'more row')}; check --json lists all"]
    others = " (likewise for the others)" if len({finding.remedy for finding in group}) > 1 else ""
    return "\n".join(
        [
            f"{first.severity}: {first.check} ({_count(len({finding.cell for finding in group}), 'row')})",
            *(_wrap(line, "  ") for line in lines),
            *_remedy(first.remedy, others),
        ]
    )


def _remedy(remedy: str, others: str) -> list[str]:
    """What to do; a command has a line of its own, however long, that can be copied."""
    advice, run, command = remedy.partition("run: ")
    if not run:
        return [_wrap(f"remedy: {advice}{others}", "  ")]
    return [_wrap(f"remedy: {advice}run{others}:", "  "), f"    {command}"]


def _wrap(text: str, indent: str) -> str:
    # People copy paths and cell names from here, so they are never split over two lines.
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
