from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.plan.loading import load_settings
from harness.plan.planning import teacher_cell
from harness.plan.settings import Settings
from harness.store.paths import Paths, answers_file, data_root, has_dataset, model_file
from harness.store.records import TrainRecord, identity, now, record_path, save
from tests.synthetic import MATRIX, plan_for

# of profile quick
OWN = "cifar100_ten"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "results", tmp_path / "artifacts", tmp_path / "data")


@pytest.fixture(scope="module")
def quick() -> Settings:
    """The profile with a fallback."""
    return load_settings(MATRIX, "quick")


def use_fallback(paths: Paths) -> None:
    """What a run leaves that has trained on drawn images."""
    drawn = paths.testset("quick", "stand_in")
    drawn.parent.mkdir(parents=True)
    drawn.touch()


def test_data_dir_may_name_the_folder_or_the_one_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", "/some/where")
    assert data_root() == Path("/some/where")
    monkeypatch.setenv("DATA_DIR", "/some/where/cifar-100-python")
    assert data_root() == Path("/some/where")
    assert data_root(Path("/given/cifar-100-python")) == Path("/given")
    monkeypatch.delenv("DATA_DIR")
    assert data_root() == Path("data")


def test_the_fallback_is_used_once_it_has_been_used_until_the_data_is_there(paths: Paths, quick: Settings) -> None:
    assert (paths.dataset(quick, "quick"), paths.dataset_is_known(quick, "quick")) == (OWN, False)
    use_fallback(paths)
    assert (paths.dataset(quick, "quick"), paths.dataset_is_known(quick, "quick")) == ("stand_in", True)
    (paths.data / "cifar-100-python").mkdir(parents=True)
    assert (paths.dataset(quick, "quick"), paths.dataset_is_known(quick, "quick")) == (OWN, True)


def on_record(paths: Paths, settings: Settings, dataset: str, **changes: Any) -> None:
    """Put a teacher on record that was trained on a data set."""
    teacher = teacher_cell(settings, dataset)
    about = identity("quick", teacher.id, teacher.title, teacher.trained)
    fields = {"status": "done", "finished_at": now(), "seconds": 0.0, "environment": {}, **about, **changes}
    save(paths.results, TrainRecord(**fields))


def test_without_the_data_at_hand_it_is_what_the_models_on_record_were_trained_on(
    paths: Paths, quick: Settings
) -> None:
    """A shell in which DATA_DIR is forgotten must not call finished models untrained."""
    use_fallback(paths)
    on_record(paths, quick, OWN)
    assert (paths.dataset(quick, "quick"), paths.dataset_is_known(quick, "quick")) == (OWN, True)
    on_record(paths, quick, "stand_in")
    assert (paths.dataset(quick, "quick"), paths.dataset_is_known(quick, "quick")) == ("stand_in", True)
    (paths.data / "cifar-100-python").mkdir(parents=True)
    assert paths.dataset(quick, "quick") == OWN


@pytest.mark.parametrize("damage", ["failed", "unreadable", "of no data set", "of another data set"])
def test_a_record_that_names_no_data_set_of_the_profile_says_nothing(
    paths: Paths, quick: Settings, damage: str
) -> None:
    use_fallback(paths)
    on_record(paths, quick, OWN, **({"status": "failed"} if damage == "failed" else {}))
    if damage == "unreadable":
        record_path(paths.results, "quick", "train", "teacher-s0").write_text("{")
    elif damage == "of no data set":
        on_record(paths, quick, OWN, spec={})
    elif damage == "of another data set":
        on_record(paths, quick, "image_folder")
        # trained on something else before matrix.toml was changed: what is not here is to be fetched
        assert paths.dataset(quick, "quick") == OWN
        return
    assert paths.dataset(quick, "quick") == "stand_in"


def test_a_profile_without_a_fallback_has_its_data_set_alone(paths: Paths) -> None:
    lite = load_settings(MATRIX, "lite")
    use_fallback(paths)
    assert (paths.dataset(lite, "lite"), paths.dataset_is_known(lite, "lite")) == ("cifar100", False)


def test_a_data_set_is_there_if_its_marker_is(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    assert has_dataset(tmp_path, "image_folder")
    assert not has_dataset(tmp_path, "cifar100")
    # drawn images are nowhere
    assert not has_dataset(tmp_path, "stand_in")


def test_data_that_may_not_be_read_is_named(paths: Paths, quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> bool:
        # as for a user who is not root; tests may be run as root
        raise PermissionError

    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(HarnessError, match=rf"{paths.data}: this user may not read it; .* DATA_DIR"):
        paths.dataset(quick, "quick")


def test_a_models_files_lie_in_its_folder_and_each_form_has_its_own(paths: Paths) -> None:
    cell = plan_for("lite").cells[1]
    folder = paths.artifacts / "lite" / f"{cell.id}-{cell.trained.key.partition('-')[2][:8]}"
    assert paths.folder("lite", cell) == folder
    assert paths.weights("lite", cell) == folder / "weights.safetensors"
    assert paths.model_file("lite", cell) == folder / "model.onnx"
    int8 = replace(cell, id=f"{cell.id}-int8", spec=replace(cell.spec, form="int8"))
    assert model_file(paths.artifacts, "lite", int8) == folder / "model-int8.onnx"
    assert paths.weights("lite", int8) == paths.weights("lite", cell)
    assert answers_file(folder).parent == folder
