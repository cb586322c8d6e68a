"""Ways to measure a latency wrongly, each with the check that must find it."""

import json
from typing import Any

from harness.bench.history import keep
from harness.store.records import AccuracyRecord, Interval, LatencyRecord
from tests.checks.planted import BESIDE, CELL, EVERY, HEADLINE, TEACHER, Bench, fault, replace_text
from tests.synthetic import CLOSED, INSTRUCTION_SETS

# Conditions beside the headline: the host's own instruction set, and the target's with another engine.
HOST, TARGET_BESIDE = "onnxruntime-1.16.0-host-threads-1", "onnxruntime-current-target-threads-1"


@fault("wrong-runtime", (CELL, "latency"))
def latency_with_another_runtime(bench: Bench) -> None:
    bench.change(LatencyRecord, runtime="onnxruntime 1.23.0")


@fault("wrong-runtime", (CELL, "latency"))
def the_headlines_runtime_under_a_condition_beside_it(bench: Bench) -> None:
    bench.change(LatencyRecord, under=BESIDE, runtime=bench.get(LatencyRecord).runtime)


@fault("wrong-runtime", (CELL, "accuracy"))
def accuracy_with_another_runtime(bench: Bench) -> None:
    bench.change(AccuracyRecord, runtime="onnxruntime 1.23.0")


def _seen(bench: Bench, kind: type[Any], under: str = HEADLINE, **changes: Any) -> None:
    """Rewrite some of what the cell's processes saw of the instruction set."""
    found = bench.get(kind, under=under).instruction_set
    bench.change(kind, under=under, instruction_set=found.model_copy(update=changes))


@fault("wrong-instruction-set", (CELL, "latency"))
def the_hosts_instruction_set_under_the_targets_name(bench: Bench) -> None:
    bench.change(LatencyRecord, instruction_set=INSTRUCTION_SETS["host"])


@fault("wrong-instruction-set", (CELL, "latency"))
def the_targets_instruction_set_under_the_hosts_name(bench: Bench) -> None:
    bench.change(LatencyRecord, under=HOST, instruction_set=INSTRUCTION_SETS["target"])


@fault("wrong-instruction-set", (CELL, "latency"))
def an_engine_that_blocks_as_the_host_does(bench: Bench) -> None:
    _seen(bench, LatencyRecord, engine={"nchwc_block": 16, "exact_byte_sums": False})


@fault("wrong-instruction-set", (CELL, "latency"))
def a_numpy_that_saw_the_host(bench: Bench) -> None:
    _seen(bench, LatencyRecord, under=TARGET_BESIDE, numpy=["AVX2", "AVX512_SKX"])


@fault("wrong-instruction-set", (CELL, "latency"))
def a_hidden_feature_on_the_host(bench: Bench) -> None:
    _seen(bench, LatencyRecord, under=HOST, cpuid=["avx2"], numpy=["AVX2"], engine={"nchwc_block": 8})


@fault("wrong-instruction-set", (CELL, "latency"))
def nobody_looked(bench: Bench) -> None:
    bench.change(LatencyRecord, instruction_set=None)


@fault("wrong-instruction-set", (CELL, "accuracy"))
def accuracy_under_the_hosts_instruction_set(bench: Bench) -> None:
    bench.change(AccuracyRecord, instruction_set=INSTRUCTION_SETS["host"])


@fault("wrong-instruction-set", (CELL, "accuracy"))
def accuracy_with_vnni(bench: Bench) -> None:
    _seen(bench, AccuracyRecord, engine={"nchwc_block": 8, "exact_byte_sums": True})


@fault("too-few-samples", (CELL, "latency"))
def a_lost_process(bench: Bench) -> None:
    bench.measured(bench.get(LatencyRecord).processes[1:])


@fault("too-few-samples", (CELL, "latency"))
def lost_samples(bench: Bench) -> None:
    bench.processes(lambda process: {"rounds": process.rounds - 1}, lambda place: place == 3)


@fault("too-few-samples", (CELL, "latency"))
def two_processes_beside_the_headline(bench: Bench) -> None:
    bench.measured(bench.get(LatencyRecord, under=BESIDE).processes[:2], under=BESIDE)


@fault("wrong-threads", (CELL, "latency"))
def default_threads(bench: Bench) -> None:
    bench.change(LatencyRecord, threads=0)


@fault("wrong-threads", (CELL, "latency"))
def default_threads_of_the_session(bench: Bench) -> None:
    bench.session(intra_op_num_threads=0)


@fault("wrong-threads", (CELL, "latency"))
def threads_not_as_planned(bench: Bench) -> None:
    bench.change(LatencyRecord, threads=2)
    bench.session(intra_op_num_threads=2)
    bench.processes(lambda _: {"cpus": [0, 1]})
    bench.environment(LatencyRecord, measured_cpus=[0, 1])


