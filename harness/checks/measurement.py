"""Was each latency measured as it should be: often enough, pinned, with the right runtime, undisturbed?"""

import math
from collections.abc import Collection, Iterator
from functools import cache

from harness.checks import limits
from harness.checks.evidence import Entry, Evidence
from harness.checks.fault import Fault
from harness.host.isa.features import FEATURES
from harness.host.isa.proof import disagreements
from harness.host.openings import openings
from harness.intervals import LEAST_SAMPLES, halfwidth_pct
from harness.plan.bench_settings import engine_version
from harness.plan.cpu_table import find_cpu
from harness.plan.specs import Latency
from harness.store.records import AccuracyRecord, Interval, LatencyRecord


def wrong_runtime(evidence: Evidence) -> Iterator[Fault]:
    """Figures from another runtime than the pinned one that their condition names."""
    measured: list[tuple[Entry, LatencyRecord | AccuracyRecord, str]] = [
        *((entry, one, asked(evidence, entry, one).engine) for entry, one in evidence.latencies()),
        *((entry, one, evidence.plan.accuracy(entry.cell).engine) for entry, one in evidence.accuracies()),
    ]
    version = cache(engine_version)
    for entry, record, engine in measured:
        expected = version(engine)
        if record.runtime != expected:
            condition = record.condition if isinstance(record, LatencyRecord) else ""
            reason = f"{record.stage} was measured with {record.runtime}, not {expected}"
            yield Fault(entry, record.stage, reason, condition)


def asked(evidence: Evidence, entry: Entry, record: LatencyRecord) -> Latency:
    """The stage that a latency record is of: what matrix.toml asks for."""
    return evidence.plan.latency(entry.cell, record.condition)


def wrong_instruction_set(evidence: Evidence) -> Iterator[Fault]:
    """Figures whose processes saw another instruction set than their condition names, or where nobody looked."""
    measured: list[tuple[Entry, LatencyRecord | AccuracyRecord, str, str]] = [
        *((entry, one, asked(evidence, entry, one).isa, one.condition) for entry, one in evidence.latencies()),
        *((entry, one, evidence.plan.accuracy(entry.cell).isa, "") for entry, one in evidence.accuracies()),
    ]
    for entry, record, isa, condition in measured:
        wanted = None if isa == "host" else find_cpu(isa).features
        for reason in _instruction_set(record, wanted):
            yield Fault(entry, record.stage, f"instruction set: {reason}", condition)


def _instruction_set(record: LatencyRecord | AccuracyRecord, wanted: Collection[str] | None) -> Iterator[str]:
    found = record.instruction_set
    if found is None:
        yield "nothing is on record"
        return
    yield from disagreements(found, wanted)
    has = {flag for flag in record.environment.get("isa") or [] if flag in FEATURES}
    if wanted is None and (unseen := sorted(has - set(found.cpuid))):
        yield f"the machine has {', '.join(unseen)}, which the processes did not see"


def too_few_samples(evidence: Evidence) -> Iterator[Fault]:
    """Fewer processes, or fewer samples in one, than were asked for or than a percentile needs."""
    bench = evidence.plan.settings.bench
    for entry, record in evidence.latencies():
        # only the headline is in every block
        processes = bench.blocks if record.condition == bench.conditions[0] else limits.LEAST_PROCESSES
        rounds = max(LEAST_SAMPLES[50], bench.rounds)
        fewest = min((process.rounds for process in record.processes), default=rounds)
        if len(record.processes) < processes:
            yield Fault(entry, "latency", f"{len(record.processes)} processes, where {processes} are needed")
        elif fewest < rounds:
            yield Fault(entry, "latency", f"a process with {fewest} samples, where {rounds} are needed")


def wrong_threads(evidence: Evidence) -> Iterator[Fault]:
    """The runtime's default number of threads, or another than the session was given or than matrix.toml asks for."""
    for entry, record in evidence.latencies():
        session = record.session.get("intra_op_num_threads", record.threads)
        # "all" is another number on every machine
        wanted = asked(evidence, entry, record).threads
        if min(record.threads, session) < 1:
            yield Fault(entry, "latency", "measured with the runtime's default number of threads (0)")
        elif session != record.threads:
            yield Fault(entry, "latency", f"the record says {record.threads} threads, its session had {session}")
        elif wanted != "all" and record.threads != wanted:
            yield Fault(entry, "latency", f"measured with {record.threads} threads, matrix.toml asks for {wanted}")


def wrong_cpuset(evidence: Evidence) -> Iterator[Fault]:
    """Processes that ran on different CPUs, on CPUs other than those chosen, or not on one for each thread."""
    for entry, record in evidence.latencies():
        sets = sorted({tuple(sorted(set(process.cpus))) for process in record.processes})
        chosen = record.environment.get("measured_cpus")
        if len(sets) > 1:
            yield Fault(entry, "latency", f"processes ran on different CPUs: {' and '.join(map(_cpus, sets))}")
        elif sets and len(sets[0]) != max(record.threads, 1):
            yield Fault(entry, "latency", f"{record.threads} thread(s) on CPUs {_cpus(sets[0])}, not one CPU for each")
        elif sets and chosen is not None and sorted(chosen) != list(sets[0]):
            yield Fault(entry, "latency", f"ran on CPUs {_cpus(sets[0])}, where {_cpus(tuple(chosen))} were chosen")


