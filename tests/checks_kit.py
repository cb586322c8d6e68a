"""Results to check: sound ones that tests share, and a copy that a test may change."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from benchmarks.planted_figures import finished
from harness.commands.scope import Scope
from harness.datasets import stand_in
from tests.checks.planted import Bench, make_bench
from tests.documents import ROOT
from tests.synthetic import plan_for
from tests.training_kit import below


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Results without a fault, not to be changed."""
    return make_bench(plan_for("lite", experiments=["prune-0.3"]), tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="session")
def finished_matrix(tmp_path_factory: pytest.TempPathFactory) -> Scope:
    """A small matrix that was really trained and measured, over 300 drawn test images, not to be changed.

    Whichever process of pytest-xdist asks first makes it, and the others wait for that.
    """
    if not (ROOT / ".venvs/bench-current/bin/python").is_file():
        pytest.skip("no .venvs/bench-current: `make setup` makes it")
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished"
    folder.mkdir(exist_ok=True)
    done = folder.with_name("finished.done")
    with folder.with_name("finished.lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            patch.setattr(stand_in, "TRAIN_IMAGES", 300)
            finished(folder)
            done.touch()
    return Scope(folder / "matrix.toml", "quick", below(folder))


@pytest.fixture
def bench(sound: Bench, tmp_path: Path) -> Bench:
    """Results without a fault, the test's own to change."""
    for folder in (sound.results, sound.artifacts):
        shutil.copytree(folder, tmp_path / folder.name)
    return Bench(sound.plan, tmp_path / "results", tmp_path / "artifacts")
