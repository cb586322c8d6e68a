import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.bench.history import keep
from harness.checks.catalogue import check_results
from harness.errors import HarnessError
from harness.files import file_sha256
from harness.plan.loading import load_settings
from harness.plan.specs import key_of
from harness.store.chain import Chain
from harness.store.paths import Paths
from harness.store.records import AccuracyRecord, ExportRecord, Failure, LatencyRecord, Rounded, TrainRecord
from harness.transfer.decisions import Merged
from harness.transfer.foreign_results import dataset_of, profile_folder
from harness.transfer.merging import as_document, as_text, merge
from tests.checks.faults_of_the_chain import OLD_KEY, fail
from tests.checks.planted import BESIDE, CELL, HEADLINE, OTHER, TEACHER, Bench, make_bench
from tests.synthetic import MATRIX, plan_for
from tests.transfer.machines import no_file_beyond

LATER, EARLIER = "2026-01-03T00:00:00+00:00", "2026-01-01T00:00:00+00:00"
NONE = Failure(kind="killed", message="a process was killed")
Damage = Callable[[Bench], object]
EVERY = (TrainRecord, ExportRecord, AccuracyRecord)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The other machine's results, for reading only."""
    bench = make_bench(plan_for("lite", experiments=["prune-0.3"]), tmp_path_factory.mktemp("sound"))
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
    """The other machine's results, the test's own to change."""
    return copy(sound, tmp_path / "there")


@pytest.fixture
def here(sound: Bench, tmp_path: Path) -> Bench:
    """This machine, with the same results."""
    return copy(sound, tmp_path / "here")


@pytest.fixture
def empty(sound: Bench, tmp_path: Path) -> Bench:
    """This machine, with nothing on it yet."""
    return Bench(sound.plan, tmp_path / "empty/results", tmp_path / "empty/artifacts")


def weights_of(bench: Bench, cell: str) -> str:
    return str(bench.get(TrainRecord, cell).weights_sha256)


def take(into: Bench, *sources: Bench, replace: bool = False) -> Merged:
    paths = Paths(into.results, into.artifacts, into.results.parent / "data")
    return merge(into.plan, paths, [profile_folder(source.results, "lite") for source in sources], replace)


def files(bench: Bench) -> dict[str, bytes]:
    found = [path for path in bench.results.rglob("*.json") if path.is_file()]
    return {path.relative_to(bench.results).as_posix(): path.read_bytes() for path in found}


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
    with pytest.raises(HarnessError, match=r"no records of profile long here; name a folder like"):
        profile_folder(there.results, "long")


def test_a_folder_says_which_data_set_its_models_were_trained_on(there: Bench, tmp_path: Path) -> None:
    assert dataset_of(there.results / "lite") == "cifar100"
    assert dataset_of(tmp_path) is None


# --- What is refused -------------------------------------------------------------------------------------------------


def edit(kind: Any, old: str, new: str) -> Damage:
    def damage(bench: Bench) -> None:
        path = bench.path(kind)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return damage


def other_settings(bench: Bench) -> None:
    bench.change(TrainRecord, spec={**bench.get(TrainRecord).spec, "seed": 9})


def other_settings_and_their_key(bench: Bench) -> None:
    spec = {**bench.get(TrainRecord).spec, "seed": 9}
    bench.change(TrainRecord, spec=spec, key=key_of(spec))


def not_a_number(bench: Bench) -> None:
    edit(TrainRecord, '"seed": 0', '"seed": NaN')(bench)


