from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.files import digest
from harness.plan.cpu_table import Cpu, cpus
from harness.plan.loading import load_settings
from harness.plan.planning import Cell, Plan, kd_label, kd_name, make_plan, objective_of, rounding
from harness.plan.registry import names
from harness.plan.specs import JointObjective, StagedObjective
from tests.documents import DOCUMENT, PROFILES, ROOT, Load, put

EVERYTHING = ["prune-0.3", "prune-0.4", "seeds", "controlled"]


def planned(load: Load, document: dict[str, Any], profile: str = "long", experiments: list[str] | None = None) -> Plan:
    return make_plan(load(document, profile), profile, experiments=experiments)


def keys(plan: Plan) -> dict[str, str]:
    return {cell.id: cell.spec.key for cell in plan.cells}


def table(plan: Plan, name: str) -> dict[str, Cell]:
    return {cell.id: cell for found in plan.tables if found.name == name for cell in found.cells}


def own(cell: Cell, kind: str) -> dict[str, Any]:
    """The settings of one stage of a cell."""
    return next(stage.own for stage in cell.spec.lineage if stage.kind == kind)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_settings(ROOT / "matrix.toml", "long"), "long", experiments=EVERYTHING)


# --- What there is ---------------------------------------------------------------------------------------------------


def test_every_table_has_the_teacher_first_and_only_once(plan: Plan) -> None:
    for found in plan.tables:
        assert [cell.is_teacher for cell in found.cells] == [True] + [False] * (len(found.cells) - 1)
        assert found.cells[0] == plan.teacher == plan.cells[0]


def test_the_experiments_have_the_sizes_that_were_asked_for(plan: Plan) -> None:
    sizes = {found.name: len(found.cells) - 1 for found in plan.tables}
    assert sizes == {"prune-0.3": 9, "prune-0.4": 9, "seeds": 15, "controlled": 15}


def test_ids_and_titles_read_as_in_the_study(plan: Plan) -> None:
    cell = table(plan, "prune-0.3")["p0.3-bn-gram-s0"]
    assert cell.title == "P(0.3_BN)_KD(3)_SEED(0)"
    assert table(plan, "controlled")["p0.3-l1-none-s0-controlled"].title == "P(0.3_L1)_KD(none)_SEED(0)_CONTROLLED"
    assert plan.teacher.id == "teacher-s0"


@pytest.mark.parametrize("profile", PROFILES)
def test_ids_keys_and_titles_are_unique(profile: str) -> None:
    settings = load_settings(ROOT / "matrix.toml", profile)
    plan = make_plan(settings, profile, experiments=EVERYTHING)
    cells = plan.cells
    assert len({cell.id for cell in cells}) == len(set(keys(plan).values())) == len({cell.title for cell in cells})
    assert len(cells) == 1 + 9 + 9 + 12 + 15


def test_amounts_that_print_alike_are_still_two_cells(load: Load, document: dict[str, Any]) -> None:
    put(document, "experiment.0.prune_amount", [0.3, 0.3000001])
    assert len(planned(load, document, experiments=["prune-0.3"]).cells) == 1 + 18


def test_cells_shared_by_experiments_are_made_once(plan: Plan) -> None:
    first, seeds = table(plan, "prune-0.3"), table(plan, "seeds")
    shared = {f"p0.3-bn-{kd}-s0" for kd in ("base", "fmse", "gram")}
    assert set(first) & set(seeds) == shared | {"teacher-s0"}
    assert all(first[cell] == seeds[cell] for cell in shared)


def test_artifacts_lie_under_profile_id_and_key(plan: Plan) -> None:
    folder = plan.teacher.artifacts(Path("artifacts"), "long")
    assert folder == Path("artifacts/long") / f"teacher-s0-{plan.teacher.trained.key.removeprefix('v2-')[:8]}"


