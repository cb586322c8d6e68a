"""A Ray cluster of several nodes on this machine, of which one joins late and one dies, with planted faults.

The nodes' workers find the data set and the planted methods by PYTHONPATH, which their node's processes inherit.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
from ray.cluster_utils import Cluster

from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.planning import Plan, make_plan
from harness.store import claims
from harness.store.claims import Run
from harness.store.paths import Paths
from harness.store.records import ExportRecord, TrainRecord, load, record_path
from harness.store.states import cell_state
from harness.training.dispatch import make_on
from harness.training.pipeline import Summary, make_cells
from harness.training.ray_tasks import RayCluster
from tests.documents import ROOT
from tests.drop_in import DATASET, imported
from tests.training_kit import CPU, Told, below, tiny_settings

PLANTED = '''"""Labels, and at the second step something else."""

import os
import signal
import time
from pathlib import Path

from harness.compression.distillation import Method, Phase, cross_entropy

TITLE = "{name}"
HERE = Path(__file__).parent


def waits():
    """Holds the cell where it is until a file is there."""
    while not (HERE / "go").exists():
        (HERE / "waiting").touch()
        time.sleep(0.05)


def killed():
    """Kills its worker, the first time."""
    if not (HERE / "killed").exists():
        (HERE / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def poisoned():
    raise ValueError("planted")


def phases(setup):
    steps = []

    def loss(student, teacher, labels):
        steps.append(None)
        if len(steps) == 2:
            {name}()
        return cross_entropy(student, teacher, labels)

    return [Phase("base", setup.epochs, loss)]


{NAME} = Method(phases)
'''
FAULTS = ("waits", "killed", "poisoned")


class Store(NamedTuple):
    """What the cells of the plan have become in one store."""

    weights: dict[str, str]
    models: dict[str, str]
    reasons: dict[str, str]


def look_at(plan: Plan, paths: Paths) -> Store:
    weights, models, reasons = {}, {}, {}
    for cell in plan.cells:
        state = cell_state(paths, plan, cell)
        if state.training == "done":
            weights[cell.id] = file_sha256(paths.weights(plan.profile, cell))
            models[cell.id] = file_sha256(paths.model_file(plan.profile, cell))
        else:
            reasons[cell.id] = f"{state.training}: {state.reason}"
    return Store(weights, models, reasons)


def until(said: Callable[[], Any], within_s: float = 240) -> None:
    began = time.monotonic()
    while not said():
        assert time.monotonic() - began < within_s, "it has not happened"
        time.sleep(0.1)


class Made(NamedTuple):
    plan: Plan
    folder: Path
    cluster: Cluster
    local: Store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A plan with planted faults, what one process makes of it, and a cluster of a head without CPUs and a node."""
    folder = tmp_path_factory.mktemp("ray")
    DATASET.write(folder)
    for name in FAULTS:
        (folder / f"planted_{name}.py").write_text(PLANTED.replace("{name}", name).replace("{NAME}", name.upper()))
    methods = [f"planted_{name}:{name.upper()}" for name in FAULTS]
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        path = os.pathsep.join([str(ROOT), str(folder)])
        patch.setenv("PYTHONPATH", path)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        stack.enter_context(imported(folder))
        settings = tiny_settings(folder, ["l1"], ["fmse", *methods, "base"], **DATASET.settings)
        plan = make_plan(settings, "quick", DATASET.name, ["prune-0.3"])
        for file in ("go", "killed"):
            (folder / file).touch()
        make_cells(plan, below(folder / "local"), CPU, Told())
        for file in ("go", "killed"):
            (folder / file).unlink()
        cluster = Cluster(initialize_head=True, head_node_args=node(0))
        stack.callback(cluster.shutdown)
        stack.callback(ray.shutdown)
        cluster.add_node(**node(1))
        yield Made(plan, folder, cluster, look_at(plan, below(folder / "local")))


def node(cpus: int) -> dict[str, Any]:
    return {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 80 * 2**20}


class Survived(NamedTuple):
    summary: Summary
    told: Told
    store: Store
    claims: list[Path]


@pytest.fixture(scope="module")
def survived(made: Made) -> Survived:
    """A run whose only node is killed in the midst of a cell, just after another has joined; a worker dies as well."""
    plan, cluster, paths, told = made.plan, made.cluster, below(made.folder / "survived"), Told()
    ray.init(address=cluster.address, log_to_driver=False)
    with ThreadPoolExecutor() as pool:
        done = pool.submit(make_on, RayCluster(), plan, paths, told)
        until(lambda: done.done() or (made.folder / "waiting").exists())
        (first,) = cluster.worker_nodes
        cluster.add_node(**node(1))
        cluster.remove_node(first, allow_graceful=False)
        (made.folder / "go").touch()
        summary = done.result()
    left = list((paths.artifacts / plan.profile / "claims").iterdir())
    return Survived(summary, told, look_at(plan, paths), left)


def test_whatever_dies_the_results_are_the_bits_that_one_process_makes(made: Made, survived: Survived) -> None:
    assert survived.store == made.local
    assert len(survived.store.weights) == len(made.plan.cells) - 1


