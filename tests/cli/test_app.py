import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness import __version__
from harness.cli import VERBS, app
from harness.errors import HarnessError
from harness.store.revision import revision
from tests.command import CIFAR, environment, harness, invoked, tiny_matrix
from tests.documents import PROFILES, ROOT

MODULES_THAT_HELP_NEEDS_NOT = ("torch", "numpy", "pydantic", "rich", "onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place to work in, with a tiny matrix and an empty DATA_DIR."""
    (tmp_path / "empty").mkdir()
    tiny_matrix(tmp_path, ["base"])
    return tmp_path


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['harness', '--help']\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {MODULES_THAT_HELP_NEEDS_NOT} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert all(verb in done.stdout for verb in ("plan", "train-matrix", "bench", "report", "export", "test"))


def test_the_version_is_that_of_the_package_and_its_revision() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"harness {__version__} ({revision()})\n")


@pytest.mark.parametrize("verb", [[], *([verb.__name__.replace("_", "-")] for verb in VERBS)], ids=" ".join)
def test_every_verb_has_help_by_either_name(verb: list[str]) -> None:
    short, long = (CliRunner().invoke(app, [*verb, option]) for option in ("-h", "--help"))
    assert short.exit_code == long.exit_code == 0
    assert short.stdout == long.stdout and "-h, --help" in short.stdout


