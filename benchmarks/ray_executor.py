"""ray.json: what the Ray executor costs, and whether it makes what one process makes.

A cluster of a head and two nodes runs on this machine. First it trains a small matrix, whose weights and ONNX files are
compared with those that this process makes alone. Then it is given thousands of orders that take next to no time: the
whole way of an order (claim, task, worker, records, reports) is there, but for the training.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import ray
import torch
from ray.cluster_utils import Cluster

from benchmarks import Figures
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.planning import Cell, Plan
from harness.store.paths import Paths
from harness.store.records import ExportRecord, TrainRecord, identity, now, save
from harness.training.allocation import units
from harness.training.device import choose_device
from harness.training.dispatch import make_on
from harness.training.pipeline import make_cells
from harness.training.ray_tasks import RayCluster
from harness.training.worker import Order, Teller
from tests.training_kit import Told, below, tiny_plan

# The cells of the run that trains nothing, and after how many of them memory is first looked at: by then all that is
# loaded once has been loaded.
TRIVIAL_CELLS, SETTLED_AFTER = 4_000, 1_000
# A node's share of memory for objects, of which there are none.
OBJECT_STORE = 80 * 2**20


@dataclass
class Memory(Told):
    """A reporter that keeps nothing but this process's resident memory, in MiB, at two moments."""

    count: int = 0
    at: dict[int, float] = field(default_factory=dict)

    def stage(self, text: str) -> None:
        """What is being worked on is of no interest here."""

    def cell(self, cell: Cell, record: TrainRecord) -> None:
        """A cell is done."""
        self.count += 1
        if self.count in (SETTLED_AFTER, TRIVIAL_CELLS):
            self.at[self.count] = psutil.Process().memory_info().rss / 2**20


def measure() -> Figures:
    """Every figure; prints each as it comes."""
    figures: Figures = {"ray": ray.__version__}
    with cluster(nodes=2), TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        figures["ray_equal_to_local"] = equal_to_local(Path(folder))
        print(f"ray_equal_to_local: {figures['ray_equal_to_local']}", flush=True)
        seconds, memory = trivial_cells(Path(folder) / "trivial")
    grown = memory.at[TRIVIAL_CELLS] - memory.at[SETTLED_AFTER]
    figures |= {
        "ray_trivial_cells": TRIVIAL_CELLS,
        "ray_overhead_per_cell_s": seconds / TRIVIAL_CELLS,
        "ray_driver_rss_mb": memory.at[TRIVIAL_CELLS],
        "ray_rss_growth_mb_per_1000_cells": 1000 * grown / (TRIVIAL_CELLS - SETTLED_AFTER),
    }
    for name, value in list(figures.items())[2:]:
        print(f"{name}: {value:.3g}", flush=True)
    return figures


@contextmanager
def cluster(nodes: int) -> Iterator[None]:
    """A head without CPUs, and nodes of one each; this process is connected to it."""
    common: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **common})
    try:
        for _ in range(nodes):
            started.add_node(num_cpus=1, **common)
        ray.init(address=started.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        started.shutdown()


def equal_to_local(folder: Path) -> bool:
    """Whether weights and ONNX files of a small matrix are the same, bit for bit, as this process makes on a core."""
    plan = tiny_plan(folder, ["l1", "bn"], ["base", "fmse"])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        device = choose_device(plan.settings.precision, cuda=False)
        local = make_cells(plan, below(folder / "local"), device, Told())
    finally:
        torch.set_num_threads(before)
    there = make_on(RayCluster("cpu"), plan, below(folder / "ray"), Told())
    if failed := local.failed | there.failed:
        raise HarnessError(f"not measured: {failed}")
    return hashes(plan, below(folder / "local")) == hashes(plan, below(folder / "ray"))


def hashes(plan: Plan, paths: Paths) -> list[str]:
    """Of every cell's weights and model file."""
    kinds: list[Callable[[str, Cell], Path]] = [paths.weights, paths.model_file]
    return [file_sha256(kind(plan.profile, cell)) for cell in plan.cells for kind in kinds]


def trivial_cells(folder: Path) -> tuple[float, Memory]:
    """The seconds that thousands of orders take which put a record of nothing in its place, and the driver's memory."""
    # each starts from a pruned network of its own, so each is an order of its own
    amounts = [0.1 + number * 1e-5 for number in range(TRIVIAL_CELLS // 2)]
    plan = tiny_plan(folder, ["l1"], ["base", "fmse"], experiment__0__prune_amount=amounts)
    students = plan.cells[1:]
    if len(units(students)) != TRIVIAL_CELLS:
        raise HarnessError(f"not measured: {len(units(students))} orders in place of {TRIVIAL_CELLS}")
    memory, started = Memory(), time.monotonic()
    summary = make_on(RayCluster("cpu", put_on_record), plan, below(folder), memory, cells=students)
    if summary.failed or not summary.complete:
        raise HarnessError(f"not measured: {summary.failed or 'it was stopped'}")
    return time.monotonic() - started, memory


def put_on_record(order: Order, teller: Teller, keep_going: Callable[[], bool]) -> None:
    """In place of training: the records and files of a cell, with nothing in them."""
    plan, paths = order.plan, order.paths
    for cell in plan.cells:
        if cell.id not in order.cells:
            continue
        for path in (paths.weights(plan.profile, cell), paths.model_file(plan.profile, cell)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        common = {"status": "done", "finished_at": now(), "seconds": 0.0, "environment": {}}
        train = TrainRecord(**identity(plan.profile, cell.model_id, cell.title, cell.trained), **common)
        save(paths.results, train)
        save(paths.results, ExportRecord(**identity(plan.profile, cell.id, cell.title, cell.spec), **common))
        teller.cell(cell, train)
    teller.tell(made=list(order.cells), failed={}, complete=True)
