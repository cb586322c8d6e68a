"""`harness bench`: the job over a plan's exported models, and running it on this machine as a process of its own."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.bench.environments import bench_python, bench_pythons
from harness.bench.job import Identity, Job, ModelFile
from harness.bench.process import own_environment
from harness.commands.train_matrix import CodePolicy
from harness.errors import HarnessError
from harness.files import write_text
from harness.plan.planning import Cell, Plan, Table
from harness.plan.specs import Stage, code_of
from harness.store.chain import Chain, Link, as_measured
from harness.store.paths import Paths, answers_file
from harness.store.records import identity, save
from harness.store.revision import revision
from harness.store.states import cell_state

# What the process that runs the bench shows progress by.
TERMINAL = ("TERM", "COLUMNS", "NO_COLOR")


def require_exported(plan: Plan, paths: Paths) -> None:
    """HarnessError where there is nothing to measure, before anything is written."""
    chain = Chain(plan, paths.results)
    if not any(_is_exported(chain, paths, cell) for cell in plan.cells):
        raise _nothing_exported(plan)


def _nothing_exported(plan: Plan) -> HarnessError:
    return HarnessError(
        f"profile {plan.profile} has no exported model here; run: make train-matrix PROFILE={plan.profile}"
    )


def matrix_job(plan: Plan, paths: Paths, local: bool = True, code: CodePolicy = "refuse", again: bool = False) -> Job:
    """The bench job for every model of the plan whose ONNX file is on this machine.

    It names the `local` interpreters of the engines, unless it is to run elsewhere; `again` measures what is up to date
    as well. Raises HarnessError where no model is here, or no interpreter, or where an engine's code has changed and
    `code` does not say what to do then.
    """
    chain = Chain(plan, paths.results)
    models = [_model(chain, paths, cell) for cell in plan.cells if _is_exported(chain, paths, cell)]
    if not models:
        raise _nothing_exported(plan)
    return Job(
        profile=plan.profile,
        results=paths.results.resolve(),
        raw=(paths.artifacts / plan.profile / "bench").resolve(),
        testset=paths.testset(plan.profile, plan.dataset).resolve(),
        settings=plan.settings.bench,
        harness_revision=revision(),
        pythons=bench_pythons(plan.settings.bench.engines) if local else {},
        models=models,
        measure_again=to_measure_again(plan, paths, code) or again,
    )


def with_those_measured(plan: Plan, whole: Plan, paths: Paths) -> Plan:
    """The plan, and in a table of their own the cells of `whole` beside it whose latencies stand.

    A run replaces the latencies of the teacher and of every other cell that tables share, and a ratio holds within one
    run. So what other tables show is measured again along with what is asked for: otherwise they would be left without
    the teacher that their ratios are to. HarnessError where such a model is not on this machine.
    """
    ours, chain = {cell.id for cell in plan.cells}, Chain(whole, paths.results)
    conditions = whole.settings.bench.conditions
    others = [
        cell
        for cell in whole.cells
        if cell.id not in ours and any(chain.latency(cell, name).standing for name in conditions)
    ]
    if absent := [cell.id for cell in others if not _is_exported(chain, paths, cell)]:
        named = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise HarnessError(
            f"{', '.join(table.name for table in plan.tables)}: cannot be measured alone, since that would replace the "
            f"teacher's latency, which ratios in other tables are to; and models of those have no ONNX file here to be "
            f"measured along ({named}): make them (make train-matrix PROFILE={plan.profile}), unpack them, or measure "
            f"into another folder (--results)"
        )
    if not others:
        return plan
    return replace(plan, tables=(*plan.tables, Table("measured", "Measured before", "", (plan.teacher, *others))))


def _model(chain: Chain, paths: Paths, cell: Cell) -> ModelFile:
    plan, train, export = chain.plan, chain.train(cell).standing, chain.export(cell).standing
    assert train and export and export.onnx_sha256, "a cell that is done has its export on record"
    answers = answers_file(paths.folder(plan.profile, cell).resolve())
    # What is asked for, and what takes its place where the target's instruction set cannot be shown.
    plans = (plan, plan.as_host())
    return ModelFile(
        cell=cell.id,
        title=cell.title,
        key=cell.spec.key,
        onnx=paths.model_file(plan.profile, cell).resolve(),
        onnx_sha256=export.onnx_sha256,
        is_teacher=cell.is_teacher,
        latency={
            name: _identity(one, cell, one.latency(cell, name))
            for one in plans
            for name in one.settings.bench.conditions
        },
        accuracy={one.settings.bench.isa[0]: _identity(one, cell, one.accuracy(cell)) for one in plans},
        answers=answers if answers.is_file() else None,
        answers_sha256=train.answers_sha256,
    )


def _identity(plan: Plan, cell: Cell, stage: Stage) -> Identity:
    fields = identity(plan.profile, cell.id, cell.title, stage)
    return Identity(key=fields["key"], spec=fields["spec"], code=fields["code"])


def _is_exported(chain: Chain, paths: Paths, cell: Cell) -> bool:
    # A model that other code has trained can be measured as well as any.
    return cell_state(paths, chain.plan, cell, chain).training in ("done", "changed")


def not_exported(plan: Plan, paths: Paths) -> Sequence[Cell]:
    """The cells that the bench has to leave out, because they have no ONNX file here."""
    chain = Chain(plan, paths.results)
    return [cell for cell in plan.cells if not _is_exported(chain, paths, cell)]


def to_measure_again(plan: Plan, paths: Paths, code: CodePolicy) -> bool:
    """Whether to measure everything again because the code of an engine has changed since ("redo").

    With "keep", records take note that the present code is held to be equivalent. HarnessError where there are such
    records and no choice was made.
    """
    plan = as_measured(plan, [Chain(plan, paths.results)])
    chain = Chain(plan, paths.results)
    found: list[tuple[Link[Any], Stage]] = [(chain.accuracy(cell), plan.accuracy(cell)) for cell in plan.cells]
    for name in plan.settings.bench.conditions:
        found += [(chain.latency(cell, name), plan.latency(cell, name)) for cell in plan.cells]
    changed = [(link, stage) for link, stage in found if link.changed]
    if changed and code == "refuse":
        engines = ", ".join(sorted({name for link, _ in changed for name in link.changed}))
        raise HarnessError(
            f"{len(changed)} measurements were made by code that has changed since ({engines}); choose: CODE=redo "
            f"(--code redo) measures everything again, CODE=keep (--code keep) declares that the change is immaterial"
        )
    for link, stage in changed if code == "keep" else []:
        if record := link.standing:
            update = {"code": code_of(stage), "code_kept": [*record.code_kept, record.code]}
            save(paths.results, record.model_copy(update=update))
    return bool(changed) and code == "redo"


def run_bench(job: Job, lock: int | None = None) -> int:
    """Run a job to its end and return its exit code: 0 all done, 1 some failed, 2 bad input, 130 stopped.

    The process that runs it is one of the headline engine's environment. It holds the `lock` as well, for as long as it
    lives, and stops when this one is told to or ends.
    """
    headline = job.settings.engines[0]
    python = job.pythons.get(headline) or bench_python(headline)
    terminal = {name: os.environ[name] for name in TERMINAL if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="harness-job-") as folder:
        file = Path(folder) / "job.json"
        write_text(file, job.model_dump_json())
        command = [str(python), "-m", "harness.bench", "--end-with-parent", str(file)]
        variables = {**own_environment(job.settings.engines), **terminal}
        process = subprocess.Popen(command, env=variables, pass_fds=[] if lock is None else [lock])
        with _passing_on(process):
            return process.wait()


@contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Have Ctrl-C and a polite kill stop a process, which cleans up and says so; what is ignored here stays ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda *_: process.terminate())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
