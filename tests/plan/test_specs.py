import json
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from harness.plan import registry
from harness.plan.loading import load_settings
from harness.plan.planning import Cell, Plan, make_plan
from harness.plan.specs import (
    SCHEME,
    Accuracy,
    Export,
    Latency,
    Pruned,
    Sparse,
    Stage,
    Student,
    Teacher,
    code_of,
    engine_plugin,
    key_of,
)
from tests.documents import DOCUMENT, ROOT, Load, put

EVERYTHING = ["prune-0.3", "prune-0.4", "seeds", "controlled"]
CURRENT = "onnxruntime-current"
# A cell, and a stage of it: by kind, or a latency by its condition.
Place = tuple[str, str]
# Whether a setting is part of a stage's own settings.
Decides = Callable[[Cell, Stage], bool]


def planned(load: Load, document: dict[str, Any], profile: str = "long") -> Plan:
    return make_plan(load(document, profile), profile, experiments=EVERYTHING)


def stages(plan: Plan) -> dict[Place, tuple[Cell, Stage]]:
    """Every stage of every cell."""
    found: dict[Place, tuple[Cell, Stage]] = {}
    for cell in plan.cells:
        found |= {(cell.id, stage.kind): (cell, stage) for stage in cell.spec.lineage}
        found |= {(cell.id, name): (cell, plan.latency(cell, name)) for name in plan.settings.bench.conditions}
        found[cell.id, "accuracy"] = (cell, plan.accuracy(cell))
    return found


def keys(plan: Plan) -> dict[Place, str]:
    return {place: stage.key for place, (_, stage) in stages(plan).items()}


def changed(before: dict[Place, str], after: dict[Place, str]) -> set[Place]:
    """The places whose key is another one; places that only one of the plans has do not count."""
    return {place for place in before.keys() & after.keys() if before[place] != after[place]}


def downstream(plan: Plan, decides: Decides) -> set[Place]:
    """The stages that a setting decides, and all that come after them."""
    return {
        place for place, (cell, stage) in stages(plan).items() if any(decides(cell, before) for before in stage.lineage)
    }


# Each example reads a file with four profiles in it.
few = hypothesis_settings(max_examples=25)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(load_settings(ROOT / "matrix.toml", "long"), "long", experiments=EVERYTHING)


@pytest.fixture(scope="module")
def before(plan: Plan) -> dict[Place, str]:
    return keys(plan)


# --- What decides what -----------------------------------------------------------------------------------------------


def in_stage(*kinds: type[Stage], where: Callable[[Cell], bool] = lambda _: True) -> Decides:
    return lambda cell, stage: isinstance(stage, kinds) and where(cell)


def controlled(cell: Cell) -> bool:
    return cell.protocol == "controlled"


def study(cell: Cell) -> bool:
    return cell.protocol == "study"


def by_kd(*methods: str) -> Callable[[Cell], bool]:
    return lambda cell: cell.kd_method in methods


def both(one: Callable[[Cell], bool], other: Callable[[Cell], bool]) -> Callable[[Cell], bool]:
    return lambda cell: one(cell) and other(cell)


def under_target(cell: Cell, stage: Stage) -> bool:
    return isinstance(stage, Latency | Accuracy) and stage.isa != "host"


def either(one: Decides, other: Decides) -> Decides:
    return lambda cell, stage: one(cell, stage) or other(cell, stage)


nothing = in_stage()
trained = in_stage(Teacher, Sparse, Student)
latency, accuracy = in_stage(Latency), in_stage(Accuracy)
# the methods that learn from a teacher, those that read features, and those that make use of Base's loss
TAUGHT, FEATURES, BASE = ("base", "fmse", "gram"), ("fmse", "gram"), ("base", "fmse", "gram")

