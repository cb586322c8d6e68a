"""Two workers on the CPU stand for two GPUs: the same records and the same bits as one process makes.

Workers are processes of their own: their images come from a data set outside the package, by way of PYTHONPATH.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.planning import Cell, Plan, make_plan
from harness.store.lock import alone
from harness.store.paths import Paths
from harness.store.records import Failure, TrainRecord, load, record_path
from harness.store.states import cell_state
from harness.training import loop, workers
from harness.training.dispatch import TRIES, make_on
from harness.training.pipeline import Summary, make_cells
from harness.training.worker import Order
from harness.training.workers import Workers
from tests.documents import ROOT
from tests.drop_in import DATASET, imported
from tests.training_kit import CPU, Told, below, tiny_settings

TWO = ["cpu", "cpu"]
TEACHER = "teacher-s0"


class Stopping(Told):
    """A reporter that wants to stop at the first step of a student."""

    def wants_to_go_on(self) -> bool:
        return not (self.steps and any("distillation" in stage for stage in self.stages))


class Done(NamedTuple):
    plan: Plan
    paths: Paths
    stopped: tuple[Summary, Stopping]
    rest: tuple[Summary, Told]
    single: dict[str, str]


def weights(plan: Plan, paths: Paths) -> dict[str, str]:
    return {cell.id: file_sha256(paths.weights(plan.profile, cell)) for cell in plan.cells}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """A matrix of a teacher and two students, made by two workers that were stopped once; and by one process."""
    folder = tmp_path_factory.mktemp("workers")
    DATASET.write(folder)
    with pytest.MonkeyPatch.context() as patch, imported(folder):
        patch.setenv("PYTHONPATH", str(folder))
        changes = {**DATASET.settings, "profile__quick__teacher__batch_size": 25, "profile__quick__student__epochs": 2}
        settings = tiny_settings(folder, ["l1"], ["base", "fmse"], **changes)
        plan = make_plan(settings, "quick", DATASET.name, ["prune-0.3"])
        paths, single = below(folder), below(folder / "single")
        # a teacher's bits depend on the cores that compute it: here on one in either case
        first, second = Stopping(), Told()
        stopped = make_on(Workers(TWO), plan, paths, first, first.wants_to_go_on)
        rest = make_on(Workers(TWO), plan, paths, second, lambda: True)
        assert make_cells(plan, single, CPU, Told()).complete
        yield Done(plan, paths, (stopped, first), (rest, second), weights(plan, single))


def test_two_workers_end_with_the_bits_of_one_process_stopped_or_not(done: Done) -> None:
    assert weights(done.plan, done.paths) == done.single


def test_a_stop_reaches_the_workers_and_the_same_call_resumes(done: Done) -> None:
    summary, told = done.stopped
    assert summary.made == [TEACHER] == told.cells and not summary.complete and not summary.failed
    summary, rest = done.rest
    students = sorted(cell.id for cell in done.plan.cells if not cell.is_teacher)
    assert summary.complete and not summary.failed
    assert sorted(summary.made) == sorted(rest.cells) == students


def test_what_workers_do_is_reported_with_their_device(done: Done) -> None:
    assert all(stage.startswith("cpu: ") for stage in done.rest[1].stages)
    assert done.stopped[1].stages[0].startswith("teacher: ")
    assert done.rest[1].steps and done.rest[1].epochs


def test_the_records_are_those_of_a_single_process(done: Done) -> None:
    for cell in done.plan.cells:
        assert cell_state(done.paths, done.plan, cell).training == "done"
        record = load(record_path(done.paths.results, "quick", "train", cell.id), TrainRecord)
        assert record.key == cell.trained.key and record.environment["device_type"] == "cpu"


def test_a_finished_matrix_starts_no_workers(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("started a process")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert make_on(Workers(TWO), done.plan, done.paths, Told(), lambda: True) == Summary([], {}, True)


def test_cells_to_be_made_again_are_made_again_by_the_worker_that_has_them_and_no_other(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker for students that was told to make the teacher again would do so beside all the others."""
    started: list[Order] = []

    class Noting:
        """In place of a worker: says that it has made what it was told to make."""

        def __init__(self, place: str, order: Order, _: int, free: list[str]) -> None:
            self.place, self.order, self.free = place, order, free
            started.append(order)

        def reports(self) -> Iterator[dict[str, Any]]:
            yield {"made": list(self.order.cells), "failed": {}, "complete": True}
            self.free.append(self.place)

    monkeypatch.setattr(workers, "Worker", Noting)
    (student, _) = (cell.id for cell in done.plan.cells if not cell.is_teacher)
    summary = make_on(Workers(TWO), done.plan, done.paths, Told(), lambda: True, redo=[TEACHER, student])
    assert summary.made == [TEACHER, student]
    assert [(order.cells, order.redo) for order in started] == [((TEACHER,), (TEACHER,)), ((student,), (student,))]
    assert {order.memory_share for order in started} == {0.5}


KILLED = "from harness.training import loop, worker; loop.CHECKPOINT_EVERY_S = 0.0; worker.main()"


def test_killed_in_the_midst_of_a_cell_it_resumes_from_its_last_checkpoint(done: Done, tmp_path: Path) -> None:
    paths = below(tmp_path)
    order = Order(done.plan, paths, (TEACHER,))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=workers._environment("cpu", 1),
    )
    assert process.stdin and process.stdout
    pickle.dump(order, process.stdin)
    process.stdin.flush()
    told = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert [next(iter(line)) for line in told] == ["stage", "step", "step"]
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for stream in (process.stdin, process.stdout):
        stream.close()
    rest = Told()
    assert make_cells(done.plan, paths, CPU, rest, cells=[done.plan.teacher]).complete
    assert 1 <= rest.steps <= 3, "of four steps, the first was saved"
    assert file_sha256(paths.weights("quick", done.plan.teacher)) == done.single[TEACHER]