def test_exclude_removes_cells_and_include_adds_them(load: Load, document: dict[str, Any]) -> None:
    put(document, "experiment.0.exclude", [{"prune_method": "gn"}, {"prune_method": "l1", "kd_method": "fmse"}])
    put(
        document,
        "experiment.0.include",
        [
            {"prune_amount": 0.5, "prune_method": "gn", "kd_method": "base", "seed": 7},
            {"prune_amount": 0.3, "prune_method": "bn", "kd_method": "base", "seed": 0},  # there already
        ],
    )
    cells = [cell.id for cell in planned(load, document, experiments=["prune-0.3"]).cells[1:]]
    assert cells == [
        "p0.3-l1-base-s0",
        "p0.3-l1-gram-s0",
        "p0.3-bn-base-s0",
        "p0.3-bn-fmse-s0",
        "p0.3-bn-gram-s0",
        "p0.5-gn-base-s7",
    ]


def test_named_experiments_replace_those_of_the_profile(load: Load, document: dict[str, Any]) -> None:
    plan = planned(load, document, "quick", ["seeds", "prune-0.4", "seeds"])
    assert [found.name for found in plan.tables] == ["seeds", "prune-0.4"]


def test_an_unknown_experiment_is_an_error_that_lists_the_known_ones(load: Load, document: dict[str, Any]) -> None:
    with pytest.raises(HarnessError, match=r"'prune-0\.5' does not exist; allowed: prune-0\.3, .*, controlled"):
        planned(load, document, experiments=["prune-0.5"])


# --- Further axes ----------------------------------------------------------------------------------------------------


def with_axes(load: Load, document: dict[str, Any], **more: Any) -> dict[str, Cell]:
    """The cells of experiment 1 with further axes, less the teacher."""
    document["experiment"][0].update(more)
    return {cell.id: cell for cell in planned(load, document, experiments=["prune-0.3"]).cells[1:]}


def test_a_further_axis_is_part_of_ids_and_titles_and_of_the_stage_that_it_decides(
    load: Load, document: dict[str, Any]
) -> None:
    cells = with_axes(load, document, prune_method=["bn"], kd_method=["base"], student={"lr": [0.05, 0.1]})
    assert {name: cell.title for name, cell in cells.items()} == {
        "p0.3-bn-base-s0-lr0.05": "P(0.3_BN)_KD(0)_SEED(0)_LR(0.05)",
        "p0.3-bn-base-s0-lr0.1": "P(0.3_BN)_KD(0)_SEED(0)_LR(0.1)",
    }
    one, other = cells.values()
    assert (one.student.recipe.lr, other.student.recipe.lr) == (0.05, 0.1)
    assert one.student.parent.key == other.student.parent.key
    assert one.point == {
        "prune_amount": 0.3,
        "prune_method": "bn",
        "kd_method": "base",
        "seed": 0,
        "student.lr": 0.05,
    }


def test_a_table_knows_its_further_axes(load: Load, document: dict[str, Any]) -> None:
    put(document, "experiment.0.student.lr", [0.05, 0.1])
    put(document, "experiment.0.pruning.round_to", [4])
    first, second = planned(load, document, experiments=["prune-0.3", "prune-0.4"]).tables
    assert (first.axes, second.axes) == (("student.lr", "pruning.round_to"), ())


def test_axes_of_pruning_decide_the_pruned_network(load: Load, document: dict[str, Any]) -> None:
    cells = with_axes(load, document, prune_method=["l1"], kd_method=["base"], pruning={"round_to": ["auto", 2]})
    assert {name: cell.student.parent.round_to for name, cell in cells.items()} == {
        "p0.3-l1-base-s0-round_toauto": 8,
        "p0.3-l1-base-s0-round_to2": 2,
    }


def test_values_that_are_lists_or_text_are_spelled_for_file_names(load: Load, document: dict[str, Any]) -> None:
    cells = with_axes(
        load,
        document,
        prune_method=["l1"],
        kd_method=["base"],
        student={"image_sizes": [[16], [24]], "schedule": ["cosine"], "nesterov": [True], "lr": [1e-05]},
    )
    assert list(cells) == [
        f"p0.3-l1-base-s0-image_sizes{size}-schedulecosine-nesterovtrue-lr1e_05" for size in (16, 24)
    ]


