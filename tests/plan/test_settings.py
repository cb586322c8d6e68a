import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.plan import registry
from harness.plan.bench_settings import engine_environment, engine_names, engine_version
from harness.plan.planning import make_plan
from harness.plan.settings import Settings
from tests.documents import DOCUMENT, ROOT, Load, put


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document that holds something, tables included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [found for key, item in items for found in [(*place, key), *places(item, (*place, key))]]


def test_a_whole_number_is_accepted_for_a_fraction_and_means_the_same(load: Load, document: dict[str, Any]) -> None:
    put(document, "teacher.lr", 1)
    whole = load(document)
    put(document, "teacher.lr", 1.0)
    assert whole == load(document)
    assert whole.model_dump_json() == load(document).model_dump_json()


def test_settings_are_frozen(load: Load, document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(load(document).teacher, "epochs", 3)  # noqa: B010 (mypy knows that it cannot be set)


def test_recipes_may_name_sizes_and_any_schedule(load: Load, document: dict[str, Any]) -> None:
    put(document, "teacher.image_sizes", [16, 24, 32])
    put(document, "student.schedule", "linear")
    settings = load(document)
    assert settings.teacher.image_sizes == [16, 24, 32]
    assert settings.student.schedule == "linear"


def test_parameters_of_plug_ins_are_laid_over_their_defaults(load: Load, document: dict[str, Any]) -> None:
    put(document, "method.gram.scale", 2)
    settings = load(document)
    defaults = registry.find("method", "gram").parameters
    assert settings.parameters("method", "gram") == {**defaults, "scale": 2.0}
    assert settings.parameters("method", "fmse") == registry.find("method", "fmse").parameters


def test_the_narrowest_layer_follows_the_architecture_and_the_width(load: Load, document: dict[str, Any]) -> None:
    put(document, "model.architecture", "resnet18")
    put(document, "model.width", 0.25)
    assert load(document).model.narrowest == registry.find("architecture", "resnet18").constants["CHANNELS"] / 4


# --- Engines ---------------------------------------------------------------------------------------------------------


def test_conditions_are_engines_times_instruction_sets_times_threads_with_the_headline_first(
    load: Load, document: dict[str, Any]
) -> None:
    put(document, "bench.engines", ["onnxruntime-current", "onnxruntime-1.16.0"])
    put(document, "bench.isa", ["host", "target"])
    put(document, "bench.threads", [2, "all"])
    bench = load(document).bench
    assert bench.conditions == [
        "onnxruntime-current-host-threads-2",
        "onnxruntime-current-host-threads-all",
        "onnxruntime-current-target-threads-2",
        "onnxruntime-current-target-threads-all",
        "onnxruntime-1.16.0-host-threads-2",
        "onnxruntime-1.16.0-host-threads-all",
        "onnxruntime-1.16.0-target-threads-2",
        "onnxruntime-1.16.0-target-threads-all",
    ]
    assert bench.as_host().conditions == [name for name in bench.conditions if "-host-" in name]


@pytest.mark.parametrize("engine", engine_names())
def test_an_engines_version_is_the_one_that_its_environment_pins(engine: str) -> None:
    package, _, version = engine_version(engine).partition(" ")
    pins = (ROOT / "requirements" / f"{engine_environment(engine)}.txt").read_text(encoding="utf-8")
    assert re.findall(rf"^{package}==([^ ;\\]+)", pins, re.MULTILINE) == [version]


def test_an_engine_of_any_version_is_not_for_a_matrix(load: Load, document: dict[str, Any]) -> None:
    put(document, "bench.engines", ["onnxruntime-here"])
    with pytest.raises(HarnessError, match=r"bench: engines: onnxruntime-here can be any version; name one"):
        load(document)


# --- Axes ------------------------------------------------------------------------------------------------------------


def axes(load: Load, document: dict[str, Any], **tables: Any) -> Settings:
    """The settings with further axes for the first experiment."""
    document["experiment"][0].update(tables)
    return load(document)


def test_any_key_of_four_sections_may_be_an_axis(load: Load, document: dict[str, Any]) -> None:
    settings = axes(
        load,
        document,
        student={"lr": [0.05, 0.1], "image_sizes": [[], [16]]},
        pruning={"round_to": ["auto", 4], "sparse": {"lr": [0.01, 0.02]}, "calibration": {"images": [100]}},
        method={"gram": {"scale": [0.1, 1.0]}},
        criterion={"gn": {"alpha": [2.0, 4.0]}},
    )
    assert list(settings.experiment[0].axes) == [
        "prune_amount",
        "prune_method",
        "kd_method",
        "seed",
        "student.lr",
        "student.image_sizes",
        "pruning.round_to",
        "pruning.sparse.lr",
        "pruning.calibration.images",
        "method.gram.scale",
        "criterion.gn.alpha",
    ]


def test_axes_change_just_their_keys(load: Load, document: dict[str, Any]) -> None:
    settings = load(document)
    changed = settings.with_axes({"student.lr": 0.3, "pruning.sparse.lr": 0.2, "method.gram.scale": 5})
    assert changed.student == settings.student.model_copy(update={"lr": 0.3})
    assert changed.pruning.sparse == settings.pruning.sparse.model_copy(update={"lr": 0.2})
    assert changed.pruning.calibration == settings.pruning.calibration
    assert changed.parameters("method", "gram") == {**settings.parameters("method", "gram"), "scale": 5.0}
    assert changed.model_copy(update={s: getattr(settings, s) for s in ("student", "pruning", "method")}) == settings


def test_values_of_a_point_are_judged_together(load: Load, document: dict[str, Any]) -> None:
    """One epoch would be too few for the recipe's own warm-up."""
    # whose sizes of images are for more than one epoch
    del document["profile"]["full"]["student"]
    settings = axes(load, document, student={"epochs": [1], "warmup_epochs": [0]})
    assert settings.with_axes({"student.epochs": 1, "student.warmup_epochs": 0}).student.epochs == 1


def test_an_axis_has_to_suit_the_profiles_that_run_it(load: Load, document: dict[str, Any]) -> None:
    put(document, "experiment.2.student.warmup_epochs", [0.5, 3])
    assert load(document, "long").experiment[2].more == {"student.warmup_epochs": [0.5, 3]}
    # one epoch for a student, but none of its experiments has the axis
    quick = load(document, "quick")
    with pytest.raises(HarnessError, match=r"student\.warmup_epochs = 3: warmup_epochs: must be below epochs \(1\)"):
        make_plan(quick, "quick", experiments=["seeds"])


def test_parameters_of_a_plug_in_elsewhere_may_be_an_axis(
    load: Load, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kd.py").write_text("PARAMETERS = {'beta': 1.0}")
    document["experiment"][0]["kd_method"] = ["mine.kd:METHOD"]
    settings = axes(load, document, method={"mine.kd:METHOD": {"beta": [1.0, 2.0]}})
    assert settings.experiment[0].more == {"method.mine.kd:METHOD.beta": [1.0, 2.0]}
    changed = settings.with_axes({"method.mine.kd:METHOD.beta": 2})
    assert changed.parameters("method", "mine.kd:METHOD") == {"beta": 2.0}


# --- What is refused -------------------------------------------------------------------------------------------------

POINT = {"prune_amount": 0.3, "prune_method": "bn", "kd_method": "base", "seed": 0}
# place, bad value, what the message must name: the key as it stands in the file, and what is allowed
BAD: list[tuple[str, Any, list[str]]] = [
    ("colour", 1, ["colour: unknown key", "allowed: precision, model"]),
    ("teacher.epoch", 1, ["teacher.epoch: unknown key", "epochs, batch_size"]),
    ("bench.target.cores", 1, ["bench.target.cores: unknown key", "allowed: name"]),
    ("bench.target.name", "i9-9900", ["bench.target.name: unknown CPU 'i9-9900'", "i9-9900K, E5-2699v4"]),
    ("bench.isa", ["avx2"], ["bench.isa[0]", "'target' or 'host'"]),
    ("bench.isa", ["host", "host"], ["bench.isa", "named twice"]),
    ("bench.isa", [], ["bench.isa"]),
    ("protocol.study.stage", 1, ["protocol.study.stage: unknown key", "stages"]),
    ("pruning.sparse.strength", 1, ["pruning.sparse.strength: unknown key", "regularisation"]),
    ("export.colour", 1, ["export.colour: unknown key; allowed: form, opset"]),
    ("experiment.1.seeds", [0], ["experiment[prune-0.4].seeds: unknown key", "seed"]),
    ("profile.lite.teacher.epoch", 1, ["profile.lite.teacher.epoch: unknown key", "epochs"]),
    ("profile.lite.experiments", ["prune-0.5"], ["profile.lite.experiments", "'prune-0.5'", "prune-0.3, prune-0.4"]),
    ("profile.lite.experiments", ["seeds", "seeds"], ["profile.lite.experiments", "twice"]),
    ("experiment", [], ["experiments: unknown experiment", "allowed: none"]),
    ("profile.lite.experiments", [], ["profile.lite.experiments", "at least 1"]),
    ("profile.lite.model", 1, ["profile.lite.model: must be a table"]),
    ("profile", 1, ["profile: must be tables"]),
    ("model.architecture", "vgg", ["model.architecture: unknown architecture 'vgg'; allowed: resnet18, resnet50, or"]),
    ("model.width", 0.01, ["model: width: 64 x width", "whole number of channels", "at least 4"]),
    ("model.width", 5.0, ["model: width: 64 x width", "at most 4"]),
    ("model.width", "thin", ["model.width", "number", "'thin'"]),
    ("model.stem", "resnet", ["model.stem", "'cifar' or 'imagenet'"]),
    (
        "data.dataset",
        "mnist",
        ["data.dataset: unknown dataset 'mnist'; allowed: cifar100, cifar100_ten, image_folder, stand_in, or"],
    ),
    ("data.fallback", "mnist", ["data.fallback: unknown dataset 'mnist'; allowed: cifar100"]),
    ("data.augment", ["mixup"], ["data.augment[0]", "'crop'", "'mixup'"]),
    ("data.augment", ["study", "cutout"], ['data: augment: "study" is a whole pipeline and stands alone']),
    ("data.augment", ["flip", "crop", "flip"], ["data.augment: a value is named twice"]),
    ("data.train_images", 60_000, ["data: train_images: cifar100 has 50000 training images (got 60000)"]),
    ("data.image_size", 4, ["data.image_size", "greater than or equal to 8"]),
    ("precision", "auto", ["precision", "'bf16' or 'fp32' (got 'auto')"]),
    ("teacher.lr", -0.1, ["teacher.lr", "greater than 0"]),
    ("teacher.lr", float("nan"), ["teacher.lr", "finite"]),
    ("teacher.lr", float("inf"), ["teacher.lr", "finite"]),
    ("teacher.seed", True, ["teacher.seed", "integer"]),
    ("teacher.epochs", 1.5, ["teacher.epochs", "integer"]),
    ("profile.long.teacher.warmup_epochs", 150, ["teacher: warmup_epochs: must be below epochs (150)"]),
    ("profile.lite.student.warmup_epochs", 1, ["profile.lite.student: warmup_epochs: must be below epochs (1)"]),
    ("profile.lite.student.image_sizes", [16, 24], ["student: image_sizes: names 2 epochs of 1"]),
    ("teacher.momentum", 0.0, ["teacher: nesterov: has no effect without momentum; set nesterov = false"]),
    ("student.schedule", "exponential", ["student: gamma: an exponential schedule needs one below 1"]),
    ("student.image_sizes", [4], ["student.image_sizes[0]", "greater than or equal to 8"]),
    ("student.schedule", "step", ["student.schedule", "'cosine', 'linear', 'exponential' or 'constant'"]),
    ("pruning.round_to", "sometimes", ["pruning.round_to: ", "integer", "'auto'"]),
    ("pruning.round_to", 0, ["pruning.round_to: ", "greater than or equal to 1", "'auto'"]),
    ("pruning.calibration.batch_size", 1, ["pruning.calibration.batch_size", "greater than or equal to 2"]),
    ("export.opset", 20, ["export.opset", "less than or equal to 19"]),
    ("export.form", "int9", ["export.form", "'fp32'", "'int9'"]),
    ("bench.engines", ["onnxruntime-9"], ["bench.engines[0]: unknown engine", "onnxruntime-1.16.0, onnxruntime-curr"]),
    ("bench.engines", ["tvm-1"], ["bench.engines[0]: unknown engine 'tvm-1'; allowed: onnxruntime-1.16.0"]),
    ("bench.engines", [], ["bench.engines", "at least 1"]),
    ("bench.engines", ["onnxruntime-current"] * 2, ["bench.engines: a value is named twice"]),
    ("bench.threads", [0], ["bench.threads", "greater than or equal to 1", "'all'"]),
    ("bench.runtimes", ["current"], ["bench.runtimes: unknown key; allowed: engines, isa, threads"]),
    ("protocol.study.stages", 2, ["protocol.study: stages", "joint"]),
    ("protocol.study.temperature", 2.0, ["protocol.study: temperature", "joint"]),
    ("protocol.study.label_weight", 0.5, ["protocol.study: label_weight", "joint"]),
    ("protocol.study.feature_weight", {"gram": 2.0}, ["protocol.study: feature_weight", "joint"]),
    ("protocol.controlled.feature_weight", {"base": 2.0}, ["feature_weight: base learns from no features"]),
    ("protocol.controlled.keep_for", ["gram", "gram"], ["protocol.controlled.keep_for", "twice"]),
    ("protocol.study.sparse_for", ["bn", "bn"], ["protocol.study.sparse_for: a value is named twice"]),
    ("protocol.study.keep_for", ["kl"], ["protocol.study.keep_for", "'kl'", "fmse, gram", "'own'"]),
    ("protocol.study.sparse_for", ["l0"], ["protocol.study.sparse_for", "'l0'", "bn, gn, l1"]),
    ("protocol.study.features", "mean", ["protocol.study.features", "'sum' or 'norm'"]),
    ("protocol.study.emptied_groups", "half", ["protocol.study.emptied_groups", "'whole' or 'least'"]),
    ("protocol.controlled.feature_weight", {"kl": 1.0}, ["protocol.controlled.feature_weight", "'kl'"]),
    ("protocol.a/b", DOCUMENT["protocol"]["controlled"], ["protocol.a/b", "pattern"]),
    ("method", 1, ["method: must be a table"]),
    ("method.gram", 1, ["method.gram: must be a table"]),
    ("method.kl.alpha", 1, ["method: unknown method 'kl'; allowed: base, fmse, gram"]),
    ("method.gram.scales", 1.0, ["method.gram.scales: unknown key; allowed: dead_zone, scale"]),
    ("method.gram.scale", "x", ["method.gram.scale: must be of type float (got 'x')"]),
    ("criterion.gn.alpha", True, ["criterion.gn.alpha: must be of type float (got True)"]),
    ("dataset.image_folder.classes", 10.5, ["dataset.image_folder.classes: must be of type int (got 10.5)"]),
    ("architecture.resnet50.depth", 1, ["architecture.resnet50.depth: unknown key; allowed: none"]),
    ("experiment.0.protocol", "fair", ["prune-0.3: unknown protocol 'fair'", "study, controlled"]),
    ("experiment.0.name", "seeds", ["experiment", "must differ"]),
    ("experiment.0.name", "../x", ["experiment[../x].name", "pattern"]),
    ("experiment.0.prune_amount", [1.0], ["experiment[prune-0.3].prune_amount[0]", "less than 1"]),
    ("experiment.0.prune_amount", [0.0], ["experiment[prune-0.3].prune_amount[0]", "greater than 0"]),
    ("experiment.0.prune_amount", 0.3, ["experiment[prune-0.3].prune_amount", "list"]),
    ("experiment.0.prune_amount", [], ["experiment[prune-0.3].prune_amount", "at least 1"]),
    ("experiment.0.prune_method", ["l2"], ["experiment[prune-0.3].prune_method[0]", "'l2'", "bn, gn, l1"]),
    ("experiment.0.kd_method", ["kl"], ["experiment[prune-0.3].kd_method[0]", "'kl'", "base, fmse, gram"]),
    ("experiment.0.seed", [0, 0], ["experiment[prune-0.3].seed", "twice"]),
    ("experiment.0.seed", [-1], ["experiment[prune-0.3].seed[0]", "greater than or equal to 0"]),
    ("experiment.0.student", 1, ["experiment[prune-0.3].student: must be a table"]),
    ("experiment.0.student.lr", 0.1, ["experiment[prune-0.3]: student.lr: an axis is a list of values (got 0.1)"]),
    ("experiment.0.student.lr", [], ["experiment[prune-0.3]: student.lr: an axis is a list of values (got [])"]),
    ("experiment.0.student.lr", [0.1, 0.1], ["experiment[prune-0.3]: student.lr: a value is named twice"]),
    ("experiment.0.student.lr", [0.1, -1], ["experiment[prune-0.3]: student.lr = -1: ", "greater than 0"]),
    ("experiment.0.student.rate", [0.1], ["student.rate = 0.1: rate: unknown key; allowed: epochs, batch_size, lr"]),
    ("experiment.0.student.warmup_epochs", [99], ["student.warmup_epochs = 99: warmup_epochs: must be below epochs"]),
    ("experiment.0.pruning.sparse.rate", [1], ["pruning.sparse.rate = 1: sparse.rate: unknown key", "regularisation"]),
    ("experiment.0.pruning.sparse", [1.0], ["experiment[prune-0.3]: pruning.sparse = 1.0: "]),
    ("experiment.0.method.gram.scales", [0.1], ["method.gram.scales: unknown key; allowed: dead_zone, scale"]),
    ("experiment.0.method.kl.scale", [0.1], ["method.kl.scale = 0.1: unknown method 'kl'; allowed: base, fmse"]),
    ("experiment.0.method.gram", [0.1], ["method.gram = 0.1: unknown axis", "student, pruning, method, criterion"]),
    ("experiment.0.criterion.gn.alpha", ["x"], ["criterion.gn.alpha: must be of type float (got 'x')"]),
    ("experiment.0.teacher.lr", [0.1], ["experiment[prune-0.3].teacher: unknown key; allowed: student, pruning"]),
    ("experiment.0.include", [{"seed": 1}], ["experiment[prune-0.3].include", "needs prune_amount"]),
    (
        "experiment.0.include",
        [{**POINT, "student": {"lr": -1}}],
        ["experiment[prune-0.3]: student.lr = -1: ", "greater"],
    ),
    ("experiment.0.include", [{**POINT, "student": {"rate": 1}}], ["student.rate = 1: rate: unknown key; allowed: ep"]),
    ("experiment.0.exclude", [{}], ["experiment[prune-0.3].exclude", "at least one of"]),
    ("experiment.0.first", [{}], ["experiment[prune-0.3].first", "at least one of"]),
    ("experiment.0.first", [{"prune_method": "bm"}], ["experiment[prune-0.3].first[0].prune_method", "'bm'"]),
    ("experiment.0.exclude", [{"seed": 9}], ["experiment[prune-0.3]: exclude: seed 9", "allowed: 0"]),
    ("experiment.0.exclude", [{"kd_method": "kl"}], ["experiment[prune-0.3].exclude[0].kd_method", "'kl'"]),
    ("experiment.0.exclude", [{"student": {"lr": 1.0}}], ["exclude: student.lr 1.0 is not on its axis; allowed: none"]),
]


@pytest.mark.parametrize(("place", "value", "named"), BAD, ids=[f"{place}={value}"[:60] for place, value, _ in BAD])
def test_bad_values_get_one_line_with_file_key_and_what_is_allowed(
    load: Load, document: dict[str, Any], place: str, value: Any, named: list[str]
) -> None:
    put(document, place, value)
    with pytest.raises(HarnessError) as raised:
        load(document)
    message = str(raised.value)
    assert "matrix.toml: " in message
    assert "\n" not in message
    for part in named:
        assert part in message


@pytest.mark.parametrize("place", ["experiment.0.seed", "teacher.lr", "bench.target", "experiment"])
def test_a_missing_key_is_named(load: Load, document: dict[str, Any], place: str) -> None:
    *above, last = place.split(".")
    here = document
    for part in above:
        here = here[int(part)] if isinstance(here, list) else here[part]
    del here[last]
    with pytest.raises(HarnessError, match=rf"matrix\.toml: profile \w+: .*{last}: is missing"):
        load(document)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 20),
    st.floats(),
    st.sampled_from(["", "auto", "own", "bn", "base", "study", "seeds"]),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-1, 3), max_size=2),
    st.dictionaries(st.sampled_from(["seed", "name", "epochs", "a b"]), st.integers(0, 3), max_size=2),
)


@given(
    place=st.sampled_from(places(DOCUMENT)), value=VALUES, added=st.none() | st.text("abc.[ ", min_size=1, max_size=3)
)
def test_any_damaged_document_loads_or_gives_one_clear_line(
    load: Load, place: tuple[Any, ...], value: Any, added: str | None
) -> None:
    """Drop (value None) or replace one item anywhere, or add a key beside it: never a traceback."""
    document = deepcopy(DOCUMENT)
    here: Any = document
    for part in place[:-1]:
        here = here[part]
    if added is not None and isinstance(here, dict):
        here[added] = 0 if value is None else value
    elif value is None:
        del here[place[-1]]
    else:
        here[place[-1]] = value
    try:
        load(document)
    except HarnessError as error:
        assert "matrix.toml: " in str(error)
        assert "\n" not in str(error)
