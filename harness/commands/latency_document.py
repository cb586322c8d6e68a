"""What `harness latency` has found, as the one document that --json prints and --baseline reads.

Figures are unrounded, with the unit in the name. Intervals are 95 %. Every timing keeps the observations that its
figures follow from, one per process, so that a later run can be compared with this one.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.bench.job import DrawnInput
from harness.errors import HarnessError
from harness.files import MOST_TEXT_BYTES, read_bytes
from harness.store.records import Failure, InstructionSet, Interval, Process

# beyond: the interval shows it slower than is allowed; within: it does not; unclear: it is too wide to say
Verdict = Literal["beyond", "within", "unclear"]
SCHEMA: Literal[1] = 1


class Part(BaseModel):
    """A part of the document: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Timing(Part):
    """One file under one condition.

    `ratio` is its latency divided by the first file's, paired by block: below 1 is faster. `change` is what became of
    it since the baseline: of the ratio where the first file is still the same one, else of the latency itself.
    `again` are the processes of the first file's A/A control, and `again_ratio` is what they say: 1, but for noise.
    """

    condition: str
    failure: Failure | None = None
    latency_ms: Interval | None = None
    median_ms: float | None = None
    p90_ms: float | None = None
    ratio: Interval | None = None
    change: Interval | None = None
    again_ratio: Interval | None = None
    processes: list[Process] = []
    again: list[Process] = []
    warnings: list[str] = []

    @property
    def observations(self) -> dict[int, float]:
        """Block -> what its process was observed to take, in ms."""
        return {process.block: process.low_ms for process in self.processes}


class FileFound(Part):
    """One file: `file` is its name as it was given, `title` what tables call it."""

    file: str
    title: str
    onnx_sha256: str
    # the files of external data in its folder
    external_sha256: dict[str, str] = {}
    size_bytes: int
    params: int
    opset: int
    inputs: list[DrawnInput]
    output_shapes: list[list[int]] = []
    timings: list[Timing]


class ConditionFound(Part):
    """An engine, its number of threads, the CPUs that they were pinned to, and the options that the engine got.

    `target` names the CPU whose instruction set it was shown, None for the machine's own; `instruction_set` is how that
    is known.
    """

    name: str
    runtime: str
    target: str | None = None
    instruction_set: InstructionSet | None = None
    threads: int
    cpus: list[int]
    session: dict[str, Any]


class Gate(Part):
    """Whether files are slower than allowed, by title: than the first file times `max_ratio`, or than the baseline."""

    against: Literal["reference", "baseline"]
    max_ratio: float
    verdicts: dict[str, Verdict]


class LatencyDocument(Part):
    """All of it. The first file is the one that ratios are taken to; the first condition is the headline.

    `settled` is whether every headline ratio is known to `precision_pct` (half its interval). `sentence` is the last
    line that is printed for people. Inputs are drawn with `seed`.
    """

    schema_version: Literal[1] = SCHEMA
    sentence: str
    finished_at: str
    seconds: float
    harness_revision: str
    estimator: str
    seed: int
    precision_pct: float
    settled: bool
    blocks: int
    conditions: list[ConditionFound]
    files: list[FileFound]
    warnings: list[str] = []
    machine: dict[str, Any]
    gate: Gate | None = None


def read_baseline(path: Path) -> LatencyDocument:
    """An earlier document. HarnessError where the file is none."""
    try:
        return LatencyDocument.model_validate_json(
            read_bytes(path, "no such file; --json printed one", MOST_TEXT_BYTES)
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise HarnessError(
            f"{path}: not what `harness latency --json` prints ({where + ': ' if where else ''}{first['msg']})"
        ) from error
