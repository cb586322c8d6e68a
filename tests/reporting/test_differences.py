import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from harness.plan.planning import Plan
from harness.predictions import Predictions, answers_name
from harness.proportions import Right, crossed_difference, paired_difference
from harness.reporting import differences
from harness.reporting.differences import difference, difference_text, mean_ratio, ranks, to_teacher
from harness.reporting.foot import how_to_read
from harness.reporting.reading import read_rows
from harness.reporting.rows import Row
from harness.reporting.tables import ABSENT, columns, seed_means
from harness.store.records import AccuracyRecord, Interval
from tests.synthetic import change, fill_results, keep_predictions, measure, plan_for

DELTA = "Δ accuracy (points)"
PLAN = plan_for("lite", experiments=["prune-0.3"])
IMAGES = 1000


def filled(plan: Plan, results: Path) -> list[Row]:
    """The rows of records with answers."""
    fill_results(plan, results)
    keep_predictions(results, plan)
    return read_rows(plan, plan.tables[0], results)


def cells(plan: Plan, results: Path) -> dict[str, list[str]]:
    return {column.header: column.cells for column in columns(read_rows(plan, plan.tables[0], results))}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """A teacher and nine students, to be given answers of a test's own."""
    return filled(PLAN, tmp_path_factory.mktemp("rows"))


def answering(row: Row, right: Sequence[bool] | Right) -> Row:
    """The row as if its model had answered these images rightly; all are of class 0."""
    wrong = np.where(right, 0, 1).astype(np.uint8)
    return replace(row, predictions=Predictions(wrong, np.zeros(len(wrong), np.uint8)))


@given(st.floats(-100, 100), st.floats(0, 50), st.floats(0, 50))
def test_the_mark_is_there_exactly_where_the_interval_covers_0(value: float, below: float, above: float) -> None:
    interval = Interval(value=value, low=value - below, high=value + above)
    assert difference_text(interval).startswith("≈") == (value - below <= 0 <= value + above)


def test_a_difference_has_its_sign_and_its_interval_if_there_is_one() -> None:
    assert difference_text(Interval(value=-0.8, low=-1.52, high=-0.08)) == "-0.8 ± 0.7"
    assert difference_text(Interval(value=-0.8, low=-1.7, high=-0.1)) == "-0.8 [-1.7, -0.1]"
    assert difference_text(Interval(value=-0.04, low=-0.52, high=0.44)) == "≈ +0.0 ± 0.5"
    assert difference_text(Interval(value=-0.8)) == "-0.8"


def test_every_row_stands_beside_the_teacher_on_the_same_images(rows: list[Row]) -> None:
    teacher, *students = rows
    assert teacher.predictions and to_teacher([teacher], rows) == Interval(value=0, low=0, high=0)
    for row in students:
        assert row.predictions and row.accuracy_pct and teacher.accuracy_pct
        found = paired_difference(teacher.predictions.right, row.predictions.right)
        assert found.value == pytest.approx(row.accuracy_pct - teacher.accuracy_pct)
        assert to_teacher([row], rows) == found


def test_the_table_has_differences_and_ranks_after_the_studys_columns(tmp_path: Path) -> None:
    filled(PLAN, tmp_path)
    table = cells(PLAN, tmp_path)
    assert list(table)[6:10] == [DELTA, "Latency ratio", "Pareto", "Rank"]
    assert table[DELTA][0] == "0" and all("±" in cell or "[" in cell for cell in table[DELTA][1:])
    assert table["Rank"][0] == ABSENT
    by_accuracy = sorted(zip(table["Accuracy (%)"][1:], table["Rank"][1:], strict=True), reverse=True)
    places = [int(place) for _, place in by_accuracy]
    assert places == sorted(places) and places[0] == 1 and places[-1] > 1


