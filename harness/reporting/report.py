"""What `harness report` and `harness report-check` do: tables and figures under results/, tables in the README."""

import os
import textwrap
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.files import atomic_path, write_text
from harness.plan.planning import Plan, Table
from harness.reporting import charts
from harness.reporting.foot import foot, measured_lines, network_line, recipe_line, warnings
from harness.reporting.model_facts import model_facts
from harness.reporting.own_figures import MARKER_PROFILE, figures_table
from harness.reporting.readme import Marker, fill, read_document
from harness.reporting.rows import Row, read_rows
from harness.reporting.tables import columns, conditions, markdown, seed_means, terminal

MODELS = "## The models"


@dataclass(frozen=True)
class Report:
    """The files of a report, by whether they were written or held the same already, and its tables as text."""

    written: tuple[Path, ...]
    unchanged: tuple[Path, ...]
    text: str


def write_report(plan: Plan, results: Path, readme: Path | None, profiles: Collection[str]) -> Report:
    """Write the plan's tables and charts under results/<profile>/, and fill the README's markers of this profile.

    A file that would be the same is left alone. `profiles` are the names that markers may have. Raises HarnessError on
    an unwritable folder or a marker of an unknown profile or experiment.
    """
    rows = {table.name: read_rows(plan, table, results) for table in plan.tables}
    written: dict[Path, bool] = {}
    # The README comes first: a fault in it should show before anything is written.
    if readme:
        written[readme] = _fill_readme(plan, rows, results, readme, profiles)
    texts: list[str] = []
    for table in plan.tables:
        own = rows[table.name]
        if charts.drawable(own):
            subtitle = f"{network_line(plan)}\n{recipe_line(plan, table)}"
            figure = figure_path(results, plan, table)
            written[figure] = _write(figure, charts.draw(own, table.title, subtitle))
        place = table_path(results, plan, table)
        written[place] = _write(place, _file(plan, table, own, results).encode())
        texts.append(_text(plan, table, own, place))
    return Report(
        tuple(path for path, new in written.items() if new),
        tuple(path for path, new in written.items() if not new),
        "\n\n".join(texts),
    )


def check_report(readme: Path, results: Path, plan_of: Callable[[str], Plan]) -> list[str]:
    """The README's stale tables, as "README.md:12: ..." lines; empty where every digit follows from the records.

    `plan_of` gives a profile's plan and raises HarnessError for an unknown one.
    """

    def table_of(marker: Marker) -> str:
        if marker.profile == MARKER_PROFILE:
            return figures_table(results, marker.experiment)
        plan = plan_of(marker.profile)
        _require_experiment(marker, plan)
        table = next(table for table in plan.tables if table.name == marker.experiment)
        return _document(plan, table, read_rows(plan, table, results), results, readme.parent, "###")

    _, stale = fill(read_document(readme), readme.name, table_of)
    return [f"{readme.name}:{marker.line}: {_stale(marker)}" for marker in stale]


def _stale(marker: Marker) -> str:
    if marker.profile == MARKER_PROFILE:
        return f"the figures of {marker.experiment} are stale; run: make report"
    return f"table {marker.experiment} of profile {marker.profile} is stale; run: make report PROFILE={marker.profile}"


def stale_tables(plan: Plan, results: Path) -> list[str]:
    """The table files under results/<profile>/tables that are not what the records say, as lines that name them."""
    stale = []
    for table in plan.tables:
        place = table_path(results, plan, table)
        if place.is_file() and place.read_text(encoding="utf-8") != _file(
            plan, table, read_rows(plan, table, results), results
        ):
            stale.append(f"{place} is stale; run: make report PROFILE={plan.profile}")
    return stale


def _file(plan: Plan, table: Table, rows: list[Row], results: Path) -> str:
    """A table's own file."""
    folder = table_path(results, plan, table).parent
    return f"{_document(plan, table, rows, results, folder, '#')}\n{MODELS}\n\n{markdown(model_facts(rows))}\n"


def table_path(results: Path, plan: Plan, table: Table) -> Path:
    """Where a table is written."""
    return results / plan.profile / "tables" / f"{table.name}.md"


def figure_path(results: Path, plan: Plan, table: Table) -> Path:
    """Where a table's chart is drawn."""
    return results / plan.profile / "figures" / f"{table.name}.png"


def _write(path: Path, content: bytes) -> bool:
    """Write a file unless it holds just this; returns whether it was written."""
    if path.is_file() and path.read_bytes() == content:
        return False
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return True


def _fill_readme(
    plan: Plan, rows: dict[str, list[Row]], results: Path, readme: Path, profiles: Collection[str]
) -> bool:
    """Write the README's tables of this profile, and the harness's own figures; returns whether any changed."""
    tables = {table.name: table for table in plan.tables}

    def table_of(marker: Marker) -> str | None:
        if marker.profile == MARKER_PROFILE:
            # another results folder may hold a matrix's records alone
            return figures_table(results, marker.experiment) if (results / MARKER_PROFILE).is_dir() else None
        if marker.profile not in profiles:
            raise HarnessError(f"profile {marker.profile!r} does not exist; allowed: {', '.join(profiles)}")
        if marker.profile != plan.profile:
            return None
        _require_experiment(marker, plan)
        # A plan may be of some experiments only.
        table = tables.get(marker.experiment)
        return _document(plan, table, rows[table.name], results, readme.parent, "###") if table else None

    filled, changed = fill(read_document(readme), readme.name, table_of)
    if changed:
        write_text(readme, filled)
    return bool(changed)


def _require_experiment(marker: Marker, plan: Plan) -> None:
    allowed = plan.settings.experiments
    if marker.experiment not in allowed:
        raise HarnessError(
            f"profile {marker.profile} has no experiment {marker.experiment!r}; allowed: {', '.join(allowed)}"
        )


def _document(plan: Plan, table: Table, rows: list[Row], results: Path, folder: Path, heading: str) -> str:
    """A table as Markdown in a file of `folder`: title, chart, table, means over seeds, foot."""
    parts = [f"{heading} {table.title} (profile {plan.profile})", markdown(columns(rows))]
    parts += [markdown(more) for more in (seed_means(rows), conditions(rows)) if more]
    if charts.drawable(rows):
        figure = os.path.relpath(figure_path(results, plan, table), folder)
        parts.append(f"![{table.title}, profile {plan.profile}]({Path(figure).as_posix()})")
    parts.append(foot(plan, table, rows))
    return "\n\n".join(parts) + "\n"


def _text(plan: Plan, table: Table, rows: list[Row], place: Path) -> str:
    told = [
        network_line(plan),
        recipe_line(plan, table),
        *measured_lines(plan, rows),
        *(f"Warning: {text}" for text in warnings(rows)),
    ]
    parts = [
        table.title,
        terminal(columns(rows)),
        *(terminal(more) for more in (seed_means(rows), conditions(rows)) if more),
        "\n".join(textwrap.fill(line, 110, subsequent_indent="  ") for line in told),
        f"Full table: {place}",
    ]
    return "\n\n".join(parts)
