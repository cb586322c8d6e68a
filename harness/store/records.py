"""What is stored about a cell: one small JSON file per cell and stage, written atomically.

A record is the only thing a later stage or a report knows about an earlier one, so every number in a table can be
walked back: row -> record -> ONNX sha256 -> checkpoint sha256 -> cell key -> settings. Values are stored unrounded,
with the unit in the name.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import HarnessError
from harness.files import write_text

SCHEMA: Literal[1] = 1
Stage = Literal["train", "export", "latency", "accuracy"]


class Failure(BaseModel):
    """Why a cell has no result."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["error", "diverged", "parity", "timeout", "out-of-memory", "killed"]
    message: str


class Record(BaseModel):
    """What all stages store. `key` is the cell's key at the time: a record with another key is stale, not done."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage: ClassVar[Stage]
    # A failed record carries the failure and none of the figures, which is why every figure below is optional.
    schema_version: Literal[1] = SCHEMA
    cell: str
    title: str
    profile: str
    key: str
    status: Literal["done", "failed"]
    failure: Failure | None = None
    # ISO 8601 in UTC, the moment the stage ended; seconds it took.
    finished_at: str
    seconds: float
    # Library versions, device, threads, harness revision, host: recorded, never part of the key.
    environment: dict[str, Any]


class Epoch(BaseModel):
    """One epoch as the training log keeps it. `phase` is teacher, sparse, feature, base or joint.

    `accuracy_pct` is on the training images as augmented, each answered before the step it was for: no result.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    phase: str
    loss: float
    accuracy_pct: float | None = None
    lr: float
    images_per_s: float


class Pruning(BaseModel):
    """What pruning really did: channels asked for against channels gone."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    amount: float
    channels_before: int
    channels_after: int
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    kept_layers: list[str]
    accuracy_after_pct: float


class Rounded(BaseModel):
    """What weights were before they were stored in half precision to be carried: their hash and torch's accuracy."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    dtype: Literal["float16"]
    weights_sha256: str
    accuracy_pct: float


class TrainRecord(Record):
    """A trained model: teacher or student. `accuracy_pct` is torch's, after the last epoch, on all test images.

    Where the weights came here in half precision, `weights_sha256` and `accuracy_pct` are those of the rounded weights,
    as is everything made from them, and `rounded_from` says what was trained.
    """

    stage: ClassVar[Stage] = "train"
    # The resolved settings that the key is a hash of, nested: student -> pruned -> sparse -> teacher.
    settings: dict[str, Any]
    weights_sha256: str | None = None
    # a student's: the weights of the teacher that it was pruned from and distilled from
    teacher_sha256: str | None = None
    rounded_from: Rounded | None = None
    accuracy_pct: float | None = None
    params: int | None = None
    macs: int | None = None
    widths: dict[str, int] | None = None
    pruning: Pruning | None = None
    epochs: list[Epoch] = []


class ExportRecord(Record):
    """An ONNX file that passed the parity gate. `params` counts the graph's weights, BatchNorm folded in."""

    stage: ClassVar[Stage] = "export"
    weights_sha256: str | None = None
    onnx_sha256: str | None = None
    onnx_bytes: int | None = None
    opset: int | None = None
    ir_version: int | None = None
    params: int | None = None
    flushed_weights: int | None = None
    denormal_weights: int | None = None
    parity_images: int | None = None
    parity_max_abs_diff: float | None = None
    parity_top1_agreement_pct: float | None = None


class Interval(BaseModel):
    """A point estimate with its 95 % interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: float
    low: float
    high: float


class Process(BaseModel):
    """One fresh process that timed one model. Its raw samples are in pytest-benchmark's JSON, in the raw folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    block: int
    # place in the run
    order: int
    first_inference_ms: float
    warmup_rounds: int
    # timed inferences, and what their times were
    rounds: int
    low_ms: float
    median_ms: float
    p90_ms: float | None = None
    cpus: list[int]
    peak_rss_bytes: int
    involuntary_switches: int
    # How many different images the timed rounds saw.
    distinct_inputs: int


