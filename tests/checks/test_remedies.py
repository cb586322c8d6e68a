"""Every remedy that is a command, followed as it is printed, in rounds that each plant many faults at once."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.checks.catalogue import STRICT, Finding, run_checks
from harness.checks.evidence import Recount, read_evidence
from harness.cli import app
from harness.commands.scope import Scope
from harness.model_files.recount import of_onnx, of_weights
from harness.store.paths import answers_file
from harness.store.records import AccuracyRecord, ExportRecord, Failure, Interval, LatencyRecord, Record, TrainRecord
from tests.checks.faults_of_the_chain import OLD_KEY, swap
from tests.checks.planted import TEACHER, Bench
from tests.documents import ROOT

BASE, GRAM = "p0.3-l1-base-s0", "p0.3-l1-gram-s0"
OTHER = "f" * 64
# What has to be changed first, or at all, is in matrix.toml.
NO_COMMAND = {"chance-accuracy", "pruned-otherwise", "above-teacher", "slower-than-teacher", "wide-interval"}
# A machine that is busy while these tests run may give them reasons of its own.
OF_THE_MACHINE = {"control-off", "unusable-interval", "throttled-run", "stolen-run"}

pytestmark = pytest.mark.usefixtures("few_images")


@dataclass(frozen=True)
class Home(Bench):
    """The finished matrix in a working directory of its own, with what the checks say of it."""

    def findings(self) -> list[Finding]:
        evidence = read_evidence(self.plan, self.results, self.artifacts, Recount(of_weights, of_onnx))
        return run_checks(evidence, STRICT)

    @property
    def condition(self) -> str:
        """The only one."""
        return self.plan.settings.bench.conditions[0]

    def latency(self, cell: str, **fields: Any) -> None:
        self.change(LatencyRecord, cell, self.condition, **fields)

    def latencies_in(self, cell: str, **facts: Any) -> None:
        self.environment(LatencyRecord, cell, self.condition, **facts)

    def processes_of(self, cell: str, **fields: Any) -> None:
        processes = self.get(LatencyRecord, cell, self.condition).processes
        self.latency(cell, processes=[process.model_copy(update=fields) for process in processes])


@pytest.fixture
def home(finished_matrix: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    home = tmp_path / "home"
    shutil.copytree(finished_matrix.matrix.parent, home)
    monkeypatch.chdir(home)
    monkeypatch.setenv("RUNNER", "local")
    monkeypatch.delenv("DATA_DIR", raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Home(finished_matrix.plan(), Path("results"), Path("artifacts"))
    for number, handler in handlers.items():
        signal.signal(number, handler)


def follow(line: str) -> None:
    """Run the command that a remedy ends in: `rm` as it is, and of `make` what it would run of the harness."""
    for command in line.split(" && "):
        program, *arguments = shlex.split(command)
        if program == "rm":
            subprocess.run([program, *arguments], check=True)
        else:
            assert program == "make"
            for run in of_harness(arguments):
                result = CliRunner().invoke(app, run)
                assert result.exit_code == 0, f"{run}: {result.output}{result.exception!r}"


def of_harness(arguments: list[str]) -> list[list[str]]:
    """The verbs of the harness with their options, as the Makefile calls them for these arguments."""
    variables = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    command = ["make", "-n", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [shlex.split(line.partition(" -m harness ")[2]) for line in lines if " -m harness " in line]


# --- Faults of models -------------------------------------------------------------------------------------------------

Plants = dict[str, Callable[[Home], object]]


def failed(home: Home) -> None:
    failure = Failure(kind="diverged", message="loss is nan in epoch 1")
    home.change(TrainRecord, GRAM, status="failed", failure=failure, weights_sha256=None)


def respecified(home: Home, kind: type[Record], cell: str) -> None:
    home.change(kind, cell, spec={**home.get(kind, cell).spec, "seed": 9})


def pruning(home: Home, cell: str, **changes: Any) -> None:
    home.change(TrainRecord, cell, pruning=home.get(TrainRecord, cell).pruning.model_copy(update=changes))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def same_weights(home: Home) -> None:
    for kind in (TrainRecord, ExportRecord):
        home.change(kind, BASE, weights_sha256=home.get(TrainRecord, GRAM).weights_sha256)
    home.weights(BASE).unlink()


# Those of one round concern different cells. Trained again, a model is the same to the bit, so that only the last of
# these rounds measures anything.
OF_MODELS: list[Plants] = [
    {
        "unreadable-record": lambda home: cut_short(home.path(TrainRecord, BASE)),
        "missing-record": lambda home: home.path(ExportRecord, GRAM).unlink(),
    },
    {
        "stale-key": lambda home: home.change(TrainRecord, BASE, key=OLD_KEY),
        "failed-stage": failed,
    },
    {
        "wrong-key": lambda home: respecified(home, TrainRecord, BASE),
        "false-figure": lambda home: pruning(home, GRAM, params_after=1),
    },
    {
        "other-teacher": lambda home: home.change(TrainRecord, BASE, teacher_sha256=OTHER),
        "changed-file": lambda home: cut_short(home.onnx(GRAM)),
    },
    {
        "broken-chain": lambda home: home.change(ExportRecord, BASE, weights_sha256=OTHER),
        "denormal-weights": lambda home: home.change(ExportRecord, GRAM, denormal_weights=7),
    },
    {
        "changed-weights": lambda home: cut_short(home.weights(BASE)),
        "parity-lost": lambda home: home.change(ExportRecord, GRAM, parity_max_abs_diff=1e3),
    },
    {
        "other-model": lambda home: home.change(ExportRecord, GRAM, onnx_bytes=1),
        "other-torch-figures": lambda home: home.change(TrainRecord, BASE, accuracy_pct=60.0),
    },
    {
        "other-predictions": lambda home: home.change(AccuracyRecord, GRAM, predictions_sha256=OTHER),
        "other-labels": lambda home: home.change(AccuracyRecord, TEACHER, labels_sha256=OTHER),
    },
    {
        "mixed-training": lambda home: home.environment(TrainRecord, BASE, device="Another GPU"),
        "swapped-models": lambda home: swap(home.path(AccuracyRecord, BASE), home.path(AccuracyRecord, GRAM)),
    },
    {
        "code-changed": lambda home: home.change(
            TrainRecord, GRAM, code={**home.get(TrainRecord, GRAM).code, "method gram": "0" * 64}
        ),
        "changed-answers": lambda home: answers_file(home.weights(BASE).parent).write_bytes(b"cut short"),
    },
    {"duplicate-model": same_weights},
]

# --- Faults of measurements -------------------------------------------------------------------------------------------


def in_the_whole_run(home: Home, **facts: Any) -> None:
    for cell in home.plan.cells:
        home.latencies_in(cell.id, **facts)


def cut_interval(home: Home, cell: str) -> None:
    # three blocks are too few for an interval of the latency itself
    control = home.get(LatencyRecord, cell, home.condition).control_ratio
    assert control and control.bounds
    home.latency(cell, control_ratio=control.model_copy(update={"low": control.bounds[0] * 0.999}))


def one_process_less(home: Home, cell: str) -> None:
    home.latency(cell, processes=home.get(LatencyRecord, cell, home.condition).processes[:2])


def of_no_use(home: Home, cell: str) -> None:
    value = home.get(LatencyRecord, cell, home.condition).ratio_to_teacher.value
    home.latency(cell, ratio_to_teacher=Interval(value=value, low=value / 2, high=value * 2))


OF_MEASUREMENTS: list[Plants] = [
    {
        "wrong-threads": lambda home: home.latency(BASE, threads=0),
        "wrong-cpuset": lambda home: home.latencies_in(GRAM, measured_cpus=[4095]),
        "repeated-input": lambda home: home.processes_of(BASE, distinct_inputs=1),
        "impossible-latency": lambda home: home.latency(GRAM, latency_ms=None),
        "throttled-run": lambda home: in_the_whole_run(home, nr_throttled=17),
        "stolen-run": lambda home: in_the_whole_run(home, steal_pct=77.0),
        "open-container": lambda home: home.latencies_in(BASE, enclosure={}),
        "missing-teacher": lambda home: home.latency(GRAM, ratio_to_teacher=None),
        "control-off": lambda home: home.latency(TEACHER, control_ratio=None),
        "mixed-machines": lambda home: home.latencies_in(BASE, cpu="Another CPU"),
        "mixed-runs": lambda home: home.latencies_in(GRAM, run="run-0"),
        "mixed-test-images": lambda home: home.change(AccuracyRecord, BASE, testset_sha256=OTHER),
        "mixed-accuracy-machines": lambda home: home.environment(AccuracyRecord, GRAM, cpu="Another CPU"),
        "differs-from-torch": lambda home: home.change(AccuracyRecord, BASE, accuracy_pct=99.0),
        "other-answers": lambda home: home.change(AccuracyRecord, GRAM, agreement_pct=10.0),
        "other-samples": lambda home: home.processes_of(TEACHER, peak_rss_bytes=1),
    },
    {
        "wrong-runtime": lambda home: home.latency(BASE, runtime="onnxruntime 1.0.0"),
        "wrong-instruction-set": lambda home: home.latency(GRAM, instruction_set=None),
        "too-few-samples": lambda home: one_process_less(home, GRAM),
        "mixed-images": lambda home: home.latencies_in(BASE, image="sha256:0123"),
        "impossible-accuracy": lambda home: home.change(AccuracyRecord, BASE, accuracy_pct=None),
        "false-interval": lambda home: cut_interval(home, TEACHER),
        "other-history": lambda home: in_the_whole_run(home, harness_revision="another"),
        "unusable-interval": lambda home: of_no_use(home, BASE),
    },
]


@pytest.mark.parametrize("plants", [*OF_MODELS, *OF_MEASUREMENTS], ids=lambda plants: " ".join(plants))
def test_a_remedy_that_is_followed_ends_with_the_check_content(home: Home, plants: Plants) -> None:
    before = home.findings()
    for plant in plants.values():
        plant(home)
    found = [finding for finding in home.findings() if finding not in before]
    planted = [finding for finding in found if finding.check in plants]
    assert {finding.check for finding in planted} == plants.keys()
    commands = [finding.remedy.partition("run: ")[2] for finding in planted]
    assert all(commands)
    for command in dict.fromkeys(commands):
        follow(command)
    after = home.findings()
    assert not [finding for finding in after if finding in planted]
    assert not {finding.check for finding in after if finding not in before} & (plants.keys() - OF_THE_MACHINE)


def test_every_remedy_is_followed_or_is_no_command() -> None:
    followed = {check for plants in (*OF_MODELS, *OF_MEASUREMENTS) for check in plants}
    assert followed | NO_COMMAND == {check.name for check in STRICT}
    assert not followed & NO_COMMAND
