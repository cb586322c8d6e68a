import sys
from pathlib import Path

import pytest

from harness.bench import environments
from harness.bench.environments import bench_python, bench_pythons
from harness.bench.job import Identity, Job
from harness.commands.bench_job import matrix_job, not_exported, run_bench, with_those_measured
from harness.errors import HarnessError
from harness.plan.bench_settings import engine_environment
from harness.plan.planning import Plan
from harness.plan.specs import Stage
from harness.store.chain import Chain
from harness.store.paths import Paths
from harness.store.records import AccuracyRecord, LatencyRecord, identity, load, record_path
from tests.bench_kit import SETTINGS, Workshop
from tests.checks.planted import BESIDE, CELL, TEACHER, Bench, make_bench
from tests.finished import finish, weights
from tests.synthetic import plan_for

OLD, CURRENT = ENGINES = ["onnxruntime-1.16.0", "onnxruntime-current"]


def environment(folder: Path, engine: str) -> Path:
    """An engine's environment, as far as anybody looks at it."""
    python = folder / ".venvs" / engine_environment(engine) / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    return python


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and a checkout beside it, without any environment."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(environments, "ROOT", tmp_path / "checkout")
    return tmp_path / "here"


# --- Interpreters ----------------------------------------------------------------------------------------------------


def test_each_engine_has_an_environment_of_its_own(here: Path) -> None:
    made = {engine: environment(here, engine) for engine in ENGINES}
    assert [python.parts[-3] for python in made.values()] == ["bench-1.16.0", "bench-current"]
    assert bench_pythons(ENGINES) == made
    assert bench_pythons([CURRENT]) == {CURRENT: made[CURRENT]}


def test_environments_of_the_checkout_serve_other_folders_as_well(here: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "checkout", CURRENT)
    assert bench_python(CURRENT) == python
    assert bench_python(CURRENT).is_absolute()
    own = environment(here, CURRENT)
    assert bench_python(CURRENT) == own


@pytest.mark.parametrize("missing", ENGINES)
def test_an_environment_that_is_not_there_says_what_to_run(here: Path, missing: str) -> None:
    for engine in ENGINES:
        if engine != missing:
            environment(here, engine)
    said = rf"\.venvs/{engine_environment(missing)}/bin/python: not there; run: make setup"
    with pytest.raises(HarnessError, match=said):
        bench_pythons(ENGINES)


# --- The job ---------------------------------------------------------------------------------------------------------


def paths_of(folder: Path) -> Paths:
    return Paths(folder / "results", folder / "artifacts", folder / "data")


def job_of(plan: Plan, folder: Path) -> Job:
    return matrix_job(plan, paths_of(folder))


def test_a_job_has_every_exported_model_and_names_the_pythons(here: Path, tmp_path: Path) -> None:
    made = {engine: environment(here, engine) for engine in ENGINES}
    bench = finish(tmp_path)
    weights(bench, CELL).unlink()
    job = job_of(bench.plan, tmp_path)
    assert job.pythons == made
    assert job.settings == bench.plan.settings.bench
    assert [model.cell for model in job.models] == [cell.id for cell in bench.plan.cells if cell.id != CELL]
    assert [cell.id for cell in not_exported(bench.plan, paths_of(tmp_path))] == [CELL]
    assert job.teacher is not None
    assert job.teacher.cell == TEACHER
    assert not job.measure_again
    for model in job.models:
        assert (model.onnx, model.key) == (bench.onnx(model.cell), bench.cell(model.cell).spec.key)
    assert job.results.is_absolute()
    assert job.testset.is_absolute()
    # as it goes to the bench, in a file
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_each_model_comes_with_the_identity_of_each_of_its_measurements(here: Path, tmp_path: Path) -> None:
    for engine in ENGINES:
        environment(here, engine)
    bench = finish(tmp_path)
    plan = bench.plan
    (model,) = (model for model in job_of(plan, tmp_path).models if model.cell == CELL)
    cell = bench.cell(CELL)
    assert list(model.latency) == plan.settings.bench.conditions
    pairs: list[tuple[Identity, Stage]] = [(model.accuracy[plan.settings.bench.isa[0]], plan.accuracy(cell))]
    # what takes its place where the target's instruction set cannot be shown
    pairs += [(model.accuracy["host"], plan.as_host().accuracy(cell))]
    pairs += [(given, plan.latency(cell, name)) for name, given in model.latency.items()]
    for given, stage in pairs:
        fields = identity(plan.profile, cell.id, cell.title, stage)
        assert (given.key, given.spec, given.code) == (fields["key"], fields["spec"], fields["code"])
        assert list(given.code) == ["engine onnxruntime"]


