"""A bench that is stopped, killed or started twice."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.bench.job import Job
from harness.errors import HarnessError
from harness.store.lock import alone
from harness.store.paths import Paths
from harness.store.records import record_path
from tests.bench_kit import SETTINGS, Workshop
from tests.command import environment

CURRENT = "onnxruntime-current"


def of_folder(folder: Path) -> list[int]:
    """The processes that have a folder in their command line or their assignment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        # processes come and go
        with contextlib.suppress(OSError):
            if str(folder).encode() in (place / "cmdline").read_bytes() and int(place.name) != os.getpid():
                found.append(int(place.name))
    return found


@pytest.fixture
def running(workshop: Workshop) -> Iterator[tuple[subprocess.Popen[str], Job, Paths]]:
    """A bench that is measuring, in a process of its own and under the profile's lock, as the command line runs it."""
    settings = {**SETTINGS, "minutes_per_model": 5.0, "precision_pct": 0.001, "sampling_s": 0.2}
    job = workshop.job(workshop.model("student"), settings=settings)
    (workshop.folder / "job.json").write_text(job.model_dump_json())
    paths = Paths(job.results, workshop.folder / "artifacts", workshop.folder / "data")
    code = (
        "import sys; from pathlib import Path; from harness.bench.job import Job, read\n"
        "from harness.commands.bench_job import run_bench; from harness.store.lock import alone\n"
        "from harness.store.paths import Paths\n"
        "job, folder = read(Path(sys.argv[1]), Job), Path(sys.argv[1]).parent\n"
        "with alone(Paths(job.results, folder / 'artifacts', folder / 'data'), job.profile) as lock:\n"
        "    sys.exit(run_bench(job.model_copy(update={'pythons': {CURRENT: Path(sys.executable)}}), lock))\n"
    ).replace("CURRENT", repr(CURRENT))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(workshop.folder / "job.json")],
        env={**environment(), "TMPDIR": str(workshop.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    eventually(lambda: list(job.raw.glob("latency-block000-student*.json")), "nothing was measured")
    yield process, job, paths
    process.kill()
    process.communicate()


def eventually(condition: Callable[[], Any], what: str, within_s: float = 60) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def test_two_benches_of_a_profile_do_not_meet(running: tuple[subprocess.Popen[str], Job, Paths]) -> None:
    _, job, paths = running
    with pytest.raises(HarnessError, match=r"another run is training, measuring, .*; wait for it or stop it"):
        alone(paths, job.profile).__enter__()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_bench_that_is_ended_measures_no_more_and_lets_go_of_its_lock(
    running: tuple[subprocess.Popen[str], Job, Paths], number: signal.Signals
) -> None:
    process, job, paths = running
    accuracy = record_path(job.results, job.profile, "accuracy", "student")
    before = accuracy.read_bytes()
    process.send_signal(number)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), text
    assert "Traceback" not in text
    folder = job.results.parent
    eventually(lambda: not of_folder(folder), f"still there: {of_folder(folder)}", within_s=15)
    with alone(paths, job.profile):
        pass
    assert accuracy.read_bytes() == before
    # what was not finished is not on record
    assert not list(job.results.glob("*/latency/*/*.json"))
