import pytest

from harness.errors import HarnessError
from harness.plan.loading import load_settings
from harness.plan.planning import Cell, Plan, make_plan
from harness.training.allocation import cost, device_names, spread, units
from tests.documents import DOCUMENT, as_toml


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("matrix") / "matrix.toml"
    path.write_text(as_toml(DOCUMENT), encoding="utf-8")
    return make_plan(load_settings(path, "long"), "long", "cifar100")


def students(plan: Plan) -> list[Cell]:
    return [cell for cell in plan.cells if not cell.is_teacher]


@pytest.mark.parametrize("devices", [1, 2, 3, 8, 100])
def test_every_student_is_given_to_exactly_one_device(plan: Plan, devices: int) -> None:
    shares = spread(students(plan), devices)
    assert len(shares) == devices
    assert sorted(cell.id for share in shares for cell in share) == sorted(cell.id for cell in students(plan))


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_no_stage_that_students_share_is_made_on_two_devices(plan: Plan, devices: int) -> None:
    made: dict[str, int] = {}
    for number, share in enumerate(spread(students(plan), devices)):
        for cell in share:
            for stage in cell.student.lineage:
                if stage.kind in ("sparse", "pruned"):
                    assert made.setdefault(stage.key, number) == number


@pytest.mark.parametrize("devices", [2, 3, 4])
def test_no_device_has_much_more_to_do_than_another(plan: Plan, devices: int) -> None:
    costs = [sum(map(cost, share)) for share in spread(students(plan), devices)]
    assert max(costs) - min(costs) <= max(sum(map(cost, unit)) for unit in units(students(plan)))


def test_the_cost_of_a_student_is_its_epochs(plan: Plan) -> None:
    costs = {cell.id: cost(cell) for cell in students(plan)}
    assert costs["p0.3-bn-base-s0"] == 60 and costs["p0.3-bn-gram-s0"] == 120
    assert {costs[f"p0.3-bn-{kd}-s0-controlled"] for kd in ("none", "base", "gram")} == {120}


def test_fewer_units_than_devices_leave_some_idle(plan: Plan) -> None:
    base, fmse = (next(c for c in plan.cells if c.id == f"p0.3-bn-{kd}-s0") for kd in ("base", "fmse"))
    assert sorted(len(share) for share in spread([base, fmse], 3)) == [0, 1, 1]
    assert spread([], 2) == [[], []]


def test_devices_are_named_as_torch_names_them() -> None:
    assert device_names("cuda:0, cuda:3,cpu", 4) == ["cuda:0", "cuda:3", "cpu"]
    assert device_names("", 0) == []
    for wrong in ("gpu", "cuda", "cuda:x", "0"):
        with pytest.raises(HarnessError, match=rf"'{wrong}' is no device; allowed: cpu or cuda:N"):
            device_names(f"cpu,{wrong}", 4)


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_gpu_that_is_not_there_is_named_before_anything_starts(gpus: int) -> None:
    with pytest.raises(HarnessError, match=rf"no cuda:1 here: PyTorch finds {gpus} GPUs"):
        device_names("cuda:1", gpus)