def test_parameters_of_a_method_are_no_axis_of_the_others(load: Load, document: dict[str, Any]) -> None:
    cells = with_axes(load, document, prune_method=["bn"], method={"gram": {"scale": [0.1, 1.0]}})
    assert list(cells) == [
        "p0.3-bn-base-s0",
        "p0.3-bn-fmse-s0",
        "p0.3-bn-gram-s0-scale0.1",
        "p0.3-bn-gram-s0-scale1.0",
    ]
    assert [cells[f"p0.3-bn-gram-s0-scale{value}"].student.method.parameters["scale"] for value in (0.1, 1.0)] == [
        0.1,
        1.0,
    ]


def test_parameters_of_base_are_an_axis_of_the_methods_that_make_use_of_base(
    load: Load, document: dict[str, Any]
) -> None:
    cells = with_axes(
        load, document, prune_method=["l1"], kd_method=["none", "fmse"], method={"base": {"temperature": [2.0, 4.0]}}
    )
    assert list(cells) == ["p0.3-l1-none-s0", "p0.3-l1-fmse-s0-temperature2.0", "p0.3-l1-fmse-s0-temperature4.0"]


def test_parameters_of_a_criterion_are_no_axis_of_the_others(load: Load, document: dict[str, Any]) -> None:
    cells = with_axes(load, document, kd_method=["base"], criterion={"gn": {"alpha": [2.0, 4.0]}})
    assert list(cells) == [
        "p0.3-l1-base-s0",
        "p0.3-bn-base-s0",
        "p0.3-gn-base-s0-alpha2.0",
        "p0.3-gn-base-s0-alpha4.0",
    ]


def test_sparse_training_is_no_axis_of_models_without_it(load: Load, document: dict[str, Any]) -> None:
    cells = with_axes(
        load, document, prune_method=["l1", "bn"], kd_method=["base"], pruning={"sparse": {"lr": [0.1, 0.2]}}
    )
    assert list(cells) == ["p0.3-l1-base-s0", "p0.3-bn-base-s0-lr0.1", "p0.3-bn-base-s0-lr0.2"]


def test_an_axis_without_any_effect_is_refused(load: Load, document: dict[str, Any]) -> None:
    """The schedule is a cosine, which has no gamma."""
    put(document, "experiment.0.student.gamma", [0.9, 0.8])
    with pytest.raises(HarnessError, match=r"an axis has no effect: p0\.3-l1-base-s0-gamma0\.9 and .* same model"):
        planned(load, document, experiments=["prune-0.3"])


def test_include_exclude_and_first_may_name_further_axes(load: Load, document: dict[str, Any]) -> None:
    put(document, "experiment.0.prune_method", ["bn"])
    put(document, "experiment.0.kd_method", ["base"])
    put(document, "experiment.0.student.lr", [0.05, 0.1, 0.2])
    put(document, "experiment.0.exclude", [{"student": {"lr": 0.1}}])
    point = {"prune_amount": 0.3, "prune_method": "bn", "kd_method": "base", "seed": 0, "student": {"lr": 0.4}}
    put(document, "experiment.0.include", [point])
    put(document, "experiment.0.first", [{"student": {"lr": 0.2}}])
    plan = planned(load, document, experiments=["prune-0.3"])
    assert [cell.id for cell in plan.cells[1:]] == [f"p0.3-bn-base-s0-lr{lr}" for lr in (0.05, 0.2, 0.4)]
    assert [[cell.id for cell in group] for group in plan.groups] == [
        ["p0.3-bn-base-s0-lr0.2"],
        ["p0.3-bn-base-s0-lr0.05", "p0.3-bn-base-s0-lr0.4"],
    ]


