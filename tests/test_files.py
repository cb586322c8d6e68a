import re
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from harness.datasets import save_testset
from harness.datasets.stand_in import draw
from harness.errors import HarnessError
from harness.files import atomic_path, worded, write_text
from harness.model_files.onnx_export import export
from harness.model_files.weights import save_weights
from tests.training_kit import network

LIMIT = 4096


@pytest.fixture
def full() -> Iterator[None]:
    """A disk on which no file of more than four kilobytes has room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_bytes(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(bytes(LIMIT + 1))


def write_array(path: Path) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.zeros(LIMIT))


def write_checkpoint(path: Path) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save({"weights": torch.zeros(LIMIT)}, file)


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": write_bytes,
    "text": lambda path: write_text(path, "x" * (LIMIT + 1)),
    "an array": write_array,
    "a checkpoint": write_checkpoint,
    "weights": lambda path: save_weights(path, network(), {}),
    "a test set": lambda path: save_testset(path, draw(10, seed=0)),
    "an export": lambda path: export(network(), path, draw(10, seed=0), 16, 17, {"key": "k"}),
}


@pytest.mark.parametrize("what", WRITERS)
def test_what_finds_no_room_is_one_line_and_leaves_what_was_there(tmp_path: Path, full: None, what: str) -> None:
    path = tmp_path / "file.onnx"
    path.write_text("before")
    with pytest.raises(HarnessError) as caught:
        WRITERS[what](path)
    said = str(caught.value)
    assert re.fullmatch(rf"{path}: cannot be written \((File too large|.* requested .*)\); free space there, .*", said)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_an_error_of_another_file_names_that_file(tmp_path: Path) -> None:
    path = tmp_path / "copy"
    with pytest.raises(HarnessError, match=rf"^{tmp_path}/none: No such file or directory$"), atomic_path(path) as here:
        shutil.copyfile(tmp_path / "none", here)
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_harness_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "file"):
        _ = 1 / 0
    with pytest.raises(HarnessError, match=r"^as it is$"), atomic_path(tmp_path / "file"):
        raise HarnessError("as it is")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "/a/b"), "/a/b: No space left on device"),
        (OSError(37, "No locks available"), "No locks available"),
        (OSError("two\nlines"), "two lines"),
        (TimeoutError(), "TimeoutError"),
        (URLError(OSError(-2, "Name or service not known")), "Name or service not known"),
    ],
)
def test_what_the_machine_refuses_is_a_line(error: OSError, said: str) -> None:
    assert worded(error) == said
