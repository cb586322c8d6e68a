"""What the two suites share. They run in a process of their own (process.py), never with the project's tests.

By hand: HARNESS_ASSIGNMENT=file.json python -m pytest harness/bench/latency_suite.py
"""

import os
from pathlib import Path
from typing import Any

import pytest

from harness.bench.job import Assignment, read
from harness.bench.process import ASSIGNMENT, describe
from harness.errors import HarnessError
from harness.host.facts import environment


def _assignment() -> Assignment:
    name = os.environ.get(ASSIGNMENT)
    if not name:
        raise HarnessError(f"{ASSIGNMENT} is not set; it names the JSON file that says what to measure")
    return read(Path(name), Assignment)


@pytest.fixture
def assignment() -> Assignment:
    """What this process is to measure."""
    return _assignment()


def pytest_exception_interact(call: pytest.CallInfo[None]) -> None:
    """Leave the reason of a failure for the parent, which cannot read it out of pytest's prose."""
    if call.excinfo is not None:
        _assignment().failure.write_text(describe(call.excinfo.value).model_dump_json(), encoding="utf-8")


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_generate_machine_info() -> dict[str, Any]:
    """Our facts in place of py-cpuinfo's, which take a second of CPU time per process to find."""
    return {"node": "", "cpu": {}, **environment(_assignment().cpus)}


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_generate_commit_info() -> dict[str, Any]:
    """The revision that the job names, rather than asking git once per process."""
    return {"id": _assignment().harness_revision, "dirty": False}
