"""What is stored about a cell: one small JSON file per cell and stage, written atomically.

A record is the only thing a later stage or a report knows about an earlier one, so every number in a table can be
walked back: row -> record -> ONNX sha256 -> checkpoint sha256 -> cell key -> settings. Values are stored unrounded,
with the unit in the name.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import HarnessError
from harness.files import MOST_TEXT_BYTES, read_bytes, write_text
from harness.plan.sections import Count, NonNegative, Positive
from harness.plan.specs import Stage, code_of
from harness.store.open_tables import Described, Open

SCHEMA: Literal[2] = 2
StageName = Literal["train", "export", "latency", "accuracy"]
# A figure outside these bounds makes a record unreadable: no harness has ever written one.
Finite = Annotated[float, Field(allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, lt=2**63)]


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a moment needs its time zone")
    return text


# An absolute path of two parts or more, up to its last part. A slash within a word, a number or an address is none.
_FOLDERS = re.compile(r"(?<![\w.~/:-])/(?:[^\s/:;,'\"()\[\]]+/)+(?=[^\s/:;,'\"()\[\]])")


def _without_folders(text: str) -> str:
    return _FOLDERS.sub("", text.replace(f"{Path.cwd()}/", ""))


# Built when first used: each process of the bench imports all of these models, and uses few.
FROZEN = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Failure(BaseModel):
    """Why a cell has no result.

    Records are published, so no absolute path stays in `message`: one below the working directory becomes relative, and
    of any other its last part is kept.
    """

    model_config = FROZEN
    kind: Literal["error", "diverged", "parity", "timeout", "out-of-memory", "killed"]
    message: Annotated[str, AfterValidator(_without_folders)]


class Record(BaseModel):
    """What all stages store.

    `key` is the stage's key at the time (harness.plan.specs), and `spec` the settings that it is a hash of: nested to
    the teacher's in a train record, with the key of the stage before in the others. `code` holds the source digest of
    every plug-in that had a part in it. harness.store.chain says whether a record still stands.
    """

    model_config = FROZEN
    stage: ClassVar[StageName]
    # A failed record carries the failure and none of the figures, which is why every figure below is optional.
    schema_version: Literal[2] = SCHEMA
    cell: str
    title: str
    profile: str
    key: str
    spec: Open
    code: dict[str, str] = {}
    # digests that somebody has declared to make no difference (train-matrix --code keep), oldest first
    code_kept: list[dict[str, str]] = []
    status: Literal["done", "failed"]
    failure: Failure | None = None
    # ISO 8601 in UTC, the moment the stage ended; seconds it took.
    finished_at: Annotated[str, AfterValidator(_moment)]
    seconds: NonNegative
    # Library versions, device, threads, harness revision, host: recorded, never part of the key.
    environment: Described


class Epoch(BaseModel):
    """One epoch as the training log keeps it. `phase` is teacher, sparse, feature, base or joint.

    `accuracy_pct` is on the training images as augmented, each answered before the step it was for: no result.
    `test_accuracy_pct` is a student's on all test images after the epoch, at the size and precision that it trained at.
    """

    model_config = FROZEN
    phase: str
    loss: Finite
    accuracy_pct: Percent | None = None
    image_size: Count | None = None
    test_accuracy_pct: Percent | None = None
    lr: NonNegative
    images_per_s: NonNegative


class Pruning(BaseModel):
    """What pruning really did. `ranked` channels compete with one another; those of kept layers do not.

    `amount` is the share of ranked channels that was asked to go. `emptied_layers` would have lost every channel: what
    became of them is the protocol's choice.
    """

    model_config = FROZEN
    amount: Annotated[float, Field(gt=0, lt=1)]
    channels_before: Count
    channels_after: Count
    ranked_before: Whole
    ranked_after: Whole
    emptied_layers: list[str] = []
    params_before: Count
    params_after: Count
    macs_before: Count
    macs_after: Count
    kept_layers: list[str]
    # on the test images, with the BatchNorm statistics of before, and with those estimated anew
    accuracy_before_calibration_pct: Percent
    accuracy_after_pct: Percent

    @model_validator(mode="after")
    def _smaller(self) -> Self:
        for what in ("channels", "ranked", "params", "macs"):
            before, after = getattr(self, f"{what}_before"), getattr(self, f"{what}_after")
            if after > before:
                raise ValueError(f"{what}_after is {after}, more than the {before} before")
        return self


class Rounded(BaseModel):
    """What weights were before they were rounded to half precision for a transfer: their hash and torch's accuracy."""

    model_config = FROZEN
    dtype: Literal["float16"]
    weights_sha256: str
    accuracy_pct: Percent


