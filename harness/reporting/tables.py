"""Rows -> the study's table, with what it lacks beside each row: latency ratio, MACs, labels and published figures."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from tabulate import tabulate

from harness.plan.cpu_table import whose_instruction_set
from harness.reporting.differences import Model, ranks, to_teacher
from harness.reporting.escaping import escaped
from harness.reporting.published import Published
from harness.reporting.rows import Row
from harness.store.records import Interval, LatencyRecord

ABSENT = "—"


@dataclass(frozen=True)
class Column:
    """A column as text. `figures` are right-aligned; `study` columns hold published figures; `markup` is Markdown."""

    header: str
    cells: list[str]
    figures: bool = True
    study: bool = False
    markup: bool = False


def columns(rows: Sequence[Row]) -> list[Column]:
    """The study's six columns, verbatim and first, then the axes of the experiment's own, what sets the models apart
    from the teacher, a note, and (for models that the study made) its figures."""
    teacher_macs = next((row.macs for row in rows if row.cell.is_teacher), None)
    latency = [row.latency_ms for row in rows]
    params = [row.params / 1e6 if row.params is not None else None for row in rows]
    notes = [note(row) for row in rows]
    ours = [
        Column("Model Name", [row.cell.title for row in rows], figures=False),
        _figures("Latency (ms)", latency, _decimals(latency, digits=3, least=2)),
        _figures("Accuracy (%)", [row.accuracy_pct for row in rows], 2),
        _figures("Parameters (M)", params, _decimals(params, digits=2, least=1)),
        *_made_by(rows),
        *_accuracies_compared([[row] for row in rows], rows, ranked=not over_seeds(rows)),
        Column("Latency ratio", [ratio(row.latency, noise(rows)) for row in rows]),
        _figures("MACs ratio", [_macs_ratio(row, teacher_macs) for row in rows], 2),
    ]
    if any(notes):
        ours.append(Column("Note", notes, figures=False))
    return ours + _study(rows)


def short(rows: Sequence[Row]) -> list[Column]:
    """The study's six columns alone. The ratio to the teacher stands behind the latency, in parentheses."""
    name, latency, *others = columns(rows)[:6]
    ratios = [ratio(row.latency, noise(rows)) for row in rows]
    cells = [
        text if row.cell.is_teacher or found == ABSENT else f"{text} ({found})"
        for row, text, found in zip(rows, latency.cells, ratios, strict=True)
    ]
    return [name, replace(latency, cells=cells), *others]


def _made_by(rows: Sequence[Row]) -> list[Column]:
    """How the models were made: Pruning, KD, and a column for each axis of the experiment's own."""
    return [
        Column("Pruning", [row.pruning for row in rows], figures=False),
        Column("KD", [row.kd for row in rows], figures=False),
        *(Column(header, [row.axes.get(axis, ABSENT) for row in rows]) for axis, header in axis_headers(rows).items()),
    ]


def _accuracies_compared(models: Sequence[Model], rows: Sequence[Row], ranked: bool = True) -> list[Column]:
    """The difference to the teacher's accuracy and, where there are several to be ranked, each model's rank."""
    places = ranks(models) if ranked else []
    differences = [to_teacher(model, rows) or ABSENT for model in models]
    return [
        Column("Δ accuracy (points)", differences),
        *([Column("Rank", [str(place or ABSENT) for place in places])] if sum(map(bool, places)) > 1 else []),
    ]


def axis_headers(rows: Sequence[Row]) -> dict[str, str]:
    """The experiment's own axes, each with its header: the last part of its name, or all of it where two end alike."""
    ends = {axis: axis.rpartition(".")[2] for axis in sorted({axis for row in rows for axis in row.axes})}
    common = Counter(ends.values())
    return {axis: end if common[end] == 1 else axis for axis, end in ends.items()}


def of_study(rows: Sequence[Row]) -> bool:
    """Whether the study published any of these students. The teacher alone has nothing to be compared with."""
    return any(row.published for row in rows if not row.cell.is_teacher)


