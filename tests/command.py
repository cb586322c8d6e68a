"""The command line, as a user runs it: in a folder of its own, and in a process of its own or in this one."""

import io
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from itertools import takewhile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from harness.cli import main
from tests.documents import DOCUMENT, ROOT, as_toml, put

CIFAR = "cifar-100-python"
# ResNet18 has a third of the layers of a ResNet50.
TINY = {
    "precision": "fp32",
    "dataset.stand_in.test_images": 500,
    "profile.quick.model.architecture": "resnet18",
    "profile.quick.data.dataset": "stand_in",
    "profile.quick.data.train_images": 300,
    "profile.quick.data.image_size": 16,
    "profile.quick.teacher.epochs": 2,
    "profile.quick.teacher.batch_size": 50,
    "profile.quick.student.epochs": 1,
    "profile.quick.student.batch_size": 50,
    "profile.quick.pruning.sparse.batch_size": 50,
    "profile.quick.bench.precision_pct": 1000.0,
    "profile.quick.bench.minutes_per_model": 1e-6,
    "profile.quick.bench.blocks": 3,
    "profile.quick.bench.warmup_s": 0.0,
    "profile.quick.bench.sampling_s": 0.01,
    "profile.quick.bench.rounds": 11,
}


def environment(data: Path | None = None) -> dict[str, str]:
    """This process's, with the checkout importable and DATA_DIR as given.

    Nothing runs in a container unless a test asks for it with --runner.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in ("DATA_DIR", "MAKEFLAGS", "PROFILE")}
    extra = {"DATA_DIR": str(data)} if data else {}
    return {**inherited, **extra, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", "RUNNER": "local"}


def harness(folder: Path, *arguments: str, data: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m harness ARGUMENTS` in `folder`."""
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(data), capture_output=True, text=True, timeout=300, check=False
    )


def invoked(folder: Path, *arguments: str, data: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`harness ARGUMENTS` in `folder`, in this process: one of its own would import for longer than most verbs take.

    What the processes that a verb starts print by themselves is not in what this returns.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as here, redirect_stdout(out), redirect_stderr(err):
        here.chdir(folder)
        here.setattr(sys, "argv", ["harness", *arguments])
        try:
            with patch.dict(os.environ, environment(data), clear=True), pytest.raises(SystemExit) as ended:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess(
        ["harness", *arguments], int(ended.value.code or 0), out.getvalue(), err.getvalue()
    )


def tiny_matrix(folder: Path, kd: list[str], methods: list[str] | None = None, **changes: Any) -> Path:
    """Writes `folder`/matrix.toml: seconds of training, experiment 1 cut down to these methods; changes by place."""
    document = deepcopy(DOCUMENT)
    for place, value in {**TINY, **{name.replace("__", "."): value for name, value in changes.items()}}.items():
        put(document, place, value)
    document["experiment"][0].update(prune_method=methods or ["bn"], kd_method=kd)
    path = folder / "matrix.toml"
    path.write_text(as_toml(document), encoding="utf-8")
    return path


def real_data() -> Path | None:
    """The folder that holds CIFAR-100, where this machine has it."""
    roots = [Path(os.environ["DATA_DIR"])] if os.environ.get("DATA_DIR") else []
    return next((root for root in [*roots, ROOT / "data"] if (root / CIFAR).is_dir()), None)


def table(path: Path) -> list[dict[str, str]]:
    """The rows of the first table in a Markdown file, by header."""
    lines = list(takewhile(lambda line: line, path.read_text().split("\n|", 1)[1].splitlines()))
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]
