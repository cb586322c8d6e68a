import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from harness.cli import VERBS
from tests.documents import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
UV = ROOT / ".venvs/uv/bin/uv"
MAIN = Path(".venvs/main/.made")
NO_UV = "no .venvs/uv: `make setup` makes it"


def make(*arguments: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    # what a `make test` above has told its own recipes is not for this make
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def phony() -> set[str]:
    return set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())


def test_help_lists_every_target() -> None:
    listed = set(re.findall(r"^  ([a-z-]+) ", make("help").stdout, re.MULTILINE))
    assert listed == phony()


def test_every_verb_that_make_calls_exists() -> None:
    called = set(re.findall(r"\$\(HARNESS\) ([a-z-]+)", MAKEFILE))
    assert called <= {verb.__name__.replace("_", "-") for verb in VERBS}


def test_an_unusable_python_is_one_clear_line() -> None:
    done = make("-B", ".venvs/uv/.made", "PYTHON=/bin/false", "-n")
    assert "Python 3.11 or newer is needed" in done.stdout


# --- Environments ----------------------------------------------------------------------------------------------------


def wheel(folder: Path, version: str) -> str:
    """A package `small` of one module, in `folder`; the line that pins it."""
    path = folder / f"small-{version}-py3-none-any.whl"
    about = f"small-{version}.dist-info"
    files = {
        "small.py": f"VERSION = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: small\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": "[console_scripts]\nsmall = small:print_version\n",
        f"{about}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as file:
        for name, text in files.items():
            # without the present time, so that a version has one hash
            file.writestr(zipfile.ZipInfo(name), text)
    return f"small=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile with pins of its own, and the installer; whatever it installs lies in `tmp_path`/wheels."""
    folder = tmp_path / "checkout [1]"
    for name in ("requirements", ".venvs/uv/bin"):
        (folder / name).mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".venvs/uv/bin/uv").symlink_to(UV)
    for name in ("setup", "train", "dev"):
        (folder / f"requirements/{name}.txt").write_text(wheel(tmp_path / "wheels", "1.0"))
    shutil.copy(folder / "requirements/setup.txt", folder / ".venvs/uv/.made")
    return folder


def set_up(checkout: Path, *targets: str | Path) -> subprocess.CompletedProcess[str]:
    """Make environments without a network."""
    wheels = str(checkout.parent / "wheels")
    return make(*map(str, targets), folder=checkout, UV_OFFLINE="1", UV_NO_INDEX="1", UV_FIND_LINKS=wheels)


def installed(checkout: Path) -> str:
    """The version of the package in the environment `main`."""
    python = checkout / ".venvs/main/bin/python"
    command = [str(python), "-c", "import small; print(small.VERSION)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def pin(checkout: Path, version: str) -> None:
    (checkout / "requirements/train.txt").write_text(wheel(checkout.parent / "wheels", version))


@pytest.fixture
def made(checkout: Path) -> Path:
    done = set_up(checkout, MAIN)
    assert done.returncode == 0, done.stderr
    assert installed(checkout) == "1.0"
    return checkout


needs_uv = pytest.mark.skipif(not UV.exists(), reason=NO_UV)


@needs_uv
def test_an_environment_is_not_made_again_for_the_time_of_a_file(made: Path) -> None:
    before = (made / MAIN).stat().st_mtime_ns
    # a branch that is switched and switched back; a fresh clone beside old environments
    pins = made / "requirements/train.txt"
    text = pins.read_text()
    pins.write_text("other==1\n")
    pins.write_text(text)
    for file in (made / "requirements").iterdir():
        os.utime(file, (2e9, 2e9))
    # nor for the installer's pins: it has nothing to install
    (made / "requirements/setup.txt").write_text("uv==0\n")
    done = make(str(MAIN), folder=made, PYTHON="/bin/false", PATH="/bin:/usr/bin")
    assert (done.returncode, "==>" in done.stdout) == (0, False), done.stdout
    assert (made / MAIN).stat().st_mtime_ns == before


@needs_uv
def test_other_pins_make_another_environment_in_its_place(made: Path) -> None:
    pin(made, "2.0")
    assert set_up(made, MAIN).returncode == 0
    assert installed(made) == "2.0"
    script = (made / ".venvs/main/bin/small").read_text()
    assert "main.new" not in script, "scripts start the Python that is there now"
    assert sorted(path.name for path in (made / ".venvs").iterdir()) == ["main", "uv"]


@needs_uv
def test_an_environment_that_cannot_be_made_leaves_the_old_one_working(made: Path) -> None:
    text = (made / "requirements/train.txt").read_text()
    (made / "requirements/train.txt").write_text(f"missing==1 --hash=sha256:{'0' * 64}\n")
    done = set_up(made, MAIN)
    assert done.returncode != 0 and "missing" in done.stderr
    assert installed(made) == "1.0"
    # switched back, it is the environment of these pins as before
    (made / "requirements/train.txt").write_text(text)
    done = set_up(made, MAIN)
    assert (done.returncode, "==>" in done.stdout) == (0, False)


@needs_uv
def test_what_is_laid_over_an_environment_is_made_again_with_it(made: Path) -> None:
    dev = Path(".venvs/main/.made-dev")
    assert "tests and linters" in set_up(made, dev).stdout
    assert "==>" not in set_up(made, dev).stdout
    pin(made, "2.0")
    (made / "requirements/dev.txt").write_text((made / "requirements/train.txt").read_text())
    done = set_up(made, dev)
    assert done.returncode == 0, done.stderr
    told = done.stdout
    assert told.index("training and reports") < told.index("tests and linters")
    assert "==>" not in set_up(made, dev).stdout


def test_goals_are_made_one_after_the_other_however_many_jobs_make_may_run(tmp_path: Path) -> None:
    """Bench would find no model while training has only begun."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / ".venvs/main/bin").mkdir(parents=True)
    python = tmp_path / ".venvs/main/bin/python"
    python.write_text('#!/bin/sh\necho "$3 begins"; sleep 0.1; echo "$3 ends"\n')
    python.chmod(0o755)
    benches = ("bench-1.16.0", "bench-current")
    for stamp, pins in {"main": "train", "isa": "isa", **{name: name for name in benches}}.items():
        (tmp_path / f".venvs/{stamp}").mkdir(exist_ok=True)
        shutil.copy(tmp_path / f"requirements/{pins}.txt", tmp_path / f".venvs/{stamp}/.made")
    for name in benches:
        (tmp_path / f".venvs/isa/{name}").mkdir()
        (tmp_path / f".venvs/isa/{name}/.made").touch()
    done = make("-j4", "train-matrix", "bench", "report", folder=tmp_path)
    verbs = [f"{verb} {what}" for verb in ("train-matrix", "bench", "report") for what in ("begins", "ends")]
    assert done.stdout.splitlines() == verbs, done.stderr


@pytest.mark.parametrize("given", ["profile=quick", "data_dir=a folder", "budget=9m"])
def test_a_variable_in_small_letters_is_refused_rather_than_ignored(given: str) -> None:
    done = make("-n", "plan", given)
    assert done.returncode == 2 and f"names of variables in capitals: {given.split()[0]}" in done.stderr
