"""From one machine to another, with the real commands: trained in one folder, merged, unpacked and measured in another.

It is what somebody does with a borrowed GPU, in small: a run with a budget, packs, records; then the machine that
measures.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.files import file_sha256
from harness.store.records import AccuracyRecord, ExportRecord, LatencyRecord, TrainRecord, load, record_path
from tests.command import harness, invoked, tiny_matrix
from tests.documents import ROOT
from tests.synthetic import MATRIX, fill_results, plan_for

TEACHER, STUDENT = "teacher-s0", "p0.3-bn-base-s0"
HEADLINE = "onnxruntime-1.16.0-target-threads-1"


class Machine(NamedTuple):
    folder: Path

    def run(self, *arguments: str, code: int = 0) -> str:
        # of a whole run there is more to see, and its stages are processes anyway
        run = harness if arguments[0] == "results" else invoked
        done = run(self.folder, *arguments, "--profile", "quick")
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def record(self, kind: Any, cell: str, condition: str = "") -> Any:
        return load(record_path(self.folder / "results", "quick", kind.stage, cell, condition), kind)

    def file(self, cell: str, name: str) -> Path:
        (path,) = (self.folder / "artifacts/quick").glob(f"{cell}-*/{name}")
        return path

    def training(self) -> dict[str, str]:
        cells = json.loads(self.run("status", "--json"))["cells"]
        return {cell["id"]: cell["training"] for cell in cells}


def machine(folder: Path) -> Machine:
    folder.mkdir(parents=True, exist_ok=True)
    tiny_matrix(folder, ["base"], profile__quick__model__width=0.0625)
    (folder / "README.md").write_text("# Results\n\n<!-- table: quick prune-0.3 -->\n<!-- end -->\n")
    return Machine(folder)


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The machine that trains: it measures nothing, and leaves records and packs."""
    if not (ROOT / ".venvs/bench-1.16.0/bin/python").is_file():
        pytest.skip("no .venvs/bench-1.16.0: `make setup` makes it")
    here = machine(tmp_path_factory.mktemp("gpu"))
    text = here.run("results", "--no-bench", "--budget", "10m")
    assert "p0.3-bn-base-s0: done" in text and "bench: skipped" in text
    here.run("pack", TEACHER, "--part-mib", "0.5")
    here.run("pack", STUDENT, "--half", "--part-mib", "0.25")
    return here


