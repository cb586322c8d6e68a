"""Decides, without measuring or reading anything: in which order models run, and which have to."""

import random
from collections.abc import Sequence
from typing import Any

from harness.benchmarking.job import Model
from harness.records import AccuracyRecord, LatencyRecord


def block_order(names: Sequence[str], block: int, seed: int) -> list[str]:
    """All names once, in an order of the block's own: slow drifts then hit every model alike.

    Depends on names, block and seed only, so that a block can be added to a run without changing the others.
    """
    order = sorted(names)
    random.Random(f"{seed}:{block}").shuffle(order)
    return order


def latencies_are_current(
    models: Sequence[Model], records: Sequence[LatencyRecord | None], runtime: str, settings: dict[str, Any]
) -> bool:
    """Whether no latency needs measuring: all or nothing, because a ratio is only valid within one run.

    Every record (in the order of `models`) must be done, of the same model, runtime and settings, and all of one run:
    a table that mixes runs would compare the weather. So one missing or changed model has all models measured again,
    together with the teacher. Where there is a teacher each must have its ratio (missing where the teacher failed).
    """
    runs = {record.environment.get("run") for record in records if record is not None}
    has_teacher = any(model.is_teacher for model in models)
    return len(runs) <= 1 and all(
        record is not None
        and (record.status, record.key, record.onnx_sha256) == ("done", model.key, model.onnx_sha256)
        and (record.runtime, record.settings) == (runtime, settings)
        and (record.ratio_to_teacher is not None) == has_teacher
        for model, record in zip(models, records, strict=True)
    )


def accuracy_is_current(
    model: Model, record: AccuracyRecord | None, runtime: str, testset_sha256: str, session: dict[str, Any]
) -> bool:
    """Whether an accuracy needs no measuring: same model, runtime, test set and session. Each model by itself."""
    return (
        record is not None
        and (record.status, record.key, record.onnx_sha256) == ("done", model.key, model.onnx_sha256)
        and (record.runtime, record.testset_sha256) == (runtime, testset_sha256)
        and record.environment.get("session") == session
    )
