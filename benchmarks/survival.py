"""survival.json: what a run survives, what hostile input leads to, and what growth costs.

Kills are real: a small matrix is trained, exported, measured and reported while its processes are killed at random
moments, and has to end as an undisturbed run does. Hostile input is drawn from a seed.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks import Figures, in_parts
from harness.commands.scope import Scope
from harness.errors import HarnessError
from tests.command import environment, harness
from tests.documents import DOCUMENT, as_toml, put
from tests.survival import subjects
from tests.survival.fuzzing import Verdict, changed, damaged
from tests.survival.inventory import KINDS
from tests.survival.killing import Losses, Scene, differences, durations, endure, leftovers
from tests.survival.killing import as_text as losses_as_text
from tests.synthetic import fill_results

SEED = 17
KILLS = 50
# Two in three are SIGKILL, against which nothing can be done; the others may be answered.
SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
MATRICES, RECORDS, FILES, BY_COMMAND = 10_000, 10_000, 4_000, 100
PLANNED, REPORTED = 100_000, 10_000
# the axes of a table that grows with its seeds, each with nine cells
METHODS = {"prune_amount": [0.3], "prune_method": ["l1", "bn", "gn"], "kd_method": ["base", "fmse", "gram"]}
GROWING = "many"


def measure() -> Figures:
    """Every figure; prints each as it comes."""
    return in_parts(kinds, hostile_input, kills, growth)


def kinds() -> Figures:
    """How many of the kinds of faults that were filed have a test, of how many; a test of ours keeps the list true."""
    return {
        "faults_md_members_tested": sum(bool(tests) for _, tests in KINDS.values()),
        "faults_md_members": len(KINDS),
    }


# --- Kills ------------------------------------------------------------------------------------------------------------


def kills() -> Figures:
    """Runs from nothing to a report, killed until `KILLS` kills have met one, each held against an undisturbed run."""
    losses, drawn, runs, unlike, left = Losses(), random.Random(SEED), 0, [], list[str]()
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        quiet = Scene.make(Path(folder) / "undisturbed")
        seconds = durations(quiet)
        while losses.kills < KILLS:
            runs += 1
            scene = Scene.make(Path(folder) / f"run-{runs}")
            endure(scene, seconds, drawn, losses, SIGNALS)
            unlike += differences(quiet.outcome(), scene.outcome())
            left += leftovers(scene.folder)
            print(f"run {runs}: {losses.kills} kills, {losses.stops} stops", flush=True)
    if losses.lost or losses.duplicated or losses.corrupt or losses.tracebacks or unlike or left:
        print(losses_as_text(losses), unlike, left, flush=True)
    return {
        "kills": losses.kills,
        "polite_stops": losses.stops,
        "killed_runs": runs,
        "lost_cells": len(losses.lost),
        "duplicated_cells": len(losses.duplicated),
        "corrupt_records": len(losses.corrupt),
        "results_unlike_undisturbed": len(unlike),
        "temporary_files_left": len(left),
        "tracebacks_when_killed": len(losses.tracebacks),
    }


# --- Hostile input ----------------------------------------------------------------------------------------------------


def hostile_input() -> Figures:
    """Matrices, records and files with something wrong in them, and how many led to anything but a result or a line."""
    drawn, verdict = random.Random(SEED), Verdict()
    parts: dict[str, tuple[Callable[[Path, int, random.Random, Verdict], None], int]] = {
        "matrices": (subjects.matrices, MATRICES),
        "records": (subjects.records, RECORDS),
        "files": (subjects.files, FILES),
        "by_command": (by_command, BY_COMMAND),
    }
    counts: Figures = {}
    for name, (judge, count) in parts.items():
        with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = verdict.inputs
            judge(Path(folder), count, drawn, verdict)
            counts[f"fuzz_{name}"] = verdict.inputs - before
            print(f"{name}: {verdict.taken} taken, {verdict.refused} refused, {len(verdict.faults)} faults", flush=True)
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        traps, trace = subjects.traps(Path(folder))
        before = verdict.refused
        for what, attempt in traps:
            verdict.judge(what, attempt)
        refused = verdict.refused - before
        ran = trace.exists()
    for fault in verdict.faults:
        print(f"fault: {fault}", flush=True)
    return {
        "fuzz_inputs": verdict.inputs,
        **counts,
        "fuzz_taken": verdict.taken,
        "fuzz_refused": verdict.refused,
        "tracebacks": len(verdict.faults),
        "traps": len(traps),
        "traps_refused": refused,
        "code_run": ran,
    }


def by_command(folder: Path, count: int, drawn: random.Random, verdict: Verdict) -> None:
    """The same through the command line: matrices for `plan`, and records for `report`."""
    scope = grown(folder, 9)
    plan = scope.plan()
    fill_results(plan, scope.paths.results)
    records = {path: path.read_bytes() for path in sorted(scope.paths.results.rglob("*.json"))}
    matrix = scope.matrix.read_bytes()
    for number in range(count):
        if number % 2:
            path, sound = drawn.choice(list(records.items()))
            path.write_bytes(damaged(sound, drawn))
            verb = drawn.choice(["status", "check"])
        else:
            path, sound, verb = scope.matrix, matrix, "plan"
            try:
                path.write_bytes(as_toml(changed(DOCUMENT, drawn)).encode("utf-8", "surrogatepass"))
            except ValueError:
                path.write_bytes(damaged(matrix, drawn))
        verdict.judge(f"command {number}, {verb}", lambda verb=verb: command(folder, verb))  # type: ignore[misc]
        path.write_bytes(sound)


def command(folder: Path, verb: str) -> None:
    """Run a verb; HarnessError with its last line where it refuses, AssertionError where it crashes."""
    done = harness(folder, verb, "--profile", "lite")
    if "Traceback" in done.stderr or done.returncode not in (0, 1, 2):
        raise AssertionError(f"exit code {done.returncode}: {done.stderr[-500:]}")
    if done.returncode == 2:
        raise HarnessError(done.stderr.strip().splitlines()[-1])


# --- Growth -----------------------------------------------------------------------------------------------------------


def growth() -> Figures:
    """What planning, status, check and report take of many cells, as commands: seconds, and MiB at most."""
    found: Figures = {}
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        grown(Path(folder), PLANNED)
        found |= _taken(f"plan_{PLANNED}_cells", Path(folder), "plan")
    with tempfile.TemporaryDirectory(prefix="harness-benchmarks-") as folder:
        scope = grown(Path(folder), REPORTED)
        fill_results(scope.plan(), scope.paths.results)
        for verb in ("status", "check", "report"):
            found |= _taken(f"{verb}_{REPORTED}_rows", Path(folder), verb)
    return found


def _taken(name: str, folder: Path, verb: str) -> Figures:
    """Seconds and peak memory of a command over a grown matrix. HarnessError where it crashes."""
    command = [sys.executable, "-m", "harness", verb, "--profile", "lite"]
    with (folder / "output").open("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        taken = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        # check finds what synthetic records cannot have, and says so
        if process.returncode not in (0, 1):
            output.seek(0)
            raise HarnessError(f"{verb}: exit code {process.returncode}: {output.read()[-2000:]}")
    return {f"{name}_s": taken, f"{name}_cpu_s": used.ru_utime + used.ru_stime, f"{name}_mib": used.ru_maxrss / 1024}


def grown(folder: Path, cells: int) -> Scope:
    """A matrix of about so many cells under one condition, in a folder."""
    document = {**DOCUMENT, "experiment": [_experiment(cells)], "experiments": [GROWING], "profile": {}}
    for profile in DOCUMENT["profile"]:
        document["profile"][profile] = {
            name: value for name, value in DOCUMENT["profile"][profile].items() if name not in ("experiments", "bench")
        }
    document["bench"] = dict(DOCUMENT["bench"])
    for place, value in {"bench.engines": ["onnxruntime-1.16.0"], "bench.isa": ["host"], "bench.threads": [1]}.items():
        put(document, place, value)
    matrix = folder / "matrix.toml"
    matrix.write_text(as_toml(document), encoding="utf-8")
    return Scope.of(matrix, "lite", folder / "results", folder / "artifacts")


def _experiment(cells: int) -> dict[str, object]:
    seeds = list(range(-(-cells // 9)))
    return {"name": GROWING, "title": GROWING, "protocol": "study", **METHODS, "seed": seeds}
