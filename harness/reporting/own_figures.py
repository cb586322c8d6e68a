"""The figures of the harness itself (results/benchmarks/*.json, by `make benchmarks`) as tables for its documents.

A marker names the subject in the experiment's place: <!-- table: benchmarks measurement -->
"""

from math import isfinite
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files import read_json
from harness.reporting.escaping import escaped
from harness.reporting.tables import ABSENT, Column, markdown

# What a marker has in the profile's place.
BENCHMARKS = "benchmarks"
ABOUT = ("measured_at", "harness_revision", "cores")
DISTURBED = "_disturbed"
# A longer text stands below the table.
LONGEST = 40
# What is wanted of a figure; the others are there for comparison.
WANTED = {
    "quickstart_cold_s": "≤ 300",
    "quickstart_again_s": "≤ 10",
    "plan_10000_cells_s": "≤ 2",
    "help_s": "≤ 0.5",
    "test_suite_s": "≤ 900",
    "ratio_halfwidth_max_pct": "≤ 1",
    "rerun_disagreement_max_pct": "≤ 2",
    "aa_ratio": "0.99 to 1.01",
    "minutes_per_model": "≤ 1.5",
    "cpu_image_mb": "≤ 500",
    "rebuild_unchanged_s": "≤ 3",
    "step_speedup_vs_reference_style": "≥ 3 (GPU: ≥ 10)",
    "step_speedup_vs_usual_cifar_loop": "≥ 2 (GPU: ≥ 2.5)",
    "nine_students_together_vs_alone": "≤ 0.8",
    "resume_overhead_pct": "≤ 2",
    "onnx_kinds_measured": "≥ 15",
    "ratio_halfwidth_pct": "≤ 0.5",
    "cold_start_s": "≤ 3",
    "false_alarms_pct": "≤ 5",
    "targets_proven": "≥ 4",
    "isa_overhead_pct": "−0.3 to 0.3",
    "patched_equals_faulting_pct": "−1 to 1",
    "files_to_add_architecture": "1",
    "files_to_add_dataset": "1",
    "files_to_add_criterion": "1",
    "files_to_add_kd": "1",
    "files_to_add_engine": "1",
    "modules_outside_layers": "0",
    "same_named_modules": "0",
    "import_cycles": "0",
    "ray_equal_to_local": "true",
    "ray_overhead_per_cell_s": "≤ 2",
    "ray_rss_growth_mb_per_1000_cells": "≤ 5",
    "interval_coverage_pct_min": "≥ 94",
    "compare_false_alarm_pct": "≤ 5",
    "planted_figures": "≥ 20",
    "planted_caught": "all",
    "verify_false_alarms": "0",
    "pruning_monotone": "true",
    "page_kb": "≤ 1500",
    "readme_kb": "≤ 8",
    "dead_links": "0",
    "doc_commands_failed": "0",
    "quick_teacher_accuracy_pct": "≥ 45",
    "console_errors": "0",
    "axe_violations": "0",
    "requests": "0",
    "rows_traceable_pct": "100",
    "estimator_bias_pct_max_at_15ms": "≤ 0.5",
    "kills": "≥ 50",
    "lost_cells": "0",
    "duplicated_cells": "0",
    "corrupt_records": "0",
    "results_unlike_undisturbed": "0",
    "fuzz_inputs": "≥ 20000",
    "tracebacks": "0",
    "tracebacks_when_killed": "0",
    "traps_refused": "all",
    "code_run": "false",
    "faults_md_members_tested": "all",
    "plan_100000_cells_s": "≤ 20",
    "report_10000_rows_s": "≤ 20",
}


def figures_table(results: Path, subject: str) -> str:
    """The figures of one subject as Markdown, and when, where and by which revision they were measured.

    A figure under a disturbance (`..._disturbed`) stands in a column of its own beside the one without. The ends that a
    figure lies between (`..._low` and `..._high` of an interval, or `..._least` and `..._most` of the rounds) stand in
    brackets behind it. Where there is no file yet, a line says so. HarnessError where it is not a flat JSON object.
    """
    path = results / BENCHMARKS / f"{subject}.json"
    if not path.is_file():
        return f"Not measured yet; `make benchmarks SUBJECT={subject}` does it."
    figures = _read(path)
    about = {name: figures.pop(name) for name in ABOUT if name in figures}
    ends = {end for name in figures for pair in _ends(name) for end in pair if set(pair) <= set(figures)}
    long = {name: value for name, value in figures.items() if isinstance(value, str) and len(value) > LONGEST}
    names = [name for name in figures if not name.endswith(DISTURBED) and name not in ends and name not in long]
    disturbed = [f"{name}{DISTURBED}" for name in names]
    table = [
        Column("Figure", [f"`{name}`" for name in names], figures=False, markup=True),
        Column("Measured", [_with_ends(figures, name) for name in names]),
        *(
            [Column("Disturbed", [_with_ends(figures, name) for name in disturbed])]
            if {*disturbed} & {*figures}
            else []
        ),
        Column("Wanted", [WANTED.get(name, ABSENT) for name in names], figures=False),
    ]
    told = f"{about.get('cores', '?')} cores, {str(about.get('measured_at', '?'))[:10]}"
    revision = str(about.get("harness_revision", "unknown"))[:10]
    # named by its folder alone: the text must not depend on where the results lie
    place = f"{results.resolve().name}/{BENCHMARKS}/{subject}.json"
    said = [f"`{name}`: {escaped(value)}." for name, value in long.items()]
    said.append(f"Measured on {escaped(told)}, harness {escaped(revision)}: `{place}`.")
    return "\n\n".join([markdown(table), *said])


def _ends(name: str) -> list[tuple[str, str]]:
    """The names that the ends of a figure may have: the words stand before its unit."""
    disturbed = DISTURBED if name.endswith(DISTURBED) else ""
    stem = name.removesuffix(disturbed)
    unit = "_pct" if stem.endswith("_pct") else ""
    stem, tail = stem.removesuffix(unit), f"{unit}{disturbed}"
    return [(f"{stem}_{low}{tail}", f"{stem}_{high}{tail}") for low, high in (("low", "high"), ("least", "most"))]


def _with_ends(figures: dict[str, Any], name: str) -> str:
    for low, high in _ends(name):
        if low in figures and high in figures:
            return f"{_text(figures[name])} [{_text(figures[low])}, {_text(figures[high])}]"
    return _text(figures.get(name))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except HarnessError as error:
        raise HarnessError(f"{error}; run: make benchmarks SUBJECT={path.stem}") from error
    if not isinstance(found, dict) or any(isinstance(value, dict | list) for value in found.values()):
        raise HarnessError(f"{path}: not a flat JSON object; run: make benchmarks SUBJECT={path.stem}")
    return found


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return ABSENT
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    if abs(value) >= 1000 or value == int(value):
        return f"{value:.0f}"
    # ratios are about 1, where the third decimal is what matters
    return f"{value:.3f}" if 0.1 <= abs(value) < 10 else f"{value:.3g}"
