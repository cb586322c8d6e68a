import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest

from harness.plan.planning import Plan
from harness.reporting import charts, seeds_chart
from harness.reporting.chart_files import as_svg
from harness.reporting.chart_style import (
    DARK,
    LEGEND_CHARACTERS,
    LIGHT,
    PRUNING_MARKS,
    THEMES,
    Theme,
    legend_lines,
    legend_mark,
    pruning_marks,
)
from harness.reporting.charts import FORMATS, PICTURES, Picture
from harness.reporting.reading import read_rows
from harness.reporting.rows import Row
from harness.reporting.table_document import full_document
from harness.store.records import AccuracyRecord, Interval, LatencyRecord
from tests.documents import Load
from tests.reporting.plans import own_plan, write_methods
from tests.reporting.shown import all_that_can_be_shown
from tests.synthetic import ACCURACY, LEFT, change, fill_results, plan_for

PNG = b"\x89PNG\r\n\x1a\n"
uncached = charts.draw
ROOT = Path(__file__).parents[2]
# As the eye sees them with one of the three kinds of cone missing (Machado et al., 2009), on linear sRGB.
EYES = {
    "usual": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
}


def main_chart(rows: list[Row]) -> charts.Chart:
    return charts.charts_of(rows)[charts.MAIN]


def drawable(rows: list[Row]) -> bool:
    return main_chart(rows).drawable(rows)


def draw(rows: list[Row], title: str, subtitle: str) -> dict[Picture, bytes]:
    # never one that was drawn for another test
    return {
        picture: content
        for form in FORMATS
        for picture, content in uncached(main_chart(rows), rows, title, subtitle, form).items()
    }


def is_current(path: Path, picture: Picture, rows: list[Row], title: str, subtitle: str) -> bool:
    return charts.is_current(path, picture, main_chart(rows), rows, title, subtitle)


def rows_of(plan: Plan, results: Path) -> list[Row]:
    return read_rows(plan, plan.tables[0], results)


@pytest.mark.parametrize("experiment", ["seeds", "prune-0.3", "controlled"])
def test_the_same_rows_give_the_same_bytes(experiment: str, tmp_path: Path) -> None:
    plan = plan_for("long", experiments=[experiment])
    fill_results(plan, tmp_path)
    rows = rows_of(plan, tmp_path)
    assert drawable(rows)
    one, two = draw(rows, "Title", "subtitle"), draw(rows, "Title", "subtitle")
    assert set(one) == set(PICTURES) and len(set(one.values())) == 4
    assert one == two
    for picture, content in one.items():
        assert content.startswith(PNG if picture.form == "png" else b"<?xml")
        assert not [said for said in (b"tIME", b"Software", b"matplotlib", b"<dc:date") if said in content.lower()]


@pytest.mark.parametrize("experiment", ["seeds", "prune-0.3"])
def test_a_file_is_known_by_what_it_shows(experiment: str, tmp_path: Path) -> None:
    plan = plan_for("long", experiments=[experiment])
    fill_results(plan, tmp_path)
    rows = rows_of(plan, tmp_path)
    for picture, content in draw(rows, "Title", "subtitle").items():
        path = tmp_path / f"chart{picture.ending}"
        path.write_bytes(content)
        assert is_current(path, picture, rows, "Title", "subtitle")
        assert not is_current(path, picture, rows, "Other title", "subtitle")
        assert not is_current(path, picture, rows, "Title", "other subtitle")
        assert not is_current(path, picture, rows[:-1], "Title", "subtitle")
        for other in PICTURES:
            assert is_current(path, other, rows, "Title", "subtitle") == (other.theme is picture.theme)
        assert not is_current(path.with_stem("none"), picture, rows, "Title", "subtitle")


