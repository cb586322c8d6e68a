"""A scratch checkout in which a document's commands are typed, and the files that the documents speak of.

It is a clone of this working tree with this one's environments, so that `make setup` finds nothing to do. So that a
command takes seconds, its matrix.toml has the profiles that the documents name in small: fewer models, epochs, images
and samples. DATA_DIR holds drawn images of three classes, as a data set of one's own (`image_folder`): for CIFAR-100
the harness takes nothing but the official files.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from PIL import Image

from tests.datasets.test_image_folder import parameters
from tests.docs_commands.blocks import Command, blocks
from tests.documents import DOCUMENT, ROOT, as_toml, put
from tests.onnx_zoo import network, qdq

# The tables of each profile: those of lite are in README.md and docs/results.md, and `seeds` has whatever students the
# commands of a page name.
PROFILES = {"quick": ["prune-0.3"], "lite": ["prune-0.3", "prune-0.4"], "full": ["prune-0.3"], "reference": ["seeds"]}
# Networks learn these in seconds, so that rounding to half precision changes no answer. So many images of each.
CLASSES = ("blue", "green", "red")
TRAIN_IMAGES, TEST_IMAGES = 60, 20
SMALL: dict[str, Any] = {
    "precision": "fp32",
    "model": {"architecture": "resnet18", "width": 0.0625, "stem": "cifar"},
    "data": {
        "dataset": "image_folder",
        "train_images": TRAIN_IMAGES * len(CLASSES),
        "image_size": 16,
        "augment": ["crop", "flip"],
    },
    "teacher": {"epochs": 4, "batch_size": 15, "lr": 0.05, "warmup_epochs": 0.5},
    "student": {"epochs": 1, "batch_size": 15, "lr": 0.02, "warmup_epochs": 0.1},
    "pruning": {"calibration": {"images": 60, "batch_size": 30}, "sparse": {"batch_size": 15, "lr": 0.02}},
    "bench": {
        "engines": ["onnxruntime-1.16.0"],
        "isa": ["target"],
        "threads": [1],
        "precision_pct": 1000.0,
        "minutes_per_model": 0.01,
        "blocks": 3,
        "sampling_s": 0.01,
        "rounds": 11,
        "warmup_s": 0.0,
    },
}
# Verbs that only look at records: they are typed where the committed ones are, under the settings that they belong to.
LOOKING = {"check", "verify", "compare", "report-check"}
# Given to `harness latency`, last, so that it counts: its own default is two minutes.
BRIEFLY = " --minutes 0.01"
LONGEST_S = 300


TOO_LONG = 124
# Helpers of a process end when they notice that it has.
GRACE_S = 2.0


class Outcome(NamedTuple):
    """How a command ended: its code, what it printed on either stream, and whether a process of it was left."""

    code: int
    printed: str
    left: bool = False


class Checkout(NamedTuple):
    """A checkout to type commands in, beside the folder with the images."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder.parent / "datasets"

    def type(self, command: Command) -> Outcome:
        """Run a command with the shell, in a process group of its own; TOO_LONG is the code where it does not end."""
        self._provide(command)
        # options may stand behind a redirection
        script = "\n".join(
            ["set -euo pipefail", *command.before, command.text + BRIEFLY * ("latency" in command.words)]
        )
        with tempfile.TemporaryFile("w+") as printed:
            shell = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = shell.wait(LONGEST_S)
            except subprocess.TimeoutExpired:
                code = TOO_LONG
            finally:
                left = _end(shell)
            printed.seek(0)
            return Outcome(code, printed.read(), left)

    def _environment(self) -> dict[str, str]:
        """A user's: nothing of what this process was told about make, Python or the harness; plain output.

        Commands that do not ask for containers run on this machine, whether or not an engine answers.
        """
        ours = ("MAKE", "PYTHON", "PROFILE", "DATA_DIR", "HARNESS", "PYTEST", "COV_")
        mine = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        data = {"DATA_DIR": str(self.data)} if self.data.is_dir() else {}
        return {**mine, **data, "RUNNER": "local", "TERM": "dumb", "NO_COLOR": "1"}

    def _provide(self, command: Command) -> None:
        """Make what the command takes for given: files of the reader's own, and what came from another machine."""
        given = command.words[1:]
        if "latency" in given:
            for place, name in enumerate(re.findall(r"[\w-]+\.onnx", command.text)):
                if not (self.folder / name).exists():
                    # the first is the one that the others are faster than
                    model = qdq() if "int8" in name else network(batch=1, size=8 if place else 32)
                    onnx.save(model, self.folder / name)
        for word in given:
            path = self.folder / word
            if path.suffix == ".safetensors" and path.parent == self.folder and not path.exists():
                # the teacher that commands above have trained
                shutil.copy(next(self.folder.glob("artifacts/*/teacher-*/weights.safetensors")), path)
            if word.startswith("old/") and not path.exists():
                shutil.copytree(self.folder / "results", self.folder / "old")
        if "incoming/" in command.text and not (self.folder / "incoming").exists():
            self._become_another_machine(command.variables["PROFILE"])
        if "PYTHONPATH" in command.variables:
            self._add_plug_in(command)

    def _become_another_machine(self, profile: str) -> None:
        """What has been made goes into `incoming`, as if it had been copied from where it was made."""
        incoming = self.folder / "incoming"
        (incoming / "results").mkdir(parents=True)
        (self.folder / "results" / profile).rename(incoming / "results" / profile)
        for packs in list(self.folder.glob("packs*")):
            packs.rename(incoming / packs.name)
        shutil.rmtree(self.folder / "artifacts")

    def _add_plug_in(self, command: Command) -> None:
        """The method that the document shows, as a module beside the checkout, in the first experiment."""
        package = self.folder.parent / "mypackage"
        package.mkdir()
        text = (ROOT / command.document).read_text(encoding="utf-8")
        (shown,) = [block.text for block in blocks(text) if 'TITLE = "Hint"' in block.text]
        (package / "hint.py").write_text(shown.replace("METHOD = ", "HINT = "), encoding="utf-8")
        _write_matrix(self.folder, self.data, [command], ["mypackage.hint:HINT"])


