"""Names beside the points of a chart, where they cover neither a point, nor a line, nor one another."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.reporting.chart_style import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

SIZE = 8.0
# Points: from the middle of a point to the nearest edge of its name, the closest first, and half the size of a point.
DISTANCES, HALF = (7, 12, 20, 30, 42, 56, 72), 5.5
# Half of what a line and the ends of an interval take across.
LINE = 3.5
DIRECTIONS = 24
# Inches: by how much axes are taller for each point beyond so many.
TALLER, USUAL = 0.08, 14
# From here on a line leads from the name to its point.
LEADING = 12


@dataclass(frozen=True)
class Named:
    """A point in the units of its axes, with its name."""

    x: float
    y: float
    name: str
    bold: bool = False


Line = tuple[tuple[float, float], tuple[float, float]]


def place_names(axes: "Axes", points: Sequence[Named], lines: Sequence[Line], theme: Theme) -> list[Named]:
    """Write each name at the nearest free place, the first points first; returns those that there was no room for.

    `lines` are horizontal or vertical, in the units of the axes. To be called once the axes have their final size.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    canvas = axes.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    # limits are found when they are first asked for, and where a point lies depends on them
    axes.get_xlim(), axes.get_ylim()
    renderer, scale = canvas.get_renderer(), axes.figure.dpi / 72
    at = axes.transData.transform
    middles = [at((point.x, point.y)) for point in points]
    taken = [_around(x, y, HALF * scale, HALF * scale) for x, y in middles]
    taken += [_padded(Bbox([at(one), at(other)]), LINE * scale) for one, other in lines]
    room, left = axes.get_window_extent(), []
    for point in points:
        text = axes.annotate(
            point.name, (point.x, point.y), (0, 0), textcoords="offset points", ha="center", va="center", fontsize=SIZE
        )
        text.set(color=theme.ink, fontweight="bold" if point.bold else "normal")
        extent = text.get_window_extent(renderer)
        across, up = extent.width / 2 + scale, extent.height / 2 + scale
        x, y = at((point.x, point.y))
        for distance, (east, north), (right, up_) in _places(across, up, scale):
            box = _around(x + right, y + up_, across, up)
            if _within(box, room) and not any(box.overlaps(other) for other in taken):
                text.set_position((right / scale, up_ / scale))
                taken.append(box)
                if distance > LEADING:
                    line = {"arrowstyle": "-", "color": theme.faint, "linewidth": 0.6, "shrinkA": 0, "shrinkB": HALF}
                    end = (distance * east, distance * north)
                    axes.annotate("", (point.x, point.y), end, textcoords="offset points", arrowprops=line)
                break
        else:
            text.remove()
            left.append(point)
    return left


Pair = tuple[float, float]


def room_for(points: Sequence[object]) -> float:
    """By how many inches the axes of so many named points are taller than those of other charts."""
    return TALLER * max(0, len(points) - USUAL)


def _places(across: float, up: float, scale: float) -> Iterator[tuple[float, Pair, Pair]]:
    """How far from its point a name may stand, in which direction, and where its middle is then, in pixels from there.

    The closest first, and of these the right one, the left one, and from there further up and down.
    """
    for distance in DISTANCES:
        for step in range(DIRECTIONS):
            angle = math.pi * (step % 2) + 2 * math.pi * ((step // 2 + 1) // 2 * (-1) ** (step // 2)) / DIRECTIONS
            east, north = math.cos(angle), math.sin(angle)
            # from the middle of the name to its edge in that direction
            edge = min(side / max(abs(part), 1e-9) for side, part in ((across, east), (up, north)))
            reach = distance * scale + edge
            yield distance, (east, north), (reach * east, reach * north)


def _around(x: float, y: float, across: float, up: float) -> "Bbox":
    from matplotlib.transforms import Bbox

    return Bbox([[x - across, y - up], [x + across, y + up]])


def _padded(box: "Bbox", by: float) -> "Bbox":
    from matplotlib.transforms import Bbox

    return Bbox([[box.xmin - by, box.ymin - by], [box.xmax + by, box.ymax + by]])


def _within(box: "Bbox", room: "Bbox") -> bool:
    return bool(room.xmin <= box.xmin and box.xmax <= room.xmax and room.ymin <= box.ymin and box.ymax <= room.ymax)
