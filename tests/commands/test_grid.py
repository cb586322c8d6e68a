from pathlib import Path

from harness.commands.grid import as_grid
from harness.store.states import CellState, states
from tests.synthetic import plan_for
from tests.training_kit import below


def rows(grid: str) -> list[list[str]]:
    return [line.split() for line in grid.splitlines()]


def test_a_table_is_a_row_per_pruning_and_a_column_per_method(tmp_path: Path) -> None:
    plan, paths = plan_for("quick"), below(tmp_path)
    grid = as_grid(plan, states(paths, plan), paths)
    assert plan.tables[0].title in grid
    assert ["prune", "method", "Base", "FMSE+Base", "GRAM+Base"] in rows(grid)
    assert all([name, *["missing"] * 3] in rows(grid) for name in ("l1", "bn", "gn"))
    assert grid.endswith(f"{plan.teacher.title}: missing")


def test_a_word_says_how_far_each_model_has_come(tmp_path: Path) -> None:
    plan, paths = plan_for("quick"), below(tmp_path)
    words = {"done": "benched", "failed": "failed", "changed": "changed", "missing": "trained"}
    for benching, word in words.items():
        found = [CellState(cell, "done", benching) for cell in plan.cells]  # type: ignore[arg-type]
        assert ["bn", *[word] * 3] in rows(as_grid(plan, found, paths))
    for training in ("failed", "changed"):
        found = [CellState(cell, training, "missing") for cell in plan.cells]
        assert ["bn", *[training] * 3] in rows(as_grid(plan, found, paths))


def test_what_has_a_checkpoint_is_begun(tmp_path: Path) -> None:
    plan, paths = plan_for("quick"), below(tmp_path)
    checkpoint = paths.checkpoint("quick", plan.named(["p0.3-bn-fmse-s0"])[0])
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert ["bn", "missing", "begun", "missing"] in rows(as_grid(plan, states(paths, plan), paths))