@fault("wrong-threads", (CELL, "latency"))
def threads_not_as_planned_beside_the_headline(bench: Bench) -> None:
    bench.change(LatencyRecord, under=BESIDE, threads=2)
    bench.session(under=BESIDE, intra_op_num_threads=2)
    bench.processes(lambda _: {"cpus": [0, 1]}, under=BESIDE)
    bench.environment(LatencyRecord, under=BESIDE, measured_cpus=[0, 1])


@fault("wrong-threads", (CELL, "latency"))
def default_threads_beside_the_headline(bench: Bench) -> None:
    bench.session(under=BESIDE, intra_op_num_threads=0)


@fault("wrong-cpuset", (CELL, "latency"))
def a_process_on_another_cpu(bench: Bench) -> None:
    bench.processes(lambda _: {"cpus": [1]}, lambda place: place == 2)


@fault("wrong-cpuset", (CELL, "latency"))
def more_cpus_than_threads(bench: Bench) -> None:
    bench.processes(lambda _: {"cpus": [0, 1]})


@fault("wrong-cpuset", (CELL, "latency"))
def cpus_not_those_chosen(bench: Bench) -> None:
    bench.environment(LatencyRecord, measured_cpus=[5])


@fault("repeated-input", (CELL, "latency"))
def a_single_input_repeated(bench: Bench) -> None:
    bench.processes(lambda _: {"distinct_inputs": 1})


@fault("unreadable-record", (CELL, "latency"))
def nan_latency(bench: Bench) -> None:
    replace_text(bench.path(LatencyRecord), f'"value": {bench.get(LatencyRecord).latency_ms.value}', '"value": NaN')


@fault("false-figure", (CELL, "latency"))
def latency_typed_by_hand(bench: Bench) -> None:
    latency = bench.get(LatencyRecord).latency_ms
    # inside its interval and among the processes, and yet not what follows from them
    bench.change(LatencyRecord, latency_ms=latency.model_copy(update={"value": latency.value * 0.999}))


@fault("false-figure", (CELL, "latency"))
def latency_typed_by_hand_beside_the_headline(bench: Bench) -> None:
    value = bench.get(LatencyRecord, under=BESIDE).latency_ms.value / 2
    bench.change(LatencyRecord, under=BESIDE, latency_ms=Interval(value=value, low=value, high=value))


@fault("unreadable-record", (CELL, "latency"))
def ratio_outside_its_interval(bench: Bench) -> None:
    ratio = bench.get(LatencyRecord).ratio_to_teacher
    bench.change(LatencyRecord, ratio_to_teacher=ratio.model_copy(update={"low": ratio.high + 0.001}))


@fault("unreadable-record", (CELL, "latency"))
def process_median_typed_by_hand(bench: Bench) -> None:
    bench.processes(lambda process: {"median_ms": process.low_ms * 0.9}, lambda place: place == 0)


@fault("unreadable-record", (CELL, "latency"))
def process_percentile_typed_by_hand(bench: Bench) -> None:
    bench.processes(lambda process: {"p90_ms": process.median_ms * 0.9}, lambda place: place == 0)


@fault("unreadable-record", (TEACHER, "latency"))
def control_outside_its_interval(bench: Bench) -> None:
    ratio = bench.get(LatencyRecord, TEACHER).control_ratio
    bench.change(LatencyRecord, TEACHER, control_ratio=ratio.model_copy(update={"high": 0.9}))


@fault("impossible-latency", (CELL, "latency"))
def done_without_a_latency(bench: Bench) -> None:
    bench.change(LatencyRecord, latency_ms=None)


@fault("throttled-run", *((cell, "latency") for cell in EVERY))
def throttled(bench: Bench) -> None:
    in_the_whole_run(bench, nr_throttled=17)


@fault("stolen-run", *((cell, "latency") for cell in EVERY))
def stolen(bench: Bench) -> None:
    in_the_whole_run(bench, steal_pct=12.0)


def in_the_whole_run(bench: Bench, **facts: Any) -> None:
    """What the machine did during a run is on all of its records."""
    for cell in EVERY:
        for under in bench.plan.settings.bench.conditions:
            bench.environment(LatencyRecord, cell, under, **facts)


@fault("open-container", (CELL, "accuracy"))
def a_container_that_did_not_inspect_itself(bench: Bench) -> None:
    bench.environment(AccuracyRecord, enclosure={})


@fault("open-container", (CELL, "latency"))
def a_container_with_a_network(bench: Bench) -> None:
    bench.environment(LatencyRecord, enclosure={**CLOSED, "interfaces": ["eth0"]})


@fault("open-container", (CELL, "latency"))
def a_container_on_other_cpus_beside_the_headline(bench: Bench) -> None:
    bench.environment(LatencyRecord, under=BESIDE, enclosure={**CLOSED, "cpus": [0, 1, 2]})