def test_text_of_an_svg_stays_text_and_coordinates_are_short(tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    svg = draw(rows_of(plan, tmp_path), "<b> & 3.14159", "subtitle")[Picture(LIGHT, "svg")].decode()
    tree = ElementTree.fromstring(svg)
    texts = ["".join(text.itertext()) for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<b> & 3.14159", "teacher", "Accuracy (%)"} <= set(texts)
    assert not re.search(r"\d\.\d{3}", re.sub(r">[^<]*<", "><", svg).split("<defs>", 1)[1])
    assert "font-family" in tree.attrib and len(svg) < 60_000


@pytest.mark.parametrize("experiment", ["seeds", "prune-0.3"])
def test_gaps_are_no_obstacle(experiment: str, tmp_path: Path) -> None:
    plan = plan_for("lite", experiments=[experiment])
    fill_results(plan, tmp_path, skip={plan.teacher.id, "p0.3-bn-base-s0", "p0.3-bn-fmse-s0"})
    rows = rows_of(plan, tmp_path)
    assert drawable(rows)
    assert all(len(content) > 8_000 for content in draw(rows, "Title", "subtitle").values())


@pytest.mark.parametrize("experiment", ["seeds", "prune-0.3"])
def test_figures_that_are_no_numbers_are_gaps(experiment: str, tmp_path: Path) -> None:
    plan, nan = plan_for("lite", experiments=[experiment]), float("nan")
    fill_results(plan, tmp_path)
    change(tmp_path, plan, "p0.3-bn-base-s0", AccuracyRecord, accuracy_pct=nan)
    ratio = Interval(value=1, low=1, high=1).model_copy(update={"value": nan})
    change(tmp_path, plan, "p0.3-bn-gram-s0", LatencyRecord, ratio_to_teacher=ratio)
    assert set(draw(rows_of(plan, tmp_path), "Title", "subtitle")) == set(PICTURES)


def test_without_a_student_there_is_no_chart(tmp_path: Path) -> None:
    for experiment in ("seeds", "prune-0.3"):
        plan = plan_for("lite", experiments=[experiment])
        fill_results(plan, tmp_path, skip={cell.id for cell in plan.cells if not cell.is_teacher})
        assert not drawable(rows_of(plan, tmp_path))


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_twelve_methods_with_titles_of_any_kind_are_drawn(
    seeds: list[int], load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = ["$\\frac$", "costs $5 and $6", "^_{", "a\nb", "<b>", "%s {0}", "DKD"]
    monkeypatch.syspath_prepend(tmp_path)
    own = write_methods(tmp_path, titles)
    for table, value in ((LEFT, 0.5), (ACCURACY, 71.0)):
        for name in own:
            monkeypatch.setitem(table, name, value)
    plan = own_plan(load, {"kd_method": ["none", "scratch", "base", "fmse", "gram", *own], "seed": seeds})
    fill_results(plan, tmp_path)
    rows = rows_of(plan, tmp_path)
    assert len({row.kd for row in rows if not row.cell.is_teacher}) == 12
    svg = uncached(main_chart(rows), rows, "$\\frac$ and $", "$\\alpha$")[Picture(LIGHT, "svg")]
    assert b">$\\frac$ and $</text>" in svg


@pytest.mark.parametrize("chart", [*charts.charts_of([]).values(), seeds_chart], ids=lambda chart: chart.__name__)
def test_the_dark_picture_is_the_one_that_the_dark_theme_draws(
    chart: charts.Chart, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = all_that_can_be_shown(3, ["bn"], 2, load, tmp_path / "own", monkeypatch)
    recoloured = uncached(chart, rows, "Title", "#0072b2")[Picture(DARK, "svg")]
    with charts.drawn(chart, rows, "Title", "#0072b2", DARK) as figure:
        drawn = as_svg(figure)
    # shapes have names that their colours count for
    names = re.compile(rb'(?<=[ "#(])[mph][0-9a-f]{10}')
    assert names.sub(b"", drawn) == names.sub(b"", recoloured[: len(recoloured) - len(stamp_of(recoloured))])


def stamp_of(svg: bytes) -> bytes:
    return svg[svg.rindex(b"<!-- Source") :]


@pytest.mark.parametrize("theme", THEMES, ids=[theme.name for theme in THEMES])
def test_known_methods_and_criteria_keep_their_look(theme: Theme) -> None:
    names = {"Base", "GRAM+Base", "DKD", "Logit Std."}
    colours = theme.colours(names)
    assert (colours["Base"], colours["GRAM+Base"]) == (theme.known["Base"], theme.known["GRAM+Base"])
    marks = pruning_marks({"L1", "BN", "GN", "Random", "Taylor"})
    assert {name: marks[name] for name in PRUNING_MARKS} == PRUNING_MARKS
    assert marks["Random"] != marks["Taylor"]


@pytest.mark.parametrize("known", range(6))
def test_fourteen_methods_or_criteria_look_different(known: int) -> None:
    looks: list[tuple[Callable[[set[str]], dict[str, str]], Mapping[str, str]]] = [
        *((theme.colours, theme.known) for theme in THEMES),
        (pruning_marks, PRUNING_MARKS),
    ]
    for assign, ours in looks:
        names = {*list(ours)[:known], *(f"Method {number}" for number in range(14))}
        names = set(sorted(names)[:14])
        assert len(set(assign(names).values())) == 14
        # more of them still get something
        assert len(assign({*names, *"abcdefgh"})) == 22


@pytest.mark.parametrize("theme", THEMES, ids=[theme.name for theme in THEMES])
@pytest.mark.parametrize("eye", EYES)
def test_colours_can_be_told_apart(eye: str, theme: Theme) -> None:
    colours = [*theme.known.values(), *theme.more, theme.background, theme.ink]
    seen = {colour: lab(np.array(EYES[eye]) @ linear(colour)) for colour in colours}
    distance = {(one, two): float(np.linalg.norm(seen[one] - seen[two])) for one, two in combinations(seen, 2)}
    closest = min(distance, key=lambda pair: distance[pair])
    # Some ten times what is just noticeable.
    assert distance[closest] > 15, closest


def linear(colour: str) -> npt.NDArray[np.float64]:
    """#rrggbb as linear sRGB."""
    channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Linear sRGB as CIE L*a*b* under D65."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = matrix @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_a_legend_is_broken_into_lines_that_fit() -> None:
    entries: list[Any] = [legend_mark("o", "#000000", f"method {number}" * 2) for number in range(12)]
    lines = list(legend_lines(entries))
    assert [entry for line in lines for entry in line] == entries
    assert len(lines) > 1
    for line in lines:
        assert sum(len(str(entry.get_label())) for entry in line) <= LEGEND_CHARACTERS
    assert list(legend_lines([])) == []


DRAW = """
from pathlib import Path
from harness.reporting.charts import MAIN, charts_of, draw
from harness.reporting.reading import read_rows
from tests.synthetic import fill_results, plan_for

plan = plan_for("lite", experiments=["prune-0.3"])
fill_results(plan, Path("results"))
rows = read_rows(plan, plan.tables[0], Path("results"))
for picture, content in draw(charts_of(rows)[MAIN], rows, "Title", "subtitle").items():
    Path(f"chart{picture.ending}").write_bytes(content)
"""


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_the_environments_backend_does_not_matter(backend: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", DRAW], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "chart.svg").read_bytes().startswith(b"<?xml")


def test_matplotlib_is_not_imported_before_a_chart_is_drawn() -> None:
    program = "import sys, harness.reporting.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_reporting_needs_no_torch() -> None:
    names = ("torch", "onnx", "onnxruntime", "harness.training", "harness.bench")
    program = f"import sys, harness.reporting.report; sys.exit(any(name in sys.modules for name in {names}))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_a_table_with_very_many_rows_has_no_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for("lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    (table,) = plan.tables
    rows = read_rows(plan, table, tmp_path)
    assert "<picture>" in full_document(plan, table, rows, tmp_path, tmp_path)
    monkeypatch.setattr(charts, "MOST_ROWS", len(rows) - 1)
    assert charts.charts_of(rows) == {}
    text = full_document(plan, table, rows, tmp_path, tmp_path)
    assert "<picture>" not in text and all(row.cell.title in text for row in rows)
