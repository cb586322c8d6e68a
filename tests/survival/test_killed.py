"""What is left by processes that were killed while they wrote. `make benchmarks SUBJECT=survival` kills whole runs."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.files import sweep
from harness.store.lock import alone
from harness.store.paths import Paths
from harness.store.records import TrainRecord, load
from tests.command import environment
from tests.documents import ROOT
from tests.finished import finish
from tests.survival.killing import leftovers

KILLS = 12
# Writes one record again and again, each time with other seconds.
WRITER = """
import sys
from itertools import count
from pathlib import Path
from harness.store.records import TrainRecord, load, save
path = Path(sys.argv[1])
record = load(path, TrainRecord)
print("started", flush=True)
for number in count():
    save(path.parents[2], record.model_copy(update={"seconds": float(number)}))
"""


def test_a_record_is_whole_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    bench = finish(tmp_path)
    path, drawn = bench.path(TrainRecord), random.Random(0)
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], env=environment(), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout and process.stdout.readline() == "started\n"
        time.sleep(drawn.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert load(path, TrainRecord).status == "done"
    sweep(path.parent)
    assert not leftovers(bench.results)


def test_what_a_killed_writer_leaves_counts_for_nothing_and_is_swept_away(tmp_path: Path) -> None:
    bench = finish(tmp_path)
    path = bench.path(TrainRecord)
    before = {place: place.read_bytes() for place in bench.results.rglob("*") if place.is_file()}
    for name in (f".{path.name}.ab12cd_9.json", f".{path.name}.zzzzzzzz.json"):
        path.with_name(name).write_bytes(path.read_bytes()[:100])
    bench.onnx().with_name(".weights.safetensors.ab12cd_9.safetensors").write_bytes(b"half")
    with alone(Paths(bench.results, bench.artifacts, tmp_path / "data"), bench.plan.profile):
        pass
    assert {place: place.read_bytes() for place in bench.results.rglob("*") if place.is_file()} == before
    assert not leftovers(bench.artifacts)


def test_what_is_being_written_and_what_is_somebody_elses_is_not_swept_away(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("._x.json", ".x.json", ".git.config", "x.json", ".a.TOOLONG12.json")]
    for path in kept:
        path.write_text("kept")
    code = (
        "import sys; from pathlib import Path; from harness.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    print(temporary, flush=True); sys.stdin.read(); temporary.write_text('whole')\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "y.json")],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout
    temporary = Path(writer.stdout.readline().strip())
    sweep(tmp_path)
    assert temporary.exists() and all(path.read_text() == "kept" for path in kept)
    writer.communicate("")
    assert writer.returncode == 0 and (tmp_path / "y.json").read_text() == "whole"


def test_a_link_in_a_temporary_files_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / ".x.json.ab12cd_9.json").symlink_to(tmp_path / "precious")
    os.mkfifo(tmp_path / ".y.json.ab12cd_9.json")
    sweep(tmp_path)
    assert (tmp_path / "precious").read_text() == "kept"


def test_records_say_nothing_of_the_user_or_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are published: what the environment and the machine know of their user must not be in them."""
    from harness.bench.bench_run import run
    from tests.bench_kit import Workshop

    secret = "s3cr3t-7f1e"
    for name in ("HARNESS_TOKEN", "AWS_SECRET_ACCESS_KEY", "USER", "LOGNAME", "HOSTNAME", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("HOME", str(tmp_path / secret))
    workshop = Workshop(tmp_path)
    broken = workshop.model("broken")
    broken.onnx.write_bytes(b"no model")
    job = workshop.job(workshop.model("student"), broken)
    run(job)
    written = [path for path in job.results.rglob("*") if path.suffix == ".json"]
    assert len(written) == 5
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert secret not in text and str(tmp_path) not in text and str(ROOT) not in text, path
        assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text), path
        json.loads(text)
