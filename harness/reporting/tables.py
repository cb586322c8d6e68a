"""Rows -> the study's table, with what it lacks beside each row: differences to the teacher, Pareto ranks, labels."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from tabulate import tabulate

from harness.plan.cpu_table import whose_instruction_set
from harness.reporting.differences import difference_text, mean_ratio, ranks, to_teacher
from harness.reporting.escaping import escaped
from harness.reporting.guard import signs
from harness.reporting.interval_text import interval_text
from harness.reporting.rows import Model, Row, accuracies, fronts, models_of
from harness.store.records import Interval, LatencyRecord

ABSENT = "—"
# What marks the models of the Pareto front.
BEST = "★"
DIFFERENCE = "Δ accuracy (points)"


@dataclass(frozen=True)
class Column:
    """A column as text. `figures` are right-aligned; a `detail` is left out of narrow tables; `markup` is Markdown."""

    header: str
    cells: list[str]
    figures: bool = True
    detail: bool = False
    markup: bool = False


def columns(rows: Sequence[Row]) -> list[Column]:
    """The study's six columns, verbatim and first, then the axes of the experiment's own, how the models compare with
    the teacher and with one another, and a note."""
    teacher_macs = next((row.macs for row in rows if row.cell.is_teacher), None)
    latency = [row.latency_ms for row in rows]
    params = [row.params / 1e6 if row.params is not None else None for row in rows]
    marks = signs(rows)
    notes = [note(row, marks.get(row.cell.id, "")) for row in rows]
    models: list[Model] = [[row] for row in rows]
    found = [
        Column("Model Name", [row.cell.title for row in rows], figures=False),
        _figures("Latency (ms)", latency, _decimals(latency, digits=3, least=2)),
        _figures("Accuracy (%)", [row.accuracy_pct for row in rows], 2),
        _figures("Parameters (M)", params, _decimals(params, digits=2, least=1)),
        *made_by(rows),
        _difference(models, rows),
        Column("Latency ratio", [ratio(row.latency, noise(rows)) for row in rows]),
        # Single trainings are in no order where there are several of each model: the best of five is the luckiest.
        *([] if over_seeds(rows) else _ranked(models)),
        replace(_figures("MACs ratio", [macs_ratio(row, teacher_macs) for row in rows], 2), detail=True),
    ]
    return [*found, Column("Note", notes, figures=False)] if any(notes) else found


def narrow(table: Sequence[Column]) -> list[Column]:
    """A table without its details."""
    return [column for column in table if not column.detail]


def short(rows: Sequence[Row]) -> list[Column]:
    """The study's six columns alone. How a model compares with the teacher stands in parentheses behind its latency
    and its accuracy; the models of the Pareto front are marked."""
    table = {column.header: column.cells for column in columns(rows)}
    name, latency, accuracy, *others = columns(rows)[:6]
    best = [cell.startswith(BEST) for cell in table.get("Pareto", [ABSENT] * len(rows))]

    def beside(column: Column, compared: str, mark: str = "") -> Column:
        cells = [
            text + (f" ({found})" if found != ABSENT and not row.cell.is_teacher else "") + (mark if marked else "")
            for row, text, found, marked in zip(rows, column.cells, table[compared], best, strict=True)
        ]
        return replace(column, cells=cells)

    return [name, beside(latency, "Latency ratio"), beside(accuracy, DIFFERENCE, f" {BEST}"), *others]


def made_by(rows: Sequence[Row]) -> list[Column]:
    """How the models were made: Pruning, KD, and a column for each axis of the experiment's own."""
    return [
        Column("Pruning", [row.pruning for row in rows], figures=False),
        Column("KD", [row.kd for row in rows], figures=False),
        *(Column(header, [row.axes.get(axis, ABSENT) for row in rows]) for axis, header in axis_headers(rows).items()),
    ]


def _difference(models: Sequence[Model], rows: Sequence[Row]) -> Column:
    def text(model: Model) -> str:
        found = to_teacher(model, rows)
        if found is None:
            return ABSENT
        return "0" if model[0].cell.is_teacher else difference_text(found)

    return Column(DIFFERENCE, [text(model) for model in models])


def _ranked(models: Sequence[Model]) -> list[Column]:
    """Each model's Pareto rank, those of the front marked; and its rank by accuracy, where several can be ranked."""
    pareto, places = fronts(models), ranks(models)
    texts = [f"{BEST} {rank}" if rank == 1 else str(rank or ABSENT) for rank in pareto]
    found = [Column("Pareto", texts)] if any(pareto) else []
    if sum(map(bool, places)) > 1:
        found.append(Column("Rank", [str(place or ABSENT) for place in places], detail=True))
    return found


def axis_headers(rows: Sequence[Row]) -> dict[str, str]:
    """The experiment's own axes, each with its header: the last part of its name, or all of it where two end alike."""
    ends = {axis: axis.rpartition(".")[2] for axis in sorted({axis for row in rows for axis in row.axes})}
    common = Counter(ends.values())
    return {axis: end if common[end] == 1 else axis for axis, end in ends.items()}


