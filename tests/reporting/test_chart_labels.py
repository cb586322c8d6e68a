from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.reporting.chart_labels import Named, place_names
from harness.reporting.chart_style import LIGHT
from tests.overlaps import faults


def a_figure(points: list[Named]) -> Figure:
    figure = Figure(figsize=(6, 4), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for point in points:
        axes.plot(point.x, point.y, "o", ms=8)
    return figure


def test_names_cover_neither_points_nor_one_another() -> None:
    points = [Named(x / 10, y / 10, f"model {x}{y}") for x in range(6) for y in range(5)]
    figure = a_figure(points)
    assert place_names(figure.axes[0], points, [((0.0, 0.25), (0.5, 0.25))], LIGHT) == []
    assert faults(figure) == []
    assert {text.get_text() for text in figure.axes[0].texts if text.get_text()} == {point.name for point in points}


def test_the_first_have_a_name_where_there_is_no_room_for_all() -> None:
    points = [Named(0.5 + number / 1000, 0.5, f"a model with a long name, number {number}") for number in range(60)]
    figure = a_figure([*points, Named(0, 0, ""), Named(1, 1, "")])
    left = place_names(figure.axes[0], points, [], LIGHT)
    assert left and points[0] not in left
    assert faults(figure) == []


def test_a_line_is_not_covered() -> None:
    points = [Named(0.5, 0.5, "model"), Named(0, 0, ""), Named(1, 1, "")]
    figure = a_figure(points)
    place_names(figure.axes[0], points[:1], [((0.5, 0.5), (1.0, 0.5))], LIGHT)
    (text,) = (text for text in figure.axes[0].texts if text.get_text())
    assert text.get_window_extent().x1 < figure.axes[0].transData.transform((0.5, 0.5))[0], "it stands on the left"
