"""A job with what is found out once for all its models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.bench.blocks import Condition
from harness.bench.job import Assignment, Job, Model
from harness.bench.session import session_options
from harness.intervals import ESTIMATOR
from harness.store.records import AccuracyRecord, Failure, LatencyRecord, Record, failed, find, save

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Limits:
    """Seconds after which one process is given up: far above what a sound one needs, to catch one that hangs."""

    latency_s: float = 600
    accuracy_s: float = 3600


@dataclass(frozen=True)
class Context:
    """What all stages of one run share. `warnings` are about the run as a whole; `scratch` goes when it ends.

    `runtimes` maps a runtime's name in matrix.toml to what it says of itself: "onnxruntime 1.16.0".
    """

    job: Job
    limits: Limits
    conditions: list[Condition]
    runtimes: dict[str, str]
    testset_sha256: str
    environment: dict[str, Any]
    scratch: Path

    @property
    def headline(self) -> Condition:
        """The condition that tables show, and that accuracy is measured under."""
        return self.conditions[0]

    def settings(self, condition: Condition) -> dict[str, Any]:
        """What a latency depends on beside model, runtime and machine; a record with others is out of date."""
        session = session_options(condition.threads)
        return {"bench": self.job.settings.model_dump(mode="json"), "session": session, "estimator": ESTIMATOR}

    def identity(self, model: Model, condition: Condition) -> dict[str, Any]:
        """The fields that every record of this model has, done or failed."""
        facts = {"measured_cpus": list(condition.cpus), "session": session_options(condition.threads)}
        return {
            "cell": model.cell,
            "title": model.title,
            "profile": self.job.profile,
            "key": model.key,
            "onnx_sha256": model.onnx_sha256,
            "runtime": self.runtimes[condition.runtime],
            "environment": {**self.environment, **facts},
        }

    def assignment(self, model: Model, condition: Condition, block: int = 0) -> Assignment:
        """What one process for this model gets to know."""
        return Assignment(
            model=model,
            testset=self.job.testset,
            settings=self.job.settings,
            harness_revision=self.job.harness_revision,
            threads=condition.threads,
            cpus=list(condition.cpus),
            block=block,
            failure=self.scratch / f"{model.cell}.failure.json",
        )

    def latency(self, model: Model, condition: Condition) -> LatencyRecord | None:
        """The model's latency record on disk under its present key, if there is one."""
        return find(self.job.results, self.job.profile, model.cell, model.key, LatencyRecord, condition.name)

    def accuracy(self, model: Model) -> AccuracyRecord | None:
        """The model's accuracy record on disk under its present key, if there is one."""
        return find(self.job.results, self.job.profile, model.cell, model.key, AccuracyRecord)

    def fail_latency(self, model: Model, condition: Condition, failure: Failure, seconds: float) -> LatencyRecord:
        """Put on record that a latency could not be measured, and why."""
        record = failed(
            LatencyRecord,
            failure,
            **self.identity(model, condition),
            condition=condition.name,
            settings=self.settings(condition),
            threads=condition.threads,
            seconds=seconds,
        )
        save(self.job.results, record)
        return record

    def fail_accuracy(self, model: Model, failure: Failure, seconds: float) -> AccuracyRecord:
        """Put on record that an accuracy could not be measured, and why."""
        record = failed(AccuracyRecord, failure, **self.identity(model, self.headline), seconds=seconds)
        save(self.job.results, record)
        return record
