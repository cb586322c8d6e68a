"""`harness latency`: which of several ONNX files is faster, and by how much. Any files, with no provenance.

They are measured as `make bench` measures a matrix: in blocks of fresh pinned processes, interleaved, the first file
twice, until every ratio to it is known. Nothing is left on disk.
"""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness import intervals
from harness.bench.blocks import Condition, Settling, Subject, conditions, subjects
from harness.bench.environments import bench_pythons, find_python
from harness.bench.job import Assignment, DrawnInput, OnnxFile
from harness.bench.latency import Run, Series, measure_blocks, what_happened
from harness.bench.process import EngineAnswer, ask_engine
from harness.bench.remarks import remarks
from harness.commands.latency_document import (
    ConditionFound,
    FileFound,
    LatencyDocument,
    Timing,
    read_baseline,
)
from harness.commands.latency_gate import GATE, change, judge, require_comparable
from harness.commands.latency_inputs import Wanted, drawn_inputs
from harness.commands.latency_words import sentence
from harness.errors import HarnessError
from harness.host import enclosure
from harness.host.cpus import Topology, read_topology
from harness.host.facts import activity, environment
from harness.host.isa.shown import Shown, show
from harness.model_files.onnx_file import OnnxFacts, read_facts
from harness.plan import registry
from harness.plan.bench_settings import ESTIMATOR, HERE, Bench, Target, engine_names
from harness.plan.cpu_table import find_cpu
from harness.store.records import Failure, now
from harness.store.revision import revision

# The reference study's engine, where its environment has been made; else whichever this Python has.
USUAL, OWN = "onnxruntime-1.16.0", "onnxruntime"
# A file may be of any size: of one that takes seconds an inference, a process times only so many.
ROUNDS, WARMUP_ROUNDS = 11, 5
# An interval needs some; with fewer than Bench.blocks nothing counts as settled.
LEAST_BLOCKS = 3
PROCESS_S = 600.0
# Set in the image: measure only in a container that is closed as `make bench` closes its own.
IN_IMAGE = "HARNESS_IN_IMAGE"
DEFAULT_TARGET = "i9-9900K"


@dataclass(frozen=True)
class Request:
    """What is asked for. Engines by their names in matrix.toml, or "onnxruntime" for the one of this Python."""

    files: Sequence[Path]
    engines: Sequence[str] = ()
    threads: Sequence[int | Literal["all"]] = (1,)
    # the CPU whose instruction set the engines are shown; this machine's own where there is none
    target: str | None = None
    inputs: Wanted = field(default_factory=Wanted)
    precision_pct: float = 1.0
    minutes: float = 2.0
    seed: int = 0
    # how long a process times inferences, and how many blocks there are at least before anything counts as settled
    sampling_s: float = 1.0
    blocks: int = 12
    max_ratio: float | None = None
    baseline: Path | None = None


def measure_files(request: Request) -> LatencyDocument:
    """Measure the files of a request together.

    A file that cannot be run has a failure in the document, and the others are measured. HarnessError where a file is
    no ONNX file that could be run, or the first one fails, or the machine lacks what is asked for.
    """
    started = time.monotonic()
    facts = [read_facts(path) for path in request.files]
    inputs = drawn_inputs(facts, request.inputs)
    titles = _titles(request.files)
    baseline = read_baseline(request.baseline) if request.baseline else None
    topology = read_topology()
    settings = bench_settings(request, topology)
    found = conditions(settings, topology)
    enclosed = _enclosure(request.files)
    pythons = bench_pythons(settings.engines)
    counts = sorted({condition.threads for condition in found})
    shown = _shown(settings, found, pythons)
    engines = {name: ask_engine(name, pythons[name], counts) for name in settings.engines}
    machine = {**environment(found[0].cpus), "enclosure": enclosed}
    if baseline and request.baseline:
        require_comparable(
            baseline,
            request.baseline,
            dict(zip(titles, inputs, strict=True)),
            cpu=machine["cpu"],
            engine=engines[found[0].engine].runtime,
            threads=found[0].threads,
            target=settings.target.name if request.target else None,
        )
    before = activity()
    with tempfile.TemporaryDirectory(prefix="harness-latency-") as scratch:
        run = _prepared(request, facts, titles, inputs, settings, found, pythons, shown, Path(scratch))
        settled = measure_blocks(run, 60 * request.minutes, f"raise --minutes ({request.minutes:g})")
        for one in run.series.values():
            one.failure = one.failure and _with_log(one.failure)
    happened, warnings = what_happened(before, activity())
    if failure := run.series[Subject("file0", run.headline)].failure:
        raise HarnessError(_named(facts[0], failure))
    files = [
        FileFound(
            file=str(one.path),
            title=title,
            onnx_sha256=one.sha256,
            external_sha256=dict(one.external_sha256),
            size_bytes=one.size_bytes,
            params=one.params,
            opset=one.opset,
            inputs=drawn,
            output_shapes=run.series[Subject(name, run.headline)].output_shapes,
            timings=[_timing(run, name, condition, baseline, title) for condition in found],
        )
        for name, one, title, drawn in zip(_names(facts), facts, titles, inputs, strict=True)
    ]
    document = LatencyDocument(
        sentence="",
        finished_at=now(),
        seconds=time.monotonic() - started,
        harness_revision=revision(),
        estimator=ESTIMATOR,
        seed=request.seed,
        precision_pct=request.precision_pct,
        settled=settled,
        blocks=run.blocks,
        conditions=[_condition(run, one, engines[one.engine], request.target) for one in found],
        files=files,
        warnings=list(dict.fromkeys([*warnings, *(text for one in found for text in one.warnings)])),
        machine={**machine, **happened},
        gate=judge(files, request.max_ratio or GATE, request.precision_pct, by_baseline=baseline is not None)
        if request.max_ratio or baseline
        else None,
    )
    return document.model_copy(update={"sentence": sentence(document)})


