import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.reporting.own_figures import figures_table
from harness.reporting.reading import Reading
from harness.reporting.report import check_report, write_report
from tests.synthetic import plan_for

ABOUT = {"measured_at": "2026-01-02T03:04:05+00:00", "harness_revision": "0123456789abcdef", "cores": 2}
FIGURES = {"help_s": 0.0587, "plan_10000_cells_s": 1.2281, "aa_ratio": 1.0, "device": "cpu", "extra": None}
README = "# R\n\n<!-- table: benchmarks main -->\n<!-- end -->\n"


def leave(results: Path, content: Any = None, subject: str = "main", **figures: Any) -> None:
    """A file of figures: `figures` alone, or the usual ones with changes, or any text."""
    path = results / f"benchmarks/{subject}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {**ABOUT, **(figures or {**FIGURES, **(content if isinstance(content, dict) else {})})}
    path.write_text(content if isinstance(content, str) else json.dumps(whole))


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_every_figure_is_a_row_with_what_is_wanted_of_it(tmp_path: Path) -> None:
    leave(tmp_path)
    text = figures_table(tmp_path, "main")
    assert rows(text)[0] == ["Figure", "Measured", "Wanted"]
    assert rows(text)[2:] == [
        ["`help_s`", "0.0587", "≤ 0.5"],
        ["`plan_10000_cells_s`", "1.228", "≤ 2"],
        ["`aa_ratio`", "1", "0.99 to 1.01"],
        ["`device`", "cpu", "—"],
        ["`extra`", "—", "—"],
    ]
    assert "Measured on 2 cores, 2026-01-02, harness 0123456789:" in text


def test_disturbed_figures_stand_beside_the_others(tmp_path: Path) -> None:
    leave(tmp_path, {"aa_ratio_disturbed": 1.0042})
    found = rows(figures_table(tmp_path, "main"))
    assert found[0] == ["Figure", "Measured", "Disturbed", "Wanted"]
    assert ["`aa_ratio`", "1", "1.004", "0.99 to 1.01"] in found
    assert not any("_disturbed" in cell for row in found for cell in row)


def test_what_a_figure_lies_between_stands_behind_it_and_in_no_row_of_its_own(tmp_path: Path) -> None:
    ends = {"aa_ratio_low": 0.9987, "aa_ratio_high": 1.0, "x_pct": 2.5, "x_least_pct": -1.25, "x_most_pct": 12.34}
    leave(tmp_path, {**ends, "aa_ratio_disturbed": 1.5, "aa_ratio_low_disturbed": 1.4, "aa_ratio_high_disturbed": 1.6})
    found = rows(figures_table(tmp_path, "main"))
    assert ["`aa_ratio`", "1 [0.999, 1]", "1.500 [1.400, 1.600]", "0.99 to 1.01"] in found
    assert ["`x_pct`", "2.500 [-1.250, 12.3]", "—", "—"] in found
    assert not any(word in row[0] for row in found for word in ("low", "high", "least", "most"))


def test_what_is_wanted_of_the_figures_of_the_house(tmp_path: Path) -> None:
    house = {
        **{f"files_to_add_{kind}": 1 for kind in ("architecture", "dataset", "criterion", "kd", "engine")},
        **dict.fromkeys(["modules_outside_layers", "same_named_modules", "import_cycles"], 0),
        "plan_10000_cells_s": 1.23,
        "package_lines": 13000,
    }
    leave(tmp_path, subject="house", **house)
    found = {row[0].strip("`"): row[1:] for row in rows(figures_table(tmp_path, "house"))[2:]}
    assert {name: wanted for name, (_, wanted) in found.items()} == {
        **{f"files_to_add_{kind}": "1" for kind in ("architecture", "dataset", "criterion", "kd", "engine")},
        **dict.fromkeys(["modules_outside_layers", "same_named_modules", "import_cycles"], "0"),
        "plan_10000_cells_s": "≤ 2",
        "package_lines": "—",
    }


def test_what_is_no_number_is_a_gap_and_text_is_no_markup(tmp_path: Path) -> None:
    leave(tmp_path, {"aa_ratio": float("nan"), "help_s": float("inf"), "device": "a | <b>"})
    found = {row[0]: row[1] for row in rows(figures_table(tmp_path, "main").replace(r"\|", "¦"))[2:]}
    assert (found["`aa_ratio`"], found["`help_s`"], found["`device`"]) == ("—", "—", "a ¦ &lt;b>")


def test_a_long_text_stands_below_the_table(tmp_path: Path) -> None:
    kinds = ", ".join(["fp32", "int8"] * 10)
    leave(tmp_path, {"kinds": kinds, "target": "the i9-9900K"})
    text = figures_table(tmp_path, "main")
    assert ["`target`", "the i9-9900K", "—"] in rows(text)
    assert not any("fp32" in cell for row in rows(text) for cell in row)
    assert f"`kinds`: {kinds}." in text


def test_where_the_results_lie_makes_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    text = figures_table(tmp_path / "results", "main")
    assert text.endswith("`results/benchmarks/main.json`.")
    assert figures_table(Path("results"), "main") == text


def test_a_missing_or_damaged_file_names_the_command(tmp_path: Path) -> None:
    assert "`make benchmarks SUBJECT=main`" in figures_table(tmp_path, "main")
    for content in ('{"help_s": 0.0', "[1]", '{"help_s": [0.1]}'):
        leave(tmp_path, content)
        with pytest.raises(HarnessError, match="run: make benchmarks SUBJECT=main"):
            figures_table(tmp_path, "main")


def test_a_report_fills_them_in_and_notices_when_they_are_stale(tmp_path: Path) -> None:
    plan, readme = plan_for("quick"), tmp_path / "README.md"
    readme.write_text(README)
    # a results folder without them leaves them as they are
    write_report(Reading(plan, tmp_path), [readme], ["quick"])
    assert readme.read_text() == README
    leave(tmp_path)
    write_report(Reading(plan, tmp_path), [readme], ["quick"])
    assert "| `help_s` " in readme.read_text()
    assert check_report([readme], tmp_path, plan_for) == []
    leave(tmp_path, {"help_s": 0.3})
    assert check_report([readme], tmp_path, plan_for) == [
        f"{readme}:3: the table of benchmarks main is stale; run: make report"
    ]
