"""The strict checks: files on this machine and raw measurements, compared with the records.

What is not on this machine is not compared. These checks read large files (weights) and files that only the machine
that measured has (raw samples), so `verify` runs them, and `check`, which precedes every report, does not.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from harness.checks.evidence import Entry, Evidence
from harness.checks.fault import Fault
from harness.checks.recomputed import same, spelled
from harness.errors import HarnessError
from harness.files import file_sha256, read_json
from harness.intervals import percentile, undisturbed
from harness.predictions import named
from harness.store import paths
from harness.store.chain import short
from harness.store.records import LatencyRecord, Process, Record, StageName


def _sha256(path: Path) -> str:
    """A file's hash, taken once as long as the file stays as it is: several checks ask for that of large files."""
    found = path.stat()
    return _hashed(path, found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(4096)
def _hashed(path: Path, *_state: int) -> str:
    return file_sha256(path)


# --- Weights and ONNX files --------------------------------------------------------------------------


def weights_file(evidence: Evidence, entry: Entry) -> Path | None:
    """A cell's weights, if they are on this machine."""
    if evidence.artifacts is None:
        return None
    path = paths.weights_file(evidence.artifacts, evidence.plan.profile, entry.cell)
    return path if path.is_file() else None


def _weights_on_record(evidence: Evidence, entry: Entry) -> Path | None:
    """A cell's weights, if those on this machine are those on record."""
    path = weights_file(evidence, entry)
    return path if path and entry.train and _sha256(path) == entry.train.weights_sha256 else None


def changed_weights(evidence: Evidence) -> Iterator[Fault]:
    """Weights on this machine that are not those on record."""
    for entry in evidence.entries.values():
        path = weights_file(evidence, entry)
        if path and entry.train and (found := _sha256(path)) != entry.train.weights_sha256:
            reason = f"weights.safetensors has sha256 {short(found)}; the train record says "
            yield Fault(entry, "train", reason + short(entry.train.weights_sha256))


def other_model(evidence: Evidence) -> Iterator[Fault]:
    """A figure on record that is not what the model's weights or its ONNX file say."""
    recount = evidence.recount
    for entry in evidence.entries.values() if recount and evidence.artifacts else ():
        assert recount and evidence.artifacts
        train, export = entry.train, entry.export
        weights = _weights_on_record(evidence, entry)
        if train and weights:
            size = train.image_size or entry.cell.teacher.data.image_size
            yield from _unlike_file(entry, "train", train, weights.name, partial(recount.weights, weights, size))
        if export and entry.onnx_file_sha256 == export.onnx_sha256:
            onnx = paths.model_file(evidence.artifacts, evidence.plan.profile, entry.cell)
            counted = cache(partial(recount.onnx, onnx))
            yield from _unlike_file(entry, "export", export, onnx.name, counted)
            if entry.accuracy:
                yield from _unlike_file(entry, "accuracy", entry.accuracy, onnx.name, counted)


def _unlike_file(
    entry: Entry, stage: StageName, record: Record, file: str, count: Callable[[], Mapping[str, Any]]
) -> Iterator[Fault]:
    try:
        counted = count()
    except HarnessError as error:
        yield Fault(entry, stage, f"{file} has the hash on record and cannot be counted: {error}")
        return
    for name, found in counted.items():
        said = getattr(record, name, None)
        if said is not None and not same(said, found):
            yield Fault(entry, stage, f"{name} is {_in_short(said)} on record, {_in_short(found)} in {file}")


def _in_short(value: Any) -> str:
    return f"{sum(value.values())} in {len(value)} layers" if isinstance(value, dict) else spelled(value)


# --- Measurements -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeptRun:
    """pytest-benchmark's file of one run: facts of the machine, and an entry by "condition/cell"."""

    facts: Mapping[str, Any]
    entries: Mapping[str, Mapping[str, Any]]


def kept_runs(evidence: Evidence) -> dict[str, KeptRun]:
    """pytest-benchmark's files by run. Unreadable files are left out."""
    found: dict[str, KeptRun] = {}
    folder = evidence.results / evidence.plan.profile / "pytest-benchmark" if evidence.results else None
    for path in sorted(folder.glob("*/*.json")) if folder else []:
        try:
            document = read_json(path)
            entries = {entry["fullname"]: entry for entry in document["benchmarks"]}
            found[str(document["machine_info"]["run"])] = KeptRun(document["machine_info"], entries)
        except (HarnessError, ValueError, KeyError, TypeError):
            continue
    return found


def other_history(evidence: Evidence) -> Iterator[Fault]:
    """A latency record that disagrees with pytest-benchmark's file of the same run."""
    runs = kept_runs(evidence)
    for entry, record in evidence.latencies():
        kept = runs.get(str(record.environment.get("run")))
        if kept is not None and (reason := _unlike(record, kept)):
            yield Fault(entry, "latency", f"pytest-benchmark's file of the run {reason} ({record.condition})")


def _unlike(record: LatencyRecord, run: KeptRun) -> str | None:
    kept = run.entries.get(f"{record.condition}/{record.cell}")
    if kept is None:
        return "has no such entry"
    if (hashed := kept["extra_info"].get("onnx_sha256")) != record.onnx_sha256:
        return f"is of ONNX file {short(hashed)}, the record's is {short(record.onnx_sha256)}"
    low = [process.low_ms for process in record.processes]
    facts = {"min": min(low), "max": max(low), "median": statistics.median(low)} if low else {}
    for name, value in facts.items():
        if not same(1000 * kept["stats"][name], value):
            return f"says {name} {1000 * kept['stats'][name]:.6g} ms, the record's processes {value:.6g} ms"
    if kept["stats"]["rounds"] != len(low):
        return f"has {kept['stats']['rounds']} processes, the record {len(low)}"
    for name in record.environment.keys() & run.facts.keys() - {"measured_cpus"}:
        if not same(record.environment[name], run.facts[name]):
            return f"says {name} {run.facts[name]}, the record {record.environment[name]}"
    return None


def raw_samples(evidence: Evidence, record: LatencyRecord) -> Iterator[tuple[Process, dict[str, Any], str]]:
    """(process on record, figures that follow from its samples, its words) of every process whose raw file is here.

    A raw file is of the record's run only if it says so: another run, or one merged from elsewhere, has left files of
    the same names.
    """
    if evidence.artifacts is None:
        return
    folder = evidence.artifacts / evidence.plan.profile / "bench"
    series = [(record.processes, ""), (record.control, "-control")]
    for process, again in ((process, again) for processes, again in series for process in processes):
        path = folder / f"latency-block{process.block:03d}-{record.cell}{again}.{record.condition}.json"
        try:
            (entry,) = read_json(path)["benchmarks"]
            info, samples = entry["extra_info"], [1000 * sample for sample in entry["stats"]["data"]]
            if info["run"] == record.environment.get("run"):
                figures = {**info, **_figures(samples)}
                yield process, figures, f"block {process.block}{' of the control' if again else ''}"
        except (HarnessError, ValueError, KeyError, TypeError):
            continue


def _figures(samples: list[float]) -> dict[str, Any]:
    return {
        "low_ms": undisturbed(samples),
        "median_ms": percentile(samples, 50),
        "p90_ms": percentile(samples, 90),
        "rounds": len(samples),
    }


def other_samples(evidence: Evidence) -> Iterator[Fault]:
    """A process on record whose figures do not follow from its raw samples."""
    for entry, record in evidence.latencies():
        for process, figures, what in raw_samples(evidence, record):
            for name in Process.model_fields.keys() & figures.keys():
                said, found = getattr(process, name), figures[name]
                if not same(said, found):
                    reason = f"{what} has {name} {spelled(said)} on record, {spelled(found)} in its samples"
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
            str(record.environment.get("run")) in runs
            and f"{record.condition}/{record.cell}" in runs[str(record.environment.get("run"))].entries
            for _, record in latencies
        ),
        "processes with raw samples here": sum(len(list(raw_samples(evidence, record))) for _, record in latencies),
    }
