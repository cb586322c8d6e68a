"""Were the rows of one table trained alike, measured on one machine, in one image and run, on the same test images?"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from harness.checks.evidence import Entry, Evidence
from harness.checks.fault import Fault
from harness.store.records import AccuracyRecord, LatencyRecord, Record, TrainRecord

R = TypeVar("R", bound=Record)
# The facts by which two machines differ for a latency, and the words for them. The kernel may be updated between runs.
MACHINE = {"cpu": "{}", "machine": "{}", "physical_cores": "{} physical cores", "isa": "{}"}
# What a trained model's numbers depend on beside its key, and the words for it. The other packages go with torch.
TRAINING = {"device": "training device", "torch": "torch version"}


def machine(record: Record) -> str:
    """The machine that a record was made on, as text that is equal for equal machines."""
    facts = []
    for name, words in MACHINE.items():
        fact = record.environment.get(name)
        if fact is not None:
            facts.append(words.format(" ".join(map(str, fact)) if isinstance(fact, list) else fact))
    return ", ".join(facts) or "unknown"


def image(record: Record) -> str:
    """The container image that a record was made in."""
    return str(record.environment.get("image") or "none")


def mixed_training(evidence: Evidence) -> Iterator[Fault]:
    """Models of one table trained on different devices or by different versions of torch."""
    for name, what in TRAINING.items():
        yield from _odd_ones(evidence, _train, partial(_fact, name), what)


def mixed_machines(evidence: Evidence) -> Iterator[Fault]:
    """Latencies of one table from different machines."""
    return _odd_ones(evidence, _latency, machine, "machine")


def mixed_images(evidence: Evidence) -> Iterator[Fault]:
    """Latencies of one table from different container images."""
    return _odd_ones(evidence, _latency, image, "container image")


def mixed_runs(evidence: Evidence) -> Iterator[Fault]:
    """Latencies of one table from different bench runs: a ratio to the teacher holds within one run."""
    return _odd_ones(evidence, _latency, lambda record: record.environment.get("run"), "bench run")


def mixed_test_images(evidence: Evidence) -> Iterator[Fault]:
    """Accuracies of one table on different test images."""
    return _odd_ones(evidence, _accuracy, lambda record: (record.images, record.testset_sha256), "test set")


def mixed_accuracy_machines(evidence: Evidence) -> Iterator[Fault]:
    """Accuracies of one table from different machines or images, which may change a few answers."""
    return _odd_ones(evidence, _accuracy, lambda record: f"{machine(record)}; image {image(record)}", "machine")


def _fact(name: str, record: Record) -> str:
    # a fact from elsewhere may be anything that JSON can hold
    return str(record.environment.get(name, "unknown"))


def _train(entry: Entry) -> TrainRecord | None:
    return entry.train


def _latency(entry: Entry) -> LatencyRecord | None:
    return entry.latency


def _accuracy(entry: Entry) -> AccuracyRecord | None:
    return entry.accuracy


def _odd_ones(
    evidence: Evidence, take: Callable[[Entry], R | None], value_of: Callable[[R], Any], what: str
) -> Iterator[Fault]:
    """The rows of each table that differ from most rows, or from the teacher's where no value has a majority."""
    seen = set()
    for table in evidence.plan.tables:
        found = [(entry, record, value_of(record)) for entry in evidence.of(table) if (record := take(entry))]
        counts = Counter(value for _, _, value in found)
        if len(counts) < 2:
            continue
        usual = counts.most_common(1)[0][0]
        for entry, record, value in found:
            fault = Fault(entry, record.stage, f"{what} is {_said(value)}; {_said(usual)} in other rows of the table")
            if value != usual and (entry.cell.id, fault.reason) not in seen:
                seen.add((entry.cell.id, fault.reason))
                yield fault


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        count, sha256 = value
        return f"{count} images ({str(sha256)[:12]}...)"
    return str(value)