# place, new value, the stages whose own settings it is part of
CHANGES: list[tuple[str, Any, Decides]] = [
    ("precision", "fp32", trained),
    ("model.architecture", "resnet18", in_stage(Teacher)),
    ("model.width", 0.5, in_stage(Teacher)),
    ("model.stem", "imagenet", in_stage(Teacher)),
    ("data.train_images", 40_000, in_stage(Teacher)),
    ("data.image_size", 64, in_stage(Teacher)),
    ("data.augment", ["flip"], in_stage(Teacher)),
    ("teacher.epochs", 9, in_stage(Teacher)),
    ("teacher.lr", 0.123, in_stage(Teacher)),
    ("teacher.weight_decay", 0.0, in_stage(Teacher)),
    ("teacher.clip_norm", 1.0, in_stage(Teacher)),
    ("teacher.warmup_epochs", 0.5, in_stage(Teacher)),
    ("teacher.image_sizes", [16, 32], in_stage(Teacher)),
    ("student.epochs", 9, in_stage(Student)),
    ("student.lr", 0.123, in_stage(Student)),
    ("student.schedule", "constant", in_stage(Student)),
    ("student.nesterov", False, in_stage(Student)),
    ("profile.long.student.image_sizes", [16, 32], in_stage(Student)),
    ("pruning.round_to", 4, in_stage(Pruned)),
    ("pruning.calibration.images", 100, in_stage(Pruned)),
    ("pruning.sparse.epochs", 2, in_stage(Sparse)),
    ("pruning.sparse.regularisation", 1e-4, in_stage(Sparse)),
    ("pruning.sparse.image_sizes", [24], in_stage(Sparse)),
    # the channels of pruned networks are a multiple of its vector width, and figures are under its instruction set
    ("bench.target.name", "Xeon-8180", either(in_stage(Pruned), under_target)),
    ("bench.target.name", "E5-2699v4", under_target),
    ("criterion.gn.alpha", 3.0, in_stage(Sparse, Pruned, where=lambda cell: cell.prune_method == "gn")),
    ("method.gram.scale", 0.2, in_stage(Student, where=by_kd("gram"))),
    ("method.base.temperature", 3.0, in_stage(Student, where=by_kd(*BASE))),
    ("protocol.controlled.temperature", 2.0, in_stage(Student, where=both(controlled, by_kd(*TAUGHT)))),
    ("protocol.controlled.label_weight", 0.5, in_stage(Student, where=both(controlled, by_kd(*TAUGHT)))),
    ("protocol.controlled.stages", 3, in_stage(Student, where=controlled)),
    ("protocol.controlled.features", "norm", in_stage(Student, where=both(controlled, by_kd(*FEATURES)))),
    ("protocol.study.features", "norm", in_stage(Student, where=both(study, by_kd(*FEATURES)))),
    ("protocol.controlled.feature_weight", {"gram": 2.0}, in_stage(Student, where=both(controlled, by_kd("gram")))),
    ("protocol.controlled.keep_for", ["fmse"], in_stage(Sparse, Pruned, where=controlled)),
    ("protocol.controlled.sparse_for", [], in_stage(Sparse, where=controlled)),
    ("protocol.study.keep_for", ["gram"], in_stage(Sparse, Pruned, where=both(study, by_kd("base", "fmse")))),
    ("protocol.study.sparse_for", ["bn"], in_stage(Sparse, where=both(study, lambda one: one.prune_method == "gn"))),
    ("protocol.study.emptied_groups", "least", in_stage(Pruned, where=study)),
    ("export.opset", 13, in_stage(Export)),
    ("bench.precision_pct", 3.0, latency),
    ("bench.minutes_per_model", 3.0, latency),
    ("bench.blocks", 20, latency),
    ("bench.sampling_s", 2.0, latency),
    ("bench.rounds", 99, latency),
    ("bench.warmup_s", 1.0, latency),
    ("bench.warmup_rounds", 1, latency),
    ("bench.seed", 5, latency),
    # accuracy is measured under the headline condition, which comes first
    ("bench.engines", [CURRENT, "onnxruntime-1.16.0"], accuracy),
    ("bench.threads", ["all", 1], accuracy),
    ("bench.isa", ["host", "target"], accuracy),
    # what decides no number
    ("bench.engines", ["onnxruntime-1.16.0"], nothing),
    ("bench.threads", [1, "all", 4], nothing),
    ("bench.target.name", "Intel Core i9-9900K", nothing),
    ("bench.isa", ["target"], nothing),
    ("data.fallback", "stand_in", nothing),
    ("dataset.image_folder.classes", 7, nothing),
    ("method.logit_std.weight", 1.0, nothing),
    ("student.gamma", 0.5, nothing),
    ("profile.long.student.image_sizes", [32, 32, 32], nothing),
    ("experiment.0.title", "another", nothing),
    ("experiment.0.first", [{"prune_method": "l1"}], nothing),
    ("experiment.2.seed", [4, 3, 2, 1, 0], nothing),
    ("protocol.controlled.keep_for", ["gram", "fmse"], nothing),
    ("protocol.controlled.sparse_for", ["gn", "bn", "l1"], nothing),
    ("protocol.controlled.feature_weight", {"gram": 1.0}, nothing),
    ("profile.quick.teacher.epochs", 9, nothing),
]


