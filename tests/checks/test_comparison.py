import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import predictions
from harness.checks.comparison import LEAST_PROCESSES, as_text, compare
from harness.errors import HarnessError
from harness.plan.planning import make_plan
from harness.store.records import AccuracyRecord, Failure, LatencyRecord, Record, TrainRecord, load, record_path, save
from tests.checks.planted import BESIDE, CELL, HEADLINE, OTHER, TEACHER, Bench, listed
from tests.synthetic import fill_results, keep_predictions, plan_for, records_for


@pytest.fixture
def folders(sound: Bench, bench: Bench) -> tuple[Path, Path]:
    """Two results folders of one profile with equal records; the second is the test's own."""
    return sound.results / "lite", bench.results / "lite"


# As they are listed: a latency with its condition.
TIMED, TIMED_TEACHER = f"{HEADLINE}/{CELL}", f"{HEADLINE}/{TEACHER}"


def slower(bench: Bench, cell: str, factor: float, under: str = HEADLINE) -> None:
    """Every process of the cell took `factor` times as long."""
    processes = [
        process.model_copy(update={name: factor * getattr(process, name) for name in ("low_ms", "median_ms", "p90_ms")})
        for process in bench.get(LatencyRecord, cell, under).processes
    ]
    bench.change(LatencyRecord, cell, under, processes=processes)


def test_a_folder_does_not_differ_from_itself(folders: tuple[Path, Path]) -> None:
    comparison = compare(folders[0], folders[0])
    assert comparison.significant == ()
    assert comparison.left_out == ()
    # Ten latencies and nine ratios under each of four conditions, and ten accuracies.
    assert len(comparison.changes) == 86
    text = as_text(*folders, comparison)
    assert text.endswith("86 figures compared, no significant change (95 % for all together).")
    assert len(text.splitlines()) == 1


def test_a_slower_model_is_listed_with_its_interval(folders: tuple[Path, Path], bench: Bench) -> None:
    slower(bench, CELL, 1.1)
    comparison = compare(*folders)
    assert {(change.cell, change.what) for change in comparison.significant} == {
        (TIMED, "latency"),
        (TIMED, "latency / teacher's"),
    }
    for one in comparison.significant:
        assert one.by.value == pytest.approx(1.1)
        assert one.by.bounds is not None
        assert 1 < one.by.bounds[0] <= one.by.value <= one.by.bounds[1]
        assert one.after / one.before == pytest.approx(1.1)
    text = as_text(*folders, comparison)
    assert text.count("P(0.3_BN)_KD(3)_SEED(0)") == 2
    assert text.count(f" {HEADLINE} ") == 2
    assert "x 1.100 [1." in text
    assert "2 significant changes" in text


def test_each_condition_is_compared_separately(folders: tuple[Path, Path], bench: Bench) -> None:
    slower(bench, CELL, 1.1, under=BESIDE)
    assert listed(*folders) == {(f"{BESIDE}/{CELL}", "latency"), (f"{BESIDE}/{CELL}", "latency / teacher's")}


def test_a_slower_machine_state_changes_latencies_and_no_ratio(folders: tuple[Path, Path], bench: Bench) -> None:
    for cell in bench.plan.cells:
        slower(bench, cell.id, 1.1)
    assert listed(*folders) == {(f"{HEADLINE}/{cell.id}", "latency") for cell in bench.plan.cells}


def test_a_slower_teacher_changes_every_ratio(folders: tuple[Path, Path], bench: Bench) -> None:
    slower(bench, TEACHER, 1.1)
    students = {f"{HEADLINE}/{cell.id}" for cell in bench.plan.cells if cell.id != TEACHER}
    assert listed(*folders) == {(TIMED_TEACHER, "latency"), *((cell, "latency / teacher's") for cell in students)}


def test_accuracies_of_one_file_may_not_differ_at_all(folders: tuple[Path, Path], bench: Bench) -> None:
    correct = bench.get(AccuracyRecord).correct
    bench.change(AccuracyRecord, correct=correct - 1)
    (found,) = compare(*folders).significant
    assert (found.cell, found.what) == (CELL, "accuracy")
    assert found.by.value == found.by.low == found.by.high == pytest.approx(-0.01)
    assert "-0.01 [-0.01, -0.01] points" in as_text(*folders, compare(*folders))


def test_accuracies_of_two_trainings_differ_where_chance_does_not_explain_it(
    folders: tuple[Path, Path], bench: Bench
) -> None:
    correct = bench.get(AccuracyRecord).correct
    for cell, less in ((CELL, 500), (OTHER, 50)):
        correct = bench.get(AccuracyRecord, cell).correct
        bench.change(AccuracyRecord, cell, correct=correct - less, onnx_sha256="e" * 64)
    (found,) = compare(*folders).significant
    assert (found.cell, found.what) == (CELL, "accuracy")
    assert found.by.value == pytest.approx(-5.0)
    assert found.by.covers(-5)
    assert not found.by.covers(0)