def test_records_from_before_answers_were_kept_have_a_difference_without_an_interval(tmp_path: Path) -> None:
    fill_results(PLAN, tmp_path)
    table = cells(PLAN, tmp_path)
    accuracies = [float(cell) for cell in table["Accuracy (%)"]]
    assert table[DELTA][1:] == [f"{accuracy - accuracies[0]:+z.1f}" for accuracy in accuracies[1:]]
    assert "Rank" not in table
    assert any("without an interval" in line for line in how_to_read(read_rows(PLAN, PLAN.tables[0], tmp_path)))


def test_a_row_whose_answers_are_not_on_record_is_not_ranked_and_the_others_are(tmp_path: Path) -> None:
    filled(PLAN, tmp_path)
    change(tmp_path, PLAN, "p0.3-bn-gram-s0", AccuracyRecord, predictions_sha256=None, labels_sha256=None)
    table = cells(PLAN, tmp_path)
    row = table["Model Name"].index("P(0.3_BN)_KD(3)_SEED(0)")
    assert (table[DELTA][row], table["Rank"][row]) == ("-1.6", ABSENT)
    assert table["Rank"].count(ABSENT) == 2, "the teacher and the row itself"


def test_a_row_without_an_accuracy_has_no_difference(tmp_path: Path) -> None:
    fill_results(PLAN, tmp_path, skip={"p0.3-l1-base-s0"})
    assert cells(PLAN, tmp_path)[DELTA][-1] == ABSENT


def test_answers_that_are_not_those_on_record_fail_a_check_and_show_no_interval(tmp_path: Path) -> None:
    filled(PLAN, tmp_path)
    (tmp_path / "lite" / answers_name("p0.3-bn-gram-s0")).write_bytes(b"other answers")
    table = cells(PLAN, tmp_path)
    row = table["Model Name"].index("P(0.3_BN)_KD(3)_SEED(0)")
    assert table[DELTA][row] == "-1.6"
    assert "failed: other-predictions" in table["Note"][row]


def test_answers_to_other_images_are_not_paired(rows: list[Row]) -> None:
    teacher, student = rows[0], rows[1]
    assert student.accuracy and difference([teacher], [student])
    other = replace(student, accuracy=student.accuracy.model_copy(update={"labels_sha256": "0" * 64}))
    assert difference([teacher], [other]) is None


# --- Ranks -----------------------------------------------------------------------------------------------------------


def test_models_that_answer_alike_share_a_rank_and_a_clear_order_is_an_order(rows: list[Row]) -> None:
    def upto(count: int) -> Right:
        return np.asarray(np.arange(IMAGES) < count)

    alike = [answering(row, upto(700)) for row in rows[1:]]
    assert ranks([[row] for row in alike]) == [1] * 9
    steps = [answering(row, upto(900 - 100 * place)) for place, row in enumerate(rows[1:5])]
    assert ranks([[row] for row in steps]) == [1, 2, 3, 4]
    # Three images are too few to tell neighbours apart, and six are enough for the first and the last.
    close = [answering(row, upto(700 - 3 * place)) for place, row in enumerate(rows[1:4])]
    assert ranks([[row] for row in close]) == [1, 1, 2]


@hypothesis_settings(max_examples=25)
@given(rights=st.lists(st.lists(st.booleans(), min_size=40, max_size=40), min_size=1, max_size=5), shuffle=st.randoms())
def test_a_rank_does_not_depend_on_the_order_of_the_rows_and_somebody_is_first(
    rows: list[Row], rights: list[list[bool]], shuffle: random.Random
) -> None:
    models = [[answering(row, right)] for row, right in zip(rows[1:], rights, strict=False)]
    found = ranks(models)
    assert 1 in found
    order = shuffle.sample(range(len(models)), len(models))
    assert ranks([models[place] for place in order]) == [found[place] for place in order]


