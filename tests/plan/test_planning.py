import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.files import digest
from harness.plan.planning import Cell, Plan, ancestry, kd_label, kd_name, make_plan, rounding
from harness.plan.settings import load_settings
from tests.documents import DOCUMENT, PROFILES, ROOT, Load, put

EVERYTHING = ["prune-0.3", "prune-0.4", "seeds", "controlled"]


def planned(load: Load, document: dict[str, Any], profile: str = "full", experiments: list[str] | None = None) -> Plan:
    return make_plan(load(document, profile), profile, experiments=experiments)


def keys(plan: Plan) -> dict[str, str]:
    return {cell.id: cell.key for cell in plan.cells}


def table(plan: Plan, name: str) -> dict[str, Cell]:
    return {cell.id: cell for found in plan.tables if found.name == name for cell in found.cells}


def stage(cell: Cell, kind: str) -> dict[str, Any]:
    return next(settings for settings in ancestry(cell.settings) if settings["kind"] == kind)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_settings(ROOT / "matrix.toml", "full"), "full", experiments=EVERYTHING)


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
def test_ids_keys_and_titles_tell_cells_apart(profile: str) -> None:
    settings = load_settings(ROOT / "matrix.toml", profile)
    cells = make_plan(settings, profile, experiments=EVERYTHING).cells
    assert len({cell.id for cell in cells}) == len({cell.key for cell in cells}) == len({cell.title for cell in cells})
    assert len(cells) == 1 + 9 + 9 + 12 + 15


def test_amounts_that_print_alike_are_still_two_cells(load: Load, document: dict[str, Any]) -> None:
    put(document, "experiment.0.prune_amount", [0.3, 0.3000001])
    assert len(planned(load, document, experiments=["prune-0.3"]).cells) == 1 + 18


def test_cells_shared_by_experiments_are_made_once(plan: Plan) -> None:
    first, seeds = table(plan, "prune-0.3"), table(plan, "seeds")
    shared = {f"p0.3-bn-{kd}-s0" for kd in ("base", "fmse", "gram")}
    assert set(first) & set(seeds) == shared | {"teacher-s0"}
    assert all(first[cell].key == seeds[cell].key for cell in shared)


def test_artifacts_lie_under_profile_id_and_key(plan: Plan) -> None:
    folder = plan.teacher.artifacts(Path("artifacts"), "full")
    assert folder == Path("artifacts/full") / f"teacher-s0-{plan.teacher.key[:8]}"


def test_exclude_takes_away_and_include_adds(load: Load, document: dict[str, Any]) -> None:
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


def test_named_experiments_take_the_place_of_the_profiles_own(load: Load, document: dict[str, Any]) -> None:
    plan = planned(load, document, "quick", ["seeds", "prune-0.4", "seeds"])
    assert [found.name for found in plan.tables] == ["seeds", "prune-0.4"]


def test_an_experiment_that_does_not_exist_names_those_that_do(load: Load, document: dict[str, Any]) -> None:
    with pytest.raises(HarnessError, match=r"'prune-0\.5' does not exist; allowed: prune-0\.3, .*, controlled"):
        planned(load, document, experiments=["prune-0.5"])


# --- The two protocols -----------------------------------------------------------------------------------------------


def test_controlled_starts_every_kd_method_from_the_same_pruned_network(plan: Plan) -> None:
    for method in ("l1", "bn", "gn"):
        cells = [cell for cell in table(plan, "controlled").values() if cell.prune_method == method]
        assert {cell.kd_method for cell in cells} == {"none", "scratch", "base", "fmse", "gram"}
        assert len({digest(stage(cell, "pruned")) for cell in cells}) == 1
        assert all(stage(cell, "pruned")["keep_for"] == ["fmse", "gram"] for cell in cells)


def test_controlled_gives_every_pruning_method_the_same_labelled_steps(plan: Plan) -> None:
    cells = [cell for cell in table(plan, "controlled").values() if not cell.is_teacher]
    steps = {digest({**stage(cell, "sparse"), "method": None}) for cell in cells}
    assert len(steps) == 1


def test_the_study_keeps_layers_per_kd_method_and_labels_bn_and_gn_only(plan: Plan) -> None:
    for cell in table(plan, "prune-0.3").values():
        if not cell.is_teacher:
            kinds = [settings["kind"] for settings in ancestry(cell.settings)]
            assert ("sparse" in kinds) == (cell.prune_method in ("bn", "gn"))
            assert stage(cell, "pruned")["keep_for"] == [cell.kd_method]


def test_sparse_training_differs_by_kd_method_only_where_the_kept_layers_do(plan: Plan) -> None:
    cells = table(plan, "prune-0.3")
    assert stage(cells["p0.3-bn-base-s0"], "sparse") != stage(cells["p0.3-bn-gram-s0"], "sparse")
    sparse = [digest(stage(table(plan, name)[cell], "sparse")) for name, cell in PAIRS]
    assert len(set(sparse)) == 1


