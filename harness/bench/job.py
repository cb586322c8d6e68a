"""What the bench is asked to do: the one file that it reads, and the part of it that each fresh process gets."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import HarnessError
from harness.files import MOST_TEXT_BYTES, file_sha256, read_bytes
from harness.host.isa.shown import HOST, Shown
from harness.plan.bench_settings import Bench, Isa


class Strict(BaseModel):
    """Unknown keys are refused and values are not coerced: a typo is an error, not a default."""

    # built when first used: a process of the bench imports all that inherit this, and uses few
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Identity(Strict):
    """What a measurement is one of, as its record keeps it: the stage's key, its settings, its plug-ins' digests.

    Whoever writes the job decides it from the plan, which the bench does not know.
    """

    key: str
    spec: dict[str, Any]
    code: dict[str, str]


class ModelInput(Strict):
    """How a model takes images: of `size` x `size` pixels, normalised with `mean` and `std` per channel.

    `name` and `dtype` (numpy's) are its input's. With a fixed `batch` it takes exactly so many images at a time.
    """

    size: Annotated[int, Field(ge=1)]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    name: str = "input"
    dtype: str = "float32"
    channels_last: bool = False
    batch: Annotated[int, Field(ge=1)] | None = None


class OnnxFile(Strict):
    """One ONNX file to open; `cell` names its records and raw files, hence no path separators."""

    cell: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: str
    onnx: Path
    onnx_sha256: Sha256
    # the files of external data beside it, by their path in its folder
    external_sha256: dict[str, Sha256] = {}
    # the class that torch gave each test image (harness.predictions), where it is known, and the file's hash on record
    answers: Path | None = None
    answers_sha256: str | None = None

    def read(self) -> bytes:
        """The file's bytes. HarnessError unless they are exactly the ones that the job means."""
        try:
            data = read_bytes(self.onnx)
        except HarnessError as error:
            raise HarnessError(f"{error}; {self.remedy}") from error
        self._require(self.onnx, hashlib.sha256(data).hexdigest(), self.onnx_sha256)
        return data

    def content(self) -> bytes | Path:
        """What an engine opens: the bytes, or the path of a file with external data, which an engine finds by it.

        HarnessError unless all of it is exactly what the job means.
        """
        data = self.read()
        for name, expected in self.external_sha256.items():
            beside = self.onnx.parent / name
            try:
                found = file_sha256(beside)
            except OSError as error:
                raise HarnessError(f"{beside}: cannot be read ({error.strerror}); {self.remedy}") from error
            self._require(beside, found, expected)
        return self.onnx if self.external_sha256 else data

    @property
    def remedy(self) -> str:
        """What to do about a file that is not as it should be."""
        return "export it again, or try another engine"

    def _require(self, path: Path, found: str, expected: str) -> None:
        if found != expected:
            raise HarnessError(
                f"{path}: sha256 is {found[:12]}..., the job says {expected[:12]}...: "
                f"the file is truncated, corrupt or another model; {self.remedy}"
            )


class ModelFile(OnnxFile):
    """An exported model: the ONNX file of a cell, and what its measurements are filed under."""

    # of the export, as the file's metadata has it
    key: str
    is_teacher: bool
    # Condition -> its latency, and instruction set -> the accuracy under the headline condition with it: those that are
    # asked for, and those of the host, which take their place where the target's instruction set cannot be shown.
    latency: dict[str, Identity]
    accuracy: dict[Isa, Identity]
    # how it takes images, where its own metadata does not say
    input: ModelInput | None = None

    @property
    def remedy(self) -> str:
        """See the base class."""
        return f"export {self.cell} again"


class Enclosure(Strict):
    """What the container that the job runs in was started with: all CPUs that it may use, and its memory limit."""

    cpus: Annotated[list[int], Field(min_length=1)]
    memory_bytes: Annotated[int, Field(gt=0)]


class Job(Strict):
    """The models of one run, which are measured together: ratios to the teacher are only valid within a run."""

    profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    # Where records go: results/<profile>/latency/<condition>/<cell>.json and .../accuracy/<cell>.json
    results: Path
    # Where pytest-benchmark's own JSON files and the logs of failed processes are kept.
    raw: Path
    testset: Path
    settings: Bench
    harness_revision: str
    # Docker image id, or null outside a container.
    image: str | None = None
    # What the bench asserts of its container before it measures; null outside a container.
    enclosure: Enclosure | None = None
    # Engine -> the interpreter of its environment; this process's own where an engine is not named.
    pythons: dict[str, Path] = {}
    # Measure every model, whatever is up to date.
    measure_again: bool = False
    models: Annotated[list[ModelFile], Field(min_length=1)]

    @model_validator(mode="after")
    def _coherent(self) -> "Job":
        cells = [model.cell for model in self.models]
        if len(set(cells)) != len(cells):
            raise ValueError(f"models: every cell once, not {', '.join(sorted(cells))}")
        teachers = [model.cell for model in self.models if model.is_teacher]
        if len(teachers) > 1:
            raise ValueError(f"models: at most one teacher, not {', '.join(teachers)}")
        for model in self.models:
            if missing := set(self.settings.conditions) - model.latency.keys():
                raise ValueError(f"models: {model.cell}: no latency for {', '.join(sorted(missing))}")
            if self.settings.isa[0] not in model.accuracy:
                raise ValueError(f"models: {model.cell}: no accuracy for isa {self.settings.isa[0]!r}")
        return self

    @property
    def teacher(self) -> ModelFile | None:
        """The model that ratios are taken to; without one there are no ratios."""
        return next((model for model in self.models if model.is_teacher), None)


class DrawnInput(Strict):
    """An input that random numbers are drawn for; `dtype` is numpy's name of its type.

    Integers and floating-point numbers are drawn evenly from `low` to `high`, both included; without these,
    floating-point numbers are normal with mean 0 and standard deviation 1.
    """

    name: str
    dtype: str
    shape: list[Annotated[int, Field(ge=1)]]
    low: float | None = None
    high: float | None = None


class Assignment(Strict):
    """What one fresh process is to measure; `block` also picks the inputs, the same for all models of the block.

    `input` says how the images of `testset` are prepared, or which inputs are drawn.
    """

    model: ModelFile | OnnxFile
    input: ModelInput | list[DrawnInput]
    testset: Path | None = None
    settings: Bench
    harness_revision: str
    # of all records of the run; each raw file says which run it is of. Empty where nothing goes on record
    run: str = ""
    engine: str
    shown: Shown = HOST
    threads: Annotated[int, Field(ge=1)]
    cpus: Annotated[list[int], Field(min_length=1)]
    block: Annotated[int, Field(ge=0)] = 0
    # Written when the measurement fails: a harness.store.records.Failure.
    failure: Path

    def images(self) -> tuple[Path, ModelInput]:
        """The test set, and how its images are prepared. HarnessError where inputs are drawn."""
        if self.testset is None or not isinstance(self.input, ModelInput):
            raise HarnessError(f"{self.model.onnx}: the assignment names no test images")
        return self.testset, self.input


S = TypeVar("S", bound=Strict)


def read(path: Path, kind: type[S]) -> S:
    """Read a Job or an Assignment; HarnessError names file, key and what is wrong with it."""
    try:
        return kind.model_validate_json(read_bytes(path, most=MOST_TEXT_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise HarnessError(
            f"{path}: not a bench {kind.__name__.lower()}: {where + ': ' if where else ''}{message}"
        ) from error
