import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.containers.ownership import (
    GID,
    UID,
    Folder,
    User,
    give,
    handed_over,
    is_gone,
    require_readable,
    this_process,
)
from harness.errors import HarnessError

AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="changing owners takes root")


def owners(folder: Path) -> set[tuple[int, int]]:
    found = [folder.lstat(), *(path.lstat() for path in folder.rglob("*"))]
    return {(stat.st_uid, stat.st_gid) for stat in found}


def test_a_process_that_runs_is_not_gone() -> None:
    assert not is_gone(this_process())


def test_a_process_that_has_ended_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "from harness.containers.ownership import this_process; print(this_process())"
    label = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert is_gone(label)


def test_another_process_under_the_same_number_is_not_the_same() -> None:
    assert is_gone(this_process().rpartition(" ")[0] + " 1")


def test_a_process_from_before_a_restart_is_gone() -> None:
    host, namespace, _, pid, started = this_process().split()
    assert is_gone(f"{host} {namespace} another-boot {pid} {started}")


@pytest.mark.parametrize("place", ["another-host pid:[1]", f"{socket.gethostname()} pid:[1]"])
def test_a_process_that_cannot_be_seen_from_here_is_left_alone(place: str) -> None:
    _, _, boot, _, _ = this_process().split()
    assert not is_gone(f"{place} {boot} 999999 1")


@pytest.mark.parametrize("label", ["", "somebody else's", "a b c d e f"])
def test_a_label_that_is_not_ours_is_left_alone(label: str) -> None:
    assert not is_gone(label)


def test_folders_of_a_caller_who_is_not_root_keep_their_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.containers.ownership.os.getuid", lambda: 4711)
    monkeypatch.setattr("harness.containers.ownership.os.getgid", lambda: 4712)
    with handed_over([tmp_path / "results"]) as user:
        assert (user.name, list(user.restore)) == ("4711:4712", [])
        assert (tmp_path / "results").is_dir()


@AS_ROOT
def test_folders_of_root_belong_to_another_user_until_the_container_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    (folder / "train").mkdir(parents=True)
    (folder / "train/cell.json").touch()
    with pytest.raises(ZeroDivisionError), handed_over([folder]) as user:
        assert user.uid == UID
        assert owners(folder) == {(user.uid, user.gid)}
        raise ZeroDivisionError
    assert owners(folder) == {(0, 0)}


@AS_ROOT
def test_for_root_in_a_folder_of_another_user_nothing_ends_up_owned_by_root(tmp_path: Path) -> None:
    results, raw = tmp_path / "results", tmp_path / "raw"
    results.mkdir()
    os.chown(results, 1234, 1235)
    with handed_over([results, raw]) as user:
        assert user.name == "1234:1235"
        (raw / "log").touch()
    assert owners(results) == owners(raw) == {(1234, 1235)}


@AS_ROOT
def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/link").symlink_to(outside)
    give(Folder(tmp_path / "folder", UID, UID))
    assert (outside.stat().st_uid, (tmp_path / "folder/link").lstat().st_uid) == (0, UID)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(HarnessError, match=r"file/results: cannot write here; .*name another"),
        handed_over([tmp_path / "file/results"]),
    ):
        pass


@pytest.mark.parametrize(
    ("mode", "user", "readable"),
    [
        (0o700, User(os.getuid(), 1), True),
        (0o700, User(UID, GID), False),
        (0o750, User(UID, os.getgid()), True),
        (0o744, User(UID, GID), False),
        (0o755, User(UID, GID), True),
    ],
)
def test_a_path_that_a_container_could_not_read_is_named_with_a_remedy(
    tmp_path: Path, mode: int, user: User, readable: bool
) -> None:
    data = tmp_path / "data"
    (data / "cifar-100-python").mkdir(parents=True)
    (data / "cifar-100-python").chmod(mode)
    if readable:
        require_readable([data], user)
        return
    with pytest.raises(HarnessError, match=rf"100-python: .*{UID}:{GID}, may not read it; run: chmod -R a\+rX {data}"):
        require_readable([data], user)


def test_files_are_checked_as_well_and_links_to_nowhere_are_ignored(tmp_path: Path) -> None:
    file = tmp_path / "matrix.toml"
    file.touch(0o600)
    (tmp_path / "link").symlink_to("nowhere")
    require_readable([file, tmp_path / "link"], User(os.getuid(), os.getgid()))
    with pytest.raises(HarnessError, match=r"matrix.toml: a container"):
        require_readable([file], User(UID, GID))
