"""One fresh, pinned process that runs one suite on one model, and what became of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import harness
from harness.bench.job import Assignment
from harness.errors import HarnessError
from harness.host.facts import oom_kills
from harness.store.records import Failure

ROOT = Path(harness.__file__).parent.parent
SUITES = Path(__file__).parent
# Names the assignment's file to the suites, which can thus be run by hand as well.
ASSIGNMENT = "HARNESS_ASSIGNMENT"
# Libraries below numpy must not start threads of their own beside the runtime's.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def measure(
    suite: str, assignment: Assignment, output: Path, timeout_s: float, python: Path | None = None
) -> dict[str, Any] | Failure:
    """Run a suite in a fresh process; its one entry of pytest-benchmark's JSON, which stays in `output`.

    `python` is the interpreter that has the runtime, by default this process's.

    A failure is returned rather than raised, so that the other models go on; what the process printed is then kept
    beside `output` as .log. This process sleeps until the other one ends: it must not disturb it.
    """
    output.unlink(missing_ok=True)
    log = output.with_suffix(".log")
    log.unlink(missing_ok=True)
    assignment.failure.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as folder:
        file = Path(folder) / "assignment.json"
        file.write_text(assignment.model_dump_json(), encoding="utf-8")
        kills_before = oom_kills()
        command = _command(str(python or sys.executable), suite, assignment.cpus, output, folder)
        code, text = _run(command, {ASSIGNMENT: str(file)}, timeout_s)
        if code != 0:
            log.write_text(text, encoding="utf-8")
            return _failure(code, timeout_s, oom_kills() > kills_before, assignment.failure, log)
    try:
        document = json.loads(output.read_text(encoding="utf-8"))
        (entry,) = document["benchmarks"]
    except (OSError, ValueError, KeyError) as error:
        log.write_text(text, encoding="utf-8")
        return Failure(kind="error", message=f"{output}: no single benchmark in it ({error!r}); see {log}")
    return dict(entry)


def runtime_of(python: Path | None, name: str) -> str:
    """What the runtime in an environment says of itself: "onnxruntime 1.16.0". HarnessError where there is none."""
    code = "import onnxruntime; print('onnxruntime', onnxruntime.__version__)"
    command = [str(python or sys.executable), "-c", code]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise HarnessError(
            f"bench.runtimes: {name}: {command[0]} cannot import onnxruntime; run: make setup"
        ) from error


def _command(python: str, suite: str, cpus: list[int], output: Path, store: str) -> list[str]:
    pytest = [
        "-m",
        "pytest",
        str(SUITES / suite),
        "-q",
        "-c",
        os.devnull,
        f"--rootdir={ROOT}",
        "-p",
        "no:cacheprovider",
    ]
    benchmark = ["-p", "pytest_benchmark.plugin", "--benchmark-disable-gc", f"--benchmark-json={output.absolute()}"]
    # Its store is not used, yet made at start: not in the working directory, which may be read-only.
    benchmark.append(f"--benchmark-storage=file://{store}")
    launcher = [python, "-m", "harness.bench.pinned", ",".join(map(str, cpus))]
    return [*launcher, *pytest, *benchmark]


def _run(command: list[str], variables: dict[str, str], timeout_s: float) -> tuple[int | None, str]:
    """Exit status (None after the time-out, negative after a signal) and output of a process, stopped with its kin."""
    # Somebody else's pytest settings and plugins have no place in a measurement.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    search = os.pathsep.join(filter(None, [str(ROOT), inherited.get("PYTHONPATH")]))
    env = {**inherited, **ONE_THREAD, **variables, "PYTHONPATH": search, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    # A session of its own: Ctrl-C reaches this process alone, which then stops the other.
    process = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        errors="replace",
        text=True,
    )
    try:
        # communicate() waits in poll(2) for output to end; wait() would wake up twenty times a second.
        text, _ = process.communicate(timeout=timeout_s)
        return process.returncode, text
    except subprocess.TimeoutExpired:
        _kill(process)
        return None, process.communicate()[0]
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
    try:
        return Failure.model_validate_json(said.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return Failure(kind="error", message=f"the process ended with exit code {code}; see {log}")


def describe(error: BaseException) -> Failure:
    """An exception as a failure: the message for the user if it has one, else its type and first line."""
    text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
    memory = isinstance(error, MemoryError) or "bad_alloc" in text or "Failed to allocate memory" in text
    return Failure(kind="out-of-memory" if memory else "error", message=text)
