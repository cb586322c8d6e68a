"""Results to check: sound ones that tests share, and a copy that a test may change."""

import shutil
from pathlib import Path

import pytest

from tests.checks.planted import Bench, make_bench
from tests.synthetic import plan_for


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Results without a fault, not to be changed."""
    return make_bench(plan_for("lite", experiments=["prune-0.3"]), tmp_path_factory.mktemp("sound"))


@pytest.fixture
def bench(sound: Bench, tmp_path: Path) -> Bench:
    """Results without a fault, the test's own to change."""
    for folder in (sound.results, sound.artifacts):
        shutil.copytree(folder, tmp_path / folder.name)
    return Bench(sound.plan, tmp_path / "results", tmp_path / "artifacts")
