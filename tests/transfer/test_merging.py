import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.bench.history import keep
from harness.checks.catalogue import check_results
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.store.paths import Paths
from harness.store.records import AccuracyRecord, ExportRecord, Failure, LatencyRecord, Rounded, TrainRecord
from harness.transfer.decisions import Merged
from harness.transfer.foreign_results import data_of, profile_folder
from harness.transfer.merging import as_document, as_text, merge
from tests.checks.faults_of_the_chain import fail
from tests.checks.planted import BESIDE, CELL, HEADLINE, OTHER, TEACHER, Bench, make_bench
from tests.synthetic import plan_for

LATER, EARLIER = "2026-01-03T00:00:00+00:00", "2026-01-01T00:00:00+00:00"
NONE = Failure(kind="killed", message="a process was killed")
Damage = Callable[[Bench], object]
EVERY = (TrainRecord, ExportRecord, AccuracyRecord)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """What another machine left, not to be changed."""
    bench = make_bench(plan_for("lite", experiments=["prune-0.3"]), tmp_path_factory.mktemp("sound"))
    for cell in bench.plan.cells:
        bench.change(TrainRecord, cell.id, teacher_sha256=None if cell.is_teacher else weights_of(bench, TEACHER))
    keep(bench.results, [bench.get(LatencyRecord, cell.id) for cell in bench.plan.cells])
    (bench.results / "lite/runs").mkdir()
    (bench.results / "lite/runs/2026-01-02.json").write_text("{}")
    return bench


def copy(bench: Bench, folder: Path) -> Bench:
    for part in (bench.results, bench.artifacts):
        shutil.copytree(part, folder / part.name)
    return Bench(bench.plan, folder / "results", folder / "artifacts")


@pytest.fixture
def there(sound: Bench, tmp_path: Path) -> Bench:
    """Another machine's results, the test's own to change."""
    return copy(sound, tmp_path / "there")


@pytest.fixture
def here(sound: Bench, tmp_path: Path) -> Bench:
    """This machine, with the same results."""
    return copy(sound, tmp_path / "here")


@pytest.fixture
def empty(sound: Bench, tmp_path: Path) -> Bench:
    """This machine, with nothing on it."""
    return Bench(sound.plan, tmp_path / "empty/results", tmp_path / "empty/artifacts")


def weights_of(bench: Bench, cell: str) -> str:
    return str(bench.get(TrainRecord, cell).weights_sha256)


def take(into: Bench, *sources: Bench, replace: bool = False) -> Merged:
    paths = Paths(into.results, into.artifacts, into.results.parent / "data")
    return merge(into.plan, paths, [profile_folder(source.results, "lite") for source in sources], replace)


def files(bench: Bench) -> dict[str, bytes]:
    return {path.relative_to(bench.results).as_posix(): path.read_bytes() for path in bench.results.rglob("*.json")}


def retrained(bench: Bench, cell: str = CELL, at: str = LATER, letter: str = "e") -> None:
    """The cell trained once more, with a whole chain of its own."""
    bench.change(TrainRecord, cell, weights_sha256=letter * 64, finished_at=at)
    bench.change(ExportRecord, cell, weights_sha256=letter * 64, onnx_sha256="1" * 64, finished_at=at)
    bench.change(AccuracyRecord, cell, onnx_sha256="1" * 64, finished_at=at)
    for under in (HEADLINE, BESIDE):
        bench.change(LatencyRecord, cell, under, onnx_sha256="1" * 64)


def rerun(bench: Bench, run: str, at: str, cells: list[str] | None = None) -> None:
    """All latencies of another bench run."""
    for cell in cells or [cell.id for cell in bench.plan.cells]:
        for under in (HEADLINE, BESIDE):
            bench.environment(LatencyRecord, cell, under, run=run)
            bench.change(LatencyRecord, cell, under, finished_at=at)


# --- Everything, and again -------------------------------------------------------------------------------------------


def test_an_empty_folder_takes_everything_and_checks_clean(empty: Bench, there: Bench) -> None:
    merged = take(empty, there)
    assert not merged.left and not merged.same
    assert files(empty) == files(there)
    assert sorted(merged.taken) == sorted(name.removeprefix("lite/") for name in files(there))
    assert check_results(empty.plan, empty.results) == []


