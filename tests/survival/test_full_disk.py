"""A disk that is full, at whichever write that is: a small one in memory, which only the tested process sees."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.datasets import save_testset
from harness.datasets.stand_in import draw
from tests.command import environment, harness
from tests.documents import ROOT
from tests.finished import finish
from tests.survival.killing import leftovers

ALONE = ["unshare", "--mount", "--map-root-user"]
# Copies a finished profile onto the small disk, leaves so many kilobytes, and runs a command there.
ON_THE_DISK = """
set -e
mount -t tmpfs -o size=3m tmpfs "$2"
cp -a "$1/." "$2"; cd "$2"; mkdir tmp; export TMPDIR="$2/tmp"
free=$(df --output=avail -k . | tail -1)
head -c $(( (free - $3) * 1024 )) /dev/zero > filler
shift 3
code=0; "$@" || code=$?
rm filler; cd /
tar -C "$OLDPWD" -cf "$TAKEN" .
exit $code
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    can = subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    if not can:
        pytest.skip("this user may not mount a small disk of its own (unshare --mount --map-root-user)")
    folder = tmp_path_factory.mktemp("finished")
    bench = finish(folder)
    save_testset(bench.artifacts / "lite/testset-cifar100.npz", draw(10, seed=0))
    (folder / "matrix.toml").write_bytes((ROOT / "matrix.toml").read_bytes())
    (folder / "elsewhere").mkdir()
    (folder / "results").rename(folder / "elsewhere/results")
    return folder


@pytest.mark.parametrize(
    ("verb", "kilobytes"), [("merge", 0), ("merge", 60), ("report", 0), ("report", 60), ("bench", 0), ("bench", 60)]
)
def test_what_finds_no_room_is_one_line_and_nothing_is_half_written(
    finished: Path, tmp_path: Path, verb: str, kilobytes: int
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    given = ["elsewhere/results"] if verb == "merge" else ["--results", "elsewhere/results"]
    command = [sys.executable, "-m", "harness", verb, *given, "--profile", "lite"]
    done = subprocess.run(
        [*ALONE, "sh", "-c", ON_THE_DISK, "sh", str(finished), str(disk), str(kilobytes), *command],
        env={**environment(), "TAKEN": str(tmp_path / "taken.tar")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    *_, last = done.stderr.strip().splitlines()
    assert last.lower().startswith("error: ") and ("space" in last or "MiB are free" in last), last
    assert "Traceback" not in done.stderr
    subprocess.run(["tar", "-C", str(disk), "-xf", str(tmp_path / "taken.tar")], check=True)
    for path in disk.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    assert not leftovers(disk)
    # nothing is merged in part
    assert not list(disk.glob("results/lite/*/*.json"))
    again = harness(disk, verb if verb != "bench" else "check", *given, "--profile", "lite")
    assert again.returncode in (0, 1) and "Traceback" not in again.stderr, again.stderr
