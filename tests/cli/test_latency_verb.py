import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from harness.cli import EXTRA
from harness.cli.latency_verb import FAILED, SLOWER, UNCLEAR, exit_code
from harness.commands.latency_document import Gate, LatencyDocument, Verdict
from harness.store.records import Failure
from tests.command import environment, harness, invoked
from tests.documents import ROOT
from tests.onnx_zoo import network, token_ids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sound files, one that needs a dimension, and several that are none."""
    for name in ("a.onnx", "b.onnx"):
        onnx.save(network(), tmp_path / name)
    onnx.save(token_ids(), tmp_path / "tokens.onnx")
    bomb = network()
    bomb.graph.initializer[0].dims[:] = [2**40, 2**40]
    (tmp_path / "bomb.onnx").write_bytes(bomb.SerializeToString())
    os.mkfifo(tmp_path / "fifo.onnx")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty.onnx").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.onnx", "none.onnx"], "none.onnx: no such file"),
        (["fifo.onnx"], "fifo.onnx: is a FIFO"),
        (["a.onnx", "folder.onnx"], "folder.onnx: is a directory"),
        (["a.onnx", "empty.onnx"], "empty.onnx: not an ONNX model"),
        (["a.onnx", "bomb.onnx"], "bomb.onnx: tensor 'kernel' claims 1099511627776 x 1099511627776 FLOAT"),
        (["tokens.onnx"], "tokens.onnx: dimension 'sequence' of input 'ids' has no value"),
        (["tokens.onnx", "--dim", "sequence=0"], "--dim sequence=0: write NAME=NUMBER"),
        (["a.onnx", "--dim", "sequence"], "--dim sequence: write NAME=NUMBER"),
        (["a.onnx", "--dim", "x=5"], "--dim x: no file has it"),
        (["a.onnx", "--range", "input=1"], "--range input=1: write INPUT=LOW:HIGH"),
        (["a.onnx", "--threads", "0"], "--threads 0: a number of threads, or all"),
        (["a.onnx", "--threads", "4096"], "--threads 4096: this process may use"),
        (["a.onnx", "--engine", "tensorrt"], "--engine tensorrt: unknown; allowed: "),
        (["a.onnx", "--target", "i386"], "unknown CPU 'i386'; allowed: i9-9900K"),
        (["a.onnx", "--minutes", "0"], "--minutes 0: must be above 0"),
        (["a.onnx", "--precision", "nan"], "--precision nan: must be above 0"),
        (["a.onnx", "--max-ratio", "-1"], "--max-ratio -1: must be above 0"),
        (["a.onnx", "--baseline", "old.json"], "old.json: no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_nothing_is_written(
    folder: Path, arguments: list[str], said: str
) -> None:
    before = sorted(folder.rglob("*"))
    done = invoked(folder, "latency", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_json_is_one_document_and_nothing_else(folder: Path) -> None:
    arguments = ["a.onnx", "--engine", "onnxruntime", "--minutes", "0.0001", "--batch", "2", "--json"]
    done = harness(folder, "latency", *arguments)
    assert done.returncode == 0
    found = LatencyDocument.model_validate(json.loads(done.stdout))
    assert found.files[0].output_shapes == [[2, 10]]
    assert found.sentence.startswith("a.onnx takes ")


def test_it_needs_nothing_that_the_package_is_installed_without(folder: Path) -> None:
    """And a verb that does need it says so in a line."""
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({EXTRA!r}))\n"
        "from harness.cli import main\n"
        "sys.argv = ['harness', *sys.argv[1:]]\n"
        "main()"
    )
    for arguments, said in (
        (["latency", "a.onnx", "none.onnx"], "error: none.onnx: no such file\n"),
        (["train", "--orig-model", "x.pt"], "install compression-harness[train], or run: make setup\n"),
    ):
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.endswith(said)


def test_the_launcher_works_from_any_folder_and_by_a_link(folder: Path) -> None:
    (folder / "h").symlink_to(ROOT / "bin/harness")
    done = subprocess.run(["./h", "latency", "none.onnx"], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: none.onnx: no such file\n")


def test_the_launcher_of_a_checkout_without_environments_says_how_to_make_them(folder: Path) -> None:
    (folder / "checkout/bin").mkdir(parents=True)
    shutil.copy(ROOT / "bin/harness", folder / "checkout/bin")
    done = subprocess.run([folder / "checkout/bin/harness"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {folder}/checkout/.venvs/main is not there; run: make setup\n"


# --- What a script is told -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> Callable[..., LatencyDocument]:
    """A document of two files with these verdicts."""

    def make(*verdicts: Verdict, failure: Failure | None = None) -> LatencyDocument:
        timings = [{"condition": "x", "failure": failure}]
        file = {"file": "a", "title": "a", "onnx_sha256": "0" * 64, "size_bytes": 1, "params": 1, "opset": 17}
        verdict_of = {str(place): one for place, one in enumerate(verdicts)}
        gate = Gate(against="reference", max_ratio=1.05, verdicts=verdict_of) if verdicts else None
        return LatencyDocument.model_validate(
            {
                "sentence": "",
                "finished_at": "",
                "seconds": 1,
                "harness_revision": "",
                "estimator": "",
                "seed": 0,
                "precision_pct": 1,
                "settled": True,
                "blocks": 3,
                "conditions": [],
                "files": [{**file, "inputs": [], "timings": timings}],
                "machine": {},
                "gate": gate,
            }
        )

    return make


def test_the_exit_code_says_what_became_of_the_gate(document: Callable[..., LatencyDocument]) -> None:
    assert exit_code(document()) == exit_code(document("within", "within")) == 0
    assert exit_code(document("within", "unclear")) == UNCLEAR == 3
    assert exit_code(document("unclear", "beyond")) == SLOWER == 1
    assert exit_code(document("beyond", failure=Failure(kind="error", message=""))) == FAILED == 2
