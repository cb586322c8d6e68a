from dataclasses import replace

import pytest

from harness.commands.schedule import (
    LARGEST_BENCH_SHARE,
    REPORT_S,
    Clock,
    Costs,
    bench_s,
    guessed_macs,
    next_cells,
    tables_that_fit,
    training_s,
)
from harness.plan.planning import Plan
from harness.store.states import CellState, Training
from tests.synthetic import plan_for

UNKNOWN = Costs({}, {})
BN = ["p0.3-bn-base-s0", "p0.3-bn-fmse-s0", "p0.3-bn-gram-s0"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_for("long")


def standing(plan: Plan, others: Training = "missing", **training: Training) -> list[CellState]:
    """Every cell in one state, but for those named (a dash written as two underscores, a dot as three)."""
    named = {name.replace("___", ".").replace("__", "-"): state for name, state in training.items()}
    assert named.keys() <= {cell.id for cell in plan.cells}
    return [CellState(cell, named.get(cell.id, others), "missing") for cell in plan.cells]


def made_in_turn(plan: Plan, all_at_once: bool = False) -> list[list[str]]:
    """The cells of each training, if all end well."""
    states, order = standing(plan), []
    while cells := next_cells(plan, states, [], all_at_once):
        ids = [cell.id for cell in cells]
        order.append(ids)
        states = [replace(state, training="done") if state.cell.id in ids else state for state in states]
    return order


def test_the_most_valuable_comes_first(plan: Plan) -> None:
    order = made_in_turn(plan)
    assert order[0] == ["teacher-s0"] and order[1] == BN
    assert {name[:4] for name in order[2]} == {"p0.3"} and len(order[2]) == 6
    assert {name[:4] for name in order[3]} == {"p0.4"} and len(order[3]) == 9
    assert all(name.endswith("-controlled") for name in order[4]) and len(order[4]) == 15
    assert [{name[-3:] for name in group} for group in order[5:]] == [{"-s1"}, {"-s2"}, {"-s3"}, {"-s4"}]
    assert sorted(name for group in order for name in group) == sorted(cell.id for cell in plan.cells)


def test_a_group_has_one_seed_so_that_it_can_train_side_by_side(plan: Plan) -> None:
    assert all(len({cell.seed for cell in group}) == 1 for group in plan.groups)


def test_without_a_limit_all_students_are_one_training(plan: Plan) -> None:
    assert [len(ids) for ids in made_in_turn(plan, all_at_once=True)] == [1, len(plan.cells) - 1]


def test_what_is_on_record_elsewhere_is_not_made_again(plan: Plan) -> None:
    states = standing(plan, "recorded", teacher__s0="done", p0___4__l1__base__s0="missing")
    assert [cell.id for cell in next_cells(plan, states, [], False)] == ["p0.4-l1-base-s0"]


def test_without_the_teachers_weights_nothing_is_trained(plan: Plan) -> None:
    assert next_cells(plan, standing(plan, "missing", teacher__s0="recorded"), [], False) == []
    exported = standing(plan, "missing", teacher__s0="recorded", p0___3__bn__base__s0="trained")
    assert [cell.id for cell in next_cells(plan, exported, [], False)] == BN[:1]


def test_what_failed_before_is_tried_again_last_and_once(plan: Plan) -> None:
    states = standing(plan, "done", p0___3__bn__base__s0="failed", p0___3__bn__base__s4="missing")
    first = next_cells(plan, states, [], False)
    assert [cell.id for cell in first] == ["p0.3-bn-base-s4"]
    second = next_cells(plan, states, ["p0.3-bn-base-s4"], False)
    assert [cell.id for cell in second] == ["p0.3-bn-base-s0"]
    assert next_cells(plan, states, ["p0.3-bn-base-s4", "p0.3-bn-base-s0"], False) == []


def test_a_teacher_that_failed_is_tried_once_and_leaves_no_students_to_train(plan: Plan) -> None:
    states = standing(plan, "missing", teacher__s0="failed")
    assert next_cells(plan, states, [], False) == [plan.teacher]
    assert next_cells(plan, states, ["teacher-s0"], False) == []


# --- Time ------------------------------------------------------------------------------------------------------------


def test_training_leaves_time_to_measure_what_will_be_there(plan: Plan) -> None:
    coming = list(plan.groups[0])
    costs = Costs({}, {cell.id: 10.0 for cell in plan.cells})
    states = standing(plan, "missing", teacher__s0="done")
    minutes = plan.settings.bench.minutes_per_model
    assert training_s(plan, states, coming, costs, Clock(3000, 2000)) == pytest.approx(
        2000 - REPORT_S - 4 * (60 * minutes + 10)
    )


def test_measuring_claims_no_more_than_half_of_the_whole(plan: Plan) -> None:
    states = standing(plan, "done")
    assert bench_s(plan, states, UNKNOWN) > 3600
    left = training_s(plan, states, [], UNKNOWN, Clock(600, 500))
    assert left == 500 - REPORT_S - LARGEST_BENCH_SHARE * 600


def test_what_is_measured_costs_nothing_and_one_new_model_costs_all_latencies(plan: Plan) -> None:
    states = [replace(state, benching="done") for state in standing(plan, "done")]
    assert bench_s(plan, states, UNKNOWN) == 0
    one_new = [replace(states[0], benching="missing"), *states[1:]]
    latencies = 60 * plan.settings.bench.minutes_per_model * len(states)
    assert latencies < bench_s(plan, one_new, UNKNOWN) < latencies + 600


def test_an_accuracy_costs_what_it_did_or_what_the_multiply_adds_say(plan: Plan) -> None:
    state = standing(plan, "done")[:1]
    latency = 60 * plan.settings.bench.minutes_per_model
    assert bench_s(plan, state, Costs({}, {"teacher-s0": 42.0})) == pytest.approx(latency + 42)
    small, large = (bench_s(plan, state, Costs({"teacher-s0": macs}, {})) for macs in (10**8, 10**9))
    assert large - small == pytest.approx(9 * 25, rel=0.01)


@pytest.mark.parametrize(
    ("profile", "macs"), [("long", 1.308e9), ("reference", 4.09e9), ("lite", 1.308e9 / 64 * (24 / 32) ** 2)]
)
def test_multiply_adds_are_guessed_from_the_settings(profile: str, macs: float) -> None:
    plan = plan_for(profile)
    assert guessed_macs(plan, plan.teacher) == pytest.approx(macs)
    assert guessed_macs(plan, plan.cells[1]) < macs


def test_the_guess_for_a_thin_teacher_is_near_what_is_on_record() -> None:
    # results/lite: measured, not guessed
    plan = plan_for("lite")
    assert guessed_macs(plan, plan.teacher) == pytest.approx(12_232_868, rel=0.1)


def test_as_many_tables_are_measured_as_the_time_allows_from_the_first_on(plan: Plan) -> None:
    costs = Costs({}, {cell.id: 1.0 for cell in plan.cells})
    states = standing(plan, "done")
    needs = [
        bench_s(plan, [state for state in states if state.cell.id in ids], costs)
        for ids in ({cell.id for table in plan.tables[: count + 1] for cell in table.cells} for count in range(4))
    ]
    names = [table.name for table in plan.tables]
    for count, seconds in enumerate(needs, start=1):
        assert tables_that_fit(plan, states, costs, seconds) == names[:count]
    assert tables_that_fit(plan, states, costs, 1.0) == names[:1], "the first one at least"


def test_a_table_that_has_been_measured_is_measured_again_with_the_others_whatever_the_time(plan: Plan) -> None:
    controlled = next(table for table in plan.tables if table.name == "controlled")
    ids = {cell.id for cell in controlled.cells}
    states = [replace(state, benching="done") if state.cell.id in ids else state for state in standing(plan, "done")]
    assert tables_that_fit(plan, states, UNKNOWN, 1.0) == ["prune-0.3", "prune-0.4", "controlled"]


def test_where_nothing_is_exported_there_is_nothing_to_measure(plan: Plan) -> None:
    assert tables_that_fit(plan, standing(plan), UNKNOWN, 1e9) == []
