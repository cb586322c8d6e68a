"""The chart of the page as a Vega-Lite specification: accuracy against latency ratio, with the front of what is best.

Ink is `currentColor`, so that the chart follows the page into the dark.
"""

from collections.abc import Sequence
from typing import Any

from harness.reporting.chart_style import LIGHT
from harness.reporting.differences import difference_text, to_teacher
from harness.reporting.front import most_per_latency
from harness.reporting.page.shown_tables import name_of, place_of
from harness.reporting.rows import Model, Row, fronts, models_of
from harness.reporting.tables import BEST

JSON = dict[str, Any]
INK = "currentColor"
TEACHER = "Teacher"
# Shapes for the values of the Pruning column; the teacher's is a star of five points, as Vega draws paths.
SHAPES = {"L1": "circle", "BN": "square", "GN": "triangle-up"}
OTHER_SHAPES = ("diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
STAR = "M0,-1L0.25,-0.34L0.95,-0.31L0.4,0.13L0.59,0.81L0,0.42L-0.59,0.81L-0.4,0.13L-0.95,-0.31L-0.25,-0.34Z"
ANCHORS = ("right", "left", "top", "bottom", "top-right", "bottom-right", "top-left", "bottom-left")
# Pixels. A name stands as close to its model as it can, and not so far away that it might be of another.
OFFSETS = (4, 14)
HEIGHT, LABEL, NARROW = 440, 12, 600


def picture(rows: Sequence[Row]) -> JSON | None:
    """The chart of a table's models; None where no student has both figures.

    A model trained with several seeds is one point, at its means, with its trainings small beside it.
    """
    models = models_of(rows)
    points = _points(models, rows)
    if not any(not point["teacher"] for point in points):
        return None
    trainings = [point for model in models if len(model) > 1 for point in _trainings(model)]
    students = [point for point in points if not point["teacher"]]
    shapes = _shapes(sorted({point["pruning"] for point in students}))
    colours = LIGHT.colours({point["kd"] for point in students})
    layers = [
        *_guides(points),
        _line_of_the_front(),
        _bars("x", "ratio", "accuracy"),
        _bars("y", "accuracy", "ratio"),
        _marks(shapes, colours),
    ]
    return {
        "data": {"name": "points", "values": [*trainings, *points]},
        "width": "container",
        "height": HEIGHT,
        "autosize": {"type": "fit", "contains": "padding"},
        "background": None,
        "layer": layers,
        "config": _config(),
        # not of Vega-Lite: laid over the marks once the chart is compiled
        "usermeta": {"marks": [_labels([f"{layer['name']}_marks" for layer in layers])]},
    }


def _points(models: Sequence[Model], rows: Sequence[Row]) -> list[JSON]:
    """A point for every model that has both figures."""
    places = [place_of(model) for model in models]
    ranks, best = fronts(models), most_per_latency(places)
    teacher = next((row.accuracy_pct for row in rows if row.cell.is_teacher), None)
    points = []
    for number, (model, place) in enumerate(zip(models, places, strict=True)):
        if place is None:
            continue
        first, difference = model[0], to_teacher(model, rows)
        ratio = first.ratio if len(model) == 1 and first.ratio else None
        bounds = difference.bounds if difference and not first.cell.is_teacher else None
        point = {
            **_made_by(first),
            "models": sorted(row.cell.id for row in model),
            "title": name_of(model),
            "label": _label(first, best=ranks[number] == 1),
            "teacher": first.cell.is_teacher,
            "ratio": place.ratio,
            "accuracy": place.accuracy_pct,
            "front": ranks[number] == 1,
            "best": number == best,
            "precedence": (ranks[number] == 1) + (number == best),
            "size": 130,
            "latency ratio": ratio.text(".2f") if ratio else f"{place.ratio:.2f}",
            "accuracy (%)": f"{place.accuracy_pct:.2f}",
        }
        if ratio and ratio.bounds:
            point |= dict(zip(("ratio_low", "ratio_high"), ratio.bounds, strict=True))
        if bounds and teacher is not None:
            point |= {"accuracy_low": teacher + bounds[0], "accuracy_high": teacher + bounds[1]}
            point["Δ accuracy (points)"] = difference_text(difference) if difference else ""
        points.append(point)
    return points


def _label(row: Row, best: bool) -> str:
    name = TEACHER if row.cell.is_teacher else f"{row.pruning} {row.kd.removesuffix('+Base')}"
    return f"{BEST} {name}" if best else name


def _trainings(model: Model) -> list[JSON]:
    """The single trainings of a model: small, and without labels."""
    return [
        {
            **_made_by(row),
            "models": [row.cell.id],
            "title": row.cell.title,
            "teacher": False,
            "ratio": row.ratio.value,
            "accuracy": row.accuracy_pct,
            "size": 18,
            "latency ratio": row.ratio.text(".2f"),
            "accuracy (%)": f"{row.accuracy_pct:.2f}",
        }
        for row in model
        if row.ratio and row.accuracy_pct is not None
    ]


def _made_by(row: Row) -> JSON:
    teacher = row.cell.is_teacher
    return {"pruning": TEACHER if teacher else row.pruning, "kd": TEACHER if teacher else row.kd}


def _shapes(names: Sequence[str]) -> dict[str, str]:
    """A shape for each value of the Pruning column; those without one of their own share the others in turn."""
    others = [name for name in names if name not in SHAPES]
    return {name: SHAPES.get(name) or OTHER_SHAPES[others.index(name) % len(OTHER_SHAPES)] for name in names}


def _guides(points: Sequence[JSON]) -> list[JSON]:
    """Lines at the teacher's latency and accuracy."""
    line = {"type": "rule", "color": INK, "opacity": 0.35, "strokeWidth": 1}
    teacher = [point["accuracy"] for point in points if point["teacher"]]
    return [
        {"name": f"teacher_{axis}", "mark": line, "data": {"values": [{}]}, "encoding": {axis: {"datum": at}}}
        for axis, at in [("x", 1.0), *(("y", accuracy) for accuracy in teacher)]
    ]


def _line_of_the_front() -> JSON:
    """The highest accuracy that is to be had at a latency."""
    return {
        "name": "front",
        "transform": [{"filter": "datum.front"}],
        "mark": {"type": "line", "interpolate": "step-after", "color": INK, "strokeDash": [5, 4], "strokeWidth": 1.5},
        "encoding": {
            "x": {"field": "ratio", "type": "quantitative"},
            "y": {"field": "accuracy", "type": "quantitative"},
            "order": {"field": "ratio", "type": "quantitative"},
        },
    }


def _bars(along: str, field: str, across: str) -> JSON:
    """95 % intervals along one axis, where they are known."""
    other = "y" if along == "x" else "x"
    return {
        "name": f"bars_{along}",
        "transform": [{"filter": f"isValid(datum.{field}_low)"}],
        "mark": {"type": "rule", "strokeWidth": 1.5},
        "encoding": {
            along: {"field": f"{field}_low", "type": "quantitative"},
            f"{along}2": {"field": f"{field}_high"},
            other: {"field": across, "type": "quantitative"},
            "color": {"field": "kd", "type": "nominal"},
            "opacity": {"condition": {"test": "datum.hidden", "value": 0.08}, "value": 0.55},
        },
    }


def _marks(shapes: dict[str, str], colours: dict[str, str]) -> JSON:
    said = ["title", "accuracy (%)", "Δ accuracy (points)", "latency ratio"]
    return {
        "name": "models",
        "mark": {"type": "point", "filled": True, "stroke": INK, "cursor": "pointer"},
        "encoding": {
            "x": {
                "field": "ratio",
                "type": "quantitative",
                "title": "Latency divided by the teacher's (left is faster)",
                "scale": {"zero": False, "nice": True, "padding": 12},
            },
            "y": {
                "field": "accuracy",
                "type": "quantitative",
                "title": "Accuracy (%)",
                "scale": {"zero": False, "nice": True, "padding": 12},
            },
            "color": {
                "field": "kd",
                "type": "nominal",
                "title": "KD",
                "scale": {"domain": [*colours, TEACHER], "range": [*colours.values(), INK]},
                "legend": {"values": [*colours]},
            },
            "shape": {
                "field": "pruning",
                "type": "nominal",
                "title": "Pruning",
                "scale": {"domain": [*shapes, TEACHER], "range": [*shapes.values(), STAR]},
            },
            "size": {"field": "size", "type": "quantitative", "scale": None, "legend": None},
            "opacity": {"condition": {"test": "datum.hidden", "value": 0.12}, "value": 1},
            "strokeWidth": {"condition": {"test": "datum.best", "value": 3}, "value": 0.6},
            "tooltip": [{"field": field, "type": "nominal"} for field in said],
        },
    }


def _labels(others: Sequence[str]) -> JSON:
    """Names beside the models, where they cover neither other marks nor each other: a feature that Vega-Lite lacks.

    Where there is no room for all, the most accuracy per latency comes first, and then the front.
    """
    mark = "datum.datum"
    return {
        "type": "text",
        "name": "labels",
        "from": {"data": "models_marks"},
        "interactive": False,
        "encode": {
            "enter": {
                "text": {"signal": f"{mark}.label || ''"},
                "fill": {"value": INK},
                "fontSize": {"signal": f"width < {NARROW} ? {LABEL - 2} : {LABEL}"},
                "fontWeight": {"signal": f"{mark}.front && width >= {NARROW} ? 'bold' : 'normal'"},
            }
        },
        "transform": [
            {
                "type": "label",
                # a place that is hidden has no width, and a canvas needs some
                "size": {"signal": "[max(1, width), max(1, height)]"},
                "anchor": [*ANCHORS] * len(OFFSETS),
                "offset": [offset for offset in OFFSETS for _ in ANCHORS],
                "avoidMarks": others,
                "avoidBaseMark": True,
                "sort": {"field": f"{mark}.precedence", "order": "descending"},
            }
        ],
    }


def _config() -> JSON:
    ink = {"labelColor": INK, "titleColor": INK, "titleFontWeight": "normal"}
    return {
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": {
            **ink,
            "domainColor": INK,
            "tickColor": INK,
            "gridColor": INK,
            "gridOpacity": 0.12,
            "labelFontSize": LABEL,
            "titleFontSize": LABEL,
        },
        "axisX": {"grid": False, "tickCount": 6},
        "axisY": {"tickCount": 6},
        "legend": {
            **ink,
            "orient": "bottom",
            "direction": "horizontal",
            "columns": {"expr": f"width < {NARROW} ? 3 : 12"},
            "labelLimit": 200,
            "labelFontSize": LABEL,
            "titleFontSize": LABEL,
            "symbolSize": 90,
            "symbolOpacity": 1,
            "symbolFillColor": INK,
            "layout": {
                "bottom": {
                    "anchor": "start",
                    "direction": {"signal": f"width < {NARROW} ? 'vertical' : 'horizontal'"},
                    "margin": {"signal": f"width < {NARROW} ? 8 : 24"},
                }
            },
        },
    }