@fault("missing-teacher", (CELL, "latency"))
def no_teacher_in_the_run(bench: Bench) -> None:
    bench.change(LatencyRecord, ratio_to_teacher=None)


@fault("control-off", (TEACHER, "latency"))
def a_teacher_slower_than_itself(bench: Bench) -> None:
    bench.controlled(1.06)


@fault("control-off", (TEACHER, "latency"))
def a_teacher_faster_than_itself_beside_the_headline(bench: Bench) -> None:
    bench.controlled(0.94, BESIDE)


@fault("control-off", (TEACHER, "latency"))
def a_teacher_measured_once(bench: Bench) -> None:
    bench.change(LatencyRecord, TEACHER, control_ratio=None, control=[])


@fault("unusable-interval", (CELL, "latency"))
def unusable_interval(bench: Bench) -> None:
    bench.measured(bench.slowed(lambda place: 0.5 + 0.2 * (place % 3)))


@fault("wide-interval", (CELL, "latency"))
def wide_interval(bench: Bench) -> None:
    bench.measured(bench.slowed(lambda place: 0.6 + 0.02 * (place % 3)))


def kept(bench: Bench, **stats: Any) -> None:
    """pytest-benchmark's file of the run, with some statistics of the cell changed afterwards."""
    conditions = bench.plan.settings.bench.conditions
    measured = [bench.get(LatencyRecord, cell.id, under) for cell in bench.plan.cells for under in conditions]
    path = keep(bench.results, measured)
    document = json.loads(path.read_text())
    entries = {entry["fullname"]: entry for entry in document["benchmarks"]}
    entries[f"{HEADLINE}/{CELL}"]["stats"].update(stats)
    path.write_text(json.dumps(document))


@fault("other-history", (CELL, "latency"))
def a_process_changed_on_record(bench: Bench) -> None:
    kept(bench, min=1e-6)


@fault("other-history", (CELL, "latency"))
def one_process_more_on_record(bench: Bench) -> None:
    kept(bench, rounds=1)


@fault("other-samples", (CELL, "latency"))
def samples_of_another_measurement(bench: Bench) -> None:
    process = bench.get(LatencyRecord).processes[3]
    raw(bench, process.block, [process.low_ms] * (process.rounds - 1))


def raw(bench: Bench, block: int, samples_ms: list[float], run: str = "run-1") -> None:
    """What one process of the cell left, as pytest-benchmark writes it."""
    path = bench.artifacts / "lite/bench" / f"latency-block{block:03d}-{CELL}.{HEADLINE}.json"
    path.parent.mkdir(exist_ok=True)
    entry = {"extra_info": {"run": run}, "stats": {"data": [sample / 1000 for sample in samples_ms]}}
    path.write_text(json.dumps({"benchmarks": [entry]}))


@fault("false-figure", (CELL, "latency"))
def a_ratio_typed_by_hand(bench: Bench) -> None:
    bench.change(LatencyRecord, ratio_to_teacher=Interval(value=0.5, low=0.499, high=0.501))


@fault("false-figure", (TEACHER, "latency"))
def a_control_typed_by_hand(bench: Bench) -> None:
    bench.change(LatencyRecord, TEACHER, control_ratio=Interval(value=1, low=0.999, high=1.001))


@fault("false-figure", (CELL, "latency"))
def a_median_typed_by_hand(bench: Bench) -> None:
    bench.change(LatencyRecord, median_ms=0.001)


@fault("false-figure", (CELL, "latency"))
def a_percentile_typed_by_hand_beside_the_headline(bench: Bench) -> None:
    bench.change(LatencyRecord, under=BESIDE, p90_ms=bench.get(LatencyRecord, under=BESIDE).p90_ms * 2)


@fault("false-figure", (CELL, "latency"))
def one_record_with_less_steal_than_its_run(bench: Bench) -> None:
    bench.environment(LatencyRecord, steal_pct=0.0)


@fault("false-interval", (CELL, "latency"))
def a_narrower_interval_typed_by_hand(bench: Bench) -> None:
    latency = bench.get(LatencyRecord).latency_ms
    bench.change(LatencyRecord, latency_ms=latency.model_copy(update={"high": latency.value * 1.000001}))


@fault("false-interval", (CELL, "latency"))
def a_narrower_ratio_typed_by_hand_beside_the_headline(bench: Bench) -> None:
    ratio = bench.get(LatencyRecord, under=BESIDE).ratio_to_teacher
    bench.change(LatencyRecord, under=BESIDE, ratio_to_teacher=ratio.model_copy(update={"low": ratio.value}))


@fault("other-history", *((cell, "latency") for cell in EVERY))
def steal_changed_in_all_records_of_a_run(bench: Bench) -> None:
    kept(bench)
    in_the_whole_run(bench, steal_pct=0.0)
