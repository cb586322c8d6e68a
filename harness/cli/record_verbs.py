"""The verbs of what is on record: check it, walk it back to files, compare it, and report it."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    ARTIFACTS,
    MATRIX,
    RESULTS,
    Artifacts,
    Documents,
    Experiment,
    Json,
    Matrix,
    Profile,
    Results,
    documents_of,
    many_objects,
)
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.reporting.report import WrittenPage

# Of more files of one folder only the number is printed.
MOST_NAMED = 6


def check(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    as_json: Json = False,
) -> None:
    """Go through the records and ONNX files with a list of named checks; exit code 1 on errors."""
    from harness.checks import findings
    from harness.checks.catalogue import check_results, errors
    from harness.commands.scope import Scope

    many_objects()
    planned = Scope.of(matrix, profile, results, artifacts, experiment).plan()
    found = check_results(planned, results, artifacts)
    if as_json:
        print(json.dumps(findings.as_document(planned, found), indent=1))
    else:
        print(findings.as_text(planned, found))
    if any(errors(found)):
        raise typer.Exit(1)


def verify(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    document: Documents = None,
    as_json: Json = False,
) -> None:
    """Walk every number back: tables, records, raw samples, ONNX files, weights, keys; a line and exit 1 per break."""
    from harness.checks.catalogue import STRICT
    from harness.commands import verification
    from harness.commands.scope import Scope

    found = verification.verify(
        Scope.of(matrix, profile, results, artifacts, experiment), documents_of(document, results)
    )
    if as_json:
        print(json.dumps({"profile": profile, "walked": found.walked, "breaks": found.breaks}, indent=1))
    else:
        for line in found.breaks:
            print(f"break: {line}")
        counts = ", ".join(f"{count} {what}" for what, count in found.walked.items())
        many = f"{len(found.breaks) or 'no'} break{'' if len(found.breaks) == 1 else 's'}"
        print(f"verify {profile}: {counts}; {len(STRICT)} checks: {many}.")
    if found.breaks:
        raise typer.Exit(1)


def compare(
    before: Annotated[Path, typer.Argument(help="A folder like results/lite.", metavar="BEFORE")],
    after: Annotated[Path, typer.Argument(help="The same folder of another run.", metavar="AFTER")],
) -> None:
    """List what changed between two results folders beyond chance; other machines, images or keys are an error."""
    from harness.checks import comparison

    print(comparison.as_text(before, after, comparison.compare(before, after)))


def report(
    profile: Profile = "full",
    experiment: Experiment = None,
    matrix: Matrix = MATRIX,
    results: Results = RESULTS,
    artifacts: Artifacts = ARTIFACTS,
    document: Documents = None,
    png: Annotated[bool, typer.Option("--png", help="Draw the charts as PNG as well, light and dark.")] = False,
    page_only: Annotated[bool, typer.Option("--page-only", help="Write nothing but the page.")] = False,
) -> None:
    """Check the records, write tables, figures and the page, and fill in the documents' tables of this profile."""
    from harness.checks import findings
    from harness.commands.scope import Scope
    from harness.plan.loading import profile_names
    from harness.reporting.page import build
    from harness.reporting.reading import Reading
    from harness.reporting.report import write_page, write_report

    many_objects()
    reading = Reading(Scope.of(matrix, profile, results, artifacts, experiment).plan(), results)
    build.begin()
    if page_only:
        _say_page(write_page(reading))
        return
    # A failing row is shown as failed; what else is wrong, and what to do about it, is said here.
    print(findings.as_text(reading.plan, reading.check(artifacts)) + "\n", file=sys.stderr)
    made = write_report(reading, documents_of(document, results), profile_names(matrix), png)
    print(made.text + "\n")
    for said, paths in {"Written": made.written, "Unchanged": made.unchanged}.items():
        if paths:
            folders = Counter(path.parent for path in paths)
            # the charts of a profile are dozens of files
            many = {folder: f"{folder}/ ({count} files)" for folder, count in folders.items() if count > MOST_NAMED}
            print(f"{said}: {', '.join(dict.fromkeys(many.get(path.parent, str(path)) for path in paths))}")
    print()
    _say_page(made.page)


def _say_page(page: "WrittenPage") -> None:
    print(f"Open {page.path} in a browser. {page.says}")


def report_check(matrix: Matrix = MATRIX, results: Results = RESULTS, document: Documents = None) -> None:
    """Fail where a table in README.md or docs/ is not what the records say."""
    from harness.commands.scope import Scope
    from harness.reporting.report import check_report

    scope = Scope.of(matrix, "", results, ARTIFACTS)
    documents = documents_of(document, results)
    if not documents:
        raise HarnessError("no README.md belongs to these results; run from the project's folder, or name a --document")
    stale = check_report(documents, results, lambda profile: scope.of_profile(profile).whole_plan())
    for line in stale:
        print(line, file=sys.stderr)
    if stale:
        raise typer.Exit(1)
    print(f"Every table follows from the records; documents: {len(documents)}.")
