"""What `harness report` and `harness report-check` do: tables and figures under results/, tables in documents."""

import os
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from harness.errors import HarnessError
from harness.files import atomic_path, write_text
from harness.plan.planning import Plan, Table
from harness.reporting import charts
from harness.reporting.documents import WITHOUT_PLAN, filled
from harness.reporting.escaping import escaped, one_line
from harness.reporting.foot import foot, in_short, measured_lines, network_line, recipe_line, stands_for, warnings
from harness.reporting.markers import Marker
from harness.reporting.model_facts import model_facts
from harness.reporting.rows import Row, read_rows
from harness.reporting.tables import columns, conditions, markdown, seed_means, short, terminal

MODELS = "## The models"
RECOVERED = "## How the students came back, from pruning to their last epoch"


@dataclass(frozen=True)
class Report:
    """The files of a report, by whether they were written or held the same already, and its tables as text."""

    written: tuple[Path, ...]
    unchanged: tuple[Path, ...]
    text: str


def write_report(plan: Plan, results: Path, documents: Sequence[Path], profiles: Collection[str]) -> Report:
    """Write the plan's tables and charts under results/<profile>/, and fill in the documents' markers of this profile.

    Figures that belong to no profile are filled in as well. Without documents, as for results that are not this
    checkout's, none is touched. A file that would be the same is left alone. `profiles` are the names that markers may
    have. Raises HarnessError on an unwritable folder, and on a marker of an unknown profile or experiment.
    """
    rows = {table.name: read_rows(plan, table, results) for table in plan.tables}

    def table_of(marker: Marker, folder: Path) -> str | None:
        if marker.profile not in profiles:
            raise HarnessError(f"profile {marker.profile!r} does not exist; allowed: {', '.join(profiles)}")
        table = _planned(marker, plan) if marker.profile == plan.profile else None
        return _marked(marker, plan, table, rows[table.name], results, folder) if table else None

    written: dict[Path, bool] = {}
    # Documents come first, and all are read before one is written: a fault should show before anything has changed.
    for document in filled(documents, results, table_of):
        written[document.path] = bool(document.stale)
        if document.stale:
            write_text(document.path, document.text)
    texts: list[str] = []
    for table in plan.tables:
        own = rows[table.name]
        for which, chart in charts.charts_of(own).items():
            figure = figure_path(results, plan, table, which)
            if charts.drawable(chart, own):
                written[figure] = _write(figure, charts.draw(chart, own, table.title, _subtitle(plan, table)))
            else:
                figure.unlink(missing_ok=True)
        place = table_path(results, plan, table)
        written[place] = _write(place, _file(plan, table, own, results).encode())
        texts.append(_text(plan, table, own, place))
    return Report(
        tuple(path for path, new in written.items() if new),
        tuple(path for path, new in written.items() if not new),
        "\n\n".join(texts),
    )


def check_report(documents: Sequence[Path], results: Path, plan_of: Callable[[str], Plan]) -> list[str]:
    """What is stale in the documents, and among the tables and charts of the profiles that they show; a line each.

    Empty where every digit and every picture follows from the records. `plan_of` gives the plan of a profile, with all
    of its experiments, and raises HarnessError for an unknown profile.
    """
    plan_of = cache(plan_of)
    shown: dict[str, list[str]] = {}

    def table_of(marker: Marker, folder: Path) -> str | None:
        plan = plan_of(marker.profile)
        table = _planned(marker, plan)
        shown.setdefault(marker.profile, []).append(marker.experiment)
        return _marked(marker, plan, table, read_rows(plan, table, results), results, folder) if table else None

    lines = [
        f"{document.path}:{marker.line}: {_stale(marker)}"
        for document in filled(documents, results, table_of)
        for marker in document.stale
    ]
    return lines + [line for profile, names in shown.items() for line in check_files(plan_of(profile), results, names)]


def _stale(marker: Marker) -> str:
    if marker.profile in WITHOUT_PLAN:
        return f"the table of {marker.profile} {marker.experiment} is stale; run: make report"
    return f"table {marker.experiment} of profile {marker.profile} is stale; run: {_again(marker.profile)}"


def _again(profile: str) -> str:
    return f"make report PROFILE={profile}"


def check_files(plan: Plan, results: Path, shown: Collection[str] = ()) -> list[str]:
    """The tables and charts under results/<profile> that the records do not bear out, as lines that name them.

    Where an experiment has neither, nothing was reported yet, unless a document shows its chart (`shown`). A file that
    belongs to no experiment of matrix.toml is named as well.
    """
    stale = [line for table in plan.tables for line in _stale_files(plan, table, results, table.name in shown)]
    return stale + [
        f"{path}: no experiment has this name; delete the file if the experiment was renamed or removed"
        for path in _orphans(plan, results)
    ]