def test_merging_again_changes_nothing(empty: Bench, there: Bench) -> None:
    take(empty, there)
    before = {path: path.stat().st_mtime_ns for path in empty.results.rglob("*.json")}
    merged = take(empty, there)
    assert not merged.taken and not merged.left
    assert len(merged.same) == len(files(there)) - 2, "all records; raw files are known by their run"
    assert {path: path.stat().st_mtime_ns for path in empty.results.rglob("*.json")} == before


def test_two_folders_with_a_part_each_make_a_whole(empty: Bench, there: Bench, sound: Bench, tmp_path: Path) -> None:
    other = copy(sound, tmp_path / "other")
    for kind in EVERY:
        there.path(kind).unlink()
        other.path(kind, OTHER).unlink()
    for bench in (there, other):
        shutil.rmtree(bench.results / "lite/latency")
    assert not take(empty, there, other).left
    assert {f"lite/train/{cell.id}.json" for cell in empty.plan.cells} < files(empty).keys()


def test_a_results_folder_and_its_profiles_folder_are_both_fine(there: Bench, tmp_path: Path) -> None:
    assert profile_folder(there.results, "lite") == profile_folder(there.results / "lite", "lite")
    with pytest.raises(HarnessError, match=r"no records of profile full here; name a folder like"):
        profile_folder(there.results, "full")


def test_a_folder_says_which_data_its_models_saw(there: Bench, tmp_path: Path) -> None:
    assert data_of(there.results / "lite") == "cifar100"
    assert data_of(tmp_path) is None


# --- What is refused -------------------------------------------------------------------------------------------------


def edit(kind: Any, old: str, new: str) -> Damage:
    def damage(bench: Bench) -> None:
        path = bench.path(kind)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return damage


def other_settings(bench: Bench) -> None:
    settings = bench.get(TrainRecord).settings
    bench.change(TrainRecord, settings={**settings, "seed": 9})