@pytest.mark.parametrize(
    ("place", "value", "decides"), CHANGES, ids=[f"{place}={value}" for place, value, _ in CHANGES]
)
def test_a_setting_changes_the_keys_of_the_stages_that_it_decides_and_of_what_comes_after(
    load: Load,
    document: dict[str, Any],
    plan: Plan,
    before: dict[Place, str],
    place: str,
    value: Any,
    decides: Decides,
) -> None:
    put(document, place, value)
    after = keys(planned(load, document))
    found = changed(before, after)
    # a stage that is there no more has no key that could differ
    assert found == downstream(plan, decides) & after.keys()
    assert found or decides is nothing


def coherent(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with what its schedule needs, and without what its momentum has no use for."""
    schedule = {"gamma": 0.9} if recipe.get("schedule") == "exponential" else {}
    momentum = {} if recipe.get("momentum", 0.9) else {"nesterov": False}
    return {**recipe, **schedule, **momentum}


RECIPES = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(2, 500),
        "batch_size": st.integers(1, 4096),
        "lr": st.floats(1e-6, 10),
        "momentum": st.floats(0, 0.999),
        "nesterov": st.booleans(),
        "weight_decay": st.floats(0, 1),
        "schedule": st.sampled_from(["cosine", "linear", "exponential", "constant"]),
        "clip_norm": st.floats(0, 10),
    },
).map(coherent)
SAMPLING = st.fixed_dictionaries(
    {},
    optional={
        "precision_pct": st.floats(0.01, 100),
        "minutes_per_model": st.floats(0.01, 100),
        "blocks": st.integers(3, 100),
        "warmup_s": st.floats(0, 10),
        "warmup_rounds": st.integers(1, 100),
        "sampling_s": st.floats(0.01, 10),
        "rounds": st.integers(11, 1000),
        "seed": st.integers(0, 2**31),
    },
)
EXPORTS = st.fixed_dictionaries({}, optional={"opset": st.integers(11, 19)})
SPARSE = st.fixed_dictionaries({}, optional={"lr": st.floats(1e-6, 10), "regularisation": st.floats(0, 1)})
GRAM = st.fixed_dictionaries({}, optional={"scale": st.floats(0, 10), "dead_zone": st.floats(0, 10)})
SECTIONS = st.one_of(
    st.tuples(st.just("student"), RECIPES, st.just(in_stage(Student))),
    st.tuples(st.just("pruning.sparse"), SPARSE, st.just(in_stage(Sparse))),
    st.tuples(st.just("export"), EXPORTS, st.just(in_stage(Export))),
    st.tuples(st.just("bench"), SAMPLING, st.just(latency)),
    st.tuples(st.just("method.gram"), GRAM, st.just(in_stage(Student, where=by_kd("gram")))),
)


@few
@given(section=SECTIONS)
def test_any_values_of_a_section_change_its_stages_or_none(
    load: Load, plan: Plan, before: dict[Place, str], section: tuple[str, dict[str, Any], Decides]
) -> None:
    place, values, decides = section
    document = deepcopy(DOCUMENT)
    for key, value in values.items():
        put(document, f"{place}.{key}", value)
    # a warm-up of its own would refuse some numbers of epochs
    put(document, "student.warmup_epochs", DOCUMENT["student"]["warmup_epochs"])
    after = planned(load, document)
    same = load(document) == plan.settings or values == {}
    assert changed(before, keys(after)) == (set() if same else downstream(plan, decides))


@few
@given(sizes=st.lists(st.sampled_from([16, 24, 32]), max_size=4), repeats=st.integers(1, 5))
def test_image_sizes_mean_what_is_trained_and_not_how_it_is_written(
    plan: Plan, before: dict[Place, str], sizes: list[int], repeats: int
) -> None:
    """The last size holds for the rest, so repeating it changes nothing; and 32 pixels throughout is the default."""
    settings, written = plan.settings, []
    for image_sizes in (sizes, [*sizes, *sizes[-1:] * repeats]):
        recipe = settings.student.model_copy(update={"image_sizes": image_sizes})
        other = make_plan(settings.model_copy(update={"student": recipe}), "long", experiments=EVERYTHING)
        written.append(keys(other))
    assert written[0] == written[1]
    assert (written[0] == before) == (set(sizes) <= {32})


def test_another_size_at_the_end_of_training_has_the_teachers_statistics_estimated_anew(
    load: Load, document: dict[str, Any], plan: Plan
) -> None:
    assert plan.teacher.teacher.calibration is None
    put(document, "teacher.image_sizes", [32, 24])
    settings = load(document)
    assert make_plan(settings, "long").teacher.teacher.calibration == settings.pruning.calibration
    put(document, "pruning.calibration.images", 100)
    assert make_plan(load(document), "long").teacher.trained.key != make_plan(settings, "long").teacher.trained.key


def test_only_criteria_that_draw_have_the_seed_in_the_key_of_the_pruned_network(
    load: Load, document: dict[str, Any]
) -> None:
    put(document, "experiment.0.prune_method", ["l1", "random"])
    put(document, "experiment.0.seed", [0, 1])
    cells = make_plan(load(document), "long", experiments=["prune-0.3"]).cells[1:]
    for method, pruned in (("l1", 1), ("random", 2)):
        found = [cell for cell in cells if cell.prune_method == method and cell.kd_method == "base"]
        assert len({cell.student.parent.key for cell in found}) == pruned
        assert len({cell.student.key for cell in found}) == 2


# --- What a key is ---------------------------------------------------------------------------------------------------


def test_a_key_names_its_scheme_and_is_a_hash(before: dict[Place, str]) -> None:
    for key in before.values():
        scheme, _, rest = key.partition("-")
        assert scheme == f"v{SCHEME}"
        assert len(rest) == 16 and int(rest, 16) >= 0


def test_stages_share_a_key_only_if_they_are_the_same(plan: Plan) -> None:
    found = {stage.key: stage.document for _, stage in stages(plan).values()}
    assert all(stage.document == found[stage.key] for _, stage in stages(plan).values())
    assert len({json.dumps(document, sort_keys=True) for document in found.values()}) == len(found)


def test_a_key_follows_from_the_settings_as_a_record_keeps_them(plan: Plan) -> None:
    for _, stage in stages(plan).values():
        for kept in (stage.document, stage.brief):
            assert key_of(json.loads(json.dumps(kept))) == stage.key


def test_a_key_is_over_a_stages_own_settings_and_its_parents_key_alone(plan: Plan) -> None:
    cell = next(cell for cell in plan.cells if cell.id == "p0.3-bn-gram-s0")
    assert replace(cell, id="other", title="Other", point={}).spec.key == cell.spec.key
    for _, stage in stages(plan).values():
        assert stage.document.get("kind") == stage.kind
        assert (stage.brief.get("parent") or None) == (stage.parent.key if stage.parent else None)
        assert {name for name in stage.brief if name != "parent"} == stage.own.keys()


def test_every_setting_of_model_data_and_recipes_is_in_the_keys(plan: Plan) -> None:
    """A new setting cannot be forgotten: stages hold whole sections, and each field of a stage is part of its key."""
    settings = plan.settings
    cell = next(cell for cell in plan.cells if cell.id == "p0.3-bn-gram-s0")
    student, pruned, sparse, teacher = (stage.own for stage in reversed(cell.student.lineage))
    assert teacher["network"] == {
        "architecture": {"name": "resnet50", "parameters": {}},
        "classes": 100,
        "width": settings.model.width,
        "stem": settings.model.stem,
    }
    assert {**teacher["data"], "dataset": None} == {
        **settings.data.model_dump(exclude={"fallback"}),
        "dataset": None,
    }
    fields = type(settings.student).model_fields.keys() - {"gamma"}
    assert teacher["recipe"].keys() == student["recipe"].keys() == fields
    assert sparse["recipe"].keys() == fields | {"regularisation"}
    assert pruned["calibration"] == settings.pruning.calibration.model_dump()
    assert student["methods"] == [
        {"name": name, "parameters": dict(registry.find("method", name).parameters)} for name in ("gram", "base")
    ]
    sampling = plan.latency(cell, settings.bench.conditions[0]).own["sampling"]
    assert sampling.keys() == type(settings.bench).model_fields.keys() - {"engines", "isa", "threads", "target"}


def shuffled(value: Any, draw: st.DrawFn) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}
    return value


@st.composite
def reordered(draw: st.DrawFn) -> dict[str, Any]:
    """The same document with every table's keys, the experiments and their axes in another order."""
    document: dict[str, Any] = shuffled(deepcopy(DOCUMENT), draw)
    document["experiment"] = [
        {
            key: draw(st.permutations(value)) if isinstance(value, list) else value
            for key, value in shuffled(experiment, draw).items()
        }
        for experiment in draw(st.permutations(document["experiment"]))
    ]
    return document


@few
@given(document=reordered())
def test_the_order_of_the_file_changes_no_key(load: Load, before: dict[Place, str], document: dict[str, Any]) -> None:
    assert keys(planned(load, document)) == before


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_keys_are_the_same_in_another_process(plan: Plan, hash_seed: str) -> None:
    code = (
        "from pathlib import Path\n"
        "from harness.plan.loading import load_settings\n"
        "from harness.plan.planning import make_plan\n"
        "plan = make_plan(load_settings(Path('matrix.toml'), 'long'), 'long')\n"
        "print(*(plan.latency(cell, plan.settings.bench.conditions[0]).key for cell in plan.cells))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    here = make_plan(plan.settings, "long")
    headline = plan.settings.bench.conditions[0]
    assert done.stdout.split() == [here.latency(cell, headline).key for cell in here.cells]


GOLDEN = {
    ("teacher-s0", "teacher"): "v2-7e2e5eb9ada8ecc7",
    ("teacher-s0", "export"): "v2-ab1e4af124aae22a",
    ("teacher-s0", "onnxruntime-1.16.0-target-threads-1"): "v2-208f22d1cf5b8579",
    ("teacher-s0", "accuracy"): "v2-61abe4e1a26fae87",
    ("p0.3-gn-gram-s0", "teacher"): "v2-7e2e5eb9ada8ecc7",
    ("p0.3-gn-gram-s0", "sparse"): "v2-a6966454251cb293",
    ("p0.3-gn-gram-s0", "pruned"): "v2-05f4fa9f7014b546",
    ("p0.3-gn-gram-s0", "student"): "v2-1ff0984f0ee7d670",
    ("p0.3-gn-gram-s0", "export"): "v2-32db73ce0ba4e321",
    ("p0.3-gn-gram-s0", "onnxruntime-1.16.0-target-threads-1"): "v2-11feed39dff679c1",
    ("p0.3-gn-gram-s0", "accuracy"): "v2-c0af58e953a4e351",
}


def test_golden_keys() -> None:
    plan = make_plan(load_settings(ROOT / "tests/plan/golden.toml", "lite"), "lite")
    assert keys(plan) == GOLDEN, (
        "the same settings give other keys than before, which makes every record out there stale. If that was not "
        "intended, undo it. If it was (another field of a stage, another parameter of a plug-in): raise SCHEME in "
        "harness/plan/specs.py, add a migration of records to harness/store/migrations.py, and only then put the new "
        "keys here. Keys of measurements alone may simply change: measuring again costs an hour and no training"
    )


# --- Code ------------------------------------------------------------------------------------------------------------


def test_a_training_is_by_the_code_of_every_plug_in_up_to_it(plan: Plan) -> None:
    cell = next(cell for cell in plan.cells if cell.id == "p0.3-bn-gram-s0")
    code = code_of(cell.trained)
    assert list(code) == [
        "architecture resnet50",
        "dataset cifar100",
        "criterion bn",
        "method gram",
        "method base",
    ]
    for name, digest in code.items():
        kind, _, plugin = name.partition(" ")
        assert digest == registry.find(kind, plugin).digest  # type: ignore[arg-type]


def test_kept_layers_are_by_the_code_of_the_methods_that_want_them(plan: Plan) -> None:
    cell = next(cell for cell in plan.cells if cell.id == "p0.3-l1-none-s0-controlled")
    assert {"method fmse", "method gram", "method none"} <= code_of(cell.trained).keys()
    assert "method base" not in code_of(cell.trained)


def test_a_measurement_is_by_the_code_of_its_engine_alone(plan: Plan) -> None:
    for stage in (plan.latency(plan.teacher, f"{CURRENT}-host-threads-1"), plan.accuracy(plan.teacher)):
        assert list(code_of(stage)) == ["engine onnxruntime"]


@pytest.mark.parametrize(
    ("engine", "plugin"),
    [("onnxruntime-1.16.0", "onnxruntime"), ("mine.engines:TVM-0.15", "mine.engines:TVM"), ("tvm-a-b", "tvm")],
)
def test_an_engine_is_a_plug_in_in_one_of_its_variants(engine: str, plugin: str) -> None:
    assert engine_plugin(engine) == plugin
