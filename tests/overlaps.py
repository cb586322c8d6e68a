"""What covers what in a drawn figure, by the extents that matplotlib gives."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

Corners = npt.NDArray[np.float64]
# Pixels that two extents may share: they are wider than the ink.
SPARE = 1.0


def faults(figure: Figure) -> list[str]:
    """A line for each text that lies on another one, on a mark, on the axes' line, or outside the figure."""
    # legends know their places only once they have been drawn
    figure.draw_without_rendering()
    texts, marks = list(_texts(figure)), list(_marks(figure))
    found = [f"{texts[one][0]!r} covers {texts[other][0]!r}" for one, other in _pairs(texts, texts) if one < other]
    found += [f"{texts[text][0]!r} covers the mark {marks[mark][0]}" for text, mark in _pairs(texts, marks)]
    # Axes and legends keep to themselves.
    areas = [(f"axes {axes.get_title(loc='left')!r}", _corners(axes.get_window_extent())) for axes in figure.axes]
    areas += [("legend", _corners(legend.get_window_extent())) for legend in figure.legends]
    found += [f"{one[0]} covers {other[0]}" for one, other in combinations(areas, 2) if _overlap(one[1], other[1])]
    width, height = figure.get_size_inches() * figure.dpi
    found += [f"{text!r} is cut off" for text, box in texts if not _inside(box, width, height)]
    return found


def _texts(figure: Figure) -> Iterator[tuple[str, Corners]]:
    spare = {text for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for text in _out_of_view(axis)}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip() and text not in spare:
            yield text.get_text(), _turned(text)


def _out_of_view(axis: Any) -> set[Any]:
    """Labels of ticks that matplotlib keeps and does not draw."""
    drawn = [label for tick in axis._update_ticks() for label in (tick.label1, tick.label2)]
    return set(axis.findobj(Text)) - {axis.label, axis.offsetText, *drawn}


def _marks(figure: Figure) -> Iterator[tuple[str, Corners]]:
    for axes in figure.axes:
        for line in axes.get_lines():
            assert isinstance(line, Line2D)
            if line.get_marker() in ("None", "", None) or not line.get_visible():
                continue
            half = line.get_markersize() * figure.dpi / 72 / 2
            for x, y in line.get_transform().transform(line.get_xydata()):
                yield f"at {x:.0f}, {y:.0f}", _corners(Bbox([[x - half, y - half], [x + half, y + half]]))


def _turned(text: Text) -> Corners:
    """The corners of a text; the extents of one on the slant are those of a much larger box."""
    turn = text.get_rotation()
    if turn % 90 == 0:
        return _corners(text.get_window_extent())
    outer = text.get_window_extent()
    text.set_rotation(0)
    level = text.get_window_extent()
    text.set_rotation(turn)
    angle = np.deg2rad(turn)
    turning = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([(outer.x0 + outer.x1) / 2, (outer.y0 + outer.y1) / 2])
    half = np.array([level.width, level.height]) / 2
    return np.asarray([turning @ (half * corner) + middle for corner in ((-1, -1), (1, -1), (1, 1), (-1, 1))])


def _corners(box: Bbox) -> Corners:
    return np.array([(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)])


def _pairs(ones: Sequence[tuple[str, Corners]], others: Sequence[tuple[str, Corners]]) -> Iterator[tuple[int, int]]:
    """Which of the first overlap which of the second, by number."""
    if not ones or not others:
        return
    (low, high), (least, most) = (
        (np.array([box.min(axis=0) for _, box in side]), np.array([box.max(axis=0) for _, box in side]))
        for side in (ones, others)
    )
    near = ((low[:, None] < most[None]) & (least[None] < high[:, None])).all(axis=2)
    for one, other in zip(*map(np.ndarray.tolist, np.nonzero(near)), strict=True):
        if _overlap(ones[one][1], others[other][1]):
            yield one, other


def _overlap(one: Corners, other: Corners) -> bool:
    """Whether two rectangles, each turned as it likes, share more than a seam: no side of either has them apart."""
    for box in (one, other):
        for side in (box[1] - box[0], box[2] - box[1]):
            along = side / max(float(np.linalg.norm(side)), 1e-9)
            first, second = one @ along, other @ along
            if min(first.max(), second.max()) - max(first.min(), second.min()) <= SPARE:
                return False
    return True


def _inside(box: Corners, width: float, height: float) -> bool:
    return bool((box >= -SPARE).all() and (box <= np.array([width, height]) + SPARE).all())
