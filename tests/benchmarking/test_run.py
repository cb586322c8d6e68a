import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.benchmarking import process
from harness.benchmarking.__main__ import main
from harness.benchmarking.context import Limits
from harness.benchmarking.job import Job
from harness.benchmarking.run import run
from harness.errors import HarnessError
from harness.records import AccuracyRecord, LatencyRecord, load, record_path

from .conftest import SETTINGS, Workshop


def latency(job: Job, cell: str) -> LatencyRecord:
    return load(record_path(job.results, job.profile, "latency", cell), LatencyRecord)


def accuracy(job: Job, cell: str) -> AccuracyRecord:
    return load(record_path(job.results, job.profile, "accuracy", cell), AccuracyRecord)


def written(job: Job) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in job.results.rglob("*.json")}


def test_a_run_from_nothing_to_nothing_left_to_do(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    workshop.testset(count=120, wrong=12)
    teacher, student = workshop.model("teacher-s0", teacher=True), workshop.model("p0.3-bn-gram-s0")
    job = workshop.job(teacher, student)
    assert run(job) == 0
    shown = capsys.readouterr()
    assert "latency 4/4: block 2 of 2 done" in shown.err
    assert "1.000 [1.000, 1.000]" in shown.out

    first = latency(job, "teacher-s0"), latency(job, "p0.3-bn-gram-s0")
    for record, model in zip(first, (teacher, student), strict=True):
        assert (record.status, record.key, record.onnx_sha256) == ("done", model.key, model.onnx_sha256)
        assert record.threads == len(record.processes[0].cpus) == 1
        assert [len(one.samples_ms) for one in record.processes] == [11, 11]
        assert record.p90_ms is None, "22 samples are too few for a 90th percentile"
        assert record.latency_ms is not None
        assert record.latency_ms.low <= record.latency_ms.value <= record.latency_ms.high
        assert accuracy(job, model.cell).accuracy_pct == 90
        assert (accuracy(job, model.cell).correct, accuracy(job, model.cell).images) == (108, 120)
    orders = [[one.order for one in record.processes] for record in first]
    assert sorted(orders[0] + orders[1]) == [0, 1, 2, 3]
    assert all(min(pair) // 2 == block for block, pair in enumerate(zip(*orders, strict=True))), "the teacher in each"
    ratio = first[1].ratio_to_teacher
    pairs = zip(*(record.processes for record in first), strict=True)
    expected = [of_student.median_ms / of_teacher.median_ms for of_teacher, of_student in pairs]
    assert ratio is not None
    assert ratio.value == pytest.approx(sum(expected) / 2)
    assert len(list(job.raw.glob("latency-block*-*.json"))) == 4

    before = written(job)
    assert run(job) == 0
    assert capsys.readouterr().out == "Nothing to bench: 2 models are up to date.\n"
    assert written(job) == before

    # One latency is gone: every latency is measured again, since a ratio is only valid within one run; no accuracy is.
    record_path(job.results, job.profile, "latency", "p0.3-bn-gram-s0").unlink()
    assert run(job) == 0
    changed = {f"{path.parent.name}/{path.stem}" for path, when in written(job).items() if before[path] != when}
    assert changed == {"latency/teacher-s0", "latency/p0.3-bn-gram-s0"}
    again = [latency(job, model.cell).environment["run"] for model in job.models]
    assert again[0] == again[1] != first[0].environment["run"]


def test_models_that_fail_are_on_record_and_the_others_go_on(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [workshop.model(cell, teacher=cell == "teacher") for cell in ("teacher", "truncated")]
    models.append(workshop.model("foreign", image_size="9"))
    models[1].onnx.write_bytes(models[1].onnx.read_bytes()[:50])
    job = workshop.job(*models)
    assert run(job) == 1
    shown = capsys.readouterr()
    assert latency(job, "teacher").ratio_to_teacher is not None
    assert accuracy(job, "teacher").accuracy_pct == 100
    for record, said in (
        (latency(job, "truncated"), "sha256"),
        (accuracy(job, "truncated"), "sha256"),
        (latency(job, "foreign"), "float32"),
        (accuracy(job, "foreign"), "float32"),
    ):
        assert record.status == "failed"
        assert record.failure is not None
        assert said in record.failure.message
        assert f"{record.cell}: {record.stage} failed (error)" in shown.out
    assert not list(job.raw.glob("latency-block01-foreign*")), "a model that failed is not tried in later blocks"


def test_without_its_teacher_a_student_has_a_latency_and_no_ratio(workshop: Workshop) -> None:
    teacher = workshop.model("teacher", teacher=True)
    teacher.onnx.unlink()
    job = workshop.job(teacher, workshop.model("student"))
    assert run(job) == 1
    record = latency(job, "student")
    assert record.latency_ms is not None
    assert record.ratio_to_teacher is None
    assert any("the teacher's latency could not be measured" in warning for warning in record.warnings)


def test_a_time_out_is_a_failed_record(workshop: Workshop) -> None:
    job = workshop.job(workshop.model("student"))
    assert run(job, Limits(latency_s=0.05, accuracy_s=0.05)) == 1
    for record in (latency(job, "student"), accuracy(job, "student")):
        assert record.failure is not None
        assert record.failure.kind == "timeout"


def test_too_many_threads_are_refused_before_anything_is_written(workshop: Workshop) -> None:
    job = workshop.job(workshop.model("student"), settings={**SETTINGS, "threads": 4096})
    with pytest.raises(HarnessError, match=r"bench\.threads is 4096"):
        run(job)
    assert not job.results.exists()
    assert not job.raw.exists()


@pytest.mark.parametrize("name", ["results", "raw"])
def test_a_folder_that_cannot_be_made_is_found_out_first(workshop: Workshop, name: str) -> None:
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
        [sys.executable, "-m", "harness.benchmarking", str(path)],
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
    assert not any(str(workshop.folder).encode() in line for line in _command_lines())


def _command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # processes come and go
        with contextlib.suppress(OSError):
            yield path.read_bytes()
