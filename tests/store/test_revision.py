import subprocess
from pathlib import Path

import pytest

from harness.store import revision as module
from harness.store.revision import revision, revision_of


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the package and a file beside it, everything committed."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "harness/compression").mkdir(parents=True)
    (tmp_path / "harness/code.py").write_text("ONE = 1\n")
    (tmp_path / "README.md").write_text("# Results\n")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "All of it")
    return tmp_path


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("TWO = 2\n")


def test_a_clean_checkout_is_named_by_its_commit(checkout: Path) -> None:
    assert revision_of(checkout) == git(checkout, "rev-parse", "--short=12", "HEAD")


def test_a_tagged_commit_is_named_by_its_tag(checkout: Path) -> None:
    git(checkout, "tag", "--annotate", "v1.0", "--message", "first")
    assert revision_of(checkout) == "v1.0"
    write(checkout / "harness/new.py")
    assert revision_of(checkout) == "v1.0-dirty"


def test_a_changed_file_of_the_harness_makes_it_dirty(checkout: Path) -> None:
    clean = revision_of(checkout)
    write(checkout / "harness/code.py")
    assert revision_of(checkout) == f"{clean}-dirty"
    git(checkout, "add", ".")
    assert revision_of(checkout) == f"{clean}-dirty", "staged is not committed"


@pytest.mark.parametrize("name", ["harness/new.py", "harness/compression/new.py", "harness/a folder/é.py"])
def test_a_new_file_of_the_harness_makes_it_dirty(checkout: Path, name: str) -> None:
    clean = revision_of(checkout)
    write(checkout / name)
    assert revision_of(checkout) == f"{clean}-dirty"


@pytest.mark.parametrize(
    "name", ["README.md", "notes.txt", "results/new.json", "tests/harness/new.py", "harness/__pycache__/c.pyc"]
)
def test_files_elsewhere_and_ignored_ones_do_not(checkout: Path, name: str) -> None:
    clean = revision_of(checkout)
    write(checkout / name)
    assert revision_of(checkout) == clean


def test_a_new_and_a_changed_file_are_dirty_once(checkout: Path) -> None:
    write(checkout / "harness/new.py")
    write(checkout / "harness/code.py")
    assert revision_of(checkout).count("-dirty") == 1


def test_without_a_commit_or_a_repository_it_is_unknown(tmp_path: Path) -> None:
    assert revision_of(tmp_path / "nowhere") == "unknown"
    git(tmp_path, "init", "--quiet")
    assert revision_of(tmp_path) == "unknown"


def test_an_image_says_which_revision_it_was_built_from(monkeypatch: pytest.MonkeyPatch) -> None:
    revision.cache_clear()
    monkeypatch.setenv("HARNESS_REVISION", "0123456789ab")
    assert revision() == "0123456789ab"
    revision.cache_clear()


def test_a_package_that_is_installed_somewhere_is_named_by_its_version(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lie in an environment inside somebody else's repository, whose commit says nothing of it."""
    monkeypatch.delenv("HARNESS_REVISION", raising=False)
    monkeypatch.setattr(module, "ROOT", checkout)
    monkeypatch.setattr(module, "version", lambda _: "1.2.3")
    assert revision.__wrapped__() == "version 1.2.3"
    (checkout / "pyproject.toml").touch()
    assert revision.__wrapped__() == revision_of(checkout)
