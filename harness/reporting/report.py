"""What `harness report` and `harness report-check` do: tables and figures under results/, tables in documents."""

import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.errors import HarnessError
from harness.files import atomic_path, sweep, write_text
from harness.plan.planning import Plan, Table
from harness.reporting import charts
from harness.reporting.documents import WITHOUT_PLAN, filled
from harness.reporting.escaping import one_line
from harness.reporting.foot import footnote_lines, measured_lines, network_line, recipe_line, stands_for, warnings
from harness.reporting.markers import Marker
from harness.reporting.page.build import page, page_of, page_path
from harness.reporting.page.content import content, in_a_sentence
from harness.reporting.reading import Reading
from harness.reporting.rows import Row, first_models
from harness.reporting.table_document import KINDS, figure_path, full_document, short_document, table_files, table_path
from harness.reporting.tables import columns, conditions, seed_means, terminal

# Rows of a table that are printed.
MOST_PRINTED = 150


@dataclass(frozen=True)
class WrittenPage:
    """The file that has everything on one page, whether it is new, and what it shows in a sentence or two."""

    path: Path
    new: bool
    says: str


@dataclass(frozen=True)
class Report:
    """The files of a report, by whether they were written or held the same already, and its tables as text.

    The page is one of the files.
    """

    written: tuple[Path, ...]
    unchanged: tuple[Path, ...]
    text: str
    page: WrittenPage


def write_report(reading: Reading, documents: Sequence[Path], profiles: Collection[str], png: bool = False) -> Report:
    """Write tables, charts and page of a plan under results/<profile>/, and fill in its markers in the documents.

    Figures that belong to no profile are filled in as well. Without documents, as for results that are not this
    checkout's, none is touched. A file that would be the same is left alone. `profiles` are the names that markers may
    have. `png` draws the charts as PNG as well; those that are there are kept current in any case. Raises HarnessError
    on an unwritable folder, and on a marker of an unknown profile or experiment.
    """
    plan, results = reading.plan, reading.results
    # what a report that was killed has left
    sweep(results / plan.profile)
    for folder in {document.parent for document in documents}:
        sweep(folder, below=False)

    def table_of(marker: Marker, folder: Path) -> str | None:
        if marker.profile not in profiles:
            raise HarnessError(f"profile {marker.profile!r} does not exist; allowed: {', '.join(profiles)}")
        table = _planned(marker, plan) if marker.profile == plan.profile else None
        return _marked(marker, plan, table, reading.rows(table), results, folder) if table else None

    written: dict[Path, bool] = {}
    # Documents come first, and all are read before one is written: a fault should show before anything has changed.
    for document in filled(documents, results, table_of):
        written[document.path] = bool(document.stale)
        if document.stale:
            write_text(document.path, document.text)
    texts: list[str] = []
    for table in plan.tables:
        own = reading.rows(table)
        for which, chart in charts.charts_of(own).items():
            written |= _write_chart(plan, table, own, results, which, chart, png)
        for path, text in table_files(plan, table, own, results).items():
            written[path] = _write(path, text)
        texts.append(_text(plan, table, own, table_path(results, plan, table)))
    whole = write_page(reading)
    written[whole.path] = whole.new
    return Report(
        tuple(path for path, new in written.items() if new),
        tuple(path for path, new in written.items() if not new),
        "\n\n".join(texts),
        whole,
    )


def write_page(reading: Reading) -> WrittenPage:
    """Write the page of the plan's profile alone, unless it would be the same."""
    place, document = page_path(reading.results, reading.plan), content(reading)
    return WrittenPage(place, _write(place, page_of(document)), in_a_sentence(document))


def check_report(documents: Sequence[Path], results: Path, plan_of: Callable[[str], Plan]) -> list[str]:
    """What is stale in the documents, and among the tables and charts of the profiles that they show; a line each.

    Empty where every digit and every picture follows from the records. `plan_of` gives the plan of a profile, with all
    of its experiments, and raises HarnessError for an unknown profile.
    """
    reading_of = cache(lambda profile: Reading(plan_of(profile), results))
    shown: dict[str, list[str]] = {}

    def table_of(marker: Marker, folder: Path) -> str | None:
        reading = reading_of(marker.profile)
        table = _planned(marker, reading.plan)
        shown.setdefault(marker.profile, []).append(marker.experiment)
        return _marked(marker, reading.plan, table, reading.rows(table), results, folder) if table else None

    lines = [
        f"{document.path}:{marker.line}: {_stale(marker)}"
        for document in filled(documents, results, table_of)
        for marker in document.stale
    ]
    return lines + [line for profile, names in shown.items() for line in check_files(reading_of(profile), names)]


def _stale(marker: Marker) -> str:
    if marker.profile in WITHOUT_PLAN:
        return f"the table of {marker.profile} {marker.experiment} is stale; run: make report"
    return f"table {marker.experiment} of profile {marker.profile} is stale; run: {_again(marker.profile)}"


def _again(profile: str) -> str:
    return f"make report PROFILE={profile}"


def check_files(reading: Reading, shown: Collection[str] = ()) -> list[str]:
    """The tables and charts under results/<profile> that the records do not bear out, as lines that name them.

    Where an experiment has neither, nothing was reported yet, unless a document shows its chart (`shown`). A file that
    belongs to no experiment of matrix.toml is named as well.
    """
    plan, results = reading.plan, reading.results
    stale = [line for table in plan.tables for line in _stale_files(reading, table, table.name in shown)]
    place = page_path(results, plan)
    # It shows all of the tables, so it is named only where it alone is stale.
    if not stale and place.is_file() and place.read_bytes() != page(reading):
        stale.append(f"{place} is stale; run: {_again(plan.profile)}")
    return stale + [
        f"{path}: no experiment has this name; delete the file if the experiment was renamed or removed"
        for path in _orphans(plan, results)
    ]


