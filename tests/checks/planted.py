"""Results without a fault, ways to plant one, and what the checks then say."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.checks.catalogue import STRICT, Finding, run_checks
from harness.checks.comparison import compare
from harness.checks.evidence import read_evidence
from harness.intervals import interval, median_process, paired_ratio
from harness.plan.planning import Cell, Plan
from harness.store.paths import model_file
from harness.store.records import Interval, LatencyRecord, Process, Record, StageName, load
from tests.synthetic import change, fill_results, path_of, plan_for

# A student, and another one.
CELL, OTHER = "p0.3-bn-gram-s0", "p0.3-l1-base-s0"
TEACHER = "teacher-s0"
# The condition that tables show, and one beside it.
HEADLINE, BESIDE = "onnxruntime-1.16.0-target-threads-1", "onnxruntime-current-target-threads-1"


@dataclass(frozen=True)
class Bench:
    """A results folder and an artifacts folder of one plan."""

    plan: Plan
    results: Path
    artifacts: Path

    def cell(self, name: str = CELL) -> Cell:
        """A planned cell."""
        return next(cell for cell in self.plan.cells if cell.id == name)

    def path(self, kind: type[Record], cell: str = CELL, under: str = HEADLINE) -> Path:
        """Where a record lies; `under` is a latency's condition."""
        return path_of(self.results, self.plan, cell, kind, under)

    def get(self, kind: type[Any], cell: str = CELL, under: str = HEADLINE) -> Any:
        """A stored record."""
        return load(self.path(kind, cell, under), kind)

    def change(self, kind: type[Record], cell: str = CELL, under: str = HEADLINE, **fields: Any) -> None:
        """Rewrite some fields of a stored record."""
        change(self.results, self.plan, cell, kind, under, **fields)

    def environment(self, kind: type[Record], cell: str = CELL, under: str = HEADLINE, **facts: Any) -> None:
        """Rewrite some facts of a stored record's environment."""
        self.change(kind, cell, under, environment={**self.get(kind, cell, under).environment, **facts})

    def session(self, under: str = HEADLINE, **options: Any) -> None:
        """Rewrite some of the engine's options that the cell's latency says it was measured with."""
        session = self.get(LatencyRecord, under=under).session
        self.change(LatencyRecord, under=under, session={**session, **options})

    def processes(
        self,
        edit: Callable[[Process], dict[str, Any]],
        which: Callable[[int], bool] = lambda _: True,
        under: str = HEADLINE,
    ) -> None:
        """Rewrite some fields of some of the cell's processes."""
        edited = [
            process.model_copy(update=edit(process)) if which(place) else process
            for place, process in enumerate(self.get(LatencyRecord, under=under).processes)
        ]
        self.change(LatencyRecord, under=under, processes=edited)

    def measured(self, processes: list[Process], cell: str = CELL, under: str = HEADLINE) -> None:
        """Put these processes in place of the cell's, with the figures that follow from them."""
        self.change(
            LatencyRecord,
            cell,
            under,
            processes=processes,
            latency_ms=interval([process.low_ms for process in processes], self.seed),
            median_ms=median_process(process.median_ms for process in processes),
            p90_ms=median_process(process.p90_ms for process in processes),
            ratio_to_teacher=self.ratio(processes, under),
        )

    def slowed(self, factor: Callable[[int], float], under: str = HEADLINE) -> list[Process]:
        """The teacher's processes, were each slower by a factor of its place's own."""
        times = ("low_ms", "median_ms", "p90_ms")
        return [
            process.model_copy(update={name: getattr(process, name) * factor(place) for name in times})
            for place, process in enumerate(self.get(LatencyRecord, TEACHER, under).processes)
        ]

    def controlled(self, factor: float, under: str = HEADLINE) -> None:
        """Have the teacher's control be slower than the teacher by a factor."""
        control = self.slowed(lambda _: factor, under=under)
        self.change(LatencyRecord, TEACHER, under, control=control, control_ratio=self.ratio(control, under))

    def ratio(self, processes: list[Process], under: str = HEADLINE) -> Interval | None:
        """The ratio of processes to the teacher's."""
        teacher = self.get(LatencyRecord, TEACHER, under).processes
        one, other = ({process.block: process.low_ms for process in some} for some in (processes, teacher))
        return paired_ratio(one, other, self.seed)

    @property
    def seed(self) -> int:
        """What the bench draws by."""
        return self.plan.settings.bench.seed

    def weights(self, cell: str = CELL) -> Path:
        """A cell's trained weights."""
        return self.onnx(cell).with_name("weights.safetensors")

    def onnx(self, cell: str = CELL) -> Path:
        """A cell's ONNX file."""
        return model_file(self.artifacts, self.plan.profile, self.cell(cell))

    def findings(self) -> list[Finding]:
        """What all checks say, the strict ones included."""
        return run_checks(read_evidence(self.plan, self.results, self.artifacts), STRICT)


def make_bench(plan: Plan, folder: Path) -> Bench:
    """Records of every cell without a fault, and ONNX files that have the hashes on record."""
    bench = Bench(plan, folder / "results", folder / "artifacts")
    fill_results(plan, bench.results)
    for cell in plan.cells:
        file = bench.onnx(cell.id)
        file.parent.mkdir(parents=True, exist_ok=True)
        # The text that synthetic's made-up hash is the hash of.
        file.write_text(json.dumps([cell.spec.key, "onnx"], separators=(",", ":")))
    return bench


Plant = Callable[[Bench], None]
# Every cell of the plan that faults are planted in.
EVERY = tuple(cell.id for cell in plan_for("lite", experiments=["prune-0.3"]).cells)
# Name -> the check that must find it, the rows and stages that the check must name, and the function that plants it.
FAULTS: dict[str, tuple[str, set[tuple[str, StageName]], Plant]] = {}


def fault(check: str, *rows: tuple[str, StageName]) -> Callable[[Plant], Plant]:
    """Register a function that plants a fault."""

    def register(plant: Plant) -> Plant:
        assert plant.__name__ not in FAULTS
        FAULTS[plant.__name__] = (check, set(rows), plant)
        return plant

    return register


def replace_text(path: Path, old: str, new: str) -> None:
    """Change what a record says, past all types."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def listed(before: Path, after: Path) -> set[tuple[str, str]]:
    """Which figures of which cells `compare` lists as changed; latencies as condition/cell."""
    return {(change.cell, change.what) for change in compare(before, after).significant}
