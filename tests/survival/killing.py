"""A small run of everything, killed at random moments again and again, and what is left of it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.plan.loading import load_settings
from harness.plan.planning import Plan, make_plan
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, Record, TrainRecord, load, record_path
from tests.command import environment, tiny_matrix

PROFILE = "quick"
# As small as networks and data can be: nearly all of a run's time is in starting processes and writing files.
SMALLEST: dict[str, Any] = {
    "profile__quick__model__width": 0.0625,
    "profile__quick__data__image_size": 8,
    "profile__quick__data__train_images": 60,
    "profile__quick__teacher__batch_size": 20,
    "profile__quick__student__batch_size": 20,
    "profile__quick__pruning__sparse__batch_size": 20,
    "pruning__calibration__images": 40,
    "pruning__calibration__batch_size": 20,
    "dataset__stand_in__test_images": 100,
    "profile__quick__bench__isa": ["host"],
}
KINDS: tuple[type[Record], ...] = (TrainRecord, ExportRecord, AccuracyRecord, LatencyRecord)
# Of a record, what differs from run to run although the model is the same.
PASSING = {"finished_at", "seconds", "environment", "warnings"}
# Whoever is killed may leave a process that has yet to notice.
PATIENCE_S = 60


@dataclass
class Losses:
    """What was lost, made twice or damaged by all kills of a run; each list should stay empty."""

    kills: int = 0
    stops: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)


@dataclass
class Scene:
    """A matrix in a folder, and the commands that make all of it, one after the other."""

    folder: Path
    finished: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path) -> "Scene":
        """With a teacher and one student, and nothing made yet."""
        folder.mkdir(parents=True)
        tiny_matrix(folder, ["base"], **SMALLEST)
        return cls(folder)

    @property
    def plan(self) -> Plan:
        """What is to be made."""
        settings = load_settings(self.folder / "matrix.toml", PROFILE)
        return make_plan(settings, PROFILE, settings.data.dataset)

    @property
    def commands(self) -> list[list[str]]:
        """Train, export a file of one's own, measure, report."""
        weights = self.weights()
        export = ["export", "--torch-file", str(weights), "--out-file", "own.onnx", "--profile", PROFILE]
        return [["train-matrix", "--profile", PROFILE], export, *([verb, "--profile", PROFILE] for verb in VERBS)]

    def weights(self) -> Path:
        """The student's."""
        cell = self.plan.cells[-1]
        return cell.artifacts(Path("artifacts"), PROFILE) / "weights.safetensors"

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """A command in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *command],
            cwd=self.folder,
            env={**environment(self.folder / "data"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: Sequence[str]) -> str:
        """A command to its end; its output. AssertionError where it fails."""
        process = self.start(command)
        text, _ = process.communicate()
        assert process.returncode == 0, f"{' '.join(command)}: exit code {process.returncode}\n{text}"
        return text

    def records(self) -> dict[str, Record]:
        """Every record in its place, by its file; HarnessError where one is not whole."""
        results, plan = self.folder / "results", self.plan
        found = {}
        for cell in plan.cells:
            for kind in KINDS:
                for condition in plan.settings.bench.conditions if kind is LatencyRecord else [""]:
                    path = record_path(results, PROFILE, kind.stage, cell.id, condition)
                    if path.exists():
                        found[path.relative_to(results).as_posix()] = load(path, kind)
        return found

    def outcome(self) -> dict[str, Any]:
        """What everything has come to, less what differs from run to run: times, and what follows from them."""
        found: dict[str, Any] = {}
        for file, record in self.records().items():
            document = record.model_dump(mode="json", exclude=PASSING)
            for epoch in document.get("epochs", []):
                del epoch["images_per_s"]
            found[file] = {"key": document["key"], "status": document["status"]} if "latency" in file else document
        return found


VERBS = ("bench", "report")


def durations(scene: Scene) -> dict[str, float]:
    """How long each command takes where nothing disturbs it, in seconds; everything is made afterwards."""
    found = {}
    for command in scene.commands:
        started = time.monotonic()
        scene.run(command)
        found[command[0]] = time.monotonic() - started
    return found


def endure(
    scene: Scene,
    seconds: Mapping[str, float],
    drawn: random.Random,
    losses: Losses,
    signals: Sequence[signal.Signals],
    most_a_command: int = 3,
) -> None:
    """Make everything while each command is killed up to so often, at moments drawn evenly from what it takes."""
    for command in scene.commands:
        for _ in range(most_a_command):
            number = drawn.choice(signals)
            if not _hit(scene, command, drawn.uniform(0, seconds[command[0]]), number, losses):
                break
            losses.kills += number == signal.SIGKILL
            losses.stops += number != signal.SIGKILL
            look(scene, losses)
        else:
            _until_free(scene, command, losses)
            look(scene, losses)


def _hit(scene: Scene, command: Sequence[str], after_s: float, number: signal.Signals, losses: Losses) -> bool:
    """Start a command and send it a signal; whether that met it before its end."""
    process = scene.start(command)
    try:
        text, _ = process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, number)
        text, _ = process.communicate()
    if "Traceback" in text:
        losses.tracebacks.append(f"{command[0]} after {after_s:.2f} s by {number.name}: {text[-600:]}")
    return process.returncode != 0


def _until_free(scene: Scene, command: Sequence[str], losses: Losses) -> None:
    """A command to its end, as soon as whatever a kill has left lets go of the lock."""
    until = time.monotonic() + PATIENCE_S
    while True:
        process = scene.start(command)
        text, _ = process.communicate()
        if process.returncode == 0:
            return
        if "another run" not in text or time.monotonic() > until:
            losses.lost.append(f"{command[0]}: exit code {process.returncode}: {text[-600:]}")
            return


def look(scene: Scene, losses: Losses) -> None:
    """Whether every record is whole, and what was finished before is still there and was not made again."""
    try:
        records = scene.records()
    except HarnessError as error:
        losses.corrupt.append(str(error))
        return
    # A bench measures all latencies anew, and may.
    done = {file: one.finished_at for file, one in records.items() if one.status == "done" and "latency" not in file}
    for file, moment in scene.finished.items():
        if file not in done:
            losses.lost.append(f"{file} was done at {moment}")
        elif done[file] != moment:
            losses.duplicated.append(f"{file} was done at {moment}, and again at {done[file]}")
    scene.finished = done


def differences(undisturbed: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The files in which two outcomes differ."""
    return sorted(name for name in {*undisturbed, *found} if undisturbed.get(name) != found.get(name))


def leftovers(folder: Path) -> list[str]:
    """Temporary files that nobody will ever take up."""
    return [path.name for path in folder.rglob(".*.*") if path.is_file() and path.name.count(".") > 2]


def with_quiet_start(make: Callable[[], Scene]) -> tuple[Scene, dict[str, float]]:
    """A scene that nothing has disturbed, and how long its commands took."""
    scene = make()
    return scene, durations(scene)


def as_text(losses: Losses) -> str:
    """What went wrong, for people."""
    return json.dumps(
        {name: getattr(losses, name) for name in ("lost", "duplicated", "corrupt", "tracebacks")}, indent=1
    )
