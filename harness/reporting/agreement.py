"""Where the rows of one table disagree on machine, runtime or versions, and so should not be compared unread."""

from collections.abc import Iterator, Sequence
from typing import Any

from harness.records import Record
from harness.reporting.rows import Row

# What each stage records about where it ran, and the name a reader knows it by.
TRAINING = {
    "device": "training device",
    "precision": "training precision",
    "torch": "torch",
    "torchvision": "torchvision",
    "torch-pruning": "torch-pruning",
    "harness_revision": "harness revision (training)",
}
EXPORT = {"onnx": "onnx", "onnxruntime": "onnxruntime of the parity gate"}
ACCURACY = {"cpu": "machine of the accuracy", "session": "session of the accuracy"}
BENCH = {
    "run": "bench run (ratios hold within one run only)",
    "cpu": "machine benched on",
    "physical_cores": "physical cores of the machine benched on",
    "isa": "instruction sets of the machine benched on",
    "kernel": "kernel of the machine benched on",
    "image": "container image",
    "harness_revision": "harness revision (bench)",
}


def disagreements(rows: Sequence[Row]) -> list[str]:
    """One sentence per fact on which rows differ: the values, and the rows of all but the most common one."""
    values: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for label, value in _facts(row):
            values.setdefault(label, {}).setdefault(str(value), []).append(row.cell.title)
    return [_sentence(label, by_value) for label, by_value in values.items() if len(by_value) > 1]


def _facts(row: Row) -> Iterator[tuple[str, Any]]:
    if row.train:
        yield from _environment(row.train, TRAINING)
    if row.export:
        yield from _environment(row.export, EXPORT)
    if row.latency:
        yield from _environment(row.latency, BENCH)
        yield "runtime", row.latency.runtime
        yield "threads", row.latency.threads
        yield from _flat(row.latency.settings, "bench setting")
    if row.accuracy:
        yield from _environment(row.accuracy, ACCURACY)
        yield "runtime of the accuracy", row.accuracy.runtime
        yield "number of test images", row.accuracy.images
        yield "test images", row.accuracy.testset_sha256


def _environment(record: Record, names: dict[str, str]) -> Iterator[tuple[str, Any]]:
    for key, label in names.items():
        if key in record.environment:
            yield label, record.environment[key]


def _flat(settings: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """Nested settings one by one, so that a sentence names the one that differs."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{name} {key}")
        else:
            yield f"{name} {key}", value


def _sentence(label: str, by_value: dict[str, list[str]]) -> str:
    usual, *others = sorted(by_value, key=lambda value: (-len(by_value[value]), value))
    named = "; ".join(f"{value} for {', '.join(by_value[value])}" for value in others)
    return f"rows disagree on {label}: {named}; {usual} for the other {len(by_value[usual])}"