def _stale_files(plan: Plan, table: Table, results: Path, shown: bool) -> Iterator[str]:
    place, figure = table_path(results, plan, table), figure_path(results, plan, table)
    if not (place.is_file() or figure.is_file() or shown):
        return
    rows = read_rows(plan, table, results)
    if place.is_file() and place.read_bytes() != _file(plan, table, rows, results).encode():
        yield f"{place} is stale; run: {_again(plan.profile)}"
    for which, chart in charts.charts_of(rows).items():
        figure = figure_path(results, plan, table, which)
        if not charts.drawable(chart, rows):
            if figure.is_file():
                yield f"{figure} shows models that have no figures now; run: {_again(plan.profile)}"
        elif not figure.is_file():
            yield f"{figure} is missing; run: {_again(plan.profile)}"
        elif not charts.is_current(figure, chart, rows, table.title, _subtitle(plan, table)):
            yield f"{figure} is stale; run: {_again(plan.profile)}"


def _orphans(plan: Plan, results: Path) -> Iterator[Path]:
    names = [experiment.name for experiment in plan.settings.experiment]
    owned = {_table(results, plan, name) for name in names}
    owned |= {_figure(results, plan, name + which) for name in names for which in (charts.MAIN, charts.RECOVERY)}
    for folder in {path.parent for path in owned}:
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        yield from (path for path in files if path not in owned and not path.name.startswith("."))


def _file(plan: Plan, table: Table, rows: list[Row], results: Path) -> str:
    """A table's own file."""
    folder = table_path(results, plan, table).parent
    parts = [_document(plan, table, rows, results, folder, "#"), f"{MODELS}\n\n{markdown(model_facts(rows))}\n"]
    if charts.drawable(charts.charts_of(rows)[charts.RECOVERY], rows):
        parts.append(f"{RECOVERED}\n\n{_picture(plan, table, results, folder, charts.RECOVERY)}\n")
    return "\n".join(parts)


def _picture(plan: Plan, table: Table, results: Path, folder: Path, which: str = charts.MAIN) -> str:
    """A table's chart in a document that lies in `folder`."""
    figure = _link(figure_path(results, plan, table, which), folder)
    return f"![{escaped(table.title)}, profile {escaped(plan.profile)}]({figure})"


def _link(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def table_path(results: Path, plan: Plan, table: Table) -> Path:
    """Where a table is written."""
    return _table(results, plan, table.name)


def figure_path(results: Path, plan: Plan, table: Table, which: str = charts.MAIN) -> Path:
    """Where one of a table's charts is drawn."""
    return _figure(results, plan, table.name + which)


def _table(results: Path, plan: Plan, experiment: str) -> Path:
    return results / plan.profile / "tables" / f"{experiment}.md"


def _figure(results: Path, plan: Plan, name: str) -> Path:
    return results / plan.profile / "figures" / f"{name}.png"


def _write(path: Path, content: bytes) -> bool:
    """Write a file unless it holds just this; returns whether it was written."""
    if path.is_file() and path.read_bytes() == content:
        return False
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return True


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
    if not marker.short:
        return _document(plan, table, rows, results, folder, "###")
    place = _link(table_path(results, plan, table), folder)
    return f"{markdown(short(rows))}\n\n{escaped(in_short(plan, rows))} [All columns]({place}).\n"


def _document(plan: Plan, table: Table, rows: list[Row], results: Path, folder: Path, heading: str) -> str:
    """A table as Markdown in a file of `folder`: title, table, means over seeds, other conditions, chart, foot."""
    title, profile = escaped(table.title), escaped(plan.profile)
    parts = [f"{heading} {title} (profile {profile})", escaped(stands_for(plan, rows)), markdown(columns(rows))]
    parts += [markdown(more) for more in (seed_means(rows), conditions(rows)) if more]
    if charts.drawable(charts.charts_of(rows)[charts.MAIN], rows):
        parts.append(_picture(plan, table, results, folder))
    parts.append(foot(plan, table, rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def _subtitle(plan: Plan, table: Table) -> str:
    return f"{one_line(network_line(plan))}\n{one_line(recipe_line(plan, table))}"


def _text(plan: Plan, table: Table, rows: list[Row], place: Path) -> str:
    told = [
        network_line(plan),
        recipe_line(plan, table),
        *measured_lines(plan, rows),
        *(f"Warning: {text}" for text in warnings(rows)),
    ]
    parts = [
        one_line(table.title),
        *(textwrap.fill(line, 110) for line in [stands_for(plan, rows)] if line),
        terminal(columns(rows)),
        *(terminal(more) for more in (seed_means(rows), conditions(rows)) if more),
        "\n".join(textwrap.fill(line, 110, subsequent_indent="  ") for line in told),
        f"Full table: {place}",
    ]
    return "\n\n".join(parts)