class TrainRecord(Record):
    """A trained model: teacher or student. `accuracy_pct` is torch's, after the last epoch, on all test images.

    `answers_sha256` is that of torch's answers to them (harness.predictions).

    Where the weights came here in half precision, `weights_sha256`, `answers_sha256` and `accuracy_pct` are those of
    the rounded weights, as is everything made from them, and `rounded_from` says what was trained.
    """

    stage: ClassVar[StageName] = "train"
    weights_sha256: str | None = None
    answers_sha256: str | None = None
    # the size of images that the model is for
    image_size: Count | None = None
    # a student's: the weights of the teacher that it was pruned from and distilled from
    teacher_sha256: str | None = None
    rounded_from: Rounded | None = None
    accuracy_pct: Percent | None = None
    params: Count | None = None
    macs: Count | None = None
    widths: dict[str, Count] | None = None
    pruning: Pruning | None = None
    epochs: list[Epoch] = []


# The parity gate's limits: the largest difference of logits divided by the largest logit (at least 1), and the share
# of images on which the answer is torch's.
PARITY_TOLERANCE = 1e-3
PARITY_TOP1_PCT = 99.5


def parity_limit(largest_logit: float) -> float:
    """The largest difference of logits that the parity gate allows."""
    return PARITY_TOLERANCE * max(1.0, largest_logit)


class ExportRecord(Record):
    """An ONNX file that passed the parity gate. `params` counts the graph's weights, BatchNorm folded in."""

    stage: ClassVar[StageName] = "export"
    weights_sha256: str | None = None
    onnx_sha256: str | None = None
    onnx_bytes: Count | None = None
    ir_version: Count | None = None
    params: Count | None = None
    flushed_weights: Whole | None = None
    denormal_weights: Whole | None = None
    parity_images: Count | None = None
    parity_largest_logit: NonNegative | None = None
    parity_max_abs_diff: NonNegative | None = None
    parity_top1_agreement_pct: Percent | None = None


