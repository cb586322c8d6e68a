"""What the bench is asked to do: the one file it reads, and the part of it that each fresh process gets."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import HarnessError
from harness.plan.settings import Bench


class Strict(BaseModel):
    """Unknown keys are refused and values are not coerced: a typo is an error, not a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Model(Strict):
    """One ONNX file to measure; `cell` names its records and raw files, hence no path separators."""

    cell: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: str
    key: str
    onnx: Path
    onnx_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    is_teacher: bool
    # the class that torch gave each test image, uint8 [N] as .npy, where it is known
    answers: Path | None = None


class Enclosure(Strict):
    """What the container that the job runs in was started with: all CPUs that it may use, and its memory limit."""

    cpus: Annotated[list[int], Field(min_length=1)]
    memory_bytes: Annotated[int, Field(gt=0)]


class Job(Strict):
    """The models of one run, which are measured together: ratios to the teacher are only valid within a run."""

    profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    # Where records go: results/<profile>/latency/<cell>.json and .../accuracy/<cell>.json
    results: Path
    # Where pytest-benchmark's own JSON files and the logs of failed processes are kept.
    raw: Path
    testset: Path
    settings: Bench
    harness_revision: str
    # Docker image id, or null on the bare machine.
    image: str | None = None
    # What the bench asserts of its container before it measures; null on the bare machine.
    enclosure: Enclosure | None = None
    # The interpreter that has each runtime of the settings; one that is not named is this process's.
    pythons: dict[str, Path] = {}
    models: Annotated[list[Model], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> "Job":
        cells = [model.cell for model in self.models]
        if len(set(cells)) != len(cells):
            raise ValueError(f"models: every cell once, not {', '.join(sorted(cells))}")
        teachers = [model.cell for model in self.models if model.is_teacher]
        if len(teachers) > 1:
            raise ValueError(f"models: at most one teacher, not {', '.join(teachers)}")
        return self

    @property
    def teacher(self) -> Model | None:
        """The model that ratios are taken to; without one there are no ratios."""
        return next((model for model in self.models if model.is_teacher), None)


class Assignment(Strict):
    """What one fresh process is to measure; `block` also picks the images, the same for all models of the block."""

    model: Model
    testset: Path
    settings: Bench
    harness_revision: str
    threads: Annotated[int, Field(ge=1)]
    cpus: Annotated[list[int], Field(min_length=1)]
    block: Annotated[int, Field(ge=0)] = 0
    # Written when the measurement fails: a harness.store.records.Failure.
    failure: Path


S = TypeVar("S", bound=Strict)


def read(path: Path, kind: type[S]) -> S:
    """Read a Job or an Assignment; HarnessError names file, key and what is wrong with it."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise HarnessError(
            f"{path}: not a bench {kind.__name__.lower()}: {where + ': ' if where else ''}{message}"
        ) from error