def retrained(bench: Bench, worse_on: int) -> tuple[Path, Path]:
    """Two folders with answers; in the second the cell was trained again, and lost this many images and won none."""
    before = bench.results.with_name("before")
    keep_predictions(bench.results, bench.plan)
    shutil.copytree(bench.results, before)
    record = bench.get(AccuracyRecord)
    found = predictions.read(bench.results / "lite", record)
    assert found is not None
    given = found.given.copy()
    lost = np.flatnonzero(found.right)[:worse_on]
    given[lost] = (given[lost] + 1) % 100
    fields = predictions.keep(bench.results, "lite", CELL, given, found.labels)
    correct = record.correct - worse_on
    bench.change(AccuracyRecord, **fields, correct=correct, accuracy_pct=correct / 100, onnx_sha256="e" * 64)
    return before / "lite", bench.results / "lite"


def test_answers_to_the_same_images_show_a_difference_that_the_counts_alone_do_not(bench: Bench) -> None:
    before, after = retrained(bench, worse_on=40)
    (found,) = compare(before, after).significant
    assert (found.cell, found.what) == (CELL, "accuracy")
    assert found.by.value == pytest.approx(-0.4)
    for name in predictions.named(bench.get(AccuracyRecord)):
        (after / name).unlink()
    assert compare(before, after).significant == ()


def test_answers_that_were_not_kept_in_one_of_the_folders_are_no_obstacle(bench: Bench) -> None:
    before, after = retrained(bench, worse_on=40)
    bench.change(AccuracyRecord, predictions_sha256=None, labels_sha256=None)
    assert compare(before, after).significant == ()


def test_answers_that_are_not_those_on_record_are_an_error(bench: Bench) -> None:
    before, after = retrained(bench, worse_on=40)
    path = after / predictions.answers_name(CELL)
    path.write_bytes((before / predictions.answers_name(CELL)).read_bytes())
    with pytest.raises(HarnessError, match=rf"accuracy/{CELL}\.npy: sha256 is"):
        compare(before, after)


MISMATCHES: list[tuple[str, type[Record], dict[str, Any], dict[str, Any], list[str]]] = [
    ("key", LatencyRecord, {"key": "0" * 16}, {}, ["0" * 16]),
    ("key", AccuracyRecord, {"key": "0" * 16}, {}, ["0" * 16]),
    (
        "machine",
        LatencyRecord,
        {},
        {"cpu": "Another CPU"},
        ["Some CPU @ 2.00GHz, 2 physical", "Another CPU, 2 physical"],
    ),
    ("machine", AccuracyRecord, {}, {"isa": ["avx2"]}, ["avx2 avx512f in", "cores, avx2 in"]),
    ("container image", LatencyRecord, {}, {"image": "sha256:01"}, ["none in", "sha256:01 in"]),
    ("runtime", LatencyRecord, {"runtime": "onnxruntime 1.23.0"}, {}, ["onnxruntime 1.16.0", "onnxruntime 1.23.0"]),
    ("runtime", AccuracyRecord, {"runtime": "onnxruntime 1.23.0"}, {}, ["onnxruntime 1.16.0", "onnxruntime 1.23.0"]),
    ("number of threads", LatencyRecord, {"threads": 2}, {}, ["1 in", "2 in"]),
    ("estimator", LatencyRecord, {"spec": {"estimator": "mean"}}, {}, ["mean", "quartile"]),
    (
        "session",
        LatencyRecord,
        {"session": {"intra_op_num_threads": 1, "spinning": "0"}},
        {},
        ["spinning = None in", "spinning = 0 in"],
    ),
    ("test set", AccuracyRecord, {"testset_sha256": "cd" * 32}, {}, ["ab" * 32, "cd" * 32]),
]


@pytest.mark.parametrize(("what", "kind", "fields", "facts", "values"), MISMATCHES)
def test_unlike_runs_are_refused_naming_both_values(
    folders: tuple[Path, Path],
    bench: Bench,
    what: str,
    kind: type[Record],
    fields: dict[str, Any],
    facts: dict[str, Any],
    values: list[str],
) -> None:
    bench.environment(kind, **facts)
    bench.change(kind, **fields)
    with pytest.raises(HarnessError) as caught:
        compare(*folders)
    message = str(caught.value)
    named = TIMED if kind is LatencyRecord else CELL
    assert message.startswith(f"{named}: cannot compare, the {what} of its {kind.stage} differs: ")
    for text in (*map(str, folders), *values):
        assert text in message


def test_harmless_differences_do_not_prevent_a_comparison(folders: tuple[Path, Path], bench: Bench) -> None:
    bench.environment(LatencyRecord, run="run-2", harness_revision="fedcba", kernel="6.2", steal_pct=0.0)
    bench.change(LatencyRecord, code={"engine onnxruntime": "0" * 64})
    assert listed(*folders) == set()