# the prune amount comes after sparse training
PAIRS = [("prune-0.3", "p0.3-bn-base-s0"), ("prune-0.4", "p0.4-bn-base-s0")]


def test_ancestry_runs_from_the_teacher_to_the_student(plan: Plan) -> None:
    cell = table(plan, "prune-0.3")["p0.3-gn-base-s0"]
    chain = ancestry(cell.settings)
    assert [settings["kind"] for settings in chain] == ["teacher", "sparse", "pruned", "student"]
    assert chain[0] == plan.teacher.settings
    assert chain[-1] is cell.settings


# --- What makes a cell that cell -------------------------------------------------------------------------------------


def everyone(cell: Cell) -> bool:
    return True


def students(cell: Cell) -> bool:
    return not cell.is_teacher


def controlled(cell: Cell) -> bool:
    return cell.protocol == "controlled"


def labelled_first(cell: Cell) -> bool:
    return controlled(cell) or cell.prune_method in ("bn", "gn")


def nobody(cell: Cell) -> bool:
    return False


# place, new value, the cells whose numbers it decides
CHANGES: list[tuple[str, Any, Callable[[Cell], bool]]] = [
    ("precision", "fp32", everyone),
    ("model.width", 0.5, everyone),
    ("model.stem", "imagenet", everyone),
    ("data.train_images", 40_000, everyone),
    ("data.image_size", 64, everyone),
    ("data.augment", ["flip"], everyone),
    ("teacher.epochs", 9, everyone),
    ("teacher.lr", 0.123, everyone),
    ("teacher.weight_decay", 0.0, everyone),
    ("teacher.clip_norm", 1.0, everyone),
    ("teacher.warmup_epochs", 0.5, everyone),
    ("student.epochs", 9, students),
    ("student.lr", 0.123, students),
    ("student.schedule", "constant", students),
    ("student.nesterov", False, students),
    ("pruning.round_to", 4, students),
    ("pruning.sparse.epochs", 2, labelled_first),
    ("pruning.sparse.regularisation", 1e-4, labelled_first),
    ("bench.target.vector_channels", 16, students),
    ("protocol.controlled.temperature", 2.0, controlled),
    ("protocol.controlled.label_weight", 0.5, controlled),
    ("protocol.controlled.stages", 3, controlled),
    ("protocol.controlled.keep_for", ["fmse"], controlled),
    ("protocol.controlled.sparse_for", [], controlled),
    ("protocol.controlled.feature_weight", {"gram": 0.5}, lambda cell: controlled(cell) and cell.kd_method == "gram"),
    ("protocol.study.keep_for", ["gram"], lambda cell: cell.protocol == "study" and cell.kd_method != "gram"),
    ("protocol.study.sparse_for", ["bn"], lambda cell: cell.protocol == "study" and cell.prune_method == "gn"),
    # what does not decide a model's numbers does not touch its key
    ("bench.threads", [4, "all"], nobody),
    ("bench.runtimes", ["current"], nobody),
    ("bench.precision_pct", 3.0, nobody),
    ("bench.rounds", 99, nobody),
    ("bench.seed", 5, nobody),
    ("bench.target.name", "another", nobody),
    ("bench.target.physical_cores", 2, nobody),
    ("experiment.0.title", "another", nobody),
    ("experiment.2.seed", [4, 3, 2, 1, 0], nobody),
    ("protocol.controlled.keep_for", ["gram", "fmse"], nobody),
    ("protocol.controlled.sparse_for", ["gn", "bn", "l1"], nobody),
    ("profile.quick.teacher.epochs", 9, nobody),
]


@pytest.mark.parametrize(
    ("place", "value", "decided"), CHANGES, ids=[f"{place}={value}" for place, value, _ in CHANGES]
)
def test_a_key_changes_exactly_where_a_setting_decides_the_numbers(
    load: Load, document: dict[str, Any], plan: Plan, place: str, value: Any, decided: Callable[[Cell], bool]
) -> None:
    before = keys(plan)
    put(document, place, value)
    after = keys(planned(load, document, experiments=EVERYTHING))
    assert after.keys() == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {cell.id for cell in plan.cells if decided(cell)}


def test_every_setting_of_model_data_and_recipes_is_in_the_keys(plan: Plan) -> None:
    """A new setting cannot be forgotten: the key is over whole sections."""
    settings = plan.settings
    student = table(plan, "prune-0.3")["p0.3-bn-gram-s0"]
    assert stage(student, "teacher")["model"] == settings.model.model_dump()
    assert stage(student, "teacher")["data"] == {"name": "cifar100", **settings.data.model_dump()}
    assert stage(student, "teacher")["recipe"].keys() == type(settings.student).model_fields.keys()
    assert stage(student, "student")["recipe"] == settings.student.model_dump()
    assert stage(student, "sparse")["recipe"] == settings.pruning.sparse.model_dump()


