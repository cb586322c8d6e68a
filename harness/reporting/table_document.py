"""A table as Markdown, and the files that it is written to: <experiment>.md, .csv and .json."""

import html
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from harness.plan.planning import Plan, Table
from harness.reporting import charts
from harness.reporting.chart_style import THEMES
from harness.reporting.data import as_csv_and_json
from harness.reporting.escaping import escaped, one_line
from harness.reporting.foot import foot, in_short, stands_for
from harness.reporting.model_facts import model_facts
from harness.reporting.rows import Row, first_models
from harness.reporting.study_tables import SOURCE, study_means, study_table
from harness.reporting.tables import columns, conditions, markdown, narrow, seed_means, short

KINDS = ("md", "csv", "json")
MODELS = "## The models"
MEANS, STUDY, CONDITIONS = "Means over seeds", "What the study published", "Under other conditions"


def table_path(results: Path, plan: Plan, table: Table, kind: str = "md") -> Path:
    """Where a table is written, as Markdown or as another kind of file (KINDS)."""
    return results / plan.profile / "tables" / f"{table.name}.{kind}"


def figure_path(
    results: Path, plan: Plan, table: Table, which: str = charts.MAIN, picture: charts.Picture = charts.PICTURES[0]
) -> Path:
    """Where one of a table's charts is drawn, in one theme and format."""
    return results / plan.profile / "figures" / f"{table.name}{which}{picture.ending}"


def table_files(plan: Plan, table: Table, rows: Sequence[Row], results: Path) -> dict[Path, bytes]:
    """What a table's own files hold."""
    texts = (_own_file(plan, table, rows, results), *as_csv_and_json(plan, table, rows))
    return {table_path(results, plan, table, kind): text.encode() for kind, text in zip(KINDS, texts, strict=True)}


def full_document(
    plan: Plan, table: Table, rows: Sequence[Row], results: Path, folder: Path, heading: str = "###"
) -> str:
    """A table as Markdown in a file of `folder`: title, table, footnotes and what there is beside, and the chart.

    Of a very long one the first models (harness.reporting.rows.first_models).
    """
    title, profile = escaped(table.title), escaped(plan.profile)
    parts = [f"{heading} {title} (profile {profile})", escaped(stands_for(plan, rows))]
    # A table without charts because of its length has none for the rows that are shown of it either.
    chart = charts.charts_of(rows).get(charts.MAIN)
    shown = first_models(rows)
    parts += _cut(plan, table, len(shown), len(rows), results, folder)
    rows = shown
    parts.append(markdown(narrow(columns(rows))))
    if means := seed_means(rows):
        parts += [f"{MEANS}:", markdown(narrow(means))]
    if chart and chart.drawable(rows):
        parts.append(_picture(plan, table, results, folder, chart))
    parts.append(foot(plan, table, rows))
    for name, about, more in (
        (STUDY, SOURCE, [study_table(rows), study_means(rows)]),
        (CONDITIONS, "", [conditions(rows)]),
    ):
        if any(more):
            parts += [f"{heading}# {name}", about, *(markdown(one) for one in more if one)]
    return "\n\n".join(part for part in parts if part) + "\n"


def short_document(plan: Plan, table: Table, rows: Sequence[Row], results: Path, folder: Path) -> str:
    """The study's six columns, and in a paragraph what must be known of them."""
    place = link(table_path(results, plan, table), folder)
    rows = first_models(rows)
    return f"{markdown(short(rows))}\n\n{escaped(in_short(plan, rows))} [All columns]({place}).\n"


def _own_file(plan: Plan, table: Table, rows: Sequence[Row], results: Path) -> str:
    folder = table_path(results, plan, table).parent
    shown = first_models(rows)
    details = [column for column in columns(shown) if column.detail]
    parts = [
        full_document(plan, table, rows, results, folder, "#"),
        f"{MODELS}\n\n{markdown([*model_facts(shown), *details])}\n",
    ]
    for which, chart in charts.charts_of(rows).items():
        if which != charts.MAIN and chart.drawable(rows):
            parts.append(f"## {chart.ABOUT}\n\n{_picture(plan, table, results, folder, chart, which)}\n")
    name = quote(table.name)
    parts.append(f"The same figures unrounded, with keys and hashes: [CSV]({name}.csv), [JSON]({name}.json).\n")
    return "\n".join(parts)


def _cut(plan: Plan, table: Table, count: int, of: int, results: Path, folder: Path) -> list[str]:
    """That a table has only the first of its rows, where it does."""
    if count == of:
        return []
    whole = link(table_path(results, plan, table, "csv"), folder)
    return [f"The first {count:,} of [all {of:,} rows]({whole}), those of the best Pareto ranks."]


def _picture(
    plan: Plan, table: Table, results: Path, folder: Path, chart: charts.Chart, which: str = charts.MAIN
) -> str:
    """A table's chart in a document that lies in `folder`, for readers on a light and on a dark page."""
    light, dark = (
        link(figure_path(results, plan, table, which, charts.Picture(theme, "svg")), folder) for theme in THEMES
    )
    about = html.escape(one_line(f"{chart.ABOUT}: {table.title}, profile {plan.profile}"))
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    return f'<picture>{source}<img alt="{about}" src="{light}"></picture>'


def link(path: Path, folder: Path) -> str:
    """A path as a link from a document that lies in `folder`."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())
