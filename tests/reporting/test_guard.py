from pathlib import Path
from typing import Any

import pytest

from harness.plan.planning import Plan
from harness.reporting.guard import footnotes, labelled_steps, signs
from harness.reporting.reading import read_rows
from harness.reporting.rows import Row
from harness.store.records import Epoch, TrainRecord, load
from tests.documents import Load
from tests.reporting.plans import own_plan
from tests.synthetic import change, fill_results, path_of, plan_for

CELL = "p0.3-bn-gram-s0-controlled"


def rows_of(plan: Plan, results: Path) -> list[Row]:
    return read_rows(plan, plan.tables[0], results)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Students of one pruning that were made alike."""
    plan = plan_for("lite", experiments=["controlled-bn"])
    fill_results(plan, tmp_path)
    macs = load(path_of(tmp_path, plan, plan.cells[1].id, TrainRecord), TrainRecord).macs
    for cell in plan.cells[1:]:
        change(tmp_path, plan, cell.id, TrainRecord, macs=macs, epochs=epochs("joint", 2))
    assert footnotes(rows_of(plan, tmp_path)) == []
    return plan


def epochs(phase: str, count: int) -> list[Epoch]:
    return [Epoch(phase=phase, loss=1.0, lr=0.1, images_per_s=100.0)] * count


def test_a_student_that_trained_longer_has_a_footnote(plan: Plan, tmp_path: Path) -> None:
    change(tmp_path, plan, CELL, TrainRecord, epochs=[*epochs("sparse", 1), *epochs("base", 3)])
    length, labels = footnotes(rows_of(plan, tmp_path))
    assert (length.sign, length.text, length.cells) == ("¹", "trained for 3 epochs, not 2", frozenset({CELL}))
    assert labels.cells == {CELL}, "the study's losses use no labels"
    assert signs(rows_of(plan, tmp_path)) == {CELL: "¹ ²"}


def test_a_student_with_other_layers_left_whole_has_one(plan: Plan, tmp_path: Path) -> None:
    pruning = load(path_of(tmp_path, plan, CELL, TrainRecord), TrainRecord).pruning
    assert pruning
    for kept, text in ((["conv1"], "pruning left 1 layer whole beside the classifier, not 0"), ([], None)):
        change(tmp_path, plan, CELL, TrainRecord, pruning=pruning.model_copy(update={"kept_layers": kept}))
        assert [one.text for one in footnotes(rows_of(plan, tmp_path))] == ([text] if text else [])
    others = {cell.id: ["a", "b"] for cell in plan.cells[1:]} | {CELL: ["a", "c"]}
    for cell, kept in others.items():
        change(tmp_path, plan, cell, TrainRecord, pruning=pruning.model_copy(update={"kept_layers": kept}))
    (found,) = footnotes(rows_of(plan, tmp_path))
    assert (found.text, found.cells) == ("pruning left 2 other layers whole", frozenset({CELL}))


@pytest.mark.parametrize(("factor", "text"), [(1.04, None), (1.06, "more"), (0.96, None), (0.94, "fewer")])
def test_a_student_with_other_macs_has_one(plan: Plan, tmp_path: Path, factor: float, text: str | None) -> None:
    macs = load(path_of(tmp_path, plan, CELL, TrainRecord), TrainRecord).macs
    assert macs
    change(tmp_path, plan, CELL, TrainRecord, macs=round(macs * factor))
    found = footnotes(rows_of(plan, tmp_path))
    assert [one.cells for one in found] == ([{CELL}] if text else [])
    assert all(one.text.startswith(f"over 5 % {text} MACs than the median student") for one in found)


def test_labelled_steps_count_sparse_training_and_the_last_batch_of_an_epoch_is_left_out(
    load: Load, tmp_path: Path
) -> None:
    recipe: dict[str, Any] = {"student": {"epochs": 2, "batch_size": 300}, "data": {"train_images": 1000}}
    plan = own_plan(load, {"kd_method": ["none"], "prune_method": ["l1", "bn"]}, recipe)
    fill_results(plan, tmp_path)
    for cell in plan.cells[1:]:
        change(tmp_path, plan, cell.id, TrainRecord, epochs=epochs("labels", 2))
    steps = {row.cell.prune_method: labelled_steps(row) for row in rows_of(plan, tmp_path)}
    sparse = plan.settings.pruning.sparse
    assert steps == {None: None, "l1": 6, "bn": 6 + sparse.epochs * (1000 // sparse.batch_size)}


def test_students_without_a_record_neither_have_footnotes_nor_decide_what_is_usual(plan: Plan, tmp_path: Path) -> None:
    for cell in plan.cells[1:-1]:
        path_of(tmp_path, plan, cell.id, TrainRecord).unlink()
    assert footnotes(rows_of(plan, tmp_path)) == []


def test_the_studys_protocol_is_marked_and_the_controlled_one_is_not(tmp_path: Path) -> None:
    texts = {}
    for experiment in ("prune-0.3", "controlled"):
        plan = plan_for("lite", experiments=[experiment])
        fill_results(plan, tmp_path)
        texts[experiment] = " ".join(one.text for one in footnotes(rows_of(plan, tmp_path)))
    assert "steps of training with labels" in texts["prune-0.3"]
    assert "steps of training with labels" not in texts["controlled"]