def test_more_models_than_can_be_put_in_an_order_have_no_rank(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    models = [[answering(row, np.arange(IMAGES) < 900 - 100 * place)] for place, row in enumerate(rows[1:5])]
    monkeypatch.setattr(differences, "MOST_RANKED", 4)
    assert ranks(models) == [1, 2, 3, 4]
    monkeypatch.setattr(differences, "MOST_RANKED", 3)
    assert ranks(models) == [None] * 4


def test_equal_models_are_rarely_put_in_an_order(rows: list[Row]) -> None:
    """Nine models of one quality, which find the same images hard: five times in a hundred at the most."""
    draw, ordered = np.random.default_rng(5), 0
    for _ in range(100):
        hardness = draw.normal(size=IMAGES)
        models = [[answering(row, hardness + draw.normal(size=IMAGES) < 0.7)] for row in rows[1:]]
        ordered += ranks(models) != [1] * 9
    # and two standard deviations
    assert ordered <= 9


# --- Several seeds ---------------------------------------------------------------------------------------------------


def test_means_over_seeds_are_compared_over_seeds_and_images(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["seeds"])
    rows = filled(plan, tmp_path)
    means = {column.header: column.cells for column in seed_means(rows)}
    assert means["KD"] == ["GRAM+Base", "FMSE+Base", "Base"]
    gram = sorted((row for row in rows if row.kd == "GRAM+Base"), key=lambda row: row.cell.seed)
    right = np.stack([row.predictions.right for row in gram if row.predictions])
    assert rows[0].predictions
    teacher = np.broadcast_to(rows[0].predictions.right, right.shape)
    assert means[DELTA][0] == difference_text(crossed_difference(teacher, right))
    assert means["Rank"][0] == "1"
    # Single seeds are not ranked: the best of five is the luckiest.
    assert "Rank" not in cells(plan, tmp_path)


def test_seeds_that_both_have_are_compared_with_one_another(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["seeds"])
    rows = filled(plan, tmp_path)
    gram, base = ([row for row in rows if row.kd == kd and row.predictions] for kd in ("GRAM+Base", "Base"))
    all_five, three = difference(base, gram), difference(base, [row for row in gram if row.cell.seed < 3])
    assert all_five and three and three != all_five
    same = difference([row for row in base if row.cell.seed < 3], [row for row in gram if row.cell.seed < 3])
    assert three == same
    assert difference(base[:1], [row for row in gram if row.cell.seed != base[0].cell.seed]) is None


def test_a_mean_of_which_one_seeds_answers_are_missing_has_no_interval(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["seeds"])
    filled(plan, tmp_path)
    change(tmp_path, plan, "p0.3-bn-gram-s3", AccuracyRecord, predictions_sha256=None, labels_sha256=None)
    means = {column.header: column.cells for column in seed_means(read_rows(plan, plan.tables[0], tmp_path))}
    row = means["KD"].index("GRAM+Base")
    assert re.fullmatch(r"-\d\.\d", means[DELTA][row]) and means["Rank"][row] == ABSENT
    assert all("±" in cell or "[" in cell for place, cell in enumerate(means[DELTA]) if place != row)


def test_a_mean_ratio_has_an_interval_over_seeds_and_that_of_one_seed_its_own(tmp_path: Path) -> None:
    plan = plan_for("long", experiments=["seeds"])
    fill_results(plan, tmp_path)
    for seed, ratio in enumerate([0.50, 0.52, 0.54, 0.56, 0.58]):
        measure(tmp_path, plan, f"p0.3-bn-gram-s{seed}", ratio)
    gram = [row for row in read_rows(plan, plan.tables[0], tmp_path) if row.kd == "GRAM+Base"]
    mean = mean_ratio(gram)
    assert mean and mean.bounds
    assert mean.value == pytest.approx(0.54)
    # Student's t of 4 degrees of freedom, times the standard error
    assert mean.bounds[1] - mean.value == pytest.approx(2.776 * 0.031623 / 5**0.5, rel=1e-3)
    assert mean_ratio(gram[:1]) == gram[0].ratio
    assert mean_ratio([]) is None