def test_the_records_say_what_those_of_one_process_say(made: Made, survived: Survived) -> None:
    circumstances = {"finished_at", "seconds", "environment", "epochs"}
    for cell in survived.store.weights:
        for kind in (TrainRecord, ExportRecord):
            place = record_path(Path("results"), "quick", kind.stage, cell)
            ours, theirs = (
                load(made.folder / name / place, kind).model_dump(exclude=circumstances)
                for name in ("survived", "local")
            )
            assert ours == theirs


def test_each_cell_is_made_once_or_has_failed_once_with_its_reason(made: Made, survived: Survived) -> None:
    summary, told, store, _ = survived
    assert (made.folder / "killed").exists() and (made.folder / "waiting").exists()
    assert sorted(told.cells) == sorted(cell.id for cell in made.plan.cells)
    assert summary.complete and sorted(summary.made) == sorted(store.weights)
    assert list(summary.failed) == list(store.reasons)
    assert store.reasons == {cell: f"failed: {reason}" for cell, reason in summary.failed.items()}
    assert all("planted" in reason for reason in summary.failed.values())


def test_a_run_leaves_no_claim(survived: Survived) -> None:
    assert survived.claims == []


def test_a_finished_cell_is_not_made_again(made: Made, survived: Survived) -> None:
    """The store is what counts: a cluster that has never heard of the cells starts only what has failed."""
    told = Told()
    summary = make_on(RayCluster(), made.plan, below(made.folder / "survived"), told)
    assert told.cells == list(survived.store.reasons) == list(summary.failed) and not summary.made


def test_a_run_that_is_stopped_ends_its_workers_and_the_next_resumes(made: Made, survived: Survived) -> None:
    plan, paths, told = made.plan, below(made.folder / "stopped"), Told()
    students = [cell for cell in plan.cells if cell.kd_method == "fmse"]
    summary = make_on(RayCluster(), plan, paths, told, lambda: not told.epochs, students)
    assert not summary.complete and not summary.failed
    summary = make_on(RayCluster(), plan, paths, told, cells=students)
    assert summary.complete and sorted(told.cells) == sorted(["teacher-s0", *(cell.id for cell in students)])
    found = look_at(plan, paths).weights
    assert found == {cell: made.local.weights[cell] for cell in found} and len(found) == 2


def test_a_node_that_does_not_see_the_store_says_so(
    made: Made, survived: Survived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker looks for the run in a folder of the same path that is another one, here by another path."""
    claim = Run.claim

    def elsewhere(run: Run, unit: str) -> Any:
        granted = claim(run, unit)
        assert granted
        return replace(granted, folder=tmp_path / "another")

    monkeypatch.setattr(Run, "claim", elsewhere)
    with pytest.raises(HarnessError, match=r"does not see the files of this run .* at the same path on each"):
        make_on(RayCluster(), made.plan, below(tmp_path), Told())


def test_a_device_of_one_host_is_refused() -> None:
    with pytest.raises(HarnessError, match="names devices of one host"):
        RayCluster("cuda:1")


def test_of_two_drivers_one_is_killed_and_the_other_makes_the_rest_and_nothing_twice(
    made: Made, survived: Survived, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The killed one is a command as users give it, and in the midst of a cell; the other runs beside it from here."""
    plan, store, told = made.plan, made.folder / "drivers", Told()
    store.mkdir()
    options = {"profile": "quick", "experiment": "prune-0.3", "matrix": made.folder / "matrix.toml", "executor": "ray"}
    options |= {"results": store / "results", "artifacts": store / "artifacts"}
    for file in ("go", "waiting"):
        (made.folder / file).unlink()
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with (store / "said").open("wb") as out:
        killed = subprocess.Popen(
            [sys.executable, "-m", "harness", "train-matrix", *arguments],
            cwd=store,
            env={**os.environ, "RAY_ADDRESS": made.cluster.address},
            stdout=out,
            stderr=out,
        )
    monkeypatch.setattr(claims, "LEASE_S", 2 * claims.BEAT_EVERY_S)
    with ThreadPoolExecutor() as pool:
        try:
            until(lambda: killed.poll() is not None or (made.folder / "waiting").exists())
            done = pool.submit(make_on, RayCluster(), plan, below(store), told)
            until(lambda: len(list((store / "artifacts/quick/claims").glob("run-*"))) == 2)
        finally:
            killed.kill()
        (made.folder / "go").touch()
        summary = done.result()
    assert killed.wait() == -signal.SIGKILL
    assert look_at(plan, below(store)) == made.local
    # Each driver has told of what its own workers made.
    titles = {cell.id: cell.title for cell in plan.cells}
    before = re.findall(r"^  (\S+): accuracy", (store / "said").read_text(), re.MULTILINE)
    after = [titles[cell] for cell in summary.made]
    assert before == [titles[cell] for cell in ("teacher-s0", "p0.3-l1-fmse-s0")]
    assert sorted(before + after) == sorted(titles[cell] for cell in made.local.weights)
    assert summary.complete and list(summary.failed) == list(made.local.reasons)