def test_a_model_of_the_stand_in_is_never_taken_for_one_of_cifar100() -> None:
    settings = load_settings(ROOT / "matrix.toml", "quick")
    real, drawn = make_plan(settings, "quick"), make_plan(settings, "quick", "stand-in")
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
    put(document, "teacher.epochs", 3)
    assert keys(planned(load, document)) == plans[2]


def test_a_missing_teacher_checkpoint_is_named(load: Load, document: dict[str, Any], tmp_path: Path) -> None:
    put(document, "teacher.checkpoint", str(tmp_path / "gone.pt"))
    with pytest.raises(HarnessError, match=r"teacher\.checkpoint: .*gone\.pt: no such file"):
        planned(load, document)


def shuffled(value: Any, draw: st.DrawFn) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}
    return value


@st.composite
def reordered(draw: st.DrawFn) -> dict[str, Any]:
    """The same document with every table's keys, the experiments and their axes in another order."""
    document = shuffled(deepcopy(DOCUMENT), draw)
    document["experiment"] = [
        {
            key: draw(st.permutations(value)) if isinstance(value, list) else value
            for key, value in shuffled(experiment, draw).items()
        }
        for experiment in draw(st.permutations(document["experiment"]))
    ]
    return document


@given(document=reordered())
def test_the_order_of_the_file_decides_nothing_but_the_order_of_the_tables(
    load: Load, plan: Plan, document: dict[str, Any]
) -> None:
    assert keys(planned(load, document, experiments=EVERYTHING)) == keys(plan)


def test_keys_are_the_same_in_another_process(plan: Plan) -> None:
    code = (
        "from pathlib import Path; from harness.plan.planning import make_plan; from harness.plan.settings import load_settings;"
        "plan = make_plan(load_settings(Path('matrix.toml'), 'full'), 'full');"
        "print(*(cell.key for cell in plan.cells))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [cell.key for cell in make_plan(plan.settings, "full").cells]


def test_planning_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, harness.plan.planning; print({'torch', 'numpy', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@given(
    amounts=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3, unique=True),
    methods=st.lists(st.sampled_from(["l1", "bn", "gn"]), min_size=1, unique=True),
    kds=st.lists(st.sampled_from(["none", "scratch", "base", "fmse", "gram"]), min_size=1, unique=True),
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
    assert len({cell.id for cell in cells}) == len({cell.key for cell in cells}) == len(points)


def test_ten_thousand_cells_are_planned_and_told_apart(load: Load, document: dict[str, Any]) -> None:
    put(document, "experiment.2.seed", list(range(3334)))
    cells = planned(load, document, experiments=["seeds"]).cells
    assert len({cell.key for cell in cells}) == len(cells) == 10_003


# --- Rounding and names ----------------------------------------------------------------------------------------------


@given(narrowest=st.integers(4, 256), vector=st.integers(1, 64))
def test_auto_rounding_is_the_largest_halving_that_leaves_something_to_prune(
    load: Load, narrowest: int, vector: int
) -> None:
    document = deepcopy(DOCUMENT)
    put(document, "model.width", narrowest / 64)
    put(document, "bench.target.vector_channels", vector)
    multiple = rounding(load(document))
    halvings = [vector >> step for step in range(vector.bit_length())]
    assert multiple == max((m for m in halvings if 2 * m <= narrowest), default=1)


@given(narrowest=st.integers(4, 256), given_multiple=st.integers(1, 64))
def test_a_given_rounding_is_taken_as_it_is(load: Load, narrowest: int, given_multiple: int) -> None:
    document = deepcopy(DOCUMENT)
    put(document, "model.width", narrowest / 64)
    put(document, "pruning.round_to", given_multiple)
    assert rounding(load(document)) == given_multiple


@pytest.mark.parametrize(
    ("profile", "multiple"), [("quick", 4), ("lite", 4), ("full", 8), ("reference", 8)], ids=PROFILES
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
    assume(text.lower() not in {"0", "1", "3", "base", "fmse", "gram", "none", "scratch"})
    with pytest.raises(HarnessError, match=r"allowed: 0 \(base\), 1 \(fmse\), 3 \(gram\) or a name: base, fmse"):
        kd_name(text)


def test_kd_labels_are_those_of_the_studys_tables() -> None:
    assert [kd_label(name) for name in ("base", "fmse", "gram")] == ["Base", "FMSE+Base", "GRAM+Base"]


def test_a_cells_key_is_over_its_settings_alone(plan: Plan) -> None:
    assert replace(plan.teacher, id="other", title="Other").key == plan.teacher.key == digest(plan.teacher.settings, 16)


# --- What comes first ------------------------------------------------------------------------------------------------


def test_first_decides_the_order_of_making_and_no_key(load: Load, document: dict[str, Any]) -> None:
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
    with pytest.raises(HarnessError, match=r"profile full has no cell 'p0\.9'"):
        plan.named(["p0.9"])
