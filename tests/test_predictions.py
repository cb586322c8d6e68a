import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import predictions
from harness.errors import HarnessError
from harness.plan.planning import Plan
from harness.store.records import AccuracyRecord, load
from tests.checks.planted import CELL, OTHER, Bench
from tests.synthetic import keep_predictions, path_of, plan_for
from tests.transfer.machines import no_file_beyond

HEADER = 128


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=50))
def test_classes_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, classes: list[int]) -> None:
    path = tmp_path_factory.mktemp("classes") / "answers.npy"
    sha256 = predictions.save_classes(path, np.array(classes))
    assert predictions.load_classes(path).tolist() == classes
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("classes", "width"), [(1, 1), (100, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)])
def test_an_answer_takes_a_byte_for_up_to_256_classes_and_two_beyond(classes: int, width: int) -> None:
    given = np.arange(10_000) % classes
    given[0] = classes - 1
    assert len(predictions.encoded(given)) == HEADER + 10_000 * width


@pytest.mark.parametrize("kind", ["u1", "<i8", ">i4", "<u2"])
def test_the_bytes_do_not_depend_on_who_writes_them(kind: str) -> None:
    assert predictions.encoded(np.array([1, 2, 99], kind)) == predictions.encoded(np.array([1, 2, 99]))


def array(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"0 1 2",
        pickle.dumps([0, 1]),
        array(np.array([{}], dtype=object)),
        array(np.zeros((2, 2), np.uint8)),
        array(np.zeros(2)),
        array(np.zeros(0, np.uint8)),
        array(np.array([-1])),
    ],
)
def test_what_is_no_array_of_class_numbers_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "answers.npy"
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=r"answers\.npy: no array of class numbers"):
        predictions.load_classes(path)


# --- Beside a record -------------------------------------------------------------------------------------------------


@pytest.fixture
def answered(bench: Bench) -> Bench:
    """Results of which the answers are on record."""
    keep_predictions(bench.results, bench.plan)
    return bench


def folder(bench: Bench) -> Path:
    return bench.results / bench.plan.profile


def test_the_answers_of_a_record_give_its_count_and_are_small(answered: Bench) -> None:
    for cell in answered.plan.cells:
        record = answered.get(AccuracyRecord, cell.id)
        found = predictions.read(folder(answered), record)
        assert found is not None and int(found.right.sum()) == record.correct
        assert predictions.are_here(folder(answered), record)
    files = [path.stat().st_size for path in folder(answered).glob("accuracy/*.npy")]
    assert files == [HEADER + 10_000] * (len(answered.plan.cells) + 1), "a file for each model, and one of labels"


def test_a_record_from_before_answers_were_kept_has_none(bench: Bench) -> None:
    record = bench.get(AccuracyRecord)
    assert predictions.read(folder(bench), record) is None
    assert predictions.are_here(folder(bench), record)


def test_only_the_answers_that_the_record_names_count(answered: Bench) -> None:
    ours, others = (folder(answered) / predictions.answers_name(cell) for cell in (CELL, OTHER))
    record = answered.get(AccuracyRecord)
    ours.write_bytes(others.read_bytes())
    assert not predictions.are_here(folder(answered), record)
    with pytest.raises(HarnessError, match=rf"accuracy/{CELL}\.npy: sha256 is .*, the accuracy record says"):
        predictions.read(folder(answered), record)
    ours.unlink()
    assert not predictions.are_here(folder(answered), record)
    with pytest.raises(HarnessError, match=rf"accuracy/{CELL}\.npy: not there"):
        predictions.read(folder(answered), record)


def test_answers_to_fewer_images_than_the_record_has_are_refused(answered: Bench) -> None:
    sha256 = predictions.save_classes(folder(answered) / predictions.answers_name(CELL), np.arange(9_999) % 100)
    record = answered.get(AccuracyRecord).model_copy(update={"predictions_sha256": sha256})
    with pytest.raises(HarnessError, match="9999 answers and 10000 labels, where the accuracy record has 10000 images"):
        predictions.read(folder(answered), record)


def test_a_write_that_fails_leaves_what_was_there(answered: Bench) -> None:
    path = folder(answered) / predictions.answers_name(CELL)
    before = path.read_bytes()
    with no_file_beyond(1000), pytest.raises(HarnessError, match="File too large"):
        predictions.save_classes(path, np.zeros(10_000, np.int64))
    assert path.read_bytes() == before
    assert not [one for one in path.parent.iterdir() if one.name.startswith(".")]


def test_two_test_sets_have_a_file_of_labels_each(tmp_path: Path) -> None:
    plan: Plan = plan_for("lite", experiments=["prune-0.3"])
    given = np.zeros(5, np.int64)
    one = predictions.keep(tmp_path, plan.profile, "a", given, np.arange(5))
    two = predictions.keep(tmp_path, plan.profile, "b", given, np.arange(5)[::-1])
    assert one["labels_sha256"] != two["labels_sha256"]
    assert len(list((tmp_path / plan.profile / "accuracy").glob("labels-*"))) == 2


def test_the_record_on_disk_names_them(answered: Bench) -> None:
    record = load(path_of(answered.results, answered.plan, CELL, AccuracyRecord), AccuracyRecord)
    assert list(predictions.named(record)) == [
        f"accuracy/{CELL}.npy",
        f"accuracy/labels-{str(record.labels_sha256)[:12]}.npy",
    ]
