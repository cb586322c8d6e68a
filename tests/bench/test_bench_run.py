import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.bench import process
from harness.bench.__main__ import main
from harness.bench.bench_run import run
from harness.bench.context import Limits
from harness.bench.engines import load_engine, runtime_of
from harness.bench.job import Assignment, Job
from harness.bench.process import EngineAnswer
from harness.bench.testset import load_testset
from harness.errors import HarnessError
from harness.host.cpus import read_topology
from harness.intervals import estimate
from harness.plan.bench_settings import engine_version
from harness.predictions import encoded, read
from harness.store.records import AccuracyRecord, Failure, LatencyRecord, load, record_path, save
from tests.bench_kit import ENGINES, HEADLINE, OLD, OLD_ENGINE, OLD_PYTHON, SETTINGS, Workshop

CURRENT = "onnxruntime-current"
RUNTIME = runtime_of(CURRENT)
# With time for more than the fewest blocks.
UNTIL_SETTLED = {**SETTINGS, "minutes_per_model": 2.0}


def latency(job: Job, cell: str, condition: str = HEADLINE) -> LatencyRecord:
    return load(record_path(job.results, job.profile, "latency", cell, condition), LatencyRecord)


def accuracy(job: Job, cell: str) -> AccuracyRecord:
    return load(record_path(job.results, job.profile, "accuracy", cell), AccuracyRecord)


def written(job: Job) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in job.results.rglob("*.json")}