@given(
    lrs=st.lists(st.floats(1e-4, 1), min_size=1, max_size=3, unique=True),
    scales=st.lists(st.floats(0, 10), min_size=1, max_size=3, unique=True),
    sizes=st.lists(st.sampled_from([[16], [24], [40]]), min_size=1, unique_by=tuple),
)
def test_further_axes_multiply_and_every_cell_is_its_own(
    load: Load, lrs: list[float], scales: list[float], sizes: list[list[int]]
) -> None:
    document = deepcopy(DOCUMENT)
    more = {"student": {"lr": lrs, "image_sizes": sizes}, "method": {"gram": {"scale": scales}}}
    cells = with_axes(load, document, prune_method=["l1"], kd_method=["base", "gram"], **more)
    assert len(cells) == len(lrs) * len(sizes) * (1 + len(scales))
    assert len({cell.spec.key for cell in cells.values()}) == len(cells)
    assert len({cell.title for cell in cells.values()}) == len(cells)


# --- The two protocols -----------------------------------------------------------------------------------------------


def test_controlled_starts_every_kd_method_from_the_same_pruned_network(plan: Plan) -> None:
    for method in ("l1", "bn", "gn"):
        cells = [cell for cell in table(plan, "controlled").values() if cell.prune_method == method]
        assert {cell.kd_method for cell in cells} == {"none", "scratch", "base", "fmse", "gram"}
        assert len({cell.student.parent.key for cell in cells}) == 1
        assert all(cell.student.parent.keep_for == ("fmse", "gram") for cell in cells)


def test_controlled_gives_every_pruning_method_the_same_labelled_steps(plan: Plan) -> None:
    cells = [cell for cell in table(plan, "controlled").values() if not cell.is_teacher]
    steps = {digest({**own(cell, "sparse"), "criterion": None}) for cell in cells}
    assert len(steps) == 1


def test_the_study_keeps_layers_per_kd_method_and_labels_bn_and_gn_only(plan: Plan) -> None:
    for cell in table(plan, "prune-0.3").values():
        if not cell.is_teacher:
            kinds = [stage.kind for stage in cell.spec.lineage]
            assert ("sparse" in kinds) == (cell.prune_method in ("bn", "gn"))
            assert cell.student.parent.keep_for == (cell.kd_method,)


def test_sparse_training_differs_by_kd_method_only_where_the_kept_layers_do(plan: Plan) -> None:
    cells = table(plan, "prune-0.3")
    assert own(cells["p0.3-bn-base-s0"], "sparse") != own(cells["p0.3-bn-gram-s0"], "sparse")
    sparse = {table(plan, name)[cell].student.parent.parent.key for name, cell in PAIRS}
    assert len(sparse) == 1


# the prune amount comes after sparse training
PAIRS = [("prune-0.3", "p0.3-bn-base-s0"), ("prune-0.4", "p0.4-bn-base-s0")]


def test_a_row_is_an_export_of_a_student_of_the_teacher(plan: Plan) -> None:
    cell = table(plan, "prune-0.3")["p0.3-gn-base-s0"]
    assert [stage.kind for stage in cell.spec.lineage] == ["teacher", "sparse", "pruned", "student", "export"]
    assert cell.teacher is plan.teacher.teacher is plan.teacher.trained
    assert cell.trained is cell.student is cell.spec.parent


def test_stages_that_cells_share_are_the_same_objects(plan: Plan) -> None:
    """So each key is hashed once."""
    first, second = (table(plan, "controlled")[f"p0.3-bn-{kd}-s0-controlled"] for kd in ("fmse", "gram"))
    assert first.student.parent is second.student.parent


def test_other_forms_of_a_trained_model_share_its_record_and_its_folder(load: Load, document: dict[str, Any]) -> None:
    plan = planned(load, document)
    cell = plan.cells[1]
    assert (cell.model_id, plan.teacher.model_id) == (cell.id, "teacher-s0")
    int8 = replace(cell, id=f"{cell.id}-int8", spec=replace(cell.spec, form="int8"))
    assert int8.model_id == cell.id
    assert int8.artifacts(Path("a"), "long") == cell.artifacts(Path("a"), "long")