def test_a_kill_loses_less_than_a_minute() -> None:
    assert loop.CHECKPOINT_EVERY_S <= 50


# --- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(tiny_settings(tmp_path, ["l1"], ["base"]), "quick", "cifar100", ["prune-0.3"])


def test_a_cell_whose_workers_die_has_failed_on_record(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    paths, told = below(tmp_path), Told()
    summary = make_on(Workers(["cpu"]), plan, paths, told)
    reason = f"the worker on cpu ended with exit code 1, {TRIES} times"
    assert summary == Summary([], {TEACHER: reason}, True) and told.cells == [TEACHER]
    record = load(record_path(paths.results, "quick", "train", TEACHER), TrainRecord)
    assert record.failure == Failure(kind="killed", message=reason)
    assert cell_state(paths, plan, plan.teacher).reason == reason


def copy_cell(source: Paths, target: Paths, plan: Plan, cell: Cell) -> str:
    """Shell commands that put a finished cell into another store."""
    places = [record_path(Path(), "quick", kind, cell.id) for kind in ("train", "export")]
    pairs = [(source.results / place, (target.results / place).parent) for place in places]
    pairs.append((source.folder(plan.profile, cell), target.artifacts / plan.profile))
    return "".join(f"mkdir -p {there}; cp -r {here} {there}\n" for here, there in pairs)


def test_what_a_worker_had_made_before_it_died_is_kept_and_the_rest_is_tried_again(
    tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is a script that makes one of two students, reports it and ends with code 3."""
    plan, paths = done.plan, below(tmp_path)
    finished, lost = (cell for cell in plan.cells if cell.prune_method == "l1")
    subprocess.run(["sh", "-c", copy_cell(done.paths, paths, plan, plan.teacher)], check=True)
    record = load(record_path(done.paths.results, "quick", "train", finished.id), TrainRecord)
    line = json.dumps({"cell": finished.id, "record": record.model_dump(mode="json")})
    (tmp_path / "line").write_text(line + "\n")
    starts, script = tmp_path / "starts", tmp_path / "worker"
    makes = copy_cell(done.paths, paths, plan, finished)
    first = f"{makes} cat {tmp_path / 'line'}"
    script.write_text(f"#!/bin/sh\necho >> {starts}\nif [ $(wc -l < {starts}) = 1 ]; then {first}; fi\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    told = Told()
    summary = make_on(Workers(["cpu"]), plan, paths, told, cells=[finished, lost])
    assert summary.made == [finished.id]
    assert told.cells == [finished.id, lost.id]
    assert list(summary.failed) == [lost.id] and "exit code 3" in summary.failed[lost.id]
    assert len(starts.read_text().splitlines()) == TRIES


def test_an_exception_of_the_harness_is_no_lost_worker(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is one whose pipeline has a defect: its cell fails at the first try, with the exception's words."""
    starts = tmp_path / "starts"
    (tmp_path / "sitecustomize.py").write_text(
        "from harness.training import pipeline\n"
        "def run(self, cells):\n"
        f"    with open({str(starts)!r}, 'a') as file: file.write('x')\n"
        "    raise RuntimeError('a defect')\n"
        "pipeline.Maker.run = run\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    summary = make_on(Workers(["cpu"]), plan, below(tmp_path), Told())
    assert summary.failed == {TEACHER: "RuntimeError: a defect"} and starts.read_text() == "x"


def test_what_a_worker_finds_wrong_is_reported_here(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"CIFAR-100 is not in .*data; give its folder with DATA_DIR"):
        make_on(Workers(["cpu"]), plan, below(tmp_path), Told(), lambda: True)


def test_the_lock_is_held_for_as_long_as_a_worker_lives(tmp_path: Path) -> None:
    paths = below(tmp_path)
    with alone(paths, "quick") as lock:
        left = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
    try:
        with pytest.raises(HarnessError, match="another run is training"), alone(paths, "quick"):
            pass
    finally:
        left.kill()
        left.wait()
    with alone(paths, "quick"):
        pass


@pytest.mark.parametrize(
    ("device", "visible", "seen"),
    [("cpu", "0,1", ""), ("cuda:1", None, "1"), ("cuda:1", "4,7", "7"), ("cuda:0", "GPU-5f3,GPU-77a", "GPU-5f3")],
)
def test_a_worker_sees_its_own_gpu_alone(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, seen: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    given = workers._environment(device, 3)
    assert given["CUDA_VISIBLE_DEVICES"] == seen and given["OMP_NUM_THREADS"] == "3"


def test_a_worker_finds_this_package_and_the_plug_ins_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/plug-ins")
    assert workers._environment("cpu", 1)["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/plug-ins"]


@pytest.mark.parametrize(("count", "cores"), [(1, 7), (2, 3), (3, 2), (100, 1)])
def test_workers_share_the_cores_and_the_teacher_has_all_of_them(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, cores: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(workers, "Worker", lambda device, order, *_: order)
    student = plan.cells[1].id
    with (executor := Workers(["cpu"] * count)).store(below(tmp_path), "quick"):
        given: Any = [
            executor.start(Order(plan, below(tmp_path), (name,)), "unit") for name in (TEACHER, student)[:count]
        ]
    assert [order.threads for order in given] == [7, cores][:count]
