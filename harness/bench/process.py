"""One fresh, pinned process that runs one suite on one model, and what became of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import harness
from harness.bench.job import Assignment
from harness.bench.remarks import lines
from harness.errors import HarnessError
from harness.files import read_json, write_text
from harness.host.cgroups import oom_kills
from harness.host.isa.shown import HOST, REFUSED, Shown
from harness.plan import registry
from harness.plan.bench_settings import engine_version, is_here
from harness.plan.specs import engine_plugin
from harness.store.records import Failure

ROOT = Path(harness.__file__).parent.parent
SUITES = Path(__file__).parent
# Names the assignment's file to the suites, which can thus be run by hand as well.
ASSIGNMENT = "HARNESS_ASSIGNMENT"
# What a process of the bench keeps of its caller's variables. Some Pythons do not start without their library path.
KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
# Libraries below numpy must not start threads of their own beside the engine's.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class EngineAnswer:
    """What an engine says of itself in its environment: "onnxruntime 1.16.0", and its options by number of threads."""

    runtime: str
    options: dict[int, dict[str, Any]]


def own_environment(engines: Iterable[str], shown: Shown = HOST) -> dict[str, str]:
    """The variables that a process of the bench gets, for these engines of matrix.toml and this instruction set.

    Of our own making, because the caller's can change figures with nothing on record: PYTHONPATH swaps the engine,
    PYTHONTRACEMALLOC slows Python down, LD_PRELOAD and MALLOC_* change the allocator. The folder of an engine that is
    not the package's own is on Python's path; there is no other way to find it.
    """
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    plugins = [registry.find("engine", engine_plugin(engine)) for engine in engines]
    folders = [str(_folder(plugin)) for plugin in plugins if ":" in plugin.name]
    search = os.pathsep.join(dict.fromkeys([str(ROOT), *folders, *shown.path]))
    # What is installed for the user, or happens to lie in the working directory, has no part in it either.
    own = {**ONE_THREAD, "PYTHONPATH": search, "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}
    return {**kept, **own, **shown.variables}


def _folder(plugin: registry.Plugin) -> Path:
    """The folder on Python's path that a plug-in was found in."""
    depth = plugin.name.partition(":")[0].count(".") + (plugin.path.name == "__init__.py")
    return plugin.path.absolute().parents[depth]


def measure(
    suite: str, assignment: Assignment, output: Path, timeout_s: float, python: Path | None = None
) -> dict[str, Any] | Failure:
    """Run a suite in a fresh process; its one entry of pytest-benchmark's JSON, which stays in `output`.

    Its key `said` has the lines that the process printed to stderr, where engines leave their warnings.

    `python` is the interpreter that has the engine, by default this process's.

    A failure is returned rather than raised, so that the other models are still measured; what the process printed is
    then kept beside `output` as .log. This process sleeps until the other one ends: it must not disturb it.
    """
    output.unlink(missing_ok=True)
    log = output.with_suffix(".log")
    log.unlink(missing_ok=True)
    assignment.failure.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as folder:
        file = Path(folder) / "assignment.json"
        write_text(file, assignment.model_dump_json())
        kills_before = oom_kills()
        path = SUITES / suite
        command = _command(str(python or sys.executable), path, assignment.cpus, output, folder)
        variables = {**own_environment([assignment.engine], assignment.shown), ASSIGNMENT: str(file)}
        variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        code, printed, errors = _run(command, path.parent, variables, timeout_s)
        if code != 0:
            write_text(log, printed + errors)
            return _failure(code, timeout_s, oom_kills() > kills_before, assignment.failure, log)
    try:
        (entry,) = read_json(output)["benchmarks"]
    except (HarnessError, ValueError, KeyError, TypeError) as error:
        write_text(log, printed + errors)
        return Failure(kind="error", message=f"{output}: no single benchmark in it ({error!r}); see {log}")
    return {**entry, "said": lines(errors)}


def ask_engine(engine: str, python: Path | None, threads: Sequence[int]) -> EngineAnswer:
    """What an engine, named as in matrix.toml, says of itself in its environment.

    HarnessError where that environment does not have it, or has another version than the variant names.
    """
    command = [str(python or sys.executable), "-m", "harness.bench.ask", engine, *map(str, threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=own_environment([engine]))
    except OSError as error:
        raise HarnessError(f"bench.engines: {engine}: {command[0]}: {error.strerror}; run: make setup") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise HarnessError(f"bench.engines: {engine}: {command[0]} cannot import it ({reason}); run: make setup")
    said = json.loads(done.stdout)
    found = said["runtime"]
    if not is_here(engine) and found != (expected := engine_version(engine)):
        raise HarnessError(f"bench.engines: {engine}: {command[0]} has {found}, not {expected}; run: make setup")
    return EngineAnswer(found, dict(zip(threads, said["options"], strict=True)))


def _command(python: str, suite: Path, cpus: list[int], output: Path, store: str) -> list[str]:
    # By its name alone, from its own folder: pytest reads brackets and dollars in a path as something else.
    pytest = ["-m", "pytest", suite.name, "-q", "-c", os.devnull, "--rootdir=."]
    # What the engine prints is for this process, and not for pytest to keep. No suite asserts anything, so that no
    # process has to rewrite assertions.
    pytest += ["-p", "no:cacheprovider", "--capture=no", "--assert=plain"]
    benchmark = [
        "-p",
        "pytest_benchmark.plugin",
        "--benchmark-quiet",
        "--benchmark-disable-gc",
        f"--benchmark-json={output.absolute()}",
    ]
    # Its store is not used, yet made at start: not in the suite's folder, which may be read-only.
    benchmark.append(f"--benchmark-storage=file://{store}")
    launcher = [python, "-m", "harness.bench.pinned", ",".join(map(str, cpus))]
    return [*launcher, *pytest, *benchmark]


def _run(command: list[str], folder: Path, variables: dict[str, str], timeout_s: float) -> tuple[int | None, str, str]:
    """Exit status (None after the time-out, negative after a signal), stdout and stderr; its processes end with it."""
    # A session of its own: Ctrl-C reaches this process alone, which then stops the other.
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        errors="replace",
        text=True,
    )
    try:
        # communicate() waits in poll(2) for output to end; wait() would wake up twenty times a second.
        printed, errors = process.communicate(timeout=timeout_s)
        return process.returncode, printed, errors
    except subprocess.TimeoutExpired:
        _kill(process)
        return None, *process.communicate()
    except BaseException:
        _kill(process)
        process.communicate()
        raise


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _failure(code: int | None, timeout_s: float, memory_kill: bool, said: Path, log: Path) -> Failure:
    """Why a process failed: what it said itself, or what its end says."""
    if code is None:
        return Failure(kind="timeout", message=f"no result within {timeout_s:g} s; see {log}")
    if code < 0:
        if memory_kill:
            return Failure(kind="out-of-memory", message=f"killed by the kernel for lack of memory; see {log}")
        return Failure(kind="killed", message=f"ended by {signal.Signals(-code).name}; see {log}")
    if code == REFUSED:
        return Failure(kind="error", message=f"the instruction set that was asked for is not shown; see {log}")
    try:
        return Failure.model_validate_json(said.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return Failure(kind="error", message=f"the process ended with exit code {code}; see {log}")


def describe(error: BaseException) -> Failure:
    """An exception as a failure: the message for the user if it has one, else its type and first line."""
    text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
    memory = isinstance(error, MemoryError) or "bad_alloc" in text or "Failed to allocate memory" in text
    return Failure(kind="out-of-memory" if memory else "error", message=text)
