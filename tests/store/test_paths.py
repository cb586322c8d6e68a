from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.store.paths import Paths, data_root


def test_data_dir_may_name_the_folder_or_the_one_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", "/some/where")
    assert data_root() == Path("/some/where")
    monkeypatch.setenv("DATA_DIR", "/some/where/cifar-100-python")
    assert data_root() == Path("/some/where")
    monkeypatch.delenv("DATA_DIR")
    assert data_root() == Path("data")


def test_a_profile_stands_on_the_stand_in_only_where_it_was_drawn_and_the_data_is_not_there(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "results", tmp_path / "artifacts", tmp_path / "data")
    assert paths.data_at_hand("quick") == "cifar100"
    drawn = paths.testset("quick", "stand-in")
    drawn.parent.mkdir(parents=True)
    drawn.touch()
    assert paths.data_at_hand("quick") == "stand-in"
    (tmp_path / "data" / "cifar-100-python").mkdir(parents=True)
    assert paths.data_at_hand("quick") == "cifar100"


def test_data_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> bool:
        # as for whoever is not root; tests may be run as root
        raise PermissionError

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(HarnessError, match=rf"{tmp_path}: this user may not read it; .* DATA_DIR"):
        Paths(tmp_path, tmp_path, tmp_path).data_at_hand("quick")
