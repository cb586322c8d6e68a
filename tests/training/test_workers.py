"""Two workers on the CPU stand for two GPUs: the same records and the same bits as one process makes."""

import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from harness.training.data import Images, draw_stand_in

from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.planning import Plan, make_plan
from harness.store.chain import cell_state
from harness.store.lock import alone
from harness.store.paths import Paths
from harness.store.records import TrainRecord, find
from harness.training import loop, workers
from harness.training.pipeline import Summary, make_cells
from harness.training.worker import Order
from harness.training.workers import make_on
from tests.training_kit import CPU, Told, below, tiny_settings

TWO = ["cpu", "cpu"]


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


def write_cifar(folder: Path) -> None:
    """Drawn images in the official files' format; workers are processes of their own and read files."""
    folder.mkdir(parents=True)
    for name, count, seed in (("train", 200, 3), ("test", 100, 4)):
        images: Images = draw_stand_in(count, seed)
        content: dict[str, Any] = {"data": images.pixels.flatten(1).numpy(), "fine_labels": images.labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(content))


def weights(plan: Plan, paths: Paths) -> dict[str, str]:
    folders = {cell.id: cell.artifacts(paths.artifacts, plan.profile) for cell in plan.cells}
    return {name: file_sha256(folder / "weights.safetensors") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A matrix of a teacher and three students, made by two workers that were stopped once; and by one process."""
    folder = tmp_path_factory.mktemp("workers")
    settings = tiny_settings(folder, ["bn", "l1"], ["base", "fmse"], profile__quick__student__epochs=2)
    plan = make_plan(settings, "quick", "cifar100", ["prune-0.3"])
    paths, single = below(folder), below(folder / "single")
    write_cifar(paths.data / "cifar-100-python")
    write_cifar(single.data / "cifar-100-python")
    # a teacher's bits depend on the cores that compute it: here on one in either case
    first, second = Stopping(), Told()
    stopped = make_on(TWO, plan, paths, first, first.wants_to_go_on)
    rest = make_on(TWO, plan, paths, second, lambda: True)
    assert make_cells(plan, single, CPU, Told()).complete
    return Done(plan, paths, (stopped, first), (rest, second), weights(plan, single))


def test_two_workers_end_with_the_bits_of_one_process_stopped_or_not(done: Done) -> None:
    assert weights(done.plan, done.paths) == done.single


def test_a_stop_reaches_the_workers_and_the_same_call_goes_on(done: Done) -> None:
    summary, told = done.stopped
    assert summary.made == ["teacher-s0"] == told.cells and not summary.complete and not summary.failed
    summary, rest = done.rest
    students = sorted(cell.id for cell in done.plan.cells if not cell.is_teacher)
    assert summary.complete and not summary.failed
    assert sorted(summary.made) == sorted(rest.cells) == students


def test_what_workers_do_is_told_with_their_device(done: Done) -> None:
    assert all(stage.startswith("cpu: ") for stage in done.rest[1].stages)
    assert done.stopped[1].stages[0].startswith("teacher: ")
    assert done.rest[1].steps and done.rest[1].epochs


def test_records_are_those_of_a_single_process(done: Done) -> None:
    for cell in done.plan.cells:
        assert cell_state(done.paths, done.plan, cell).training == "done"
        record = find(done.paths.results, "quick", cell.id, cell.key, TrainRecord)
        assert record and record.settings == cell.settings and record.environment["device_type"] == "cpu"


def test_a_finished_matrix_starts_no_workers(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("started a process")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert make_on(TWO, done.plan, done.paths, Told(), lambda: True) == Summary([], {}, True)


KILLED = "from harness.training import loop, worker; loop.CHECKPOINT_EVERY_S = 0.0; worker.main()"


def test_killed_in_the_midst_of_a_cell_it_goes_on_from_its_last_checkpoint(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = below(tmp_path)
    write_cifar(paths.data / "cifar-100-python")
    order = Order(done.plan, paths, ("teacher-s0",), cuda=False, threads=1, together=None)
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
    teacher = done.plan.teacher.artifacts(paths.artifacts, "quick") / "weights.safetensors"
    assert file_sha256(teacher) == done.single["teacher-s0"]


def test_a_kill_loses_a_minute_at_most() -> None:
    assert loop.CHECKPOINT_EVERY_S <= 50


# --- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(tiny_settings(tmp_path, ["l1"], ["base"]), "quick", "cifar100", ["prune-0.3"])


def test_a_worker_that_dies_is_a_failure_of_its_cells(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    summary = make_on(["cpu"], plan, below(tmp_path), Told(), lambda: True)
    assert summary.failed == {
        "teacher-s0": "the worker on cpu ended with exit code 1; the same command goes on where it stood"
    }


def test_what_a_worker_finds_wrong_is_said_here(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"cifar-100-python/train: missing"):
        make_on(["cpu"], plan, below(tmp_path), Told(), lambda: True)


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


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert [workers._cores(count) for count in (1, 2, 3, 100)] == [7, 3, 2, 1]
