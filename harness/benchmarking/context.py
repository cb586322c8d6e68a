"""A job with what is found out once for all its models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.benchmarking.job import Assignment, Job, Model
from harness.benchmarking.session import RUNTIME, session_options
from harness.records import AccuracyRecord, Failure, LatencyRecord, Record, failed, find, save

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Limits:
    """Seconds after which one process is given up: far above what a sound one needs, to catch one that hangs."""

    latency_s: float = 600
    accuracy_s: float = 3600


@dataclass(frozen=True)
class Context:
    """What all stages of one run share. `warnings` are about the run as a whole; `scratch` goes when it ends."""

    job: Job
    limits: Limits
    cpus: list[int]
    warnings: list[str]
    testset_sha256: str
    environment: dict[str, Any]
    scratch: Path

    @property
    def settings(self) -> dict[str, Any]:
        """What a latency depends on beside model, runtime and machine; a record with others is out of date."""
        session = session_options(self.job.settings.threads)
        return {"bench": self.job.settings.model_dump(), "session": session, "estimator": "median of process medians"}

    def identity(self, model: Model) -> dict[str, Any]:
        """The fields that every record of this model has, done or failed."""
        return {
            "cell": model.cell,
            "title": model.title,
            "profile": self.job.profile,
            "key": model.key,
            "onnx_sha256": model.onnx_sha256,
            "runtime": RUNTIME,
            "environment": self.environment,
        }

    def assignment(self, model: Model, block: int = 0) -> Assignment:
        """What one process for this model gets to know."""
        return Assignment(
            model=model,
            testset=self.job.testset,
            settings=self.job.settings,
            harness_revision=self.job.harness_revision,
            cpus=self.cpus,
            block=block,
            failure=self.scratch / f"{model.cell}.failure.json",
        )

    def find(self, model: Model, kind: type[R]) -> R | None:
        """The model's record on disk under its present key, if there is one."""
        return find(self.job.results, self.job.profile, model.cell, model.key, kind)

    def fail_latency(self, model: Model, failure: Failure, seconds: float) -> LatencyRecord:
        """Put on record that a latency could not be measured, and why."""
        threads = self.job.settings.threads
        fields = {**self.identity(model), "settings": self.settings, "threads": threads, "seconds": seconds}
        record = failed(LatencyRecord, failure, **fields)
        save(self.job.results, record)
        return record

    def fail_accuracy(self, model: Model, failure: Failure, seconds: float) -> AccuracyRecord:
        """Put on record that an accuracy could not be measured, and why."""
        record = failed(AccuracyRecord, failure, **self.identity(model), seconds=seconds)
        save(self.job.results, record)
        return record
