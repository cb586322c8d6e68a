import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.store.lock import alone
from harness.store.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "results", tmp_path / "artifacts", tmp_path / "data")


def lock(paths: Paths) -> Path:
    return paths.artifacts / "quick/.lock"


def test_a_second_run_is_told_of_the_first_and_another_profile_is_free(paths: Paths) -> None:
    with alone(paths, "quick"):
        with pytest.raises(HarnessError, match="another run is training, measuring, merging or unpacking"):
            alone(paths, "quick").__enter__()
        with alone(paths, "lite"):
            pass
    with alone(paths, "quick"):
        pass


def test_runs_that_share_a_profile_out_keep_all_others_away(paths: Paths) -> None:
    several = (alone(paths, "quick", sharing=True), alone(paths, "quick", sharing=True))
    with several[0], several[1], pytest.raises(HarnessError, match="another run"):
        alone(paths, "quick").__enter__()
    with alone(paths, "quick"), pytest.raises(HarnessError, match="another run"):
        alone(paths, "quick", sharing=True).__enter__()


def test_a_process_that_inherits_the_lock_holds_it_as_long_as_it_lives(paths: Paths) -> None:
    with alone(paths, "quick") as descriptor:
        command = [sys.executable, "-c", "input()"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[descriptor])
    with pytest.raises(HarnessError, match="another run"), alone(paths, "quick"):
        pass
    child.communicate(b"\n")
    with alone(paths, "quick"):
        pass


def test_the_lock_is_free_again_after_an_error(paths: Paths) -> None:
    with pytest.raises(ZeroDivisionError), alone(paths, "quick"):
        _ = 1 / 0
    with alone(paths, "quick"):
        pass


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_the_locks_place_is_not_followed(paths: Paths, tmp_path: Path, there: bool) -> None:
    precious = tmp_path / "precious"
    if there:
        precious.write_text("kept")
    lock(paths).parent.mkdir(parents=True)
    lock(paths).symlink_to(precious)
    with pytest.raises(HarnessError, match=r"\.lock: cannot be opened as a lock \(it is a link\); delete it"):
        alone(paths, "quick").__enter__()
    assert precious.read_text() == "kept" if there else not precious.exists()


def test_what_lies_in_the_locks_place_is_not_emptied(paths: Paths, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    lock(paths).parent.mkdir(parents=True)
    os.link(precious, lock(paths))
    with alone(paths, "quick"):
        pass
    assert precious.read_text() == "kept"


def test_a_folder_in_the_locks_place_is_an_error_in_one_line(paths: Paths) -> None:
    lock(paths).mkdir(parents=True)
    with pytest.raises(HarnessError, match="cannot be opened as a lock"):
        alone(paths, "quick").__enter__()


def test_a_file_system_without_locks_is_an_error_in_one_line(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(HarnessError, match=r"cannot be locked \(No locks available\); keep artifacts on"):
        alone(paths, "quick").__enter__()


def test_a_file_where_a_folder_belongs_is_found_out_at_once(paths: Paths) -> None:
    paths.results.write_text("in the way")
    with pytest.raises(HarnessError, match="cannot write here"):
        alone(paths, "quick").__enter__()
