"""Machines to pack on and to unpack on."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.datasets import stand_in
from harness.plan.planning import Plan
from harness.store.paths import Paths
from harness.training.pipeline import make_cells
from harness.transfer.merging import merge
from tests.training_kit import CPU, Told, below, tiny_plan
from tests.transfer.machines import STUDENT, TEACHER


@pytest.fixture(scope="package")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    """A teacher and a student of seconds, over 300 drawn images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stand_in, "TRAIN_IMAGES", 300)
        yield tiny_plan(tmp_path_factory.mktemp("matrix"), ["l1"], ["base"])


@pytest.fixture(scope="package")
def made(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The machine that trained both models. For reading only."""
    paths = below(tmp_path_factory.mktemp("there"))
    assert make_cells(plan, paths, CPU, Told()).made == [TEACHER, STUDENT]
    return paths


@pytest.fixture
def trainer(made: Paths, tmp_path: Path) -> Paths:
    """The machine that trained both models, the test's own to change."""
    for folder in (made.results, made.artifacts):
        shutil.copytree(folder, tmp_path / "trainer" / folder.name)
    return below(tmp_path / "trainer")


@pytest.fixture
def bencher(plan: Plan, made: Paths, tmp_path: Path) -> Paths:
    """The machine that is to measure: it has the records, and nothing else."""
    paths = below(tmp_path / "bencher")
    assert not merge(plan, paths, [made.results / "quick"]).left
    return paths
