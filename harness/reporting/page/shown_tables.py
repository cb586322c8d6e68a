"""The tables of the page: those of harness.reporting.tables, with the figure behind each text.

What is read is the same as in the Markdown files; what is sorted by and downloaded is unrounded.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from harness.reporting import tables
from harness.reporting.differences import mean_ratio, to_teacher
from harness.reporting.front import Place, middle
from harness.reporting.rows import Model, Row, accuracies, fronts
from harness.reporting.study_tables import study_means, study_rows, study_table
from harness.reporting.tables import ABSENT, DIFFERENCE, Column
from harness.store.records import Interval, LatencyRecord

# A figure, with its bounds where it has an interval.
Figure = Interval | float | None
MODEL, PARETO = "Model Name", "Pareto"
# What the page has first, in this order: a narrow screen shows no more.
ACCURACY, MEAN = "Accuracy (%)", "Mean accuracy (%)"
LATENCY, RATIO, RANK = "Latency (ms)", "Latency ratio", "Rank"
FIRST = (MODEL, PARETO, ACCURACY, MEAN, DIFFERENCE, RATIO, LATENCY, RANK)
# Columns of text by which nobody chooses rows.
NO_FACETS = (MODEL, "Note", "Seeds")
# What stands for records where a figure comes from none of ours.
PUBLISHED = "published"


class Source(NamedTuple):
    """What is behind a column of figures: its name in a download, the figures, and the records that they come from.

    Records have the names of harness.reporting.page.origins; `teacher.` is in front of the teacher's. What the study
    published comes from no record.
    """

    name: str
    figures: Sequence[Figure]
    records: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """A table. `models` are the rows behind each of its rows: several where it is a mean over seeds."""

    name: str
    title: str
    models: Sequence[Model]
    columns: Sequence[Column]
    sources: Mapping[str, Source]

    @property
    def ordered(self) -> list[Column]:
        """The columns as they are shown."""
        places = {header: place for place, header in enumerate(FIRST)}
        return sorted(self.columns, key=lambda column: places.get(column.header, len(places)))

    @property
    def document(self) -> dict[str, Any]:
        """As JSON, row by row. A cell is its text and, in columns of figures, its value and the bounds that it has.

        The models of a row are in the order of their ids, so that a link finds a mean again whatever its seeds give.
        """
        return {
            "name": self.name,
            "title": self.title,
            "columns": [self._column(column) for column in self.ordered],
            "rows": [
                {
                    "models": sorted(row.cell.id for row in model),
                    "cells": [self._cell(column, number) for column in self.ordered],
                }
                for number, model in enumerate(self.models)
            ],
        }

    def _column(self, column: Column) -> dict[str, Any]:
        source = self.sources.get(column.header)
        if source is None:
            name = re.sub(r"\W+", "_", column.header.lower()).strip("_")
            return {"name": name, "header": column.header, "facet": column.header not in NO_FACETS}
        return {"name": source.name, "header": column.header, "sources": source.records}

    def _cell(self, column: Column, number: int) -> list[Any]:
        text, source = column.cells[number], self.sources.get(column.header)
        figure = source.figures[number] if source else None
        if isinstance(figure, Interval):
            return [text, figure.value, *(figure.bounds or ())]
        return [text] if figure is None else [text, figure]


def shown_tables(rows: Sequence[Row]) -> list[Shown]:
    """The models; and, where there are such, means over seeds, the other conditions, and what the study published."""
    found = [_models(rows), _means(rows), _conditions(rows), _study(rows), _study_means(rows)]
    return [one for one in found if len(one.columns) > 1]


def place_of(model: Model) -> Place | None:
    """Where a model lies, by its means over the seeds that have both figures; None where none has."""
    return middle(row.place for row in model)


def _models(rows: Sequence[Row]) -> Shown:
    models: list[Model] = [[row] for row in rows]
    columns = tables.columns(rows)
    teacher_macs = next((row.macs for row in rows if row.cell.is_teacher), None)
    sources = {
        LATENCY: Source("latency_ms", [_headline(row) for row in rows], ("latency",)),
        ACCURACY: Source("accuracy_pct", [row.accuracy_pct for row in rows], ("accuracy",)),
        "Parameters (M)": Source("parameters", [row.params for row in rows], ("export",)),
        RATIO: Source("latency_ratio", [row.ratio for row in rows], ("latency", "teacher.latency")),
        "MACs ratio": Source(
            "macs_ratio",
            [tables.macs_ratio(row, teacher_macs) for row in rows],
            ("train", "teacher.train"),
        ),
        **_compared(models, rows, columns),
    }
    return Shown("models", "Models", models, columns, sources)


def _means(rows: Sequence[Row]) -> Shown:
    if not tables.over_seeds(rows):
        return Shown("means", "", [], [], {})
    # in the order of the table that says the same
    models = tables.students(rows)
    found = [accuracies(model) for model in models]
    columns = [Column(MODEL, [name_of(model) for model in models], figures=False), *tables.seed_means(rows)]
    sources = {
        MEAN: Source("accuracy_pct", [fmean(one) if one else None for one in found], ("accuracy",)),
        "SD over seeds": Source("accuracy_sd", [stdev(one) if len(one) > 1 else None for one in found], ("accuracy",)),
        RATIO: Source("latency_ratio", [mean_ratio(model) for model in models], ("latency", "teacher.latency")),
        **_compared(models, rows, columns),
    }
    return Shown("means", "Means over seeds", models, columns, sources)


def _conditions(rows: Sequence[Row]) -> Shown:
    columns = tables.conditions(rows)
    sources: dict[str, Source] = {}
    conditions = dict.fromkeys(record.condition for row in rows for record in row.beside)
    for number, condition in enumerate(conditions):
        latency, ratio = columns[1 + 2 * number : 3 + 2 * number]
        found = [_under(condition, row) for row in rows]
        name = re.sub(r"\W+", "_", condition)
        sources[latency.header] = Source(
            f"latency_ms_{name}", [one.latency_ms if one else None for one in found], (condition,)
        )
        sources[ratio.header] = Source(
            f"latency_ratio_{name}",
            [one.ratio_to_teacher if one else None for one in found],
            (condition, f"teacher.{condition}"),
        )
    return Shown("conditions", "Other engines, instruction sets and threads", [[row] for row in rows], columns, sources)


def _study(rows: Sequence[Row]) -> Shown:
    found = study_rows(rows)
    published = [one for _, one in found]
    teacher_pct = next((one.accuracy_pct for row, one in found if row.cell.is_teacher), None)
    figures: dict[str, tuple[str, Sequence[Figure]]] = {
        LATENCY: ("latency_ms", [one.latency_ms for one in published]),
        ACCURACY: ("accuracy_pct", [one.accuracy_pct for one in published]),
        "Parameters (M)": ("parameters_m", [one.params_m for one in published]),
        DIFFERENCE: (
            "accuracy_difference_points",
            [None if teacher_pct is None else one.accuracy_pct - teacher_pct for one in published],
        ),
        RATIO: ("latency_ratio", [one.ratio_to_teacher for one in published]),
    }
    sources = {header: Source(f"study_{name}", values, (PUBLISHED,)) for header, (name, values) in figures.items()}
    return Shown("study", "What the study published", [[row] for row, _ in found], study_table(rows), sources)


def _study_means(rows: Sequence[Row]) -> Shown:
    models = [model for model in tables.students(rows) if model[0].published_mean is not None]
    sources = {MEAN: Source("study_accuracy_pct", [model[0].published_mean for model in models], (PUBLISHED,))}
    return Shown("study-means", "The study's means over seeds", models, study_means(rows), sources)


def name_of(model: Model) -> str:
    """A model's title; where it stands for several seeds, how it was made."""
    first = model[0]
    if len(model) == 1:
        return first.cell.title
    axes = [f"{axis.rpartition('.')[2]} {value}" for axis, value in first.axes.items()]
    return ", ".join([f"{first.pruning} {first.cell.prune_amount:g}", first.kd, *axes])


def _compared(models: Sequence[Model], rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, Source]:
    """What stands behind the columns that compare accuracies."""
    ranks = next((column.cells for column in columns if column.header == RANK), [])
    return {
        DIFFERENCE: Source(
            "accuracy_difference_points",
            [to_teacher(model, rows) for model in models],
            ("accuracy", "teacher.accuracy"),
        ),
        RANK: Source("rank", [None if rank == ABSENT else int(rank) for rank in ranks], ("accuracy",)),
        PARETO: Source("pareto_rank", fronts(models), ("accuracy", "latency")),
    }


def _headline(row: Row) -> Figure:
    return row.latency.latency_ms if row.latency else None


def _under(condition: str, row: Row) -> LatencyRecord | None:
    return next((record for record in row.beside if record.condition == condition), None)