def note(row: Row, marks: str = "") -> str:
    """What the reader must know about a row: its footnotes, how it is not the study's, what to be wary of, and what is
    missing."""
    return ", ".join([*([marks] if marks else []), *row.labels, *(one.short for one in (*row.cautions, *row.problems))])


def conditions(rows: Sequence[Row]) -> list[Column]:
    """Latency and ratio to the teacher under the other engines and thread counts; no columns where there are none."""
    known = {record.condition: _condition_text(record) for row in rows for record in row.beside}
    if not known:
        return []
    table = [Column("Model Name", [row.cell.title for row in rows], figures=False)]
    for condition, text in known.items():
        found = [next((one for one in row.beside if one.condition == condition), None) for row in rows]
        teacher = next((one for one, row in zip(found, rows, strict=True) if row.cell.is_teacher), None)
        values = [one.latency_ms.value if one and one.latency_ms else None for one in found]
        table.append(_figures(f"{text}: latency (ms)", values, _decimals(values, digits=3, least=2)))
        table.append(Column(f"{text}: ratio", [ratio(one, _off(teacher)) for one in found]))
    return table


def _condition_text(record: LatencyRecord) -> str:
    isa = whose_instruction_set(str(record.spec.get("isa", "host")))
    return f"{record.runtime}, {record.threads} thread{'' if record.threads == 1 else 's'}, {isa}"


def noise(rows: Sequence[Row]) -> float:
    """How far the teacher was from itself in the A/A control: a smaller difference is none."""
    return _off(next((row.latency for row in rows if row.cell.is_teacher), None))


def _off(teacher: LatencyRecord | None) -> float:
    return abs(teacher.control_ratio.value - 1) if teacher and teacher.control_ratio else 0.0


def ratio(latency: LatencyRecord | None, noise: float) -> str:
    """Latency divided by the teacher's, with its 95 % interval; "≈" where no difference was shown."""
    found = latency.ratio_to_teacher if latency else None
    if found is None:
        return ABSENT
    return "1" if found == Interval(value=1, low=1, high=1) else ratio_text(found, noise)


def ratio_text(interval: Interval, noise: float = 0.0) -> str:
    """0.621 ± 0.006; ≈ 0.991 [0.972, 1.020] where the interval covers 1 or the difference is in the noise."""
    return interval_text(interval, 3, same=1, noise=noise)


def seed_means(rows: Sequence[Row]) -> list[Column]:
    """Mean accuracy over the seeds and how it compares, where a table has more than one; else no columns."""
    if not over_seeds(rows):
        return []
    models = students(rows)
    found = [accuracies(model) for model in models]
    ratios = [mean_ratio(model) for model in models]
    return [
        *made_by([model[0] for model in models]),
        Column("Seeds", [f"{len(known)} of {len(model)}" for known, model in zip(found, models, strict=True)]),
        Column("Mean accuracy (%)", [f"{fmean(known):.2f}" if known else ABSENT for known in found]),
        Column("SD over seeds", [f"{stdev(known):.2f}" if len(known) > 1 else ABSENT for known in found]),
        _difference(models, rows),
        Column("Latency ratio", [ratio_text(one, noise(rows)) if one else ABSENT for one in ratios]),
        *_ranked(models),
    ]


def students(rows: Sequence[Row]) -> list[Model]:
    """The models but the teacher, each with its seeds."""
    return [model for model in models_of(rows) if not model[0].cell.is_teacher]


def over_seeds(rows: Sequence[Row]) -> bool:
    """Whether the table repeats anything over seeds."""
    return any(len(model) > 1 for model in models_of(rows))


def markdown(table: Sequence[Column]) -> str:
    """A table as GitHub shows it."""
    return tabulate(
        list(zip(*(map(str if column.markup else escaped, column.cells) for column in table), strict=True)),
        headers=[escaped(column.header) for column in table],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["right" if column.figures else "left" for column in table],
    )


def terminal(table: Sequence[Column]) -> str:
    """The same without details, narrow enough for a terminal."""
    table = narrow(table)
    return tabulate(
        list(zip(*(column.cells for column in table), strict=True)),
        headers=[column.header.replace(" ", "\n") for column in table],
        tablefmt="simple",
        disable_numparse=True,
        colalign=["right" if column.figures else "left" for column in table],
    )


def _figures(header: str, values: Sequence[float | None], decimals: int) -> Column:
    return Column(header, [ABSENT if value is None else f"{value:.{decimals}f}" for value in values])


def _decimals(values: Sequence[float | None], digits: int, least: int) -> int:
    """Decimals, at least `least`, that leave the smallest value `digits` significant digits: 0.21 M and not 0."""
    smallest = min((value for value in values if value and value > 0), default=1.0)
    return max(least, digits - 1 - math.floor(math.log10(smallest)))


def macs_ratio(row: Row, teacher_macs: int | None) -> float | None:
    """Multiply-adds divided by the teacher's."""
    return row.macs / teacher_macs if row.macs and teacher_macs else None
