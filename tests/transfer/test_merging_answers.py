"""Answers go where their accuracy record goes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import predictions
from harness.checks.catalogue import check_results
from harness.reporting.reading import read_rows
from harness.reporting.tables import columns, markdown
from harness.store.paths import Paths
from harness.store.records import AccuracyRecord, TrainRecord, save
from harness.transfer.decisions import Merged
from harness.transfer.foreign_results import profile_folder
from harness.transfer.merging import merge
from tests.checks.planted import CELL, OTHER, Bench
from tests.synthetic import keep_predictions

FILE = predictions.answers_name(CELL)


@pytest.fixture
def there(bench: Bench) -> Bench:
    """The other machine's results, with answers."""
    keep_predictions(bench.results, bench.plan)
    return bench


@pytest.fixture
def here(there: Bench, tmp_path: Path) -> Bench:
    """This machine, with nothing on it yet."""
    return Bench(there.plan, tmp_path / "here/results", tmp_path / "here/artifacts")


def take(into: Bench, source: Bench) -> Merged:
    paths = Paths(into.results, into.artifacts, into.results.parent / "data")
    return merge(into.plan, paths, [profile_folder(source.results, "lite")])


def files(bench: Bench) -> dict[str, bytes]:
    folder = bench.results / "lite"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.npy")}


def table(bench: Bench) -> str:
    (own,) = bench.plan.tables
    return markdown(columns(read_rows(bench.plan, own, bench.results)))


def test_answers_come_with_their_records_and_give_the_same_table(here: Bench, there: Bench) -> None:
    merged = take(here, there)
    assert not merged.left
    assert files(here) == files(there) and len(files(here)) == len(here.plan.cells) + 1
    assert files(here).keys() < set(merged.taken)
    assert check_results(here.plan, here.results) == []
    assert "≈" in table(here) or " ± " in table(here)
    assert table(here) == table(there)


def test_merging_answers_again_changes_nothing(here: Bench, there: Bench) -> None:
    take(here, there)
    again = take(here, there)
    assert not again.taken and not again.left


def of_another_model(folder: Path) -> None:
    (folder / FILE).write_bytes((folder / predictions.answers_name(OTHER)).read_bytes())


def not_there(folder: Path) -> None:
    (folder / FILE).unlink()


def behind_a_link(folder: Path) -> None:
    outside = folder.parents[1] / "outside"
    (folder / FILE).rename(outside)
    (folder / FILE).symlink_to(outside)


def a_link_to_nothing(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / FILE).symlink_to(folder / "nothing")


def a_folder(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / FILE).mkdir()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (of_another_model, "sha256 is"),
        (not_there, "cannot be read"),
        (behind_a_link, "a link leads out of"),
        (a_link_to_nothing, "cannot be read"),
        (a_folder, "not a regular file"),
    ],
)
def test_an_accuracy_without_the_answers_that_it_names_is_refused_and_the_rest_is_taken(
    here: Bench, there: Bench, damage: Callable[[Path], None], reason: str
) -> None:
    damage(there.results / "lite")
    merged = take(here, there)
    (left,) = merged.faults
    assert left.name == f"accuracy/{CELL}.json" and reason in left.reason
    assert not here.path(AccuracyRecord).exists() and FILE not in files(here)
    assert here.path(TrainRecord).exists() and len(files(here)) == len(here.plan.cells)
    assert not any(path.is_symlink() for path in here.results.rglob("*"))


def test_labels_behind_a_link_have_every_accuracy_refused(here: Bench, there: Bench, tmp_path: Path) -> None:
    (labels,) = (there.results / "lite/accuracy").glob("labels-*")
    labels.symlink_to(labels.rename(tmp_path / "outside"))
    assert len(take(here, there).faults) == len(here.plan.cells)
    assert not files(here)


def test_answers_that_were_lost_here_are_taken_again(here: Bench, there: Bench) -> None:
    take(here, there)
    (here.results / "lite" / FILE).unlink()
    assert take(here, there).taken == [FILE]
    assert files(here) == files(there)


def test_a_later_accuracy_brings_its_own_answers(here: Bench, there: Bench) -> None:
    shutil.copytree(there.results, here.results)
    found = predictions.read(there.results / "lite", there.get(AccuracyRecord))
    assert found is not None
    given = found.given.copy()
    given[0] = (given[0] + 1) % 100
    fields = predictions.keep(there.results, "lite", CELL, given, found.labels)
    correct, later = int((given == found.labels).sum()), "2026-01-03T00:00:00+00:00"
    there.change(AccuracyRecord, correct=correct, accuracy_pct=correct / 100, finished_at=later)
    record = there.get(AccuracyRecord)
    save(there.results, record.model_copy(update=fields))
    assert sorted(take(here, there).taken) == [f"accuracy/{CELL}.json", FILE]
    assert files(here) == files(there)
    earlier = take(there, here)
    assert not earlier.taken, "the same records on both sides now"


def test_records_from_before_answers_were_kept_are_taken_as_they_are(here: Bench, there: Bench) -> None:
    for cell in there.plan.cells:
        there.change(AccuracyRecord, cell.id, predictions_sha256=None, labels_sha256=None)
    assert not take(here, there).left
    assert not files(here) and here.path(AccuracyRecord).exists()


def test_answers_of_a_model_that_is_not_planned_are_named_and_left(here: Bench, there: Bench) -> None:
    (there.results / "lite/accuracy/p0.9-own.npy").write_bytes(b"answers")
    (left,) = take(here, there).left
    assert (left.name, left.fault) == ("accuracy/p0.9-own.npy", False)
