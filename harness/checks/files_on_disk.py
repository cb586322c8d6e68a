"""The strict checks: files on this machine and raw measurements, compared with the records.

What is not on this machine is not compared. These checks read large files (weights) and files that only the machine
that measured has (raw samples), so `verify` runs them, and `check`, which precedes every report, does not.
"""

import json
import math
import statistics
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.checks.evidence import Entry, Evidence
from harness.checks.fault import Fault
from harness.files import file_sha256
from harness.intervals import percentile, undisturbed
from harness.predictions import named
from harness.store import paths
from harness.store.chain import short
from harness.store.records import LatencyRecord

# Samples are stored in seconds and in milliseconds: they agree but for the last digit.
REL_TOL = 1e-9


def weights_file(evidence: Evidence, entry: Entry) -> Path | None:
    """A cell's weights, if they are on this machine."""
    if evidence.artifacts is None:
        return None
    path = paths.weights_file(evidence.artifacts, evidence.plan.profile, entry.cell)
    return path if path.is_file() else None


def changed_weights(evidence: Evidence) -> Iterator[Fault]:
    """Weights on this machine that are not those on record."""
    for entry in evidence.entries.values():
        path = weights_file(evidence, entry)
        if path and entry.train and (found := file_sha256(path)) != entry.train.weights_sha256:
            reason = f"weights.safetensors has sha256 {short(found)}; the train record says "
            yield Fault(entry, "train", reason + short(entry.train.weights_sha256))


def kept_runs(evidence: Evidence) -> dict[str, dict[str, dict[str, Any]]]:
    """The entries of pytest-benchmark's files: run -> "condition/cell" -> entry. Unreadable files are left out."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    folder = evidence.results / evidence.plan.profile / "pytest-benchmark" if evidence.results else None
    for path in sorted(folder.glob("*/*.json")) if folder else []:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            entries = {entry["fullname"]: entry for entry in document["benchmarks"]}
            found[str(document["machine_info"]["run"])] = entries
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def other_history(evidence: Evidence) -> Iterator[Fault]:
    """A latency record that disagrees with pytest-benchmark's file of the same run."""
    runs = kept_runs(evidence)
    for entry, record in evidence.latencies():
        kept = runs.get(str(record.environment.get("run")))
        if kept is not None and (reason := _unlike(record, kept.get(f"{record.condition}/{record.cell}"))):
            yield Fault(entry, "latency", f"pytest-benchmark's file of the run {reason} ({record.condition})")


def _unlike(record: LatencyRecord, kept: dict[str, Any] | None) -> str | None:
    if kept is None:
        return "has no such entry"
    if (hashed := kept["extra_info"].get("onnx_sha256")) != record.onnx_sha256:
        return f"is of ONNX file {short(hashed)}, the record's is {short(record.onnx_sha256)}"
    low = [process.low_ms for process in record.processes]
    facts = {"min": min(low), "max": max(low), "median": statistics.median(low)} if low else {}
    for name, value in facts.items():
        if not math.isclose(1000 * kept["stats"][name], value, rel_tol=1e-6):
            return f"says {name} {1000 * kept['stats'][name]:.4g} ms, the record's processes {value:.4g} ms"
    if kept["stats"]["rounds"] != len(low):
        return f"has {kept['stats']['rounds']} processes, the record {len(low)}"
    return None


def raw_samples(evidence: Evidence, record: LatencyRecord) -> Iterator[tuple[int, list[float]]]:
    """(index of the process in the record, samples in ms) of every process whose raw file is here and of that run."""
    if evidence.artifacts is None:
        return
    for place, process in enumerate(record.processes):
        name = f"latency-block{process.block:03d}-{record.cell}.{record.condition}.json"
        path = evidence.artifacts / evidence.plan.profile / "bench" / name
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            (entry,) = document["benchmarks"]
            # A later run that was interrupted has left raw files of its own, but no record.
            if datetime.fromisoformat(document["datetime"]) <= datetime.fromisoformat(record.finished_at):
                yield place, [1000 * sample for sample in entry["stats"]["data"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue


def other_samples(evidence: Evidence) -> Iterator[Fault]:
    """A process on record whose figures do not follow from its raw samples."""
    for entry, record in evidence.latencies():
        for place, samples in raw_samples(evidence, record):
            process = record.processes[place]
            figures: dict[str, tuple[float, float | None]] = {
                "low_ms": (process.low_ms, undisturbed(samples)),
                "median_ms": (process.median_ms, percentile(samples, 50)),
                "rounds": (process.rounds, len(samples)),
            }
            for name, (said, found) in figures.items():
                if found is None or not math.isclose(said, found, rel_tol=REL_TOL):
                    reason = f"block {process.block} has {name} {said:.6g} on record, {found or 0:.6g} in its samples"
                    yield Fault(entry, "latency", f"{reason} ({record.condition})")


def walked(evidence: Evidence) -> dict[str, int]:
    """How much there was to compare the records with: what an answer without findings is worth."""
    runs = kept_runs(evidence)
    latencies = list(evidence.latencies())
    return {
        "models": len(evidence.entries),
        "train records": sum(entry.train is not None for entry in evidence.entries.values()),
        "weights here": sum(weights_file(evidence, entry) is not None for entry in evidence.entries.values()),
        "ONNX files here": sum(entry.onnx_file_sha256 is not None for entry in evidence.entries.values()),
        "accuracies": len(list(evidence.accuracies())),
        "accuracies with answers": sum(bool(named(record)) for _, record in evidence.accuracies()),
        "latencies": len(latencies),
        "latencies in pytest-benchmark's files": sum(
            f"{record.condition}/{record.cell}" in runs.get(str(record.environment.get("run")), {})
            for _, record in latencies
        ),
        "processes with raw samples here": sum(len(list(raw_samples(evidence, record))) for _, record in latencies),
    }
