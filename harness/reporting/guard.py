"""Footnotes to rows that were not made on equal terms: other lengths of training, labelled steps, kept layers, MACs.

A table compares ways of compressing. Where a student trained longer than the others, saw more labels, kept other layers
or was left with more multiply-adds, its accuracy may come from that alone (docs/methods.md#two-protocols).
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import TypeVar

from harness.plan.specs import Sparse, Teacher
from harness.reporting.rows import Row

# How far a student's MACs may be from the median student's, as a share of these.
MACS_SHARE = 0.05
# Phases of training whose loss is the study's, which uses no labels.
UNLABELLED = ("feature", "base")
V = TypeVar("V", bound=Hashable)
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Footnote:
    """What sets some students apart from most of the table, and which by the ids of their cells."""

    number: int
    text: str
    cells: frozenset[str]

    @property
    def sign(self) -> str:
        """The number as a superscript."""
        return str(self.number).translate(SUPERSCRIPT)


def footnotes(rows: Sequence[Row]) -> list[Footnote]:
    """All of a table's; none where its students were made on equal terms. Students without a train record have none."""
    students = [row for row in rows if not row.cell.is_teacher and row.train]
    found = [
        *_unlike(students, epochs, lambda own, usual: f"trained for {_counted(own, 'epoch')}, not {usual}"),
        *_unlike(students, labelled_steps, lambda own, usual: f"{own:,} steps of training with labels, not {usual:,}"),
        *_unlike(students, kept_layers, _kept_otherwise),
        *_unlike_macs(rows, students),
    ]
    return [Footnote(number, text, frozenset(cells)) for number, (text, cells) in enumerate(found, start=1)]


def signs(rows: Sequence[Row]) -> dict[str, str]:
    """The footnotes' signs of each row that has any, by the id of its cell."""
    found: dict[str, list[str]] = {}
    for one in footnotes(rows):
        for cell in one.cells:
            found.setdefault(cell, []).append(one.sign)
    return {cell: " ".join(marks) for cell, marks in found.items()}


def epochs(row: Row) -> int | None:
    """Epochs that a student was trained for after pruning."""
    return len(_distilled(row)) if row.train else None


def labelled_steps(row: Row) -> int | None:
    """Optimiser steps with labels between the teacher and the student, those before pruning included."""
    if row.train is None or isinstance(row.cell.trained, Teacher):
        return None
    images = row.cell.teacher.data.train_images
    sparse = [stage.recipe for stage in row.cell.trained.lineage if isinstance(stage, Sparse)]
    before = sum(recipe.epochs * _steps(images, recipe.batch_size) for recipe in sparse)
    after = sum(phase not in UNLABELLED for phase in _distilled(row))
    return before + after * _steps(images, row.cell.trained.recipe.batch_size)


def kept_layers(row: Row) -> frozenset[str] | None:
    """Layers that pruning had to leave whole."""
    return frozenset(row.train.pruning.kept_layers) if row.train and row.train.pruning else None


def _steps(images: int, batch_size: int) -> int:
    """Steps of an epoch; what is left over at its end is no batch (harness.training.batches)."""
    return max(1, images // batch_size)


def _distilled(row: Row) -> list[str]:
    """The phases of a student's epochs after pruning."""
    return [epoch.phase for epoch in row.train.epochs if epoch.phase != "sparse"] if row.train else []


def _unlike(
    students: Sequence[Row], measure: Callable[[Row], V | None], words: Callable[[V, V], str]
) -> Iterator[tuple[str, list[str]]]:
    """A text for each value but the most common one; among equally common ones the first in the table's order."""
    known = [(row.cell.id, value) for row in students if (value := measure(row)) is not None]
    counts = Counter(value for _, value in known)
    if len(counts) > 1:
        usual, *others = [value for value, _ in counts.most_common()]
        for other in others:
            yield words(other, usual), [cell for cell, value in known if value == other]


def _unlike_macs(rows: Sequence[Row], students: Sequence[Row]) -> Iterator[tuple[str, list[str]]]:
    """A text for students with fewer multiply-adds than most, and one for those with more."""
    known = {row.cell.id: row.macs for row in students if row.macs}
    if not known:
        return
    usual = median_low(known.values())
    teacher = next((row.macs for row in rows if row.cell.is_teacher), None)
    share = f" (whose are {usual / teacher:.2f} of the teacher's)" if teacher else ""
    for word, side in (("fewer", -1), ("more", 1)):
        apart = [cell for cell, macs in known.items() if side * (macs - usual) > MACS_SHARE * usual]
        if apart:
            yield f"over {100 * MACS_SHARE:g} % {word} MACs than the median student{share}", apart


def _kept_otherwise(own: frozenset[str], usual: frozenset[str]) -> str:
    if len(own) == len(usual):
        return f"pruning left {len(own)} other layers whole"
    return f"pruning left {_counted(len(own), 'layer')} whole beside the classifier, not {len(usual)}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