# --- Data and teacher ------------------------------------------------------------------------------------------------


def test_a_model_of_the_stand_in_is_never_mistaken_for_one_of_cifar100() -> None:
    settings = load_settings(ROOT / "matrix.toml", "quick")
    real, drawn = make_plan(settings, "quick"), make_plan(settings, "quick", "stand_in")
    assert not set(keys(real).values()) & set(keys(drawn).values())
    assert list(keys(real)) == list(keys(drawn))


def test_a_given_teacher_is_known_by_its_content_not_its_path(
    load: Load, document: dict[str, Any], tmp_path: Path
) -> None:
    for name, content in (("a.pt", b"one"), ("b.pt", b"one"), ("c.pt", b"two")):
        (tmp_path / name).write_bytes(content)
    plans = []
    for name in ("a.pt", "b.pt", "c.pt"):
        put(document, "teacher.checkpoint", str(tmp_path / name))
        plans.append(keys(planned(load, document)))
    assert plans[0] == plans[1]
    assert not set(plans[0].values()) & set(plans[2].values())
    # how it was trained is then not ours to know
    put(document, "teacher.epochs", 30)
    assert keys(planned(load, document)) == plans[2]


def test_a_missing_teacher_checkpoint_is_named(load: Load, document: dict[str, Any], tmp_path: Path) -> None:
    put(document, "teacher.checkpoint", str(tmp_path / "gone.pt"))
    with pytest.raises(HarnessError, match=r"teacher\.checkpoint: .*gone\.pt: no such file"):
        planned(load, document)


@given(
    amounts=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3, unique=True),
    methods=st.lists(st.sampled_from(["l1", "bn", "gn", "random"]), min_size=1, unique=True),
    kds=st.lists(st.sampled_from(["none", "scratch", "base", "fmse", "gram", "logit_std"]), min_size=1, unique=True),
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=3, unique=True),
    protocol=st.sampled_from(["study", "controlled"]),
)
def test_a_table_is_the_product_of_its_axes_and_every_cell_is_its_own(
    load: Load, amounts: list[float], methods: list[str], kds: list[str], seeds: list[int], protocol: str
) -> None:
    document = deepcopy(DOCUMENT)
    axes = {"prune_amount": amounts, "prune_method": methods, "kd_method": kds, "seed": seeds}
    document["experiment"].append({"name": "any", "title": "Any", "protocol": protocol, **axes})
    cells = planned(load, document, experiments=["any"]).cells[1:]
    points = [(cell.prune_amount, cell.prune_method, cell.kd_method, cell.seed) for cell in cells]
    assert points == [(a, m, k, s) for a in amounts for m in methods for k in kds for s in seeds]
    assert len({cell.id for cell in cells}) == len({cell.spec.key for cell in cells}) == len(points)


def test_ten_thousand_cells_are_planned_and_told_apart(load: Load, document: dict[str, Any]) -> None:
    put(document, "experiment.2.seed", list(range(3334)))
    cells = planned(load, document, experiments=["seeds"]).cells
    assert len({cell.spec.key for cell in cells}) == len(cells) == 10_003


# --- Rounding and names ----------------------------------------------------------------------------------------------


@given(narrowest=st.integers(4, 256), target=st.sampled_from(list(cpus().values())))
def test_auto_rounding_is_the_largest_halving_that_leaves_something_to_prune(
    load: Load, narrowest: int, target: Cpu
) -> None:
    document = deepcopy(DOCUMENT)
    put(document, "model.width", narrowest / 64)
    put(document, "bench.target.name", target.name)
    multiple = rounding(load(document))
    vector = target.vectors.channels
    halvings = [vector >> step for step in range(vector.bit_length())]
    assert multiple == max((m for m in halvings if 2 * m <= narrowest), default=1)