def test_a_run_from_no_records_to_nothing_left_to_do(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    workshop.testset(count=120, wrong=12)
    teacher, student = workshop.model("teacher-s0", teacher=True), workshop.model("p0.3-bn-gram-s0")
    job = workshop.job(teacher, student, settings=UNTIL_SETTLED)
    assert run(job) == 0
    shown = capsys.readouterr()
    assert re.search(r"latency: block \d+ done, 2 of 2 settled", shown.err)
    assert "time is up" not in shown.err
    assert "1.000 [1.000, 1.000]" in shown.out
    assert f"{RUNTIME}, 1 thread, the machine's own instruction set\n" in shown.out

    first = latency(job, "teacher-s0"), latency(job, "p0.3-bn-gram-s0")
    for record, model in zip(first, (teacher, student), strict=True):
        assert (record.status, record.onnx_sha256, record.runtime) == ("done", model.onnx_sha256, RUNTIME)
        identity = model.latency[HEADLINE]
        assert (record.key, record.spec, record.code) == (identity.key, identity.spec, identity.code)
        assert record.session == load_engine(CURRENT).options(1)
        assert accuracy(job, model.cell).key == model.accuracy["host"].key
        assert accuracy(job, model.cell).convolutions == 1
        assert (record.condition, record.threads) == (HEADLINE, len(record.processes[0].cpus)) == (HEADLINE, 1)
        assert [one.block for one in record.processes] == [0, 1, 2, 3]
        assert all(one.rounds >= 11 and one.distinct_inputs == min(one.rounds, 120) for one in record.processes)
        assert record.latency_ms is not None
        assert record.latency_ms.covers(record.latency_ms.value)
        assert accuracy(job, model.cell).accuracy_pct == 90
        assert (accuracy(job, model.cell).correct, accuracy(job, model.cell).images) == (108, 120)
    labels = load_testset(job.testset).labels
    for name in (teacher.cell, student.cell):
        kept = read(job.results / job.profile, accuracy(job, name))
        assert kept is not None
        np.testing.assert_array_equal(kept.labels, labels)
        # the test set lies about the first twelve images, and the model is right about all
        assert list(np.flatnonzero(~kept.right)) == list(range(12))
    assert len(list((job.results / job.profile / "accuracy").iterdir())) == 5, "two records with answers, one of labels"
    series = [first[0].processes, first[0].control, first[1].processes]
    orders = [[one.order for one in processes] for processes in series]
    assert sorted(order for places in orders for order in places) == list(range(12))
    assert all(order // 3 == block for places in orders for block, order in enumerate(places)), "each in every block"
    estimates = [estimate([one.low_ms for one in processes]) for processes in series]
    assert first[0].control_ratio is not None
    assert first[0].control_ratio.value == pytest.approx(estimates[1] / estimates[0])
    assert first[1].ratio_to_teacher is not None
    assert first[1].ratio_to_teacher.value == pytest.approx(estimates[2] / estimates[0])
    assert len(list(job.raw.glob("latency-block*-*.json"))) == 12

    before = written(job)
    assert run(job) == 0
    assert capsys.readouterr().out == f"Nothing to bench: 2 models are up to date ({RUNTIME}).\n"
    assert written(job) == before


@pytest.mark.skipif(not OLD_PYTHON.is_file(), reason="no .venvs/bench-1.16.0: `make setup` makes it")
def test_two_versions_of_an_engine_are_measured_side_by_side(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**SETTINGS, "engines": [CURRENT, OLD_ENGINE]}
    job = workshop.job(workshop.model("student"), settings=settings, pythons={OLD_ENGINE: str(OLD_PYTHON)})
    assert run(job) == 0
    new, old = latency(job, "student"), latency(job, "student", OLD)
    assert (new.runtime, old.runtime) == (RUNTIME, "onnxruntime 1.16.0")
    assert new.environment["run"] == old.environment["run"]
    raw = json.loads(next(job.raw.glob(f"latency-block000-student.{OLD}.json")).read_text())
    assert raw["benchmarks"][0]["extra_info"]["runtime"] == "onnxruntime 1.16.0"
    assert accuracy(job, "student").runtime == RUNTIME
    shown = capsys.readouterr().out
    assert f"{RUNTIME}, 1 thread, the machine's own instruction set\n" in shown
    assert "onnxruntime 1.16.0, 1 thread, the machine's own instruction set\n" in shown


@pytest.mark.skipif(read_topology().usable_cores < 2, reason="one core: all threads are one")
def test_one_thread_and_all_are_measured_side_by_side(workshop: Workshop) -> None:
    job = workshop.job(workshop.model("student"), settings={**SETTINGS, "threads": [1, "all"]})
    assert run(job) == 0
    one, all_ = latency(job, "student"), latency(job, "student", "onnxruntime-current-host-threads-all")
    assert one.threads == 1
    assert all_.threads == min(8, read_topology().usable_cores)
    for record in (one, all_):
        assert record.session["intra_op_num_threads"] == record.threads
        assert record.environment["measured_cpus"] == record.processes[0].cpus
        assert len(record.processes[0].cpus) == record.threads


# --- What is measured again ------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which cells of which suites were measured, where the processes only say that they have done it."""
    calls: list[str] = []
    common = {"first_inference_ms": 1.0, "warmup_rounds": 2, "rounds": 11, "distinct_inputs": 11, "cpus": [0]}
    common |= {"involuntary_switches": 0, "peak_rss_bytes": 1, "agreeing": None, "output_shapes": [[1, 3]]}
    answers = base64.b64encode(encoded(np.zeros(120, np.int64))).decode()
    seen = {"way": "none", "cpuid": ["avx2"], "numpy": [], "engine": {}}
    facts = {"convolutions": 1, "nchwc_convolutions": 0}
    info = common | {"predictions": answers, "facts": facts, "instruction_set": seen}

    def measure(suite: str, given: Assignment, *_: object) -> dict[str, Any]:
        calls.append(f"{suite.removesuffix('_suite.py')} {given.model.cell}")
        return {"stats": {"data": [0.001] * 11}, "extra_info": info, "said": []}

    monkeypatch.setattr("harness.bench.latency.measure", measure)
    monkeypatch.setattr("harness.bench.accuracy.measure", measure)
    monkeypatch.setattr("harness.bench.bench_run.ask_engine", ask)
    return calls


def ask(name: str, _: Path | None, threads: list[int]) -> EngineAnswer:
    """An engine's answer, whether or not its environment is here."""
    return EngineAnswer(engine_version(name), {count: {"threads": count} for count in threads})


TWO = {**SETTINGS, "engines": ENGINES[::-1]}
CELLS = ("student", "teacher")
LATENCIES = [f"latency {cell}" for cell in CELLS]


def nothing(_: Workshop, __: Job) -> None:
    pass


def a_latency_of_one_condition_is_gone(_: Workshop, job: Job) -> None:
    record_path(job.results, job.profile, "latency", "student", OLD).unlink()


def a_latency_is_of_another_run(_: Workshop, job: Job) -> None:
    record = latency(job, "student", OLD)
    save(job.results, record.model_copy(update={"environment": record.environment | {"run": "another"}}))


def a_latency_failed(_: Workshop, job: Job) -> None:
    failure = Failure(kind="timeout", message="")
    save(job.results, latency(job, "student").model_copy(update={"status": "failed", "failure": failure}))


def a_latency_is_of_another_runtime(_: Workshop, job: Job) -> None:
    save(job.results, latency(job, "teacher", OLD).model_copy(update={"runtime": "onnxruntime 1.15.0"}))


def a_latency_had_other_options(_: Workshop, job: Job) -> None:
    save(job.results, latency(job, "teacher").model_copy(update={"session": {"threads": 7}}))


def an_accuracy_is_gone(_: Workshop, job: Job) -> None:
    record_path(job.results, job.profile, "accuracy", "student").unlink()


def the_answers_are_gone(_: Workshop, job: Job) -> None:
    (job.results / job.profile / "accuracy/student.npy").unlink()


def an_answer_has_changed(_: Workshop, job: Job) -> None:
    path = job.results / job.profile / "accuracy/student.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def a_model_was_exported_again(workshop: Workshop, _: Job) -> None:
    workshop.model("student", weight=2.0)


@pytest.mark.parametrize(
    ("happened", "again"),
    [
        (nothing, []),
        (a_latency_of_one_condition_is_gone, LATENCIES),
        (a_latency_is_of_another_run, LATENCIES),
        (a_latency_failed, LATENCIES),
        (a_latency_is_of_another_runtime, LATENCIES),
        (a_latency_had_other_options, LATENCIES),
        (an_accuracy_is_gone, ["accuracy student"]),
        (the_answers_are_gone, ["accuracy student"]),
        (an_answer_has_changed, ["accuracy student"]),
        (a_model_was_exported_again, ["accuracy student", *LATENCIES]),
    ],
)
def test_latencies_are_measured_again_all_together_and_accuracies_one_by_one(
    workshop: Workshop, measured: list[str], happened: Callable[[Workshop, Job], None], again: list[str]
) -> None:
    """A ratio is only valid within one run, so one latency out of date has those of all conditions measured again."""

    def job(weight: float) -> Job:
        models = [workshop.model("teacher", teacher=True), workshop.model("student", weight=weight)]
        return workshop.job(*models, settings=TWO)

    assert run(job(1.0)) == 0
    first = latency(job(1.0), "teacher", OLD).environment["run"]
    measured.clear()
    happened(workshop, job(1.0))
    later = job(2.0 if happened is a_model_was_exported_again else 1.0)
    assert run(later) == 0
    assert sorted(set(measured)) == again
    (now,) = {latency(later, cell, name).environment["run"] for cell in CELLS for name in (HEADLINE, OLD)}
    assert (now == first) == (not set(LATENCIES) & set(again))


@pytest.mark.parametrize(
    ("which", "again"), [("latency", LATENCIES), ("accuracy", ["accuracy student"])], ids=["latency", "accuracy"]
)
def test_another_key_has_measurements_made_again(
    workshop: Workshop, measured: list[str], which: str, again: list[str]
) -> None:
    """Whatever decides a measurement is in its key, which comes with the job."""
    teacher, student = workshop.model("teacher", teacher=True), workshop.model("student")
    assert run(workshop.job(teacher, student, settings=TWO)) == 0
    measured.clear()
    other = student.accuracy["host"].model_copy(update={"key": "another"})
    update = {"accuracy": {"host": other}} if which == "accuracy" else {"latency": {**student.latency, OLD: other}}
    job = workshop.job(teacher, student.model_copy(update=update), settings=TWO)
    assert run(job) == 0
    assert sorted(set(measured)) == again
    record = accuracy(job, "student") if which == "accuracy" else latency(job, "student", OLD)
    assert (record.key, record.spec, record.code) == ("another", other.spec, other.code)


def test_everything_is_measured_again_where_the_job_asks_for_it(workshop: Workshop, measured: list[str]) -> None:
    models = [workshop.model("teacher", teacher=True), workshop.model("student")]
    assert run(workshop.job(*models, settings=TWO)) == 0
    measured.clear()
    assert run(workshop.job(*models, settings=TWO, measure_again=True)) == 0
    assert sorted(set(measured)) == ["accuracy student", "accuracy teacher", *LATENCIES]


# --- What goes wrong -------------------------------------------------------------------------------------------------


def test_models_that_fail_are_on_record_and_the_others_are_measured(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [workshop.model("sound"), workshop.model("truncated"), workshop.model("foreign", image_size="9")]
    models[1].onnx.write_bytes(models[1].onnx.read_bytes()[:50])
    job = workshop.job(*models, settings=UNTIL_SETTLED)
    assert run(job) == 1
    shown = capsys.readouterr()
    assert latency(job, "sound").status == "done"
    assert accuracy(job, "sound").accuracy_pct == 100
    for record, said in (
        (latency(job, "truncated"), "sha256"),
        (accuracy(job, "truncated"), "sha256"),
        (latency(job, "foreign"), "float32"),
        (accuracy(job, "foreign"), "float32"),
    ):
        assert record.status == "failed"
        assert record.failure is not None
        assert said in record.failure.message
        assert str(workshop.folder) not in record.failure.message, "records are published"
        assert f"{record.cell}: {record.stage} failed (error)" in shown.out
    raw = list(job.raw.glob("latency-block*-sound.*.json"))
    # without a teacher its own interval has to be narrow, which needs six processes, and twice in a row
    assert len(raw) == 7
    runs = {json.loads(path.read_text())["benchmarks"][0]["extra_info"]["run"] for path in raw}
    assert runs == {latency(job, "sound").environment["run"]}, "another run's files have the same names"
    assert not list(job.raw.glob("latency-block001-foreign*")), "a model that failed is not tried in later blocks"


def test_without_its_teacher_a_student_has_a_latency_and_no_ratio(workshop: Workshop, measured: list[str]) -> None:
    teacher = workshop.model("teacher", teacher=True)
    teacher.onnx.unlink()
    job = workshop.job(teacher, workshop.model("student"))
    assert run(job) == 1
    assert set(measured) == {"accuracy student", "latency student"}
    record = latency(job, "student")
    assert record.latency_ms is not None
    assert record.ratio_to_teacher is None
    assert any("the teacher's latency could not be measured" in warning for warning in record.warnings)


def test_a_process_that_takes_too_long_leaves_a_failed_record(workshop: Workshop) -> None:
    job = workshop.job(workshop.model("student"))
    assert run(job, Limits(latency_s=0.05, accuracy_s=0.05)) == 1
    for record in (latency(job, "student"), accuracy(job, "student")):
        assert record.failure is not None
        assert record.failure.kind == "timeout"


def test_too_many_threads_are_refused_before_anything_is_written(workshop: Workshop) -> None:
    job = workshop.job(workshop.model("student"), settings={**SETTINGS, "threads": [1, 4096]})
    with pytest.raises(HarnessError, match=r"bench\.threads is 4096"):
        run(job)
    assert not job.results.exists()
    assert not job.raw.exists()


def test_an_engine_that_is_not_there_is_refused_before_anything_is_written(workshop: Workshop) -> None:
    job = workshop.job(workshop.model("student"), pythons={CURRENT: str(workshop.folder / "no-python")})
    with pytest.raises(HarnessError, match=r"bench\.engines: onnxruntime-current: .*no-python: No such file"):
        run(job)
    assert not job.results.exists()


@pytest.mark.parametrize("name", ["results", "raw"])
def test_a_folder_that_cannot_be_made_is_named_before_anything_is_measured(workshop: Workshop, name: str) -> None:
    (workshop.folder / "occupied").write_text("")
    job = workshop.job(workshop.model("student"), **{name: str(workshop.folder / "occupied")})
    with pytest.raises(HarnessError, match=r"occupied.*cannot be made"):
        run(job)


def test_bad_input_is_one_line_and_exit_code_2(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    path = workshop.folder / "job.json"
    path.write_text("{")
    assert main([str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"Error: {path}: not a bench job")
    assert shown.err.count("\n") == 1


def test_ctrl_c_keeps_finished_records_and_leaves_no_process(workshop: Workshop) -> None:
    job = workshop.job(*(workshop.model(cell) for cell in ("one", "two")))
    path = workshop.folder / "job.json"
    path.write_text(job.model_dump_json())
    bench = subprocess.Popen(
        [sys.executable, "-m", "harness.bench", str(path)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(process.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs inherit an ignored Ctrl-C, and so may these tests
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    first = record_path(job.results, job.profile, "accuracy", "one")
    until = time.monotonic() + 60
    while not first.exists():
        assert time.monotonic() < until
        assert bench.poll() is None
        time.sleep(0.02)
    bench.send_signal(signal.SIGINT)
    _, errors = bench.communicate(timeout=30)
    assert bench.returncode == 130
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    assert json.loads(first.read_text())["status"] == "done"
    # killed, but on a busy machine not yet gone
    until = time.monotonic() + 10
    while any(str(workshop.folder).encode() in line for line in _command_lines()):
        assert time.monotonic() < until
        time.sleep(0.1)


def _command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # processes come and go
        with contextlib.suppress(OSError):
            yield path.read_bytes()
