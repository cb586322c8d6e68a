"""A job with what is found out once for all its models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.bench.blocks import Condition
from harness.bench.job import Assignment, Identity, Job, ModelFile, ModelInput
from harness.bench.process import EngineAnswer
from harness.host.isa.shown import Shown
from harness.plan.bench_settings import Isa
from harness.store.records import AccuracyRecord, Failure, LatencyRecord, failed, find, save


@dataclass(frozen=True)
class Limits:
    """Seconds after which one process is given up: far above what a sound one needs, to catch one that hangs."""

    latency_s: float = 600
    accuracy_s: float = 3600


@dataclass(frozen=True)
class Context:
    """What all stages of one run share. `scratch` is removed when it ends.

    `engines` maps an engine's name in matrix.toml to what it says of itself, `shown` an engine and an instruction set
    to how it is shown, `inputs` a cell to what its model takes; a cell whose file cannot be measured has none.
    """

    job: Job
    limits: Limits
    conditions: list[Condition]
    engines: dict[str, EngineAnswer]
    shown: dict[tuple[str, Isa], Shown]
    inputs: dict[str, ModelInput]
    testset_sha256: str
    environment: dict[str, Any]
    scratch: Path

    @property
    def headline(self) -> Condition:
        """The condition that tables show, and that accuracy is measured under."""
        return self.conditions[0]

    def runtime(self, condition: Condition) -> str:
        """The engine and its version, like "onnxruntime 1.16.0"."""
        return self.engines[condition.engine].runtime

    def session(self, condition: Condition) -> dict[str, Any]:
        """The options that the engine gets under a condition."""
        return self.engines[condition.engine].options[condition.threads]

    def assignment(self, model: ModelFile, condition: Condition, block: int = 0) -> Assignment:
        """What one process for this model gets to know."""
        return Assignment(
            model=model,
            input=self.inputs[model.cell],
            testset=self.job.testset,
            settings=self.job.settings,
            harness_revision=self.job.harness_revision,
            run=self.environment["run"],
            engine=condition.engine,
            shown=self.shown[condition.engine, condition.isa],
            threads=condition.threads,
            cpus=list(condition.cpus),
            block=block,
            failure=self.scratch / f"{model.cell}.failure.json",
        )

    def latency(self, model: ModelFile, condition: Condition) -> LatencyRecord | None:
        """The model's latency record on disk under its present key, if there is one."""
        key = model.latency[condition.name].key
        return find(self.job.results, self.job.profile, model.cell, key, LatencyRecord, condition.name)

    def accuracy(self, model: ModelFile) -> AccuracyRecord | None:
        """The model's accuracy record on disk under its present key, if there is one."""
        key = model.accuracy[self.headline.isa].key
        return find(self.job.results, self.job.profile, model.cell, key, AccuracyRecord)

    def latency_fields(self, model: ModelFile, condition: Condition) -> dict[str, Any]:
        """The fields that every latency record has, done or failed."""
        return {
            **self._fields(model, condition, model.latency[condition.name]),
            "condition": condition.name,
            "threads": condition.threads,
            "session": self.session(condition),
        }

    def accuracy_fields(self, model: ModelFile) -> dict[str, Any]:
        """The fields that every accuracy record has, done or failed."""
        fields = self._fields(model, self.headline, model.accuracy[self.headline.isa])
        fields["environment"]["session"] = self.session(self.headline)
        return fields

    def _fields(self, model: ModelFile, condition: Condition, identity: Identity) -> dict[str, Any]:
        return {
            "cell": model.cell,
            "title": model.title,
            "profile": self.job.profile,
            **identity.model_dump(),
            "onnx_sha256": model.onnx_sha256,
            "runtime": self.runtime(condition),
            "environment": {**self.environment, "measured_cpus": list(condition.cpus)},
        }

    def fail_latency(self, model: ModelFile, condition: Condition, failure: Failure, seconds: float) -> LatencyRecord:
        """Put on record that a latency could not be measured, and why."""
        record = failed(LatencyRecord, failure, **self.latency_fields(model, condition), seconds=seconds)
        save(self.job.results, record)
        return record

    def fail_accuracy(self, model: ModelFile, failure: Failure, seconds: float) -> AccuracyRecord:
        """Put on record that an accuracy could not be measured, and why."""
        record = failed(AccuracyRecord, failure, **self.accuracy_fields(model), seconds=seconds)
        save(self.job.results, record)
        return record