def _cpus(cpus: tuple[int, ...]) -> str:
    return ",".join(map(str, cpus)) or "none"


def repeated_input(evidence: Evidence) -> Iterator[Fault]:
    """Processes that timed one input over and over, which caches and branch predictors get used to."""
    for entry, record in evidence.latencies():
        repeated = [process for process in record.processes if process.distinct_inputs < 2 <= process.rounds]
        if repeated:
            yield Fault(entry, "latency", f"{len(repeated)} processes timed one input {repeated[0].rounds} times")


def impossible_latency(evidence: Evidence) -> Iterator[Fault]:
    """A latency that is missing from a record that is done, or a time or ratio that is not above 0."""
    for entry, record in evidence.latencies():
        intervals = [one for one in (record.latency_ms, record.ratio_to_teacher, record.control_ratio) if one]
        if record.latency_ms is None:
            yield Fault(entry, "latency", "the record is done and has no latency", record.condition)
        elif (low := min(min(one.bounds or (one.value,)) for one in intervals)) <= 0:
            yield Fault(entry, "latency", f"{low:.4g} is not a time or a ratio", record.condition)


def control_off(evidence: Evidence) -> Iterator[Fault]:
    """A run whose teacher, measured twice under two names, gave two results: it cannot show a smaller difference."""
    for entry, record in evidence.latencies():
        control = record.control_ratio
        if control is None and entry.cell.is_teacher:
            yield Fault(entry, "latency", "no control: the teacher was not measured a second time")
        elif control and not abs(control.value - 1) <= limits.CONTROL_PCT / 100:
            off = f"{100 * abs(control.value - 1):.1f} %"
            reason = f"the teacher differs from itself by {off}, up to {limits.CONTROL_PCT:g} % is allowed"
            yield Fault(entry, "latency", reason)


def throttled_run(evidence: Evidence) -> Iterator[Fault]:
    """A run that its cgroup's CPU quota stopped now and then."""
    for entry, record in evidence.latencies():
        count = record.environment.get("nr_throttled") or 0
        if count > 0:
            yield Fault(entry, "latency", f"the CPU quota stopped the run {count:g} times (cgroup nr_throttled)")


def stolen_run(evidence: Evidence) -> Iterator[Fault]:
    """A run during which the hypervisor gave much of the CPU time to other guests."""
    for entry, record in evidence.latencies():
        stolen = record.environment.get("steal_pct") or 0.0
        if stolen > limits.STEAL_PCT:
            reason = f"{stolen:.1f} % of the CPU time was stolen, up to {limits.STEAL_PCT:g} % is allowed"
            yield Fault(entry, "latency", reason)


def open_container(evidence: Evidence) -> Iterator[Fault]:
    """Figures from a container that was not closed, as it found by inspecting itself before it measured."""
    for entry, record in (*evidence.latencies(), *evidence.accuracies()):
        facts = record.environment.get("enclosure")
        if record.environment.get("image") is None and facts is None:
            continue
        if found := openings(facts or {}):
            yield Fault(entry, record.stage, "; ".join(found))


def missing_teacher(evidence: Evidence) -> Iterator[Fault]:
    """A latency without its ratio to the teacher, because no teacher was measured in its run."""
    for entry, record in evidence.latencies():
        if record.ratio_to_teacher is None:
            yield Fault(entry, "latency", "no ratio: the teacher was not measured in the same run")


def unusable_interval(evidence: Evidence) -> Iterator[Fault]:
    """A headline's ratio whose interval is so wide that it says almost nothing."""
    for entry in evidence.entries.values():
        width = _halfwidth_pct(entry.latency.ratio_to_teacher) if entry.latency else 0.0
        if width > limits.USABLE_HALFWIDTH_PCT:
            reason = f"the ratio is known to ±{width:.1f} %, up to {limits.USABLE_HALFWIDTH_PCT:g} % is allowed"
            yield Fault(entry, "latency", reason)


def wide_interval(evidence: Evidence) -> Iterator[Fault]:
    """A ratio that is known less precisely than matrix.toml asks for."""
    bench = evidence.plan.settings.bench
    for entry, record in evidence.latencies():
        # the other conditions are in a quarter of the blocks, so their intervals are twice as wide
        headline = record.condition == bench.conditions[0]
        wanted = bench.precision_pct * (1 if headline else 2)
        width = _halfwidth_pct(record.ratio_to_teacher)
        if wanted < width and not (headline and width > limits.USABLE_HALFWIDTH_PCT):
            # an interval narrows with the square root of the number of processes
            processes = math.ceil(len(record.processes) * (width / wanted) ** 2)
            where = "" if headline else f" under {record.condition}"
            reason = f"the ratio{where} is known to ±{width:.1f} %, {wanted:g} % is wanted: about {processes} processes"
            yield Fault(entry, "latency", f"{reason} instead of {len(record.processes)}")


def _halfwidth_pct(interval: Interval | None) -> float:
    """Half an interval's width in percent of its value; 0 where there is no interval, which is another check's."""
    return halfwidth_pct(interval) if interval and interval.bounds and interval.value > 0 else 0.0