class LatencyRecord(Record):
    """Latency of one ONNX file, batch 1, on pinned cores, under one condition (runtime and threads).

    `latency_ms` is the estimate over processes (harness.intervals); `ratio_to_teacher` is paired by block, and below
    1 is faster. `median_ms` and `p90_ms` are the median process's: what a user on such a machine sees. The teacher's
    record holds the A/A control as well: the same file measured once more as if it were another model.
    """

    stage: ClassVar[Stage] = "latency"
    condition: str
    onnx_sha256: str
    runtime: str
    threads: int
    latency_ms: Interval | None = None
    median_ms: float | None = None
    p90_ms: float | None = None
    ratio_to_teacher: Interval | None = None
    processes: list[Process] = []
    control_ratio: Interval | None = None
    control: list[Process] = []
    settings: dict[str, Any]
    warnings: list[str] = []


class AccuracyRecord(Record):
    """Accuracy of one ONNX file through the bench's own session, on all test images.

    `agreement_pct` is the share of images for which it gives torch's answer, right or wrong. Of the model's
    `convolutions` that session computes `nchwc_convolutions` in the runtime's fast layout.
    """

    stage: ClassVar[Stage] = "accuracy"
    onnx_sha256: str
    runtime: str
    accuracy_pct: float | None = None
    correct: int | None = None
    images: int | None = None
    testset_sha256: str | None = None
    agreement_pct: float | None = None
    convolutions: int | None = None
    nchwc_convolutions: int | None = None


R = TypeVar("R", bound=Record)


def now() -> str:
    """This moment, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record_path(results: Path, profile: str, stage: Stage, cell: str, condition: str = "") -> Path:
    """Where the record of one cell and stage lies; latencies have a folder per condition."""
    return results / profile / stage / condition / f"{cell}.json"


def save(results: Path, record: Record) -> Path:
    """Write a record atomically; returns its path."""
    condition = record.condition if isinstance(record, LatencyRecord) else ""
    path = record_path(results, record.profile, record.stage, record.cell, condition)
    data = record.model_dump(mode="json", exclude_none=True)
    write_text(path, _compact_lists(json.dumps(data, indent=1, sort_keys=True)) + "\n")
    return path


def load(path: Path, kind: type[R]) -> R:
    """Read one record; a truncated or foreign file is a HarnessError that names it."""
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HarnessError(f"{path}: no such record") from None
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        reason = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error), "loc": ()}
        where = ".".join(str(part) for part in reason["loc"])
        raise HarnessError(
            f"{path}: not a {kind.stage} record ({where + ': ' if where else ''}{reason['msg']}); "
            f"delete it to have it made again"
        ) from error


def find(results: Path, profile: str, cell: str, key: str, kind: type[R], condition: str = "") -> R | None:
    """The cell's record if there is one and it was made under this key, failed or done; None where missing or stale."""
    path = record_path(results, profile, kind.stage, cell, condition)
    if not path.exists():
        return None
    record = load(path, kind)
    return record if record.key == key else None


def failed(kind: type[R], failure: Failure, **fields: Any) -> R:
    """A record that says why the stage has no figures."""
    return kind(status="failed", failure=failure, finished_at=now(), **fields)


def _compact_lists(text: str) -> str:
    """Put lists of plain numbers on one line: samples are hundreds of numbers, and diffs should stay readable."""
    lines: list[str] = []
    pending: list[str] | None = None
    for line in text.splitlines():
        bare = line.strip()
        if pending is None and line.endswith("["):
            pending = [line]
        elif pending is None:
            lines.append(line)
        elif _is_number(bare.rstrip(",")):
            pending.append(bare)
        elif bare in ("]", "],") and len(pending) > 1:
            lines.append(pending[0] + " ".join(pending[1:]) + bare)
            pending = None
        else:
            lines += pending
            pending = [line] if line.endswith("[") else None
            if pending is None:
                lines.append(line)
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