@pytest.fixture(scope="module")
def home(gpu: Machine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The machine that measures: it got the records and the packs, and did what was left to do."""
    here = machine(tmp_path_factory.mktemp("home"))
    assert "0 left" in here.run("merge", str(gpu.folder / "results"))
    assert "refused" not in here.run("unpack", str(gpu.folder / "packs"))
    assert here.training() == {TEACHER: "trained", STUDENT: "trained"}
    text = here.run("results", "--budget", "10m")
    assert "epoch 1 of" not in text, "nothing is trained again"
    return here


def test_the_log_says_what_ran_how_long_and_on_what(gpu: Machine) -> None:
    (path,) = (gpu.folder / "results/quick/runs").glob("*.json")
    log = json.loads(path.read_text())
    assert [stage["outcome"].split(":")[0] for stage in log["stages"]] == ["done", "done", "skipped", "done"]
    assert log["devices"] == [gpu.record(TrainRecord, TEACHER).environment["device"]]
    assert log["models"]["done"] == 2 and log["seconds"] > 0


def test_whole_weights_are_the_same_and_rounded_ones_say_so(gpu: Machine, home: Machine) -> None:
    assert home.record(TrainRecord, TEACHER) == gpu.record(TrainRecord, TEACHER)
    ours, theirs = home.record(TrainRecord, STUDENT), gpu.record(TrainRecord, STUDENT)
    assert ours.rounded_from.weights_sha256 == theirs.weights_sha256 != ours.weights_sha256
    for cell in (TEACHER, STUDENT):
        assert home.record(TrainRecord, cell).weights_sha256 == file_sha256(home.file(cell, "weights.safetensors"))


def test_everything_is_measured_at_home_and_the_chain_holds(home: Machine) -> None:
    assert home.training() == {TEACHER: "done", STUDENT: "done"}
    for cell in (TEACHER, STUDENT):
        train, export = home.record(TrainRecord, cell), home.record(ExportRecord, cell)
        latency, accuracy = home.record(LatencyRecord, cell, HEADLINE), home.record(AccuracyRecord, cell)
        assert export.weights_sha256 == train.weights_sha256
        assert latency.onnx_sha256 == accuracy.onnx_sha256 == export.onnx_sha256
        assert accuracy.accuracy_pct == pytest.approx(train.accuracy_pct, abs=0.1)
        assert accuracy.agreement_pct > 99.5


def test_verify_walks_every_number_back_and_has_files_and_raw_samples_to_hold_it_against(home: Machine) -> None:
    assert breaks_less_noise(home) == []
    walked = json.loads(invoked(home.folder, "verify", "--json", "--profile", "quick").stdout)["walked"]
    assert walked["weights here"] == walked["ONNX files here"] == walked["latencies"] == 2
    assert walked["latencies in pytest-benchmark's files"] == 2 and walked["processes with raw samples here"] >= 6


# Three processes of eleven samples on a busy machine are no measurement, and a network trained for seconds has learnt
# nothing. What the checks say about that is not what is tested here.
NOISE = ("control-off", "unusable-interval", "stolen-run", "chance-accuracy", "differs-from-torch")


def breaks_less_noise(machine: Machine) -> list[str]:
    done = invoked(machine.folder, "verify", "--json", "--profile", "quick")
    assert done.stdout, done.stderr
    return [line for line in json.loads(done.stdout)["breaks"] if not any(f"({name})" in line for name in NOISE)]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_each_planted_break_is_found(home: Machine, tmp_path: Path) -> None:
    """One copy, a break for each link of the chain, from the table down to the raw samples."""
    shutil.copytree(home.folder, tmp_path / "copy")
    broken = Machine(tmp_path / "copy")
    results = broken.folder / "results/quick"
    row = next(line for line in (results / "tables/prune-0.3.md").read_text().splitlines() if "KD(0)" in line)
    edit(results / "tables/prune-0.3.md", row, row.replace("KD(0)", "KD(9)"))
    flip(broken.file(STUDENT, "weights.safetensors"))
    flip(broken.file(TEACHER, "model.onnx"))
    edit(results / f"train/{TEACHER}.json", '"seed": 0', '"seed": 7')
    (kept,) = results.glob("pytest-benchmark/*/*.json")
    document = json.loads(kept.read_text())
    # however many blocks this machine took
    for entry in document["benchmarks"]:
        entry["stats"]["rounds"] += 1
    kept.write_text(json.dumps(document))
    (raw,) = broken.folder.glob(f"artifacts/quick/bench/latency-block001-{STUDENT}.{HEADLINE}.json")
    document = json.loads(raw.read_text())
    document["benchmarks"][0]["stats"]["data"].pop()
    raw.write_text(json.dumps(document))
    text = "\n".join(breaks_less_noise(broken))
    for said in (
        "prune-0.3.md is stale",
        f"{STUDENT} train: weights.safetensors has sha256",
        f"{TEACHER} export: the ONNX file has sha256",
        f"{TEACHER} train: the settings on record give the key",
        "latency: pytest-benchmark's file of the run",
        f"{STUDENT} latency: block 1 has rounds",
    ):
        assert said in text, text
    assert invoked(broken.folder, "verify", "--profile", "quick").returncode == 1


def test_merging_and_unpacking_the_same_again_changes_nothing(gpu: Machine, home: Machine) -> None:
    before = {path: path.read_bytes() for path in (home.folder / "results").rglob("*.json")}
    assert "0 files taken" in home.run("merge", str(gpu.folder / "results"))
    assert "there already" in home.run("unpack", str(gpu.folder / "packs"))
    assert {path: path.read_bytes() for path in (home.folder / "results").rglob("*.json")} == before


def test_what_was_measured_at_home_goes_back_the_same_way(gpu: Machine, home: Machine, tmp_path: Path) -> None:
    shutil.copytree(gpu.folder, tmp_path / "gpu")
    back = Machine(tmp_path / "gpu")
    text = back.run("merge", str(home.folder / "results"), code=0)
    assert "in half precision" in text and "latency" not in text.splitlines()[-1].split("(")[-1]
    assert back.record(TrainRecord, STUDENT) == gpu.record(TrainRecord, STUDENT), "the trained weights are here"


def test_a_machine_with_records_and_no_teacher_trains_nothing(gpu: Machine, tmp_path: Path) -> None:
    here = machine(tmp_path / "bare")
    here.run("merge", str(gpu.folder / "results"))
    (here.folder / f"results/quick/train/{STUDENT}.json").unlink()
    text = here.run("results", "--no-bench", "--budget", "5m")
    assert "its weights are not here: unpack them" in text and "epoch 1 of" not in text


# --- What the options say --------------------------------------------------------------------------------------------


def other_machine(folder: Path, dataset: str) -> Path:
    """Results of the quick profile over a data set, made up; and the project's matrix to merge them by."""
    fill_results(plan_for("quick", dataset), folder / "other/results")
    (folder / "matrix.toml").write_text(MATRIX.read_text())
    return folder / "other/results"


@pytest.mark.parametrize("dataset", ["cifar100_ten", "stand_in"])
def test_a_machine_without_data_merges_over_the_data_set_on_record(tmp_path: Path, dataset: str) -> None:
    results = other_machine(tmp_path, dataset)
    here = Machine(tmp_path)
    merged = json.loads(here.run("merge", str(results), "--json"))
    assert merged["left"] == []
    assert len(merged["taken"]) == len(list(results.rglob("*.json")))
    assert "0 files taken" in here.run("merge", str(results / "quick"))


def test_records_over_another_data_set_than_the_one_known_here_are_refused(tmp_path: Path) -> None:
    results = other_machine(tmp_path, "cifar100_ten")
    here = Machine(tmp_path)
    (tmp_path / "artifacts/quick").mkdir(parents=True)
    (tmp_path / "artifacts/quick/testset-stand_in.npz").write_bytes(b"used before")
    text = here.run("merge", str(results), code=1)
    assert "refused: train/" in text and "made under other settings" in text
    assert not list((tmp_path / "results").rglob("*.json"))


def test_a_profile_that_is_a_path_is_an_error_in_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    results = other_machine(tmp_path, "cifar100_ten")
    (tmp_path / "matrix.toml").write_text(MATRIX.read_text().replace("[profile.quick", '[profile."../quick"'))
    for command in (["merge", str(results)], ["unpack", str(results)], ["pack"]):
        done = invoked(tmp_path, *command, "--profile", "../quick")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"matrix.toml", "other"}


def test_half_precision_and_an_onnx_file_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "matrix.toml").write_text(MATRIX.read_text())
    done = invoked(tmp_path, "pack", "--half", "--onnx", "--profile", "quick")
    assert done.returncode == 2 and "give one of the two" in done.stderr
