"""What the tests of packing share: one trained teacher, one student, and where they lie on a machine."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.plan.planning import Cell, Plan
from harness.store.paths import Paths
from harness.store.records import TrainRecord, load, record_path
from harness.store.states import cell_state

TEACHER, STUDENT = "teacher-s0", "p0.3-l1-base-s0"
# So small that these small networks come in several parts.
PART_MIB = 0.04


def cell(plan: Plan, name: str = STUDENT) -> Cell:
    """A planned cell."""
    return next(found for found in plan.cells if found.id == name)


def weights(plan: Plan, paths: Paths, name: str = STUDENT) -> Path:
    """A cell's trained weights."""
    return paths.weights(plan.profile, cell(plan, name))


def record(plan: Plan, paths: Paths, name: str = STUDENT) -> TrainRecord:
    """A cell's train record."""
    return load(record_path(paths.results, plan.profile, "train", name), TrainRecord)


def training(plan: Plan, paths: Paths, name: str = STUDENT) -> str:
    """How far a cell's training has come."""
    return cell_state(paths, plan, cell(plan, name)).training


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Have the kernel refuse to write a file beyond this size (bytes), as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
