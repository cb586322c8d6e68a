"""Findings for people (text) and for programs (one JSON document)."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.checking.checks import CHECKS, Finding, errors
from harness.matrix import Plan

WIDTH = 116


def as_document(plan: Plan, findings: Sequence[Finding]) -> dict[str, Any]:
    """All findings, and all checks that ran with what they look for."""
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
    """A list, errors first: cells and check, then the reason, then the remedy; and the summary line."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda finding: finding.severity != "error"):
        # One cause often hits every row: it is said once, with the first row's remedy.
        groups.setdefault((finding.severity, finding.check, finding.reason), []).append(finding)
    return "\n".join([*(_group(group) for group in groups.values()), summary(plan, findings)])


def summary(plan: Plan, findings: Sequence[Finding]) -> str:
    """One line: how much was checked, and how many errors and warnings there are."""
    failing = len(list(errors(findings)))
    counts = [_count(failing, "error"), _count(len(findings) - failing, "warning")]
    said = ", ".join(counts) if findings else "nothing found"
    return f"check {plan.profile}: {_count(len(plan.cells), 'model')}, {_count(len(CHECKS), 'check')}: {said}."


def _group(group: Sequence[Finding]) -> str:
    first = group[0]
    cells = ", ".join(finding.cell for finding in group)
    remedies = list(dict.fromkeys(finding.remedy for finding in group))
    more = f" (and alike for the other {len(group) - 1})" if len(remedies) > 1 else ""
    return "\n".join(
        [
            _wrap(f"{first.severity}: {cells}: {first.check}", ""),
            _wrap(first.reason, "  "),
            _wrap(f"remedy: {remedies[0]}{more}", "  "),
        ]
    )


def _wrap(text: str, indent: str) -> str:
    # Paths and cell names are copied from here, so they are never broken.
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