def test_the_answers_of_torch_go_with_the_models_that_have_them(here: Path, tmp_path: Path) -> None:
    for engine in ENGINES:
        environment(here, engine)
    bench = finish(tmp_path)
    answers = bench.onnx(CELL).with_name("answers.npy")
    answers.touch()
    found = {model.cell: model.answers for model in job_of(bench.plan, tmp_path).models}
    assert found.pop(CELL) == answers
    assert set(found.values()) == {None}


def test_a_job_for_an_engine_whose_environment_is_not_there_is_refused(here: Path, tmp_path: Path) -> None:
    environment(here, OLD)
    bench = finish(tmp_path)
    with pytest.raises(HarnessError, match=r"bench-current/bin/python: not there; run: make setup"):
        job_of(bench.plan, tmp_path)


def test_without_an_exported_model_there_is_nothing_to_bench(here: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="profile lite has no exported model here; run: make train-matrix"):
        job_of(plan_for("lite"), tmp_path)


# --- One table by itself ---------------------------------------------------------------------------------------------


@pytest.fixture
def tables(tmp_path: Path) -> Bench:
    """Both of lite's experiments, trained and measured."""
    bench = make_bench(plan_for("lite"), tmp_path)
    for cell in bench.plan.cells:
        bench.weights(cell.id).write_bytes(b"weights")
    return bench


def one_table(bench: Bench, name: str) -> Plan:
    return with_those_measured(plan_for("lite", experiments=[name]), bench.plan, paths_of(bench.results.parent))


def test_what_other_tables_show_is_measured_along_with_a_table(tables: Bench) -> None:
    found = one_table(tables, "prune-0.4")
    assert {cell.id for cell in found.cells} == {cell.id for cell in tables.plan.cells}
    job = matrix_job(found, paths_of(tables.results.parent), local=False)
    assert {model.cell for model in job.models} == {cell.id for cell in tables.plan.cells}
    assert job.teacher is not None


def test_what_has_no_latency_that_could_be_lost_is_not_measured_along(tables: Bench) -> None:
    for cell in tables.plan.cells:
        if cell.prune_amount == 0.3:
            for under in tables.plan.settings.bench.conditions:
                tables.path(LatencyRecord, cell.id, under).unlink()
    asked = plan_for("lite", experiments=["prune-0.4"])
    assert one_table(tables, "prune-0.4") == asked
    tables.path(LatencyRecord, TEACHER).unlink()
    assert one_table(tables, "prune-0.4") == asked


def test_a_table_is_not_measured_where_that_would_break_another_one(tables: Bench) -> None:
    tables.onnx(CELL).unlink()
    said = rf"prune-0.4: cannot be measured alone.*no ONNX file here.*\({CELL}\).*--results"
    with pytest.raises(HarnessError, match=said):
        one_table(tables, "prune-0.4")
    tables.onnx(CELL).touch()
    assert len(one_table(tables, "prune-0.4").cells) == len(tables.plan.cells)


# --- Code that has changed -------------------------------------------------------------------------------------------


def test_measurements_by_other_code_are_refused_measured_again_or_declared_to_be_equivalent(tmp_path: Path) -> None:
    bench = finish(tmp_path)
    plan, paths, cell = bench.plan, paths_of(tmp_path), bench.cell(CELL)
    other = {"engine onnxruntime": "0" * 64}
    for kind, condition in ((AccuracyRecord, ""), (LatencyRecord, BESIDE)):
        bench.change(kind, CELL, condition or BESIDE, code=other)
    said = r"2 measurements were made by code that has changed since \(engine onnxruntime\); choose: CODE=redo"
    with pytest.raises(HarnessError, match=said):
        matrix_job(plan, paths, local=False)
    assert matrix_job(plan, paths, local=False, code="redo").measure_again
    assert not matrix_job(plan, paths, local=False, code="keep").measure_again
    for link in (Chain(plan, paths.results).accuracy(cell), Chain(plan, paths.results).latency(cell, BESIDE)):
        assert link.standing is not None
        assert (link.changed, link.standing.code_kept) == ((), [other])
    assert not matrix_job(plan, paths, local=False).measure_again


# --- Running it ------------------------------------------------------------------------------------------------------


def test_a_job_runs_in_the_environment_of_its_headline_engine_whatever_the_caller_s_variables(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = Path(".venvs") / engine_environment(OLD) / "bin/python"
    if not (environments.ROOT / python).is_file():
        pytest.skip("no .venvs/bench-1.16.0: `make setup` makes it")
    # this process's packages, as in a shell that has them on its path
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    monkeypatch.setenv("PYTHONPATH", packages)
    monkeypatch.setenv("PYTHONTRACEMALLOC", "5")
    job = workshop.job(workshop.model("student"), settings={**SETTINGS, "engines": [OLD]})
    job = job.model_copy(update={"pythons": bench_pythons([OLD])})
    assert run_bench(job) == 0
    (condition,) = job.settings.conditions
    record = load(record_path(job.results, job.profile, "latency", "student", condition), LatencyRecord)
    assert record.runtime == "onnxruntime 1.16.0"