def test_a_shell_completes_verbs_whatever_started_the_harness() -> None:
    command = [sys.executable, "-m", "harness"]
    # what typer installs calls the program as it was called, with this in its environment
    asked = {"_HARNESS_COMPLETE": "complete_bash", "COMP_WORDS": "bin/harness train", "COMP_CWORD": "1"}
    done = subprocess.run(command, env={**environment(), **asked}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["train-matrix", "train"], done.stderr


def test_planning_loads_no_torch(folder: Path) -> None:
    script = (
        "import sys; sys.argv = ['harness', 'plan', '--profile', 'quick']\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), cwd=folder, capture_output=True, check=True)


@pytest.mark.parametrize("verb", ["plan", "status", "check"])
def test_json_is_one_document(folder: Path, verb: str) -> None:
    done = invoked(folder, verb, "--profile", "quick", "--json")
    assert json.loads(done.stdout)["profile"] == "quick"


def test_the_plan_shows_cells_states_and_what_would_run(folder: Path) -> None:
    text = invoked(folder, "plan", "--profile", "quick").stdout
    assert "P(0.3_BN)_KD(0)_SEED(0)" in text
    assert "train 2 epochs of the teacher" in text and "distil 1 student," in text


def other_network(folder: Path) -> str:
    import torch
    import torchvision

    torch.save(torchvision.models.mobilenet_v2(num_classes=100).state_dict(), folder / "mobilenet.pt")
    return "mobilenet.pt"


def cut_short(folder: Path, name: str) -> str:
    # a length of many bytes, and then none of them: cut short to protobuf and to safetensors alike
    (folder / name).write_bytes(b"\x3a\xff\x7f")
    return name


def damaged_data(folder: Path) -> list[str]:
    """`train-matrix` over a CIFAR-100 of which every file is cut short."""
    tiny_matrix(folder, ["base"], profile__quick__data__dataset="cifar100")
    data = folder / "empty" / CIFAR
    data.mkdir()
    for name in ("train", "test", "meta"):
        (data / name).write_bytes(b"short")
    return ["train-matrix", "--profile", "quick"]


def edited(old: str, new: str) -> Callable[[Path], list[str]]:
    """`plan` with one word of matrix.toml replaced."""

    def prepare(folder: Path) -> list[str]:
        path = folder / "matrix.toml"
        text = (ROOT / "matrix.toml").read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        return ["train-matrix", "--profile", "quick"]

    return prepare


def one_model(*options: str) -> list[str]:
    return ["train", "--profile", "quick", "--outp-dir", "out", *options]


BAD = {
    "an unknown key": (edited("width = 1.0", "widht = 1.0"), ["matrix.toml", "model.widht", "width"]),
    "an unknown value": (edited('stem = "cifar"', 'stem = "tiny"'), ["model.stem", "'cifar' or 'imagenet'"]),
    "an impossible ratio": (edited("prune_amount = [0.4]", "prune_amount = [1.4]"), ["prune_amount", "1.4"]),
    "an unknown profile": (
        lambda _: ["plan", "--profile", "huge"],
        ["'huge'", ", ".join(PROFILES)],
    ),
    "an unknown experiment": (
        lambda _: ["plan", "--profile", "quick", "--experiment", "none"],
        ["'none'", "prune-0.3"],
    ),
    "no matrix": (lambda _: ["plan", "--matrix", "other.toml"], ["other.toml", "--matrix"]),
    "no data": (lambda _: ["train-matrix", "--profile", "lite"], ["empty", "DATA_DIR"]),
    "damaged data": (damaged_data, ["not the official file", f"empty/{CIFAR}"]),
    "an unknown KD method": (lambda _: one_model("--kd-method", "9"), ["--kd-method 9", "3 (gram)"]),
    "an unknown pruning method": (lambda _: one_model("--prune-method", "x"), ["'x'", "bn, gn, l1, random"]),
    "an unknown choice about changed code": (
        lambda _: ["train-matrix", "--profile", "quick", "--code", "ask"],
        ["--code ask", "refuse, redo, keep"],
    ),
    "a model to make again that is not planned": (
        lambda _: ["train-matrix", "--profile", "quick", "--redo", "none"],
        ["'none'", "plan --json"],
    ),
    "a missing checkpoint": (lambda _: one_model("--orig-model", "none.pt"), ["none.pt", "no such checkpoint"]),
    "a corrupt checkpoint": (
        lambda folder: one_model("--orig-model", cut_short(folder, "torn.safetensors")),
        ["torn.safetensors", "cut short"],
    ),
    "another architecture": (
        lambda folder: one_model("--orig-model", other_network(folder)),
        ["mobilenet.pt", "known: ResNet18, ResNet50"],
    ),
    "a truncated ONNX file": (
        lambda folder: ["test", "--onnx-file", cut_short(folder, "torn.onnx"), "--profile", "quick"],
        ["torn.onnx", "export it again"],
    ),
    "a missing ONNX file": (lambda _: ["test", "--onnx-file", "none.onnx"], ["none.onnx", "no such file"]),
    "nothing to bench": (lambda _: ["bench", "--profile", "quick"], ["make train-matrix PROFILE=quick"]),
    "a bad budget": (lambda _: ["train-matrix", "--profile", "quick", "--budget", "9"], ["--budget '9'", "9m"]),
    "a bad budget for everything": (lambda _: ["results", "--profile", "quick", "--budget", "9"], ["--budget '9'"]),
    "an unknown cell": (lambda _: ["train-matrix", "--profile", "quick", "--cell", "none"], ["'none'", "plan --json"]),
    "nothing to merge": (lambda _: ["merge", "empty", "--profile", "quick"], ["empty", "no records of profile quick"]),
    "nothing to unpack": (lambda _: ["unpack", "empty", "--profile", "quick"], ["empty", "manifest.json"]),
    "nothing to pack": (lambda _: ["pack", "--profile", "quick"], ["no trained weights here", "'all'"]),
    "half of an ONNX file": (lambda _: ["pack", "--half", "--onnx", "--profile", "quick"], ["--half --onnx"]),
    "a device that is none": (
        lambda _: ["train-matrix", "--profile", "quick", "--devices", "gpu"],
        ["--devices gpu", "cpu or cuda:N"],
    ),
    "a results folder below a file": (
        lambda _: ["train-matrix", "--profile", "quick", "--results", "matrix.toml/results"],
        ["matrix.toml", "writable"],
    ),
    "an artifacts folder below a file": (
        lambda _: ["train-matrix", "--profile", "quick", "--artifacts", "matrix.toml/artifacts"],
        ["matrix.toml", "writable"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_nothing_is_written(folder: Path, case: str) -> None:
    prepare, wanted = BAD[case]
    arguments = prepare(folder)
    before = sorted(folder.rglob("*"))
    done = invoked(folder, *arguments, data=folder / "empty")
    assert done.returncode == 2, done
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and all(word in line for word in wanted), line
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("orig_model", [[], ["--orig-model", "none.pt"]])
def test_options_of_a_student_are_said_to_have_no_effect_on_a_teacher(folder: Path, orig_model: list[str]) -> None:
    options = ["--prune-amount", "0.5", "--kd-method", "gram", "--seed", "3", *orig_model]
    # a size that is refused, so that nothing is trained
    done = CliRunner().invoke(app, [*one_model("--image-size", "4"), "--matrix", str(folder / "matrix.toml"), *options])
    assert isinstance(done.exception, HarnessError)
    said = "Without --orig-model it is the teacher that is trained: --prune-amount, --kd-method can have no effect."
    assert (said in " ".join(done.stdout.split())) == (not orig_model)


THE_TEACHER = ("train-matrix", "--profile", "quick", "--cell", "teacher-s0")
# Long enough to be stopped in, with a network that is soon trained on from there.
LONG: dict[str, Any] = {"profile__quick__teacher__epochs": 6, "profile__quick__model__width": 0.0625}


def started(folder: Path) -> subprocess.Popen[str]:
    """A training that takes long enough to be stopped, and is at it."""
    tiny_matrix(folder, ["base"], **LONG)
    command = [sys.executable, "-m", "harness", "train-matrix", "--profile", "quick"]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder / "empty"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        # not one that only says how far it has come
        if "epoch 1 of 6  loss" in line:
            return process
    raise AssertionError("training did not begin")


def test_ctrl_c_keeps_the_work_and_says_how_to_resume(folder: Path) -> None:
    process = started(folder)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command resumes from here" in text and "Traceback" not in text
    checkpoints = list(folder.rglob("checkpoint.pt"))
    assert len(checkpoints) == 1
    again = invoked(folder, *THE_TEACHER, data=folder / "empty")
    assert again.returncode == 0, again.stderr
    assert "epoch 1 of 6" not in again.stdout and "epoch 6 of 6" in again.stdout


def test_nothing_is_merged_into_a_training_and_a_kill_costs_it_no_more_than_the_time_since_the_last_checkpoint(
    folder: Path,
) -> None:
    record = folder / "elsewhere/quick/train/teacher-s0.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    process = started(folder)
    done = invoked(folder, "merge", "elsewhere", "--profile", "quick")
    process.kill()
    process.communicate(timeout=60)
    assert done.returncode == 2 and "another run is training, measuring, merging or unpacking" in done.stderr
    again = invoked(folder, *THE_TEACHER, data=folder / "empty")
    assert again.returncode == 0, again.stderr
    assert not list(folder.rglob(".*.json.*"))


def test_a_budget_ends_the_run_cleanly(folder: Path) -> None:
    tiny_matrix(folder, ["base"], profile__quick__teacher__epochs=4000)
    started_at = time.monotonic()
    done = harness(folder, "train-matrix", "--profile", "quick", "--budget", "10s", data=folder / "empty")
    assert done.returncode == 0 and "The budget is used up" in done.stdout
    assert time.monotonic() - started_at < 30
    assert list(folder.rglob("checkpoint.pt"))