def _stale_files(reading: Reading, table: Table, shown: bool) -> Iterator[str]:
    plan, results = reading.plan, reading.results
    place, figure = (path(results, plan, table) for path in (table_path, figure_path))
    if not (place.is_file() or figure.is_file() or shown):
        return
    rows = reading.rows(table)
    if place.is_file():
        files = table_files(plan, table, rows, results)
        # They all follow from the same rows, so one line is enough.
        if stale := next((path for path, content in files.items() if _differs(path, content)), None):
            yield f"{stale} is {'stale' if stale.is_file() else 'missing'}; run: {_again(plan.profile)}"
    for which, chart in charts.charts_of(rows).items():
        yield from _stale_chart(plan, table, rows, results, which, chart)


def _stale_chart(
    plan: Plan, table: Table, rows: list[Row], results: Path, which: str, chart: charts.Chart
) -> Iterator[str]:
    """At most a line: the files of a chart follow from the same rows. Only SVG must be there."""
    files = _pictures(plan, table, results, which)
    if not chart.drawable(rows):
        if there := next((path for path in files.values() if path.is_file()), None):
            yield f"{there} shows models that have no figures now; run: {_again(plan.profile)}"
        return
    for picture, path in files.items():
        if not path.is_file() and picture.form != charts.COMMITTED:
            continue
        if not charts.is_current(path, picture, chart, rows, table.title, _subtitle(plan, table)):
            yield f"{path} is {'stale' if path.is_file() else 'missing'}; run: {_again(plan.profile)}"
            return


def _write_chart(
    plan: Plan, table: Table, rows: list[Row], results: Path, which: str, chart: charts.Chart, png: bool
) -> dict[Path, bool]:
    """Draw those of a chart's files that are not current; returns which were written."""
    files, about = _pictures(plan, table, results, which), (chart, rows, table.title, _subtitle(plan, table))
    if not chart.drawable(rows):
        for path in files.values():
            path.unlink(missing_ok=True)
        return {}
    written: dict[Path, bool] = {}
    for form in charts.FORMATS:
        own = {picture: path for picture, path in files.items() if picture.form == form}
        if form == charts.ON_DEMAND and not png and not any(path.is_file() for path in own.values()):
            continue
        if all(charts.is_current(path, picture, *about) for picture, path in own.items()):
            written |= dict.fromkeys(own.values(), False)
        else:
            written |= {own[one]: _write(own[one], content) for one, content in charts.draw(*about, form).items()}
    return written


def _pictures(plan: Plan, table: Table, results: Path, which: str) -> dict[charts.Picture, Path]:
    return {picture: figure_path(results, plan, table, which, picture) for picture in charts.PICTURES}


def _orphans(plan: Plan, results: Path) -> Iterator[Path]:
    names = [experiment.name for experiment in plan.settings.experiment]
    owned = {
        "tables": {f"{name}.{kind}" for name in names for kind in KINDS},
        "figures": {
            f"{name}{which}{picture.ending}"
            for name in names
            for which in charts.SUFFIXES
            for picture in charts.PICTURES
        },
    }
    for folder, known in owned.items():
        place = results / plan.profile / folder
        files = sorted(place.iterdir()) if place.is_dir() else []
        yield from (path for path in files if path.name not in known and not path.name.startswith("."))


def _write(path: Path, content: bytes) -> bool:
    """Write a file unless it holds just this; returns whether it was written."""
    if changed := _differs(path, content):
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return changed


def _differs(path: Path, content: bytes) -> bool:
    return not path.is_file() or path.read_bytes() != content


def _planned(marker: Marker, plan: Plan) -> Table | None:
    """The plan's table that a marker of its profile names; None where the plan is of other experiments only."""
    allowed = plan.settings.experiments
    if marker.experiment not in allowed:
        raise HarnessError(
            f"profile {marker.profile} has no experiment {marker.experiment!r}; allowed: {', '.join(allowed)}"
        )
    return next((table for table in plan.tables if table.name == marker.experiment), None)


def _marked(marker: Marker, plan: Plan, table: Table, rows: list[Row], results: Path, folder: Path) -> str:
    """What stands at a marker in a document of `folder`."""
    return (short_document if marker.short else full_document)(plan, table, rows, results, folder)


def _subtitle(plan: Plan, table: Table) -> str:
    return f"{one_line(network_line(plan))}\n{one_line(recipe_line(plan, table))}"


def _text(plan: Plan, table: Table, rows: Sequence[Row], place: Path) -> str:
    left_out = len(rows)
    rows = first_models(rows, MOST_PRINTED)
    left_out -= len(rows)
    told = [
        network_line(plan),
        recipe_line(plan, table),
        *footnote_lines(rows),
        *measured_lines(plan, rows),
        *(f"Warning: {text}" for text in warnings(rows)),
    ]
    parts = [
        one_line(table.title),
        *(textwrap.fill(line, 110) for line in [stands_for(plan, rows)] if line),
        terminal(columns(rows)),
        *(terminal(more) for more in (seed_means(rows), conditions(rows)) if more),
        "\n".join(textwrap.fill(line, 110, subsequent_indent="  ") for line in told),
        f"Full table: {place}" + (f" ({left_out:,} more rows)" if left_out else ""),
    ]
    return "\n\n".join(parts)