@contextmanager
def checkout(commands: list[Command]) -> Iterator[Checkout]:
    """A checkout for the commands of one document; in small unless all that they do is to look at records."""
    with tempfile.TemporaryDirectory(prefix="harness-docs-") as name:
        above = Path(name)
        # the user of the containers reads it as well
        above.chmod(0o755)
        here = Checkout(above / "checkout")
        _clone(here.folder)
        if not all(LOOKING & set(command.words) for command in commands):
            _draw_images(here.data)
            _write_matrix(here.folder, here.data, commands)
        yield here


def _clone(folder: Path) -> None:
    """The working tree as it is, with the times of its files, by which make judges what to make again."""
    subprocess.run(["git", "clone", "-q", "--shared", "--no-checkout", ROOT, folder], check=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "reset", "-q"], cwd=folder, check=True)
    (folder / ".venvs").symlink_to(ROOT / ".venvs")


def _draw_images(root: Path) -> None:
    """Images of one colour each, with noise."""
    for seed, (part, count) in enumerate({"train": TRAIN_IMAGES, "test": TEST_IMAGES}.items()):
        random = np.random.default_rng(seed)
        for place, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (32, 32, 3), dtype=np.uint8)
                pixels[..., place] += 120
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")


def _write_matrix(folder: Path, data: Path, commands: Sequence[Command], methods: Sequence[str] = ()) -> None:
    """One student in each table, and those of further methods in the first."""
    document = deepcopy(DOCUMENT)
    put(document, "dataset.image_folder", {**parameters(data), "size": 32})
    for profile, experiments in PROFILES.items():
        document["profile"][profile] = {"experiments": experiments, **SMALL}
    by_name = {experiment["name"]: experiment for experiment in document["experiment"]}
    for experiment in by_name.values():
        experiment.update(prune_method=["bn"], kd_method=["base"], seed=[0])
    by_name["prune-0.3"]["kd_method"] += methods
    named = {name for command in commands for name in re.findall(r"p0\.3-bn-([a-z]+)-s0", command.text)}
    by_name["seeds"]["kd_method"] = sorted(named | {"base"})
    (folder / "matrix.toml").write_text(as_toml(document), encoding="utf-8")


def _end(shell: subprocess.Popen[bytes]) -> bool:
    """End what there is of a shell's group; whether anything was left that does not end with the shell."""
    left = False
    if shell.poll() is not None:
        until = time.monotonic() + GRACE_S
        while (left := _alive(shell.pid)) and time.monotonic() < until:
            time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
    return left


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