def _study(rows: Sequence[Row]) -> list[Column]:
    if not of_study(rows):
        return []

    def column(header: str, take: Callable[[Published], str]) -> Column:
        cells = [take(row.published) if row.published else ABSENT for row in rows]
        return Column(f"Study: {header}", cells, study=True)

    return [
        column("latency (ms)", lambda found: f"{found.latency_ms:.2f}"),
        column("accuracy (%)", lambda found: f"{found.accuracy_pct:.2f}"),
        column("parameters (M)", lambda found: f"{found.params_m:g}"),
        column("latency ratio", lambda found: f"{found.ratio_to_teacher:.2f}"),
    ]


def note(row: Row) -> str:
    """What the reader must know about a row: how it is not the study's, what to be wary of, and what is missing."""
    return ", ".join([*row.labels, *(one.short for one in (*row.cautions, *row.problems))])


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
    return "1" if found == Interval(value=1, low=1, high=1) else interval_text(found, noise)


def interval_text(interval: Interval, noise: float = 0.0) -> str:
    """0.62 [0.61, 0.63]; ≈ 0.99 [0.97, 1.02] where the interval covers 1 or the difference is in the noise."""
    same = interval.covers(1) or abs(interval.value - 1) <= noise
    return f"{'≈ ' if same else ''}{interval.text('.2f')}"


def seed_means(rows: Sequence[Row]) -> list[Column]:
    """Mean accuracy over the seeds and how it compares, where a table has more than one; else no columns. The best mean
    is first."""
    if not over_seeds(rows):
        return []
    groups = [(members, accuracies(members)) for members in seed_groups(rows)]
    groups.sort(key=lambda group: (not group[1], -fmean(group[1] or [0])))
    means = [members[0].published_mean for members, _ in groups]
    study = [ABSENT if mean is None else f"{mean:.2f}" for mean in means]
    return [
        *_made_by([members[0] for members, _ in groups]),
        Column("Seeds", [f"{len(found)} of {len(members)}" for members, found in groups]),
        Column("Mean accuracy (%)", [f"{fmean(found):.2f}" if found else ABSENT for _, found in groups]),
        Column("SD over seeds", [f"{stdev(found):.2f}" if len(found) > 1 else ABSENT for _, found in groups]),
        *_accuracies_compared([members for members, _ in groups], rows),
        *([Column("Study: mean accuracy (%)", study, study=True)] if any(means) else []),
    ]


def accuracies(rows: Sequence[Row]) -> list[float]:
    """The accuracies (%) that are known."""
    return [row.accuracy_pct for row in rows if row.accuracy_pct is not None]


def over_seeds(rows: Sequence[Row]) -> bool:
    """Whether the table repeats anything over seeds."""
    return any(len(members) > 1 for members in seed_groups(rows))


def seed_groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The students, those together that differ in nothing but their seed."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if not row.cell.is_teacher:
            alike = sorted((axis, repr(value)) for axis, value in row.cell.point.items() if axis != "seed")
            groups.setdefault(repr(alike), []).append(row)
    return list(groups.values())


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
    """The same without the study's figures, narrow enough for a terminal."""
    narrow = [column for column in table if not column.study]
    return tabulate(
        list(zip(*(column.cells for column in narrow), strict=True)),
        headers=[column.header.replace(" ", "\n") for column in narrow],
        tablefmt="simple",
        disable_numparse=True,
        colalign=["right" if column.figures else "left" for column in narrow],
    )


def _figures(header: str, values: Sequence[float | None], decimals: int) -> Column:
    return Column(header, [ABSENT if value is None else f"{value:.{decimals}f}" for value in values])


def _decimals(values: Sequence[float | None], digits: int, least: int) -> int:
    """Decimals, at least `least`, that leave the smallest value `digits` significant digits: 0.21 M and not 0."""
    smallest = min((value for value in values if value and value > 0), default=1.0)
    return max(least, digits - 1 - math.floor(math.log10(smallest)))


def _macs_ratio(row: Row, teacher_macs: int | None) -> float | None:
    return row.macs / teacher_macs if row.macs and teacher_macs else None
