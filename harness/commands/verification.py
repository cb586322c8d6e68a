"""`harness verify`: walk every number back, from tables to records, raw samples, model files, weights and keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.checks.catalogue import STRICT, errors, run_checks
from harness.checks.evidence import Recount, read_evidence
from harness.checks.files_on_disk import walked
from harness.commands.scope import Scope
from harness.reporting.reading import Reading
from harness.reporting.report import check_files, check_report


@dataclass(frozen=True)
class Verification:
    """What there was to compare the records with, by kind, and a line for each break."""

    walked: dict[str, int]
    breaks: list[str]


def verify(scope: Scope, documents: Sequence[Path]) -> Verification:
    """Run all checks, the strict ones included, and compare tables, figures and documents with the records."""
    plan, paths = scope.plan(), scope.paths
    # torch is loaded where there is a file to count
    from harness.model_files.recount import of_onnx, of_weights

    reading = Reading(plan, paths.results)
    evidence = read_evidence(plan, paths.results, paths.artifacts, Recount(of_weights, of_onnx), reading.chain)
    breaks = [f"{one.cell} {one.stage}: {one.reason} ({one.check})" for one in errors(run_checks(evidence, STRICT))]
    breaks += check_files(reading)
    of_profile = f"of profile {plan.profile} "
    stale = check_report(documents, paths.results, lambda name: scope.of_profile(name).whole_plan())
    breaks += [line for line in stale if of_profile in line]
    return Verification(walked(evidence), breaks)