# damage at the other machine -> the stages of the cell that are refused, and a word of the reason
REFUSED: dict[str, tuple[Damage, set[str], str]] = {
    "cut short": (lambda b: b.path(TrainRecord).write_text("{"), {"train", "export", "accuracy"}, "not a train record"),
    "another profile": (edit(TrainRecord, '"profile": "lite"', '"profile": "full"'), {"train"}, "is of profile full"),
    "another key": (lambda b: b.change(TrainRecord, key="0" * 16), {"train"}, "made under other settings (key 000"),
    "settings that do not give the key": (other_settings, {"train"}, "its settings do not give its key"),
    "another cell's file": (
        lambda b: b.path(TrainRecord).write_bytes(b.path(TrainRecord, OTHER).read_bytes()),
        {"train"},
        f"says that it is lite/train/{OTHER}.json",
    ),
    "an unknown field": (edit(TrainRecord, '"cell"', '"sell"'), {"train"}, "Field required"),
    "export of other weights": (lambda b: b.change(ExportRecord, weights_sha256="f" * 64), {"export"}, "is of weights"),
    "accuracy of another file": (
        lambda b: b.change(AccuracyRecord, onnx_sha256="f" * 64),
        {"accuracy"},
        "is of ONNX file ffffffffffff...",
    ),
    "another teacher": (lambda b: b.change(TrainRecord, teacher_sha256="f" * 64), {"train"}, "its teacher has weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_its_reason_and_the_rest_is_taken(
    empty: Bench, there: Bench, name: str
) -> None:
    damage, stages, reason = REFUSED[name]
    shutil.rmtree(there.results / "lite/latency")
    damage(there)
    merged = take(empty, there)
    assert {f"{stage}/{CELL}.json" for stage in stages} <= {one.name for one in merged.faults}
    assert any(reason in one.reason for one in merged.faults), merged.faults
    assert not any((empty.results / "lite" / stage / f"{CELL}.json").exists() for stage in stages)
    assert len([one for one in merged.taken if one.startswith("train/")]) >= len(empty.plan.cells) - 1
    # what does stand is whole
    found = {finding.check for finding in check_results(empty.plan, empty.results)}
    assert found <= {"missing-record"}


def test_without_its_teachers_record_a_student_is_refused(empty: Bench, there: Bench) -> None:
    there.path(TrainRecord, TEACHER).unlink()
    merged = take(empty, there)
    assert not [name for name in merged.taken if not name.startswith("runs/")]
    there.change(TrainRecord, CELL, teacher_sha256=None)
    reasons = {one.name: one.reason for one in take(empty, there).faults}
    assert "carry train/teacher-s0.json along" in reasons[f"train/{CELL}.json"]


def test_other_weights_for_a_cell_are_an_error_naming_both_and_nothing_is_written(here: Bench, there: Bench) -> None:
    retrained(there)
    there.change(AccuracyRecord, OTHER, finished_at=LATER)
    before = files(here)
    with pytest.raises(HarnessError, match=rf"{CELL} was trained twice.*here/results.*there/results.*--replace"):
        take(here, there)
    assert files(here) == before


def test_replace_takes_the_carried_training_and_keeps_the_weights_aside(here: Bench, there: Bench) -> None:
    retrained(there)
    weights = here.onnx().with_name("weights.safetensors")
    weights.write_bytes(b"trained here")
    old = file_sha256(weights)[:12]
    merged = take(here, there, replace=True)
    assert weights_of(here, CELL) == "e" * 64
    assert not weights.exists() and not here.onnx().exists()
    assert weights.with_name(f"weights-{old}.safetensors").read_bytes() == b"trained here"
    assert sorted(path.name for path in merged.set_aside) == [f"model-{old}.onnx", f"weights-{old}.safetensors"]
    assert not take(here, there, replace=True).taken


# --- What is better known --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
def test_of_two_done_records_the_later_one_stands_whichever_way_it_is_merged(
    here: Bench, there: Bench, kind: Any
) -> None:
    there.change(kind, finished_at=LATER)
    assert take(here, there).taken == [f"{kind.stage}/{CELL}.json"]
    assert here.get(kind).finished_at == LATER
    there.change(kind, finished_at=EARLIER)
    merged = take(here, there)
    assert not merged.taken and not merged.faults
    assert [one.name for one in merged.left] == [f"{kind.stage}/{CELL}.json"]
    assert here.get(kind).finished_at == LATER


@pytest.mark.parametrize("kind", EVERY)
def test_a_failure_never_takes_the_place_of_a_result(here: Bench, there: Bench, kind: Any) -> None:
    fail(there, kind, NONE)
    merged = take(here, there)
    assert f"{kind.stage}/{CELL}.json" in {one.name for one in merged.left}
    assert here.get(kind).status == "done"


def test_a_result_takes_the_place_of_a_failure(here: Bench, there: Bench) -> None:
    fail(here, TrainRecord, NONE)
    for kind in (ExportRecord, AccuracyRecord):
        here.path(kind).unlink()
    merged = take(here, there)
    assert not merged.left
    assert {f"train/{CELL}.json", f"export/{CELL}.json", f"accuracy/{CELL}.json"} <= set(merged.taken)
    assert here.get(TrainRecord).status == "done"


def test_a_failure_is_taken_where_nothing_is_known(empty: Bench, there: Bench) -> None:
    fail(there, TrainRecord, NONE)
    for kind in (ExportRecord, AccuracyRecord):
        there.path(kind).unlink()
    shutil.rmtree(there.results / "lite/latency")
    assert not take(empty, there).faults
    assert empty.get(TrainRecord).failure == NONE


def test_a_record_under_older_settings_is_replaced(here: Bench, there: Bench) -> None:
    here.change(TrainRecord, key="0" * 16, finished_at=LATER)
    assert f"train/{CELL}.json" in take(here, there).taken


def test_another_export_of_the_same_weights_is_left_unless_told_otherwise(here: Bench, there: Bench) -> None:
    there.change(ExportRecord, onnx_sha256="2" * 64, finished_at=LATER)
    there.change(AccuracyRecord, onnx_sha256="2" * 64, finished_at=LATER)
    merged = take(here, there)
    assert not merged.taken and not merged.faults
    assert {one.name for one in merged.left} >= {f"export/{CELL}.json", f"accuracy/{CELL}.json"}
    merged = take(here, there, replace=True)
    assert {f"export/{CELL}.json", f"accuracy/{CELL}.json"} <= set(merged.taken)


# --- Bench runs ------------------------------------------------------------------------------------------------------


def test_a_later_run_of_all_models_takes_the_place_of_the_one_here_whole(here: Bench, there: Bench) -> None:
    rerun(there, "run-2", LATER)
    keep(there.results, [there.get(LatencyRecord, cell.id) for cell in there.plan.cells])
    merged = take(here, there)
    latencies = [name for name in merged.taken if name.startswith("latency/")]
    assert len(latencies) == 2 * len(here.plan.cells) and not merged.left
    assert {here.get(LatencyRecord, cell.id).environment["run"] for cell in here.plan.cells} == {"run-2"}
    added = [name for name in merged.taken if name.startswith("pytest-benchmark/")]
    assert [Path(name).name[:5] for name in added] == ["0002_"], "beside the one that is here, under the next number"


def test_an_earlier_run_is_left(here: Bench, there: Bench) -> None:
    rerun(there, "run-0", EARLIER)
    before = files(here)
    merged = take(here, there)
    assert merged.left and all("of a later run" in one.reason for one in merged.left)
    assert not merged.faults and files(here) == before


def test_a_later_run_of_fewer_models_is_left_whole(here: Bench, there: Bench) -> None:
    rerun(there, "run-2", LATER)
    for under in (HEADLINE, BESIDE):
        there.path(LatencyRecord, OTHER, under).unlink()
    before = files(here)
    merged = take(here, there)
    assert len(merged.left) == 2 * (len(here.plan.cells) - 1)
    assert all(f"lacks {OTHER}" in one.reason and not one.fault for one in merged.left)
    assert files(here) == before


def test_a_run_with_one_record_that_does_not_fit_is_refused_whole(empty: Bench, there: Bench) -> None:
    there.change(LatencyRecord, OTHER, onnx_sha256="f" * 64)
    merged = take(empty, there)
    assert not (empty.results / "lite/latency").exists() and not (empty.results / "lite/pytest-benchmark").exists()
    assert len(merged.faults) == 2 * len(there.plan.cells)
    assert all(f"{OTHER} is of ONNX file ffffffffffff..." in one.reason for one in merged.faults)


def test_a_run_without_its_teacher_is_refused(empty: Bench, there: Bench) -> None:
    there.path(LatencyRecord, TEACHER).unlink()
    merged = take(empty, there)
    assert not (empty.results / "lite/latency").exists()
    assert all(f"the teacher's record is missing under {HEADLINE}" in one.reason for one in merged.faults)


def test_a_run_that_is_here_in_part_is_made_whole(here: Bench, there: Bench) -> None:
    here.path(LatencyRecord, OTHER).unlink()
    assert take(here, there).taken == [f"latency/{HEADLINE}/{OTHER}.json"]


# --- Half precision --------------------------------------------------------------------------------------------------


def round_off(bench: Bench) -> None:
    """The cell as it stands where its weights came in half precision."""
    before = bench.get(TrainRecord)
    rounded = Rounded(dtype="float16", weights_sha256=before.weights_sha256, accuracy_pct=before.accuracy_pct)
    bench.change(TrainRecord, weights_sha256="d" * 64, rounded_from=rounded, finished_at=LATER)
    bench.change(ExportRecord, weights_sha256="d" * 64, onnx_sha256="3" * 64, finished_at=LATER)
    bench.change(AccuracyRecord, onnx_sha256="3" * 64, finished_at=LATER)
    shutil.rmtree(bench.results / "lite/latency")


@pytest.mark.parametrize("rounded_here", [True, False])
def test_weights_and_their_rounded_copies_are_no_conflict_and_what_is_here_stays(
    here: Bench, there: Bench, rounded_here: bool
) -> None:
    round_off(here if rounded_here else there)
    before = [here.get(kind) for kind in EVERY]
    merged = take(here, there)
    assert [here.get(kind) for kind in EVERY] == before and not merged.faults
    assert any("in half precision" in one.reason for one in merged.left)


def test_students_of_the_rounded_teacher_are_students_of_the_teacher(here: Bench, there: Bench) -> None:
    before = there.get(TrainRecord, TEACHER)
    rounded = Rounded(dtype="float16", weights_sha256=before.weights_sha256, accuracy_pct=before.accuracy_pct)
    there.change(TrainRecord, TEACHER, weights_sha256="d" * 64, rounded_from=rounded)
    there.change(TrainRecord, CELL, teacher_sha256="d" * 64)
    for kind in EVERY:
        here.path(kind).unlink()
    assert f"train/{CELL}.json" in take(here, there).taken


# --- What is said ----------------------------------------------------------------------------------------------------


def test_the_text_counts_by_stage_and_names_what_was_left(empty: Bench, there: Bench) -> None:
    there.change(TrainRecord, key="0" * 16)
    shutil.rmtree(there.results / "lite/latency")
    merged = take(empty, there)
    text = as_text(merged)
    assert f"refused: train/{CELL}.json: was made under other settings" in text
    assert text.splitlines()[-1].startswith(f"{len(merged.taken)} files taken (9 train, 9 export, 9 accuracy")
    document = json.loads(as_document(merged))
    assert document["taken"] == merged.taken and len(document["left"]) == len(merged.left)