def bench_settings(request: Request, topology: Topology) -> Bench:
    """The request as the bench's own settings. HarnessError where an engine is unknown or has no environment."""
    own = registry.names("engine")
    known = [*engine_names(), *own]
    engines = list(request.engines) or [USUAL if find_python(USUAL) else OWN]
    if unknown := next((name for name in engines if name not in known), None):
        raise HarnessError(f"--engine {unknown}: unknown; allowed: {', '.join(known)}")
    engines = [f"{name}-{HERE}" if name in own else name for name in engines]
    threads = [topology.usable_cores if count == "all" else count for count in request.threads]
    if max(threads) > (most := len(topology.cores)):
        raise HarnessError(
            f"--threads {max(threads)}: this process may use {most} physical cores; name at most so many"
        )
    # The first of several files is measured twice.
    series = len(set(engines)) * len(set(threads)) * (len(request.files) + (len(request.files) > 1))
    return Bench(
        engines=list(dict.fromkeys(engines)),
        threads=list(dict.fromkeys(threads)),
        precision_pct=request.precision_pct,
        minutes_per_model=request.minutes / len(request.files),
        blocks=request.blocks,
        # Little time must be enough for the fewest blocks.
        sampling_s=min(request.sampling_s, 60 * request.minutes / (LEAST_BLOCKS * series)),
        rounds=ROUNDS,
        warmup_rounds=WARMUP_ROUNDS,
        seed=request.seed,
        isa=["target" if request.target else "host"],
        # Of the host's own instruction set nothing is compared with a target.
        target=Target(name=find_cpu(request.target or DEFAULT_TARGET).name),
    )


def _shown(settings: Bench, found: Sequence[Condition], pythons: Mapping[str, Path]) -> dict[str, Shown]:
    """How each engine is shown the instruction set. HarnessError where it cannot be: that was the question."""
    return {one.engine: show(one.isa, settings.target.cpu, one.engine, pythons[one.engine]) for one in found}


def _enclosure(files: Sequence[Path]) -> dict[str, Any] | None:
    """What the container is closed to; None outside the image. HarnessError where it is open."""
    if not os.environ.get(IN_IMAGE):
        return None
    # What it was started with is all that there is to compare it with: any CPUs and any memory are as they should be.
    mine = enclosure.facts({}, files, [])
    asked = {"cpus": mine["cpus"], "memory_bytes": mine["memory_bytes"]}
    return enclosure.check(asked, inputs=[path.absolute() for path in files], outputs=[], remedy=DOCKER)


DOCKER = (
    "Start it with: docker run --rm --network none --read-only --tmpfs /tmp --cap-drop ALL "
    "--security-opt no-new-privileges -v FOLDER:/models:ro IMAGE latency /models/FILE.onnx ..."
)


def _names(files: Sequence[OnnxFacts]) -> list[str]:
    """The bench's own names of the files, which are part of file names: any text can be in a path."""
    return [f"file{number}" for number in range(len(files))]