# Damage to the other machine's results -> the stages of the cell that are refused, and part of the reason.
REFUSED: dict[str, tuple[Damage, set[str], str]] = {
    "cut short": (lambda b: b.path(TrainRecord).write_text("{"), {"train", "export", "accuracy"}, "not a train record"),
    "another profile": (edit(TrainRecord, '"profile": "lite"', '"profile": "long"'), {"train"}, f"{CELL} in long"),
    "other settings": (other_settings_and_their_key, {"train"}, "made under other settings (key v2-"),
    "another key": (lambda b: b.change(TrainRecord, key=OLD_KEY), {"train"}, "its settings do not give its key"),
    "settings that do not give the key": (other_settings, {"train"}, "its settings do not give its key"),
    "settings that are no number": (not_a_number, {"train"}, "not a train record"),
    "export under another key": (lambda b: b.change(ExportRecord, key=OLD_KEY), {"export"}, "do not give its key"),
    "another cell's file": (
        lambda b: b.path(TrainRecord).write_bytes(b.path(TrainRecord, OTHER).read_bytes()),
        {"train"},
        f"the train record is that of {OTHER}",
    ),
    "an unknown field": (edit(TrainRecord, '"cell"', '"sell"'), {"train"}, "Field required"),
    "export of other weights": (lambda b: b.change(ExportRecord, weights_sha256="f" * 64), {"export"}, "is of weights"),
    "accuracy of another file": (
        lambda b: b.change(AccuracyRecord, onnx_sha256="f" * 64),
        {"accuracy"},
        "is of ONNX file ffffffffffff...",
    ),
    "another teacher": (lambda b: b.change(TrainRecord, teacher_sha256="f" * 64), {"train"}, "comes from a teacher"),
    "no word of the teacher": (
        lambda b: b.change(TrainRecord, teacher_sha256=None),
        {"train"},
        "does not say which teacher",
    ),
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
    reasons = {one.name: one.reason for one in merged.faults}
    assert "merge train/teacher-s0.json as well" in reasons[f"train/{CELL}.json"]


def test_with_the_teacher_on_record_here_a_folder_may_hold_students_alone(here: Bench, there: Bench) -> None:
    for kind in EVERY:
        here.path(kind).unlink()
        there.path(kind, TEACHER).unlink()
    shutil.rmtree(there.results / "lite/latency")
    merged = take(here, there)
    assert merged.taken == [f"{stage}/{CELL}.json" for stage in ("train", "export", "accuracy")]
    assert not merged.left


def test_files_that_are_no_records_of_the_plan_are_named_and_left(empty: Bench, there: Bench) -> None:
    train = there.results / "lite/train"
    for name in ("._teacher-s0.json", "teacher-s0.json.bak", "p0.9-bn-gram-s0.json"):
        (train / name).write_bytes((train / "teacher-s0.json").read_bytes())
    copied = there.results / "lite/latency" / f"{HEADLINE}.bak"
    shutil.copytree(there.results / "lite/latency" / HEADLINE, copied)
    merged = take(empty, there)
    assert {one.name for one in merged.left} == {
        "train/._teacher-s0.json",
        "train/teacher-s0.json.bak",
        "train/p0.9-bn-gram-s0.json",
        *(f"latency/{HEADLINE}.bak/{cell.id}.json" for cell in there.plan.cells),
    }
    assert not merged.faults and not any(".bak" in name or "._" in name for name in files(empty))


def test_two_trainings_of_a_model_are_an_error_that_names_both_and_nothing_is_written(
    here: Bench, there: Bench
) -> None:
    retrained(there)
    there.change(AccuracyRecord, OTHER, finished_at=LATER)
    before = files(here)
    with pytest.raises(HarnessError, match=rf"{CELL} was trained twice.*here/results.*there/results.*--replace"):
        take(here, there)
    assert files(here) == before


def test_replace_takes_the_other_machines_training_and_sets_the_weights_aside(here: Bench, there: Bench) -> None:
    retrained(there)
    weights = here.onnx().with_name("weights.safetensors")
    weights.write_bytes(b"trained here")
    weights.with_name("answers.npy").write_bytes(b"answered here")
    old = file_sha256(weights)[:12]
    merged = take(here, there, replace=True)
    assert weights_of(here, CELL) == "e" * 64
    assert not weights.exists() and not here.onnx().exists()
    assert weights.with_name(f"weights-{old}.safetensors").read_bytes() == b"trained here"
    assert sorted(path.name for path in merged.set_aside) == [
        f"answers-{old}.npy",
        f"model-{old}.onnx",
        f"weights-{old}.safetensors",
    ]
    assert not take(here, there, replace=True).taken


def test_replacing_the_teacher_takes_its_students_and_orphans_the_others(here: Bench, there: Bench) -> None:
    there.change(TrainRecord, TEACHER, weights_sha256="e" * 64)
    there.change(ExportRecord, TEACHER, weights_sha256="e" * 64, onnx_sha256="1" * 64)
    there.change(TrainRecord, CELL, weights_sha256="d" * 64, teacher_sha256="e" * 64)
    there.change(ExportRecord, CELL, weights_sha256="d" * 64, onnx_sha256="2" * 64)
    with pytest.raises(HarnessError, match=rf"{TEACHER} was trained twice.*\(and 1 more\)"):
        take(here, there)
    merged = take(here, there, replace=True)
    assert {f"train/{TEACHER}.json", f"train/{CELL}.json", f"export/{CELL}.json"} <= set(merged.taken)
    chain = Chain(here.plan, here.results)
    assert chain.train(here.cell(CELL)).state == "stands"
    assert chain.train(here.cell(OTHER)).state == "orphaned"
    assert f"train/{OTHER}.json" in {one.name for one in merged.faults}, "it is orphaned there as well"


def test_a_student_of_another_teacher_here_makes_room_for_one_of_the_right_teacher(here: Bench, there: Bench) -> None:
    here.change(TrainRecord, weights_sha256="e" * 64, teacher_sha256="f" * 64, finished_at=LATER)
    merged = take(here, there)
    assert f"train/{CELL}.json" in merged.taken and not merged.faults
    assert here.get(TrainRecord) == there.get(TrainRecord)


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


def test_a_failure_is_left_where_what_failed_is_not_here(here: Bench, empty: Bench, there: Bench) -> None:
    """An accuracy that failed for another ONNX file says nothing about the one here; an export needs its training."""
    fail(there, AccuracyRecord, NONE)
    here.change(ExportRecord, onnx_sha256="5" * 64)
    here.path(AccuracyRecord).unlink()
    take(here, there)
    assert not here.path(AccuracyRecord).exists()
    fail(there, ExportRecord, NONE)
    there.path(TrainRecord).unlink()
    reasons = {one.name: one.reason for one in take(empty, there).left}
    assert "no standing train record" in reasons[f"export/{CELL}.json"]
    assert not empty.path(ExportRecord).exists()


def test_a_record_under_older_settings_is_replaced(here: Bench, there: Bench) -> None:
    here.change(TrainRecord, key=OLD_KEY, finished_at=LATER)
    assert f"train/{CELL}.json" in take(here, there).taken


def test_another_export_of_the_same_weights_is_left_unless_replace_is_given(here: Bench, there: Bench) -> None:
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
    assert len(merged.faults) == len(there.plan.settings.bench.conditions) * len(there.plan.cells)
    assert all(f"{OTHER}: the latency record is of ONNX file ffffffffffff..." in one.reason for one in merged.faults)


def test_a_run_without_its_teacher_is_refused(empty: Bench, there: Bench) -> None:
    there.path(LatencyRecord, TEACHER).unlink()
    merged = take(empty, there)
    assert not (empty.results / "lite/latency").exists()
    assert all(f"the teacher's record is missing under {HEADLINE}" in one.reason for one in merged.faults)


def test_a_run_that_is_here_in_part_is_completed(here: Bench, there: Bench) -> None:
    here.path(LatencyRecord, OTHER).unlink()
    assert take(here, there).taken == [f"latency/{HEADLINE}/{OTHER}.json"]


# --- Half precision --------------------------------------------------------------------------------------------------


def round_off(bench: Bench) -> None:
    """Make the cell's records those of a machine that got its weights in half precision."""
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


def test_an_export_of_unknown_weights_is_not_taken_for_one_in_half_precision(empty: Bench, there: Bench) -> None:
    there.change(ExportRecord, weights_sha256="f" * 64)
    (reason,) = [one.reason for one in take(empty, there).faults if one.name == f"export/{CELL}.json"]
    assert reason.startswith("the export record is of weights ffffffffffff...") and "half" not in reason


def round_teacher(bench: Bench) -> None:
    before = bench.get(TrainRecord, TEACHER)
    rounded = Rounded(dtype="float16", weights_sha256=before.weights_sha256, accuracy_pct=before.accuracy_pct)
    bench.change(TrainRecord, TEACHER, weights_sha256="d" * 64, rounded_from=rounded)


def test_a_student_of_the_trained_teacher_is_taken_where_the_teacher_came_in_half_precision(
    here: Bench, there: Bench
) -> None:
    round_teacher(here)
    for kind in EVERY:
        here.path(kind).unlink()
    assert f"train/{CELL}.json" in take(here, there).taken


def test_a_student_of_the_rounded_teacher_is_left_where_the_trained_teacher_stands(here: Bench, there: Bench) -> None:
    """The chain would not let it stand; but nothing is wrong with it, so it is no fault."""
    round_teacher(there)
    there.change(TrainRecord, CELL, teacher_sha256="d" * 64)
    here.path(TrainRecord).unlink()
    merged = take(here, there)
    assert "comes from a teacher" in {one.name: one.reason for one in merged.left}[f"train/{CELL}.json"]
    assert f"train/{CELL}.json" not in {one.name for one in merged.faults}
    assert not here.path(TrainRecord).exists()


# --- Files that come from elsewhere ----------------------------------------------------------------------------------


def link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def moved_out(path: Path, outside: Path) -> None:
    """Move a file or folder out of the results, and leave a link to it in its place."""
    path.symlink_to(path.rename(outside / "moved"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def leads_out(part: str) -> Callable[[Bench, Path], object]:
    """Moves a part of the results out of the folder, and leaves a link to it in its place."""
    return lambda bench, _: moved_out(bench.results / "lite" / part, bench.results.parent)


# What a folder from elsewhere may hold -> the files that must not get in.
RECORD = f"train/{CELL}.json"
TRAPS: dict[str, tuple[Callable[[Bench, Path], object], str]] = {
    "a record": (lambda b, secret: link(b.path(TrainRecord), secret), RECORD),
    "a sound record": (leads_out(RECORD), RECORD),
    "a stage's folder": (leads_out("train"), "train/"),
    "a condition's folder": (leads_out(f"latency/{HEADLINE}"), f"latency/{HEADLINE}/"),
    "a log": (lambda b, secret: link(b.results / "lite/runs/x.json", secret), "runs/x.json"),
    "the folder of logs": (leads_out("runs"), "runs/"),
    "the folder of raw samples": (leads_out("pytest-benchmark"), "pytest-benchmark/"),
    "a pipe": (lambda b, _: pipe(b.path(TrainRecord)), RECORD),
    "a device": (lambda b, _: link(b.path(TrainRecord), Path("/dev/zero")), RECORD),
    "a link to nothing": (lambda b, _: link(b.path(TrainRecord), Path("nothing")), RECORD),
    "a link to itself": (lambda b, _: link(b.path(TrainRecord), b.path(TrainRecord)), RECORD),
}


@pytest.mark.parametrize("name", TRAPS)
def test_nothing_is_read_through_a_link_out_of_the_folder(
    empty: Bench, there: Bench, tmp_path: Path, name: str
) -> None:
    plant, kept_out = TRAPS[name]
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": "sesame"}')
    plant(there, secret)
    merged = take(empty, there)
    assert not [one for one in merged.taken if one.startswith(kept_out)]
    assert not [one for one in files(empty) if one.startswith(f"lite/{kept_out}")]
    assert "sesame" not in "".join(content.decode() for content in files(empty).values())
    assert not any(path.is_symlink() for path in empty.results.rglob("*"))
    if "runs" not in kept_out and "pytest" not in kept_out:
        assert [one for one in merged.faults if one.name.startswith(kept_out)]


def test_a_link_that_stays_inside_the_folder_is_followed(empty: Bench, there: Bench) -> None:
    record = there.path(TrainRecord)
    kept = there.results / "lite/kept.json"
    record.rename(kept)
    record.symlink_to(kept)
    assert f"train/{CELL}.json" in take(empty, there).taken
    assert empty.path(TrainRecord).read_bytes() == kept.read_bytes() and not empty.path(TrainRecord).is_symlink()


def test_a_profiles_folder_that_is_a_link_out_of_the_results_is_refused(there: Bench, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given/lite").symlink_to(there.results / "lite")
    with pytest.raises(HarnessError, match="a link leads out of"):
        profile_folder(tmp_path / "given", "lite")
    # but the user may name a link
    assert profile_folder(tmp_path / "given/lite", "lite") == tmp_path / "given/lite"


def test_a_profile_is_a_name_and_no_path(there: Bench, tmp_path: Path) -> None:
    text = MATRIX.read_text().replace("[profile.lite", '[profile."../lite"')
    (tmp_path / "matrix.toml").write_text(text)
    with pytest.raises(HarnessError, match=r"profile\.\.\./lite: not a name"):
        load_settings(tmp_path / "matrix.toml", "../lite")
    with pytest.raises(HarnessError, match="a link leads out of"):
        profile_folder(there.artifacts, "../results/lite")


def test_where_not_everything_can_be_written_nothing_is(here: Bench, there: Bench) -> None:
    rerun(there, "run-2", LATER)
    for cell in there.plan.cells:
        there.change(ExportRecord, cell.id, finished_at=LATER)
    before = sorted(path for path in here.results.rglob("*") if path.is_file()), files(here)
    exported, measured = (there.path(kind).stat().st_size for kind in (ExportRecord, LatencyRecord))
    with (
        pytest.raises(HarnessError, match=r"cannot be written \(File too large\); nothing was merged"),
        no_file_beyond((exported + measured) // 2),
    ):
        take(here, there)
    assert (sorted(path for path in here.results.rglob("*") if path.is_file()), files(here)) == before
    assert len(take(here, there).taken) == 3 * len(here.plan.cells), "exports too, which had been written already"


def test_a_folder_in_a_records_place_is_named_before_anything_is_written(here: Bench, there: Bench) -> None:
    rerun(there, "run-2", LATER)
    here.path(TrainRecord).unlink()
    here.path(TrainRecord).mkdir()
    before = files(here)
    with pytest.raises(HarnessError, match=f"{CELL}.json: a folder lies where a file has to go"):
        take(here, there)
    assert files(here) == before


def test_two_folders_with_the_same_run_and_log_add_each_once(empty: Bench, there: Bench, sound: Bench) -> None:
    (there.results / "lite/runs/2026-01-02.json").write_text('{"seconds": 1}')
    merged = take(empty, there, sound)
    assert (empty.results / "lite/runs/2026-01-02.json").read_text() == '{"seconds": 1}', "the first folder's"
    assert len([name for name in merged.taken if name.startswith("pytest-benchmark/")]) == 1
    assert len([name for name in merged.taken if name.startswith("runs/")]) == 1


# --- What is said ----------------------------------------------------------------------------------------------------


def test_the_text_counts_by_stage_and_names_what_was_left(empty: Bench, there: Bench) -> None:
    there.change(TrainRecord, key=OLD_KEY)
    shutil.rmtree(there.results / "lite/latency")
    merged = take(empty, there)
    text = as_text(merged)
    assert f"refused: train/{CELL}.json: its settings do not give its key" in text
    assert text.splitlines()[-1].startswith(f"{len(merged.taken)} files taken (9 train, 9 export, 9 accuracy")
    document = json.loads(as_document(merged))
    assert document["taken"] == merged.taken and len(document["left"]) == len(merged.left)
