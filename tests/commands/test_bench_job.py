from pathlib import Path

import pytest

from harness.bench.job import Job
from harness.commands import bench_job as local
from harness.commands.bench_job import bench_python, bench_pythons, matrix_job
from harness.errors import HarnessError
from harness.plan.planning import Plan
from harness.store.paths import Paths
from tests.checks.planted import CELL, TEACHER
from tests.finished import finish, weights
from tests.synthetic import plan_for

RUNTIMES = ["1.16.0", "current"]


def environment(folder: Path, runtime: str) -> Path:
    """A runtime's environment, as far as anybody looks at it."""
    python = folder / ".venvs" / f"bench-{runtime}" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    return python


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and a checkout beside it, without any environment."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(local, "ROOT", tmp_path / "checkout")
    return tmp_path / "here"


def test_each_runtime_has_an_environment_of_its_own(here: Path) -> None:
    made = {runtime: environment(here, runtime) for runtime in RUNTIMES}
    assert bench_pythons(RUNTIMES) == made
    assert bench_pythons(RUNTIMES[1:]) == {"current": made["current"]}


def test_the_checkouts_environments_serve_another_folder_as_well(here: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "checkout", "current")
    assert bench_python("current") == python
    assert bench_python("current").is_absolute()
    own = environment(here, "current")
    assert bench_python("current") == own


@pytest.mark.parametrize("missing", RUNTIMES)
def test_an_environment_that_is_not_there_says_what_to_run(here: Path, missing: str) -> None:
    for runtime in RUNTIMES:
        if runtime != missing:
            environment(here, runtime)
    with pytest.raises(HarnessError, match=rf"\.venvs/bench-{missing}/bin/python: not there; run: make setup"):
        bench_pythons(RUNTIMES)


def job_of(plan: Plan, folder: Path) -> Job:
    return matrix_job(plan, Paths(folder / "results", folder / "artifacts", folder / "data"))


def test_a_job_has_every_exported_model_and_names_the_pythons(here: Path, tmp_path: Path) -> None:
    made = {runtime: environment(here, runtime) for runtime in RUNTIMES}
    bench = finish(tmp_path)
    weights(bench, CELL).unlink()
    job = job_of(bench.plan, tmp_path)
    assert job.pythons == made
    assert job.settings == bench.plan.settings.bench
    assert [model.cell for model in job.models] == [cell.id for cell in bench.plan.cells if cell.id != CELL]
    assert job.teacher is not None
    assert job.teacher.cell == TEACHER
    for model in job.models:
        assert (model.onnx, model.key) == (bench.onnx(model.cell), bench.cell(model.cell).key)
    assert job.results.is_absolute()
    assert job.testset.is_absolute()
    # as it goes to the bench, in a file
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_torchs_answers_go_with_the_models_that_have_them(here: Path, tmp_path: Path) -> None:
    for runtime in RUNTIMES:
        environment(here, runtime)
    bench = finish(tmp_path)
    answers = bench.onnx(CELL).with_name("answers.npy")
    answers.touch()
    found = {model.cell: model.answers for model in job_of(bench.plan, tmp_path).models}
    assert found.pop(CELL) == answers
    assert set(found.values()) == {None}


def test_a_job_for_a_runtime_that_is_not_there_is_refused(here: Path, tmp_path: Path) -> None:
    environment(here, "1.16.0")
    bench = finish(tmp_path)
    with pytest.raises(HarnessError, match=r"bench-current/bin/python: not there; run: make setup"):
        job_of(bench.plan, tmp_path)


def test_without_an_exported_model_there_is_nothing_to_bench(here: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="profile lite has no exported model here; run: make train-matrix"):
        job_of(plan_for("lite"), tmp_path)
