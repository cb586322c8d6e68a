"""Rows with all that a chart can show."""

from pathlib import Path
from typing import Any

import numpy as np

from harness.plan.planning import Plan
from harness.reporting.reading import read_rows
from harness.reporting.rows import Row
from harness.store.records import Epoch, TrainRecord
from tests.documents import Load
from tests.reporting.plans import own_plan, write_methods
from tests.synthetic import ACCURACY, LEFT, change, fill_results, keep_predictions

STUDYS = ["base", "fmse", "gram"]
TITLES = ["AT", "CRD", "DIST", "DKD", "Logit Std.", "RKD", "ReviewKD"]


def all_that_can_be_shown(
    methods: int, criteria: list[str], seeds: int, load: Load, folder: Path, patch: Any
) -> list[Row]:
    """Rows with all that a chart can show."""
    names = STUDYS
    if methods == 12:
        folder.mkdir()
        patch.syspath_prepend(folder)
        own = write_methods(folder, TITLES)
        for number, name in enumerate(own):
            patch.setitem(LEFT, name, 0.42 + 0.04 * number)
            patch.setitem(ACCURACY, name, 70.5 + (number * 37 % 11) / 2)
        names = ["none", "scratch", *STUDYS, *own]
    plan = own_plan(load, {"kd_method": names, "prune_method": criteria, "seed": list(range(seeds))})
    results = folder / "results"
    fill_results(plan, results)
    keep_predictions(results, plan)
    _trained(plan, results)
    return read_rows(plan, plan.tables[0], results)


def _trained(plan: Plan, results: Path) -> None:
    """Epochs, tested ones among them, and widths, which synthetic records lack."""
    draw = np.random.default_rng(0)
    before = [64, *[64, 64, 256] * 3, *[128, 128, 512] * 4, *[256, 256, 1024] * 6, *[512, 512, 2048] * 3]
    for cell in plan.cells:
        left = 1.0 if cell.is_teacher else 0.75
        after = [width if left == 1 else int(width * left * (0.7 + 0.6 * draw.random())) for width in before]
        widths = {
            f"layer{number}": min(one, other) for number, (one, other) in enumerate(zip(after, before, strict=True))
        }
        phases = ["teacher"] * 20 if cell.is_teacher else ["sparse", "feature", "feature", "base", "base"]
        epochs = [
            Epoch(
                phase=phase,
                loss=1.0,
                lr=0.1,
                images_per_s=100.0,
                accuracy_pct=75 - 60 / (number + 1) + 2 * draw.random(),
                test_accuracy_pct=None if phase in ("teacher", "sparse") else 70 - 20 / number + 2 * draw.random(),
            )
            for number, phase in enumerate(phases)
        ]
        change(results, plan, cell.id, TrainRecord, widths=widths, epochs=epochs)