class Interval(BaseModel):
    """A point estimate with its 95 % interval; without one where too few observations stand behind it."""

    model_config = FROZEN
    value: Finite
    low: Finite | None = None
    high: Finite | None = None

    @model_validator(mode="after")
    def _holds_its_value(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two bounds or none")
        if not self.covers(self.value):
            raise ValueError(f"{self.value:.4g} lies outside its own interval [{self.low:.4g}, {self.high:.4g}]")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lower and upper bound, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def covers(self, value: float) -> bool:
        """Whether it does not rule this value out; without bounds nothing is ruled out."""
        return self.bounds is None or self.bounds[0] <= value <= self.bounds[1]

    def text(self, spec: str) -> str:
        """The estimate and its bounds as people read them, each by a format like ".3f"."""
        said = ", ".join(f"{bound:{spec}}" for bound in self.bounds) if self.bounds else "too few processes"
        return f"{self.value:{spec}} [{said}]"


class InstructionSet(BaseModel):
    """What instruction set an engine was shown, how, and what those who looked say of it.

    `way`: "faulting" and "patched" are the target's (docs/target.md), "none" is the host's own. `cpuid` are the
    features that CPUID shows, of those that kernels are chosen by; `numpy` are those that numpy found; `engine` is the
    engine's own account. All processes of a measurement agree.
    """

    model_config = FROZEN
    way: Literal["none", "faulting", "patched"]
    cpuid: list[str]
    numpy: list[str]
    engine: Open


class Process(BaseModel):
    """One fresh process that timed one model. Its raw samples are in pytest-benchmark's JSON, in the raw folder."""

    model_config = FROZEN
    block: Whole
    # place in the run
    order: Whole
    first_inference_ms: Positive
    warmup_rounds: Whole
    # timed inferences, and what their times were
    rounds: Count
    low_ms: Positive
    median_ms: Positive
    p90_ms: Positive | None = None
    cpus: list[Whole]
    peak_rss_bytes: Whole
    involuntary_switches: Whole
    # How many different images the timed rounds saw.
    distinct_inputs: Count

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low_ms <= self.median_ms <= (self.p90_ms or self.median_ms):
            raise ValueError("the percentiles are out of order")
        return self


class LatencyRecord(Record):
    """Latency of one ONNX file, batch 1, on pinned cores, under one condition (engine, instruction set, threads).

    `latency_ms` is the estimate over processes (harness.intervals); `ratio_to_teacher` is paired by block, and below
    1 is faster. `median_ms` and `p90_ms` are the median process's: what a user on such a machine sees. The teacher's
    record holds the A/A control as well: the same file measured once more as if it were another model.
    """

    stage: ClassVar[StageName] = "latency"
    condition: str
    onnx_sha256: str
    runtime: str
    threads: Whole
    latency_ms: Interval | None = None
    median_ms: Positive | None = None
    p90_ms: Positive | None = None
    ratio_to_teacher: Interval | None = None
    processes: list[Process] = []
    control_ratio: Interval | None = None
    control: list[Process] = []
    # the engine's own options
    session: Described = {}
    instruction_set: InstructionSet | None = None
    warnings: list[str] = []


class AccuracyRecord(Record):
    """Accuracy of one ONNX file through the bench's own session, on all test images.

    `agreement_pct` is the share of images for which it gives torch's answer, right or wrong. Of the model's
    `convolutions` that session computes `nchwc_convolutions` in the runtime's fast layout. The answers and the labels
    lie beside the record (harness.predictions).
    """

    stage: ClassVar[StageName] = "accuracy"
    onnx_sha256: str
    runtime: str
    accuracy_pct: Percent | None = None
    correct: Whole | None = None
    images: Count | None = None
    testset_sha256: str | None = None
    predictions_sha256: str | None = None
    labels_sha256: str | None = None
    agreement_pct: Percent | None = None
    convolutions: Whole | None = None
    nchwc_convolutions: Whole | None = None
    instruction_set: InstructionSet | None = None

    @model_validator(mode="after")
    def _parts_of_wholes(self) -> Self:
        for part, whole in (("correct", "images"), ("nchwc_convolutions", "convolutions")):
            some, all_ = getattr(self, part), getattr(self, whole)
            if some is not None and all_ is not None and some > all_:
                raise ValueError(f"{part} is {some}, of {all_} {whole}")
        return self


R = TypeVar("R", bound=Record)


def now() -> str:
    """This moment, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record_path(results: Path, profile: str, stage: StageName, cell: str, condition: str = "") -> Path:
    """Where the record of one cell and stage lies; latencies have a folder per condition."""
    return results.joinpath(profile, stage, condition, f"{cell}.json")


def save(results: Path, record: Record) -> Path:
    """Write a record atomically; returns its path."""
    condition = record.condition if isinstance(record, LatencyRecord) else ""
    path = record_path(results, record.profile, record.stage, record.cell, condition)
    write_text(path, as_text(record.model_dump(mode="json", exclude_none=True)))
    return path


def as_text(document: Mapping[str, Any]) -> str:
    """A record as its file has it."""
    return _compact_lists(json.dumps(document, indent=1, sort_keys=True)) + "\n"


def load(path: Path, kind: type[R]) -> R:
    """Read one record; a truncated or foreign file, or one of an earlier schema, is a HarnessError that names it."""
    text = read_bytes(path, "no such record", MOST_TEXT_BYTES)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        if (version := _schema_version(text)) != SCHEMA:
            folder = path.parents[2 if kind.stage == "latency" else 1]
            raise HarnessError(
                f"{path}: a record of schema {version}, and this harness writes {SCHEMA}; "
                f"move {folder} away and make its models again, or use the harness that wrote it"
            ) from None
        reason = error.errors()[0]
        where = ".".join(str(part) for part in reason["loc"])
        raise HarnessError(
            f"{path}: not a {kind.stage} record ({where + ': ' if where else ''}"
            f"{reason['msg'].removeprefix('Value error, ')}); "
            f"delete it to have it made again"
        ) from error


def _schema_version(text: bytes) -> Any:
    """What a record says its schema is; the present one where it is no record at all."""
    try:
        return json.loads(text).get("schema_version", SCHEMA)
    except (ValueError, AttributeError, RecursionError):
        return SCHEMA


def find(results: Path, profile: str, cell: str, key: str, kind: type[R], condition: str = "") -> R | None:
    """The cell's record if there is one and it was made under this key, failed or done.

    None where it is to be made (again): it is missing, stale, unreadable, or another cell's.
    """
    path = record_path(results, profile, kind.stage, cell, condition)
    try:
        record = load(path, kind)
    except HarnessError:
        return None
    return record if (record.profile, record.cell, record.key) == (profile, cell, key) else None


def failed(kind: type[R], failure: Failure, **fields: Any) -> R:
    """A record that says why the stage has no figures."""
    return kind(status="failed", failure=failure, finished_at=now(), **fields)


def identity(profile: str, cell: str, title: str, stage: Stage) -> dict[str, Any]:
    """The fields of a record that say what it is of."""
    return {
        "cell": cell,
        "title": title,
        "profile": profile,
        "key": stage.key,
        "spec": stage.document if stage.kind in ("teacher", "student") else stage.brief,
        "code": code_of(stage),
    }


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
