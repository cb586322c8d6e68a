"""A plan that is finished on this machine: records, weights and ONNX files of every cell, for tests to damage."""

from pathlib import Path

from harness.commands.overview import as_text
from harness.store.paths import Paths
from harness.store.states import CellState, states
from tests.checks.planted import Bench, make_bench
from tests.synthetic import plan_for


def finish(folder: Path) -> Bench:
    """All of profile lite's experiment 1, trained and measured."""
    bench = make_bench(plan_for("lite", experiments=["prune-0.3"]), folder)
    for cell in bench.plan.cells:
        weights(bench, cell.id).write_bytes(b"weights")
    return bench


def weights(bench: Bench, cell: str) -> Path:
    """A cell's trained weights."""
    return bench.onnx(cell).with_name("weights.safetensors")


def states_of(bench: Bench) -> list[CellState]:
    """The state of every cell."""
    return states(Paths(bench.results, bench.artifacts, bench.results.parent / "data"), bench.plan)


def text_of(bench: Bench, only_counts: bool) -> str:
    """What `plan` or, with only counts, `status` prints."""
    return as_text(bench.plan, states_of(bench), only_counts)
