import os
import socket
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.transfer.foreign_files import files_inside, require_file_inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "below").mkdir(parents=True)
    (made / "file").write_text("inside")
    (tmp_path / "outside").write_text("outside")
    return made


def test_a_file_and_a_link_to_it_are_inside(folder: Path) -> None:
    (folder / "below/link").symlink_to("../file")
    for name in ("file", "below/link"):
        require_file_inside(folder, folder / name)


def test_a_folder_that_the_user_named_may_itself_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(folder)
    require_file_inside(tmp_path / "named", tmp_path / "named/file")


def absolute(path: Path) -> None:
    path.symlink_to(path.parents[1] / "outside")


def relative(path: Path) -> None:
    path.symlink_to("../outside")


def by_way_of_a_folder(path: Path) -> None:
    (path.parent / "linked").symlink_to(path.parents[1])
    path.symlink_to("linked/outside")


def by_way_of_a_link(path: Path) -> None:
    (path.parent / "first").symlink_to("../outside")
    path.symlink_to("first")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def bound(path: Path) -> None:
    # a path that fits into a socket's address
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def directory(path: Path) -> None:
    path.mkdir()


def dangling(path: Path) -> None:
    path.symlink_to("nothing")


def circular(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    "plant",
    [absolute, relative, by_way_of_a_folder, by_way_of_a_link, pipe, device, bound, directory, dangling, circular],
)
def test_whatever_else_has_the_name_is_refused_and_skipped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, plant: object
) -> None:
    assert callable(plant)
    monkeypatch.chdir(folder)
    plant(folder / "record.json")
    with pytest.raises(HarnessError, match=r"record\.json: (a link leads out|not a regular file|cannot be read)"):
        require_file_inside(folder, folder / "record.json")
    assert files_inside(folder, "*.json") == []


def test_files_come_sorted(folder: Path) -> None:
    for name in ("b.json", "a.json", "below/c.json"):
        (folder / name).write_text("{}")
    assert [path.name for path in files_inside(folder, "**/*.json")] == ["a.json", "b.json", "c.json"]
