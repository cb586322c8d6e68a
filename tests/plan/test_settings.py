from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.plan.settings import load_settings, method_names
from tests.documents import DOCUMENT, PROFILES, ROOT, Load, put


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document that holds something, tables included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [found for key, item in items for found in [(*place, key), *places(item, (*place, key))]]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_projects_own_matrix_loads_in_every_profile(profile: str) -> None:
    assert load_settings(ROOT / "matrix.toml", profile).experiments


def test_a_profile_overlays_key_by_key(load: Load, document: dict[str, Any]) -> None:
    put(document, "profile.quick.teacher", {"epochs": 7})
    quick, full = load(document, "quick"), load(document, "full")
    assert quick.teacher.epochs == 7
    assert quick.teacher.lr == full.teacher.lr
    assert full.teacher.epochs == document["teacher"]["epochs"]


def test_a_list_in_a_profile_replaces_the_list_below(load: Load, document: dict[str, Any]) -> None:
    put(document, "profile.quick.data.augment", ["flip"])
    assert load(document, "quick").data.augment == ["flip"]


def test_whole_numbers_are_fine_where_a_fraction_is_meant_and_mean_the_same(
    load: Load, document: dict[str, Any]
) -> None:
    put(document, "teacher.lr", 1)
    whole = load(document)
    put(document, "teacher.lr", 1.0)
    assert whole == load(document)
    assert whole.model_dump_json() == load(document).model_dump_json()


def test_settings_do_not_change_afterwards(load: Load, document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(load(document).teacher, "epochs", 3)  # noqa: B010 (mypy knows that it cannot be set)


@pytest.mark.parametrize("kind", ["pruning", "distillation"])
def test_methods_are_the_files_of_their_folder(kind: Literal["pruning", "distillation"]) -> None:
    names = method_names(kind)
    assert names == sorted(names)
    assert all((ROOT / "harness" / "training" / kind / f"{name}.py").is_file() for name in names)
    assert not any(name.startswith("_") for name in names)


# place, bad value, what the message must name: the key as it stands in the file, and what is allowed
BAD = [
    ("colour", 1, ["colour: unknown key", "allowed: precision, model"]),
    ("teacher.epoch", 1, ["teacher.epoch: unknown key", "epochs, batch_size"]),
    ("bench.target.cores", 1, ["bench.target.cores: unknown key", "physical_cores"]),
    ("protocol.study.stage", 1, ["protocol.study.stage: unknown key", "stages"]),
    ("experiment.1.seeds", [0], ["experiment[prune-0.4].seeds: unknown key", "seed"]),
    ("profile.lite.teacher.epoch", 1, ["profile.lite.teacher.epoch: unknown key", "epochs"]),
    ("profile.lite.experiment", [], ["profile.lite", "shared"]),
    ("profile.lite.experiments", ["prune-0.5"], ["profile.lite.experiments", "'prune-0.5'", "prune-0.3, prune-0.4"]),
    ("profile.lite.experiments", ["seeds", "seeds"], ["profile.lite.experiments", "twice"]),
    ("experiment", [], ["experiments: unknown experiment", "allowed: none"]),
    ("profile.lite.experiments", [], ["profile.lite.experiments", "at least 1"]),
    ("profile.lite.model", 1, ["profile.lite.model: must be a table"]),
    ("profile", 1, ["profile: must be tables"]),
    ("model.width", 0.01, ["model.width", "whole number of channels"]),
    ("model.width", "thin", ["model.width", "number", "'thin'"]),
    ("model.stem", "resnet", ["model.stem", "'cifar' or 'imagenet'"]),
    ("data.augment", ["mixup"], ["data.augment[0]", "'crop'", "'mixup'"]),
    ("data.train_images", 60_000, ["data.train_images", "50000"]),
    ("precision", "fp8", ["precision", "'auto', 'bf16' or 'fp32'"]),
    ("teacher.lr", -0.1, ["teacher.lr", "greater than 0"]),
    ("teacher.lr", float("nan"), ["teacher.lr", "finite"]),
    ("teacher.lr", float("inf"), ["teacher.lr", "finite"]),
    ("teacher.seed", True, ["teacher.seed", "integer"]),
    ("teacher.epochs", 1.5, ["teacher.epochs", "integer"]),
    ("student.schedule", "linear", ["student.schedule", "'cosine'"]),
    ("pruning.round_to", "sometimes", ["pruning.round_to: ", "integer", "'auto'"]),
    ("pruning.round_to", 0, ["pruning.round_to: ", "greater than or equal to 1", "'auto'"]),
    ("protocol.study.stages", 2, ["protocol.study: stages", "joint"]),
    ("protocol.study.keep_for", ["kl"], ["protocol.study.keep_for", "'kl'", "fmse, gram"]),
    ("protocol.study.sparse_for", ["l0"], ["protocol.study.sparse_for", "'l0'", "bn, gn, l1"]),
    ("protocol.controlled.feature_weight", {"kl": 1.0}, ["protocol.controlled.feature_weight", "'kl'"]),
    ("protocol.a/b", DOCUMENT["protocol"]["controlled"], ["protocol.a/b", "pattern"]),
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
    ("experiment.0.include", [{"seed": 1}], ["experiment[prune-0.3].include", "needs prune_amount"]),
    ("experiment.0.exclude", [{}], ["experiment[prune-0.3].exclude", "at least one of"]),
    ("experiment.0.first", [{}], ["experiment[prune-0.3].first", "at least one of"]),
    ("experiment.0.first", [{"prune_method": "bm"}], ["experiment[prune-0.3].first[0].prune_method", "'bm'"]),
    ("experiment.0.exclude", [{"seed": 9}], ["experiment[prune-0.3].exclude", "seed 9", "allowed: 0"]),
    ("experiment.0.exclude", [{"kd_method": "kl"}], ["experiment[prune-0.3].exclude[0].kd_method", "'kl'"]),
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


def test_every_profile_is_checked_whichever_is_asked_for(load: Load, document: dict[str, Any]) -> None:
    put(document, "profile.reference.student.lr", 0)
    with pytest.raises(HarnessError, match=r"profile\.reference\.student\.lr"):
        load(document, "quick")


def test_an_unknown_profile_names_those_there_are(load: Load, document: dict[str, Any]) -> None:
    with pytest.raises(HarnessError, match="profile 'tiny' does not exist; allowed: quick, lite, full, reference"):
        load(document, "tiny")


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"nowhere\.toml: not found"):
        load_settings(tmp_path / "nowhere.toml", "quick")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot be read: Is a directory"):
        load_settings(tmp_path, "quick")


@pytest.mark.parametrize("content", [b"experiment = [[", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_what_is_not_toml_is_said_to_be_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "matrix.toml"
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=r"matrix\.toml: not valid TOML"):
        load_settings(path, "quick")


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
def test_any_damage_is_either_fine_or_one_clear_line(
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