def _titles(files: Sequence[Path]) -> list[str]:
    """What tables call the files: their names, or as much of their paths as tells them apart, or a number beside it."""
    titles: list[str] = []
    for path in files:
        title = path.name if sum(other.name == path.name for other in set(files)) == 1 else str(path)
        again = sum(one == title or one.startswith(f"{title} (") for one in titles)
        titles.append(f"{title} ({again + 1})" if again else title)
    return titles


def _prepared(
    request: Request,
    facts: Sequence[OnnxFacts],
    titles: Sequence[str],
    inputs: Sequence[list[DrawnInput]],
    settings: Bench,
    found: Sequence[Condition],
    pythons: dict[str, Path],
    shown: dict[str, Shown],
    scratch: Path,
) -> Run:
    names = _names(facts)
    by_condition = {condition.name: condition for condition in found}
    models = {
        name: OnnxFile(
            cell=name,
            title=title,
            onnx=one.path.absolute(),
            onnx_sha256=one.sha256,
            external_sha256=dict(one.external_sha256),
        )
        for name, title, one in zip(names, titles, facts, strict=True)
    }
    drawn = dict(zip(names, inputs, strict=True))
    # One file alone has nothing to be compared with.
    reference = names[0] if len(names) > 1 else None
    series = {
        subject: Series(models[subject.model].title, by_condition[subject.condition])
        for subject in subjects(names, reference, list(by_condition))
    }
    first = series[Subject(names[0], found[0].name)]

    def assign(subject: Subject, block: int) -> Assignment:
        # Without the first file there is nothing to compare with: no time is spent on the others.
        if first.failure:
            raise HarnessError(_named(facts[0], _with_log(first.failure)))
        condition = by_condition[subject.condition]
        return Assignment(
            model=models[subject.model],
            input=drawn[subject.model],
            settings=settings,
            harness_revision=revision(),
            engine=condition.engine,
            shown=shown[condition.engine],
            threads=condition.threads,
            cpus=list(condition.cpus),
            block=block,
            failure=scratch / f"{subject.model}.failure.json",
        )

    return Run(
        settings=settings,
        headline=found[0].name,
        reference=reference,
        series=series,
        assign=assign,
        pythons=pythons,
        raw=scratch,
        process_s=PROCESS_S,
        settling=Settling.start(settings),
        least_blocks=LEAST_BLOCKS,
    )


def _with_log(failure: Failure) -> Failure:
    """The failure with the last line of the process's log in place of the log's name: it is removed with the run."""
    text, see, log = failure.message.rpartition("; see ")
    if not see:
        return failure
    printed = Path(log).read_text(encoding="utf-8", errors="replace") if Path(log).is_file() else ""
    last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "it printed nothing")
    return failure.model_copy(update={"message": f"{text} ({last})"})


def _named(file: OnnxFacts, failure: Failure) -> str:
    """Why a file could not be run, in a line that names it."""
    return failure.message if str(file.path) in failure.message else f"{file.path}: {failure.message}"


def _condition(run: Run, condition: Condition, engine: EngineAnswer, target: str | None) -> ConditionFound:
    evidence = (one.instruction_set for subject, one in run.series.items() if subject.condition == condition.name)
    return ConditionFound(
        target=find_cpu(target).name if target else None,
        instruction_set=next((one for one in evidence if one), None),
        name=condition.name,
        runtime=engine.runtime,
        threads=condition.threads,
        cpus=list(condition.cpus),
        session=engine.options[condition.threads],
    )


def _timing(run: Run, name: str, condition: Condition, baseline: LatencyDocument | None, title: str) -> Timing:
    subject = Subject(name, condition.name)
    one, again = run.series[subject], run.series.get(Subject(name, condition.name, control=True))
    if one.failure:
        return Timing(condition=condition.name, failure=one.failure)
    observed = list(one.observations.values())
    reference = run.reference_of(condition.name)
    headline = condition.name == run.headline
    return Timing(
        condition=condition.name,
        latency_ms=intervals.interval(observed, run.settings.seed),
        median_ms=intervals.median_process(process.median_ms for process in one.processes),
        p90_ms=intervals.median_process(process.p90_ms for process in one.processes),
        ratio=run.ratio(subject),
        change=change(baseline, title, one, reference) if baseline and headline else None,
        again_ratio=run.ratio(Subject(name, condition.name, control=True)) if again and not again.failure else None,
        processes=one.processes,
        again=again.processes if again else [],
        warnings=[*intervals.instability(observed), *remarks(one.said)],
    )
