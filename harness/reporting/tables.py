"""Rows -> the study's table, with what it lacks beside each row: latency ratio, MACs, labels and published figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from tabulate import tabulate

from harness.reporting.published import Published, published_means, published_rows
from harness.reporting.rows import Row
from harness.store.records import Interval, LatencyRecord

ABSENT = "—"
# Prune amount, Pruning column, KD column.
Group = tuple[float, str, str]


@dataclass(frozen=True)
class Column:
    """A column as text. `figures` are right-aligned; `study` columns hold published figures."""

    header: str
    cells: list[str]
    figures: bool = True
    study: bool = False


def columns(rows: Sequence[Row]) -> list[Column]:
    """The study's six columns, verbatim and first, then ours, then (where it published any) the study's figures."""
    teacher_macs = next((row.train.macs for row in rows if row.cell.is_teacher and row.train), None)
    latency = [row.latency_ms for row in rows]
    params = [row.params / 1e6 if row.params is not None else None for row in rows]
    notes = [note(row) for row in rows]
    ours = [
        Column("Model Name", [row.cell.title for row in rows], figures=False),
        _figures("Latency (ms)", latency, _decimals(latency, digits=3, least=2)),
        _figures("Accuracy (%)", [row.accuracy_pct for row in rows], 2),
        _figures("Parameters (M)", params, _decimals(params, digits=2, least=1)),
        Column("Pruning", [row.pruning for row in rows], figures=False),
        Column("KD", [row.kd for row in rows], figures=False),
        Column("Latency ratio", [ratio(row.latency, noise(rows)) for row in rows]),
        _figures("MACs ratio", [_macs_ratio(row, teacher_macs) for row in rows], 2),
    ]
    if any(notes):
        ours.append(Column("Note", notes, figures=False))
    return ours + _study(rows)


def _study(rows: Sequence[Row]) -> list[Column]:
    published = [published_rows().get(row.cell.title) for row in rows]
    # The teacher alone has nothing to be compared with: the study did not run this protocol.
    if not any(found for found, row in zip(published, rows, strict=True) if not row.cell.is_teacher):
        return []

    def column(header: str, take: Callable[[Published], str]) -> Column:
        return Column(f"Study: {header}", [take(found) if found else ABSENT for found in published], study=True)

    return [
        column("latency (ms)", lambda found: f"{found.latency_ms:.2f}"),
        column("accuracy (%)", lambda found: f"{found.accuracy_pct:.2f}"),
        column("parameters (M)", lambda found: f"{found.params_m:g}"),
        column("latency ratio", lambda found: f"{found.ratio_to_teacher:.2f}"),
    ]


def note(row: Row) -> str:
    """What the reader must know about this row: not the study's network or data, or no figures and why."""
    return ", ".join([*row.labels, *(problem.short for problem in row.problems)])


def conditions(rows: Sequence[Row]) -> list[Column]:
    """Latency and ratio to the teacher under the other runtimes and thread counts; no columns where there are none."""
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
    return f"{record.runtime}, {record.threads} thread{'' if record.threads == 1 else 's'}"


def noise(rows: Sequence[Row]) -> float:
    """What the teacher differed by from itself in the A/A control: smaller differences are none."""
    return _off(next((row.latency for row in rows if row.cell.is_teacher), None))


def _off(teacher: LatencyRecord | None) -> float:
    return abs(teacher.control_ratio.value - 1) if teacher and teacher.control_ratio else 0.0


def ratio(latency: LatencyRecord | None, noise: float) -> str:
    """Latency by the teacher's, with its 95 % interval; "≈" where no difference was shown."""
    if latency is None or latency.ratio_to_teacher is None:
        return ABSENT
    if latency.ratio_to_teacher == Interval(value=1, low=1, high=1):
        return "1"
    return interval_text(latency.ratio_to_teacher, noise)


def interval_text(interval: Interval, noise: float = 0.0) -> str:
    """0.62 [0.61, 0.63]; ≈ 0.99 [0.97, 1.02] where the interval covers 1 or the difference is within the noise."""
    same = interval.low <= 1 <= interval.high or abs(interval.value - 1) <= noise
    return f"{'≈ ' if same else ''}{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def seed_means(rows: Sequence[Row]) -> list[Column]:
    """Mean accuracy by pruning and KD, where a table has more than one seed; else no columns."""
    if not over_seeds(rows):
        return []
    groups = seed_groups(rows)
    accuracies = {
        group: [row.accuracy_pct for row in members if row.accuracy_pct is not None]
        for group, members in groups.items()
    }
    by_mean = sorted(accuracies.items(), key=lambda item: -fmean(item[1]) if item[1] else 0)
    pruned, published = {group: members[0] for group, members in groups.items()}, published_means()
    return [
        Column("Pruning", [pruned[group].pruning for group, _ in by_mean], figures=False),
        Column("KD", [pruned[group].kd for group, _ in by_mean], figures=False),
        Column("Seeds", [f"{len(found)} of {len(groups[group])}" for group, found in by_mean]),
        Column("Mean accuracy (%)", [f"{fmean(found):.2f}" if found else ABSENT for _, found in by_mean]),
        Column("SD over seeds", [f"{stdev(found):.2f}" if len(found) > 1 else ABSENT for _, found in by_mean]),
        Column(
            "Study: mean accuracy (%)",
            [f"{published[group]:.2f}" if group in published else ABSENT for group, _ in by_mean],
            study=True,
        ),
    ]


def over_seeds(rows: Sequence[Row]) -> bool:
    """Whether the table repeats anything over seeds."""
    return any(len(members) > 1 for members in seed_groups(rows).values())


def seed_groups(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Students that differ in their seed only, by (prune amount, Pruning column, KD column)."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        if row.cell.prune_amount is not None:
            groups.setdefault((row.cell.prune_amount, row.pruning, row.kd), []).append(row)
    return groups


def markdown(table: Sequence[Column]) -> str:
    """A table as GitHub shows it."""
    return tabulate(
        list(zip(*(column.cells for column in table), strict=True)),
        headers=[column.header for column in table],
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
    smallest = min((value for value in values if value), default=1.0)
    return max(least, digits - 1 - math.floor(math.log10(smallest)))


def _macs_ratio(row: Row, teacher_macs: int | None) -> float | None:
    return row.train.macs / teacher_macs if row.train and row.train.macs and teacher_macs else None