@given(narrowest=st.integers(4, 256), given_multiple=st.integers(1, 64))
def test_a_given_rounding_is_used_as_given(load: Load, narrowest: int, given_multiple: int) -> None:
    document = deepcopy(DOCUMENT)
    put(document, "model.width", narrowest / 64)
    put(document, "pruning.round_to", given_multiple)
    assert rounding(load(document)) == given_multiple


@pytest.mark.parametrize(
    ("profile", "multiple"),
    [("quick", 4), ("lite", 4), ("overnight", 8), ("full", 8), ("long", 8), ("reference", 8)],
    ids=PROFILES,
)
def test_rounding_of_the_projects_own_profiles(profile: str, multiple: int) -> None:
    assert rounding(load_settings(ROOT / "matrix.toml", profile)) == multiple


@pytest.mark.parametrize(
    ("given_name", "name"),
    [("0", "base"), ("1", "fmse"), ("3", "gram"), ("base", "base"), ("GRAM", "gram"), ("none", "none")],
)
def test_kd_methods_go_by_the_studys_number_or_by_name(given_name: str, name: str) -> None:
    assert kd_name(given_name) == name


@given(text=st.text(max_size=6))
def test_an_unknown_kd_method_names_numbers_and_names(text: str) -> None:
    assume(text.lower() not in {"0", "1", "3", *names("method")} and ":" not in text)
    with pytest.raises(HarnessError, match=r"allowed: 0 \(base\), 1 \(fmse\), 3 \(gram\) or a name: base, fmse"):
        kd_name(text)


def test_kd_labels_are_those_of_the_studys_tables() -> None:
    assert [kd_label(name) for name in ("base", "fmse", "gram")] == ["Base", "FMSE+Base", "GRAM+Base"]


def test_an_objective_holds_what_its_method_has_a_use_for_and_nothing_else(plan: Plan) -> None:
    study, joint = plan.settings.protocol["study"], plan.settings.protocol["controlled"]
    assert objective_of(study, "base") == objective_of(study, "none") == StagedObjective(None)
    assert objective_of(study, "gram") == StagedObjective("sum")
    assert objective_of(joint, "none") == objective_of(joint, "scratch") == JointObjective(joint.stages)
    taught = JointObjective(joint.stages, joint.temperature, joint.label_weight)
    assert objective_of(joint, "base") == taught
    assert objective_of(joint, "fmse") == replace(taught, feature_weight=1.0, features="sum")


# --- What comes first ------------------------------------------------------------------------------------------------


def test_first_decides_the_order_in_which_cells_are_made_and_no_key(load: Load, document: dict[str, Any]) -> None:
    before = planned(load, document)
    put(document, "experiment.0.first", [{"kd_method": "gram", "prune_method": "l1"}, {"kd_method": "gram"}])
    after = planned(load, document)
    assert keys(after) == keys(before)
    assert [cell.id for cell in after.groups[0]] == ["p0.3-l1-gram-s0"]
    assert [cell.id for cell in after.groups[1]] == ["p0.3-bn-gram-s0", "p0.3-gn-gram-s0"]
    assert len(after.groups[2]) == 6


def test_groups_have_every_student_once_and_one_seed_each(plan: Plan) -> None:
    grouped = [cell.id for group in plan.groups for cell in group]
    assert sorted(grouped) == sorted(cell.id for cell in plan.cells if not cell.is_teacher)
    assert all(len({cell.seed for cell in group}) == 1 for group in plan.groups)


def test_cells_are_named_by_their_ids(plan: Plan) -> None:
    assert plan.named([]) == list(plan.cells)
    assert [cell.id for cell in plan.named(["p0.3-bn-gram-s0", "teacher-s0"])] == ["teacher-s0", "p0.3-bn-gram-s0"]
    with pytest.raises(HarnessError, match=r"profile long has no cell 'p0\.9'"):
        plan.named(["p0.9"])