def test_runs_under_other_bench_settings_are_refused_naming_both(sound: Bench, tmp_path: Path) -> None:
    settings = sound.plan.settings
    other = settings.bench.model_copy(update={"sampling_s": 0.3, "rounds": 32})
    plan = make_plan(settings.model_copy(update={"bench": other}), "lite", experiments=["prune-0.3"])
    fill_results(plan, tmp_path)
    before, after = sound.results / "lite", tmp_path / "lite"
    with pytest.raises(HarnessError) as caught:
        compare(before, after)
    for text in (
        "the sampling of [bench] of its latency differs: ",
        f"rounds = 64, sampling_s = 1.0 in {before}",
        f"rounds = 32, sampling_s = 0.3 in {after}",
    ):
        assert text in str(caught.value)


def test_files_beside_the_records_are_named_once_and_left_alone(folders: tuple[Path, Path], bench: Bench) -> None:
    """A copied folder with a slower teacher, what a file manager and an editor leave, and another cell's record."""
    before, after = folders
    slower(bench, TEACHER, 1.1)
    shutil.copytree(after / "latency" / HEADLINE, after / "latency" / f"{HEADLINE}.bak")
    slower(bench, TEACHER, 1 / 1.1)
    (after / "latency" / HEADLINE / f"._{CELL}.json").write_bytes(b"\x00\x05\x16\x07")
    (after / "latency" / "notes.json").write_text("{}")
    (after / "accuracy" / f"{CELL} (copy).json").write_bytes(bench.path(AccuracyRecord).read_bytes())
    (after / "accuracy" / f"{CELL}.json~").write_text("{")
    comparison = compare(before, after)
    assert comparison.significant == () and len(comparison.changes) == 86
    one = "a file that is no record of this place"
    assert set(comparison.left_out) == {
        f"{after}/latency/{HEADLINE}.bak: 10 files that are no records of this place, like p0.3-bn-base-s0.json",
        f"{after}/latency/{HEADLINE}: {one}, like ._{CELL}.json",
        f"{after}/latency: {one}, like notes.json",
        f"{after}/accuracy: {one}, like {CELL} (copy).json",
    }
    text = as_text(before, after, comparison)
    assert all(text.count(f"not judged: {line}") == 1 for line in comparison.left_out)


def test_cells_of_one_folder_only_and_failed_ones_are_named(folders: tuple[Path, Path], bench: Bench) -> None:
    bench.path(LatencyRecord, OTHER).unlink()
    failure = Failure(kind="timeout", message="no result within 600 s")
    bench.change(AccuracyRecord, status="failed", failure=failure, accuracy_pct=None, correct=None)
    comparison = compare(*folders)
    assert comparison.left_out == (f"{HEADLINE}/{OTHER}: latency only in {folders[0]}", f"{CELL}: accuracy failed")
    assert f"not judged: {CELL}: accuracy failed" in as_text(*folders, comparison)


def test_too_few_processes_show_nothing_and_are_named(folders: tuple[Path, Path], bench: Bench) -> None:
    slower(bench, CELL, 2.0)
    bench.change(LatencyRecord, processes=bench.get(LatencyRecord).processes[: LEAST_PROCESSES - 1])
    comparison = compare(*folders)
    assert comparison.significant == ()
    assert comparison.left_out == (f"{TIMED}: latency has 6 processes, and 7 are the fewest that can show a change",)


def test_seven_processes_cannot_show_a_change_among_very_many_figures(bench: Bench, tmp_path: Path) -> None:
    """What cannot be shown with such confidence is named, and does not count as unchanged."""
    bench.change(LatencyRecord, processes=bench.get(LatencyRecord).processes[:LEAST_PROCESSES])
    before = Path(shutil.copytree(bench.results / "lite", tmp_path / "before" / "lite"))
    slower(bench, CELL, 2.0)
    comparison = compare(before, bench.results / "lite")
    assert comparison.significant == ()
    assert comparison.left_out == tuple(
        f"{TIMED}: {what} has too few processes for 86 figures" for what in ("latency", "latency / teacher's")
    )


def test_a_teacher_without_records_leaves_latencies_to_compare(folders: tuple[Path, Path], bench: Bench) -> None:
    bench.path(LatencyRecord, TEACHER).unlink()
    slower(bench, CELL, 1.1)
    assert listed(*folders) == {(TIMED, "latency")}


def test_folders_without_records_or_common_cells_are_errors(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"nowhere: no latency or accuracy records here; name a folder like"):
        compare(folders[0], tmp_path / "nowhere")
    plan = plan_for("lite", experiments=["prune-0.4"])
    save(tmp_path / "other", records_for(plan, plan.cells[-1])[-1])
    with pytest.raises(HarnessError, match="no cell in common"):
        compare(folders[0], tmp_path / "other" / "lite")


def test_a_truncated_record_is_an_error_that_names_it(folders: tuple[Path, Path], bench: Bench) -> None:
    bench.path(LatencyRecord).write_text("{")
    with pytest.raises(HarnessError, match=f"latency/{HEADLINE}/{CELL}.json"):
        compare(*folders)


def test_records_are_left_as_they_are(folders: tuple[Path, Path]) -> None:
    path = record_path(folders[0].parent, "lite", "train", CELL)
    before = path.read_bytes()
    compare(*folders)
    assert path.read_bytes() == before
    assert load(path, TrainRecord).cell == CELL
